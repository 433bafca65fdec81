"""Archiving copies in the simulated S3: what moves to Glacier, what becomes of the copy in S3, how archives end."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from cpm.flows.s3 import archive, pruning
from cpm.flows.s3 import deletion as s3_deletion
from cpm.flows.s3 import repositories as flow
from cpm.models import Alert, Backup, Job, LogLine, Policy, Recovery, S3Copy, S3Repository
from cpm.repository import manifest
from cpm.repository.archiving import packs_of, retrieve
from cpm.repository.errors import Damaged, ObjectArchived
from cpm.repository.manifest import Draft
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository
from cpm.repository.uploads import PackUploads
from cpm.services import backup_deletion, cleanup, s3_operations
from tests.domain import copying, stored
from tests.domain.world import World
from tests.repository.world import AT_ONCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]
SEEDS = (2, 0, 4, 7)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prune without the delays that keep writers safe, of which there are none here."""
    monkeypatch.setattr(pruning, "prune", partial(prune, delays=AT_ONCE))


def policy_of(world: World, row: S3Repository, **fields: Any) -> Policy:
    """Keeps one generation in S3, archives one backup a month, and keeps archives for a year."""
    given = {"archive_enabled": True, "archive_keep": 1, "s3_generations": 1, **fields}
    return world.policy(s3_enabled=True, s3_repository=row, **given)


def copied(policy: Policy, days: float, *seeds: int, volumes: int = 1) -> Backup:
    """A backup of so many days ago whose volumes have been copied and whose snapshots are gone."""
    row = policy.s3_repository
    assert row is not None
    backup = stored.backup(policy, volumes, start_time=timezone.now() - timedelta(days=days))
    for number, snapshot in enumerate(backup.snapshots.filter(kind="volumes").order_by("pk")):
        stored.copy(row, snapshot, [seed and seed + 100 * number for seed in seeds])
    stored.move(backup)
    return backup


def clean(world: World) -> None:
    cleanup.run_s3(actor=world.actor, now=timezone.now())
    world.run()


def state(backup: Backup) -> tuple[str, str, str]:
    backup.refresh_from_db()
    return backup.status, backup.s3_copy_status, backup.archive_status


def in_s3(row: S3Repository) -> set[str]:
    return set(manifest.ids(flow.opened(row).store))


def brought_back(row: S3Repository, copy: S3Copy) -> list[bytes]:
    """The blocks of an archived copy, once it has been retrieved."""
    repository = flow.opened(row)
    archived = repository.copy(copy.archive_id)
    retrieve(repository, archived, tier="Standard", days=1)
    assert {info.retrieval for info in packs_of(repository, archived)} == {"ready"}
    return [data for _, data in sorted(Reader(repository, archived).gather())]


def test_a_copy_that_leaves_s3_is_archived_whole_and_outlives_what_it_was_made_of(
    world: World, at_once: None
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row, archive_storage_class="DEEP_ARCHIVE")
    old, kept = copied(policy, 40, *SEEDS), copied(policy, 1, 2, 8)

    clean(world)
    Job.objects.all().delete()
    clean(world)

    assert (state(old), state(kept)) == (("G", "D", "S"), ("M", "S", "Z"))
    assert old.archive_progress == 100 and old.deleted_at is None and not old.marked_for_deletion
    assert old.snapshots.get(kind="instances").status == "completed"
    copy = S3Copy.objects.get(backup=old)
    assert (copy.tier, copy.status, copy.archive_status) == ("A", "completed", "S")
    assert (copy.archive_class, copy.stored_id) == ("DEEP_ARCHIVE", copy.archive_id)
    assert copy.archived_at is not None
    assert in_s3(row) == {copy.archive_id, S3Copy.objects.get(backup=kept).copy_id}
    said = LogLine.objects.filter(
        subject_type="archive", subject_id=policy.pk, message__contains="is archived"
    )
    assert said.count() == 1
    repository = flow.opened(row)
    assert repository.copy(copy.archive_id).draft.metadata["backup"]["id"] == old.pk  # type: ignore[index]
    assert repository.copy(copy.archive_id).draft.parent == copy.copy_id
    assert brought_back(row, copy) == [stored.block(seed) for seed in SEEDS if seed]


def test_archives_cannot_be_read_before_they_are_retrieved_but_can_be_listed(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)

    clean(world)

    repository = flow.opened(row)
    archived = repository.copy(S3Copy.objects.get(backup=old).archive_id)
    classes = {info.key.split("/")[2]: info.storage_class for info in repository.store.list("archives/")}
    assert classes == {"packs": "GLACIER", "index": "STANDARD"}
    with pytest.raises(ObjectArchived):
        list(Reader(repository, archived).gather())
    assert {info.retrieval for info in packs_of(repository, archived)} == {"needed"}


def test_one_backup_of_a_period_is_archived_and_the_others_expire(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backups = [copied(policy, days, 2 * days) for days in (50, 45, 12)]
    last = copied(policy, 1, 2)

    clean(world)
    assert [state(backup) for backup in (*backups, last)] == [
        ("G", "D", "S"), ("M", "S", "Z"), ("G", "D", "S"), ("M", "S", "Z")
    ]  # fmt: skip
    clean(world)

    assert state(backups[1]) == ("D", "D", "Z")
    newer = copied(policy, 0.5, 4)
    clean(world)
    assert (state(last), state(newer)) == (("D", "D", "Z"), ("M", "S", "Z"))


def test_a_copy_that_cannot_be_read_is_replaced_by_another_of_its_period(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    hurt, sound = copied(policy, 50, 2), copied(policy, 45, 4)
    copied(policy, 1, 8)
    broken = f"copies/{S3Copy.objects.get(backup=hurt).copy_id}"
    store = flow.store_of(row)
    store.put(broken, store.get(broken)[:-1] + b"x", if_absent=False)

    clean(world)
    assert S3Copy.objects.get(backup=hurt).damaged
    assert (state(hurt)[:2], state(sound)) == (("M", "S"), ("M", "S", "Z"))
    clean(world)

    assert state(sound) == ("G", "D", "S")


def test_archives_end_when_their_time_from_the_backup_is_over(world: World, at_once: None) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)
    clean(world)
    assert state(old) == ("G", "D", "S")
    Backup.objects.filter(pk=old.pk).update(start_time=timezone.now() - timedelta(days=367))
    Policy.objects.filter(pk=policy.pk).update(archive_enabled=False)

    Job.objects.all().delete()
    clean(world)

    assert state(old) == ("D", "D", "D") and old.deleted_at is not None
    assert len(in_s3(row)) == 1
    assert not list(flow.store_of(row).list("archives/"))


def test_a_time_in_the_archive_that_is_too_short_stops_everything_until_it_is_mended(world: World) -> None:
    row = copying.repository(world)
    rules = {"s3_keep_by_time": True, "s3_keep_time": 1, "s3_keep_time_unit": "Y"}
    policy = policy_of(world, row, archive_keep=1, archive_keep_unit="Y", **rules)
    old, older = copied(policy, 400, 2), copied(policy, 800, 4)
    copied(policy, 1, 8)

    clean(world)

    assert [state(backup)[1] for backup in (old, older)] == ["S", "S"] and len(in_s3(row)) == 3
    alert = Alert.objects.get(policy=policy, category="archive_too_short")
    assert alert.severity == "E" and "a month longer" in alert.message_body
    Policy.objects.filter(pk=policy.pk).update(archive_keep=2)
    clean(world)
    assert (state(old), state(older)) == (("G", "D", "S"), ("D", "D", "Z"))
    assert not Alert.objects.exists()


def test_a_copy_that_comes_too_late_for_the_archive_stays_in_s3_until_its_time_is_over(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row, archive_keep=50, archive_keep_unit="D")
    late, over = copied(policy, 40, 2), copied(policy, 60, 4)
    copied(policy, 1, 8)

    clean(world)

    assert (state(late), state(over)) == (("M", "S", "Z"), ("D", "D", "Z"))
    assert LogLine.objects.filter(subject_type="s3_cleanup", message__contains="too late").exists()


def test_a_killed_worker_is_succeeded_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS, volumes=2)
    copied(policy, 1, 8)
    monkeypatch.setattr(archive, "CHUNK", 1)
    for name in ("_chunk", "_moved"):
        die_once(world, monkeypatch, name)

    world.expire_leases()
    world.run()

    assert state(old) == ("G", "D", "S")
    copies = list(S3Copy.objects.filter(backup=old).order_by("pk"))
    assert len(in_s3(row)) == 3
    assert brought_back(row, copies[0]) == [stored.block(seed) for seed in SEEDS if seed]
    assert brought_back(row, copies[1]) == [stored.block(seed + 100) for seed in SEEDS if seed]


class Killed(BaseException):
    """The worker is gone."""


def die_once(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A worker dies behind the function, before its result is known to anybody."""
    genuine = getattr(archive, name)

    def dying(*arguments: Any) -> None:
        genuine(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archive, name, dying)
        cleanup.run_s3(actor=world.actor, now=timezone.now())
        world.expire_leases()
        with pytest.raises(Killed):
            world.run()


def test_an_aborted_archive_is_forgotten_and_the_copy_stays(
    world: World, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)
    monkeypatch.setattr(archive, "CHUNK", 1)

    def stopping(*arguments: Any) -> int:
        s3_operations.abort_archive(actor=world.actor, policy=policy)
        assert state(old)[2] == "G"
        return genuine(*arguments)

    genuine = archive._chunk
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_chunk", stopping)
        clean(world)

    assert state(old) == ("M", "S", "A")
    copy = S3Copy.objects.get(backup=old)
    assert (copy.tier, copy.archive_id, copy.archive_status) == ("S", "", "A")
    assert Job.objects.get(kind="archive").state == "cancelled"
    assert not list(flow.store_of(row).list("archives/")) and not list(flow.store_of(row).list("progress/"))
    assert stored.content(row, copy.copy_id) == [stored.block(seed) for seed in SEEDS if seed]
    clean(world)
    assert state(old) == ("G", "D", "S")


def test_an_archive_that_fails_in_part_is_said_and_completed_by_the_next_cleanup(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS, volumes=2)
    copied(policy, 1, 8)
    bad = S3Copy.objects.filter(backup=old).order_by("pk")[0]
    store = flow.store_of(row)
    whole = store.get(f"copies/{bad.copy_id}")
    store.put(f"copies/{bad.copy_id}", whole[:-1] + b"x", if_absent=False)

    clean(world)

    assert state(old) == ("M", "S", "R")
    assert bad.copy_id in Alert.objects.get(policy=policy, category="archive_failed").message_body
    store.put(f"copies/{bad.copy_id}", whole, if_absent=False)
    S3Copy.objects.filter(pk=bad.pk).update(damaged=False)
    clean(world)
    assert state(old) == ("G", "D", "S") and not Alert.objects.exists()


def test_deleting_a_backup_deletes_its_archive(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)
    clean(world)

    backup_deletion.delete_snapshots(actor=world.actor, backup=old)
    world.run()

    assert state(old) == ("D", "D", "D")
    assert len(in_s3(row)) == 1


def test_a_copy_that_is_locked_when_it_is_archived_goes_with_the_next_prune(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)
    until = timezone.now() + timedelta(hours=1)

    with monkeypatch.context() as patch:
        patch.setattr(s3_deletion, "locked_until", lambda *_: until)
        clean(world)
    copy = S3Copy.objects.get(backup=old)
    assert state(old) == ("G", "D", "S") and {copy.copy_id, copy.archive_id} < in_s3(row)
    Job.objects.all().delete()
    clean(world)

    assert copy.copy_id not in in_s3(row) and copy.archive_id in in_s3(row)


def test_an_archive_that_is_aborted_while_it_waits_leaves_all_as_it_was(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    archive.request(policy, [old.pk])
    holder = Job.objects.create(kind="s3_copy", subject_type="backup", subject_id=old.pk, state="running")
    Policy.objects.filter(pk=policy.pk).update(s3_job=holder)
    world.work()

    s3_operations.abort_archive(actor=world.actor, policy=policy)
    Job.objects.filter(pk=holder.pk).update(state="succeeded", finished_at=timezone.now())
    world.run()

    assert state(old) == ("M", "S", "A")
    assert S3Copy.objects.get(backup=old).archive_id == "" and len(in_s3(row)) == 1


def test_packs_that_a_killed_worker_could_not_index_are_stored_anew_and_collected(
    world: World, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)
    with monkeypatch.context() as patch:
        patch.setattr(PackUploads, "write_index", dying)
        cleanup.run_s3(actor=world.actor, now=timezone.now())
        with pytest.raises(Killed):
            world.run()
    orphans = {info.key for info in flow.store_of(row).list("archives/")}
    assert len(orphans) == 1

    world.expire_leases()
    world.run()

    assert state(old) == ("G", "D", "S")
    left = {info.key.split("/")[2] for info in flow.store_of(row).list("archives/")}
    assert left == {"packs", "index"} and not orphans & {
        info.key for info in flow.store_of(row).list("archives/")
    }
    assert brought_back(row, S3Copy.objects.get(backup=old)) == [stored.block(seed) for seed in SEEDS if seed]


def during(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object]) -> None:
    """Act when archiving has got behind this function, once."""
    genuine = getattr(archive, name)
    done: list[object] = []

    def acting(*arguments: Any) -> Any:
        result = genuine(*arguments)
        if not done:
            done.append(act())
        return result

    monkeypatch.setattr(archive, name, acting)


def test_a_recovery_goes_first_and_the_archive_that_was_made_meanwhile_is_used_by_the_next_cleanup(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)

    def recover() -> Recovery:
        return Recovery.objects.create(
            user=old.user, backup=old, recovery_type="V", from_s3=True, recovery_time=timezone.now()
        )

    during(monkeypatch, "_chunk", recover)
    clean(world)

    # The recovery waits for the archiving to end: whoever waited for the recovery here would wait for ever.
    assert state(old) == ("M", "S", "Z")
    copy = S3Copy.objects.get(backup=old)
    assert stored.content(row, copy.copy_id) == [stored.block(seed) for seed in SEEDS if seed]
    packs = {info.key for info in flow.store_of(row).list("archives/")}
    Recovery.objects.all().delete()
    clean(world)
    assert state(old) == ("G", "D", "S")
    assert {info.key for info in flow.store_of(row).list("archives/")} == packs


def test_an_archive_whose_step_failed_in_the_end_is_forgotten_when_it_is_made_again(
    world: World, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS)
    copied(policy, 1, 8)

    def written_unheard(repository: Repository, draft: Draft) -> None:
        finish(repository, draft)
        raise Damaged("archives/", "a fault behind the last write")

    finish = Repository.finish_copy
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "finish_copy", written_unheard)
        clean(world)
    assert state(old) == ("M", "S", "F") and len(in_s3(row)) == 3
    assert not S3Copy.objects.get(backup=old).damaged
    Job.objects.all().delete()

    clean(world)

    copy = S3Copy.objects.get(backup=old)
    assert state(old) == ("G", "D", "S")
    assert copy.archive_id in in_s3(row) and len(in_s3(row)) == 2
    assert {info.key.split("/")[1] for info in flow.store_of(row).list("archives/")} == {copy.archive_id}


def test_a_deletion_that_is_asked_for_before_archiving_begins_is_not_forgotten(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, 40, *SEEDS, volumes=2)
    part = S3Copy.objects.filter(backup=old).order_by("pk")[0]
    S3Copy.objects.filter(pk=part.pk).update(tier="A", archive_status="S", archive_id="ab" * 16)
    Backup.objects.filter(pk=old.pk).update(s3_copy_status="X", archive_status="X")

    archive.request(policy, [old.pk])
    world.run()

    assert state(old) == ("M", "X", "X")


def dying(*_: Any) -> None:
    raise Killed
