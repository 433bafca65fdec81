"""Key slots: who gets in, and that nobody can lock everybody out."""

import json
from datetime import timedelta

import pytest

from cpm.repository import keys
from cpm.repository.copying import copy_volume
from cpm.repository.errors import Damaged, KeysChanged, LastKeySlot, SlotUnknown, WrongSecret
from cpm.repository.keys import Password, RawKey
from cpm.repository.repository import Settings, open_repository
from cpm.repository.store_local import LocalStore
from tests.repository.world import SECRET, Volume, Wrapped, draft, holds, new_repository, reopened

PHRASE = Password("correct horse battery")


def test_every_slot_opens_the_same_repository(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2, 3])
    copy = copy_volume(repository, draft(volume), volume)

    slot = repository.add_key(PHRASE, "of the safe")

    assert holds(open_repository(LocalStore(tmp_path), PHRASE), copy, volume)
    assert [each.name for each in repository.slots()] == ["first", "of the safe"] and slot.kdf == "scrypt"
    assert "correct horse" not in (tmp_path / "keys" / "00000002").read_text() + repr(PHRASE) + repr(SECRET)
    assert not (tmp_path / "keys" / "00000001").exists()


def test_a_rotated_secret_opens_nothing_any_more(tmp_path):
    repository = new_repository(tmp_path)
    (slot,) = repository.slots()

    repository.rotate_key(slot.id, PHRASE)

    assert open_repository(LocalStore(tmp_path), PHRASE).root == repository.root
    with pytest.raises(WrongSecret):
        reopened(tmp_path)


def test_a_removed_secret_opens_nothing_and_the_last_stays(tmp_path):
    repository = new_repository(tmp_path)
    first = repository.slots()[0]
    second = repository.add_key(PHRASE, "second")

    repository.remove_key(first.id)

    with pytest.raises(WrongSecret):
        reopened(tmp_path)
    with pytest.raises(LastKeySlot):
        repository.remove_key(second.id)
    with pytest.raises(SlotUnknown):
        repository.remove_key("00000000")
    assert open_repository(LocalStore(tmp_path), PHRASE).slots() == [second]


@pytest.mark.parametrize("rivals", [1, 2])
def test_of_two_changes_at_once_one_is_told(tmp_path, rivals):
    repository = new_repository(tmp_path)
    first = repository.slots()[0]
    repository.add_key(PHRASE, "second")
    rival, met = reopened(tmp_path), []

    def meanwhile(operation, key):
        if operation == "put" and not met:
            met.append(key)
            for number in range(rivals):
                rival.add_key(RawKey(bytes([number]) * 32), f"rival {number}")

    slow = open_repository(Wrapped(LocalStore(tmp_path), before=meanwhile), SECRET)

    with pytest.raises(KeysChanged):
        slow.remove_key(first.id)

    assert len(rival.slots()) == 2 + rivals and reopened(tmp_path).root == repository.root
    assert len(list((tmp_path / "keys").iterdir())) == 1


@pytest.mark.parametrize("secret", [Password("short"), RawKey(b"x" * 31)])
def test_weak_secrets_are_refused(tmp_path, secret):
    with pytest.raises(WrongSecret, match="at least"):
        new_repository(tmp_path).add_key(secret, "weak")


def test_slots_that_were_tampered_with_do_not_open(tmp_path):
    new_repository(tmp_path)
    path = tmp_path / "keys" / "00000001"
    content = json.loads(path.read_text())
    content["slots"][0]["name"] = "renamed"
    path.write_text(json.dumps(content))

    with pytest.raises(WrongSecret):
        reopened(tmp_path)
    content["slots"][0] |= {"kdf": "scrypt", "parameters": {"n": 1 << 30, "r": 8, "p": 1}}
    path.write_text(json.dumps(content))
    with pytest.raises(Damaged, match="memory"):
        open_repository(LocalStore(tmp_path), PHRASE)
    path.write_text("{}")
    with pytest.raises(Damaged, match="keys/00000001"):
        keys.slots(LocalStore(tmp_path))


def test_slots_change_though_their_former_generation_is_locked(tmp_path):
    repository = new_repository(
        tmp_path, settings=Settings(lock_mode="COMPLIANCE", retention=timedelta(days=1))
    )

    repository.rotate_key(repository.slots()[0].id, PHRASE)

    assert len(list((tmp_path / "keys").iterdir())) == 2
    with pytest.raises(WrongSecret):
        reopened(tmp_path)
