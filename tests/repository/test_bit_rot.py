"""Whatever happens to the stored bytes is found, named with the copies that suffer, and never restored."""

import os
import random
import shutil

import pytest

from cpm.repository.copying import copy_volume
from cpm.repository.errors import RepositoryError
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from cpm.repository.verify import Depth, repair_index, verify
from tests.repository.world import AT_ONCE, SMALL_PACK, Volume, draft, holds, new_repository, reopened

VOLUMES = [Volume([2, 4, 6, 0, 1]), Volume([8, 10, 12, 3, 5, 14]), Volume([2, 8, 16, 18])]
MUTATIONS = 300 if os.environ.get("CPM_CHAOS") == "long" else 90


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Three copies, and an index object that a prune has removed."""
    path = tmp_path_factory.mktemp("healthy") / "repository"
    repository = new_repository(path)
    gone = Volume([30, 32])
    passing = copy_volume(repository, draft(gone), gone)
    former = next(iter(repository.store.list("index/"))).key
    old_index = (path / former).read_bytes()
    repository.delete_copy(passing.copy_id)
    prune(repository, delays=AT_ONCE)
    prune(repository, delays=AT_ONCE)
    copies = [copy_volume(repository, draft(each), each, pack_bytes=SMALL_PACK) for each in VOLUMES]
    assert verify(repository, Depth.FULL).findings == []
    return path, copies, former, old_index


def mutate(path, choice, former, old_index):
    """Damage the repository in one way; returns what was done and to which objects."""
    kind = choice.choice(["flip", "flip", "cut", "swap", "no index", "old index"])
    folder = choice.choice(["packs", "index", "copies", "packs"])
    files = sorted((path / folder).iterdir())
    victim = choice.choice(files)
    if kind == "flip":
        content = bytearray(victim.read_bytes())
        content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        victim.write_bytes(content)
    elif kind == "cut":
        content = victim.read_bytes()
        victim.write_bytes(content[: choice.randrange(len(content))])
    elif kind == "swap":
        other = choice.choice([each for each in files if each != victim])
        one, two = victim.read_bytes(), other.read_bytes()
        victim.write_bytes(two)
        other.write_bytes(one)
    elif kind == "no index":
        choice.choice(sorted((path / "index").iterdir())).unlink()
    else:
        (path / former).write_bytes(old_index)
    return kind, victim


def copied(source, target):
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return target


@pytest.mark.chaos
@pytest.mark.parametrize("part", range(10))
def test_every_mutation_is_found_and_none_is_restored(healthy, tmp_path, part):
    origin, copies, former, old_index = healthy
    for turn in range(part * MUTATIONS // 10, (part + 1) * MUTATIONS // 10):
        choice = random.Random(turn)
        path = copied(origin, tmp_path / str(turn))
        what = mutate(path, choice, former, old_index)
        repository = reopened(path)

        report = verify(repository, Depth.FULL, record=False)

        assert report.findings, f"{what} was not found"
        affected = report.affected
        repair_index(repository)
        for copy, volume in zip(copies, VOLUMES, strict=True):
            assert restores(path, copy, volume, tmp_path / "out") or copy.copy_id in affected, what
        shutil.rmtree(path)


def restores(path, copy, volume, target):
    """True when restored as it was, False when refused; anything else fails the test."""
    try:
        repository = reopened(path)
        Reader(repository, repository.copy(copy.copy_id)).restore(target)
    except RepositoryError:
        assert not target.exists()
        return False
    content = target.read_bytes()
    target.unlink()
    assert content == b"".join(volume.content(number) for number in range(len(volume.seeds)))
    return True


def test_a_damaged_pack_names_exactly_the_copies_that_need_it(healthy, tmp_path):
    origin, copies, *_ = healthy
    path = copied(origin, tmp_path / "repository")
    victim = next(
        each for each in sorted((path / "packs").iterdir()) if each.name.startswith(copies[1].copy_id[:16])
    )
    victim.unlink()

    report = verify(reopened(path), Depth.LIST)

    (finding,) = report.damage
    truth = {
        copy.copy_id
        for copy, volume in zip(copies, VOLUMES, strict=True)
        if not restores(path, copy, volume, tmp_path / "o")
    }
    assert finding.key == f"packs/{victim.name}" and set(finding.copies) == truth and truth
    assert set(report.sound) == {copy.copy_id for copy in copies} - truth


def test_the_next_copy_heals_what_the_source_still_has(healthy, tmp_path):
    origin, copies, *_ = healthy
    path = copied(origin, tmp_path / "repository")
    for each in (path / "packs").iterdir():
        if each.name.startswith(copies[1].copy_id[:16]):
            content = bytearray(each.read_bytes())
            content[len(content) // 2] ^= 1
            each.write_bytes(content)
    repository = reopened(path)
    assert copies[1].copy_id in verify(repository, Depth.FULL).affected

    copy_volume(repository, draft(VOLUMES[1]), VOLUMES[1], parent=copies[1], changed=[])

    assert verify(repository, Depth.FULL).affected == set()
    assert all(holds(repository, copy, volume) for copy, volume in zip(copies, VOLUMES, strict=True))
    for _ in range(4):
        prune(repository, delays=AT_ONCE, repack_below=1.0)
    assert verify(repository, Depth.FULL).findings == []
    assert all(holds(repository, copy, volume) for copy, volume in zip(copies, VOLUMES, strict=True))


def test_a_missing_manifest_is_found_by_whoever_knows_of_it(healthy, tmp_path):
    origin, copies, *_ = healthy
    path = copied(origin, tmp_path / "repository")
    (path / "copies" / copies[0].copy_id).unlink()

    report = verify(reopened(path), expected=[copy.copy_id for copy in copies])

    assert report.affected == {copies[0].copy_id}


def test_a_lost_index_is_made_anew_from_the_packs(healthy, tmp_path):
    origin, copies, *_ = healthy
    path = copied(origin, tmp_path / "repository")
    for each in (path / "index").iterdir():
        each.unlink()
    repository = reopened(path)
    assert set(verify(repository).affected) == {copy.copy_id for copy in copies}

    assert repair_index(repository) == len(list((path / "packs").iterdir()))

    assert verify(repository, Depth.FULL).findings == []
    assert all(holds(repository, copy, volume) for copy, volume in zip(copies, VOLUMES, strict=True))
