"""Prune beside writers that know nothing of it."""

import pytest

from cpm.repository.copying import copy_volume
from cpm.repository.errors import Damaged
from cpm.repository.prune import prune
from cpm.repository.repository import create
from cpm.repository.verify import Depth, verify
from cpm.repository.writer import CopyWriter
from tests.repository.test_histories import HOUR, Clocked
from tests.repository.world import AT_ONCE, SECRET, SERVER, Volume, draft, holds, new_repository

VOLUME = Volume([2, 4, 6])


@pytest.fixture
def aged(tmp_path):
    """A repository whose only copy was deleted seven hours ago, and its clock."""
    now = [1_000_000.0]
    repository = create(Clocked(tmp_path, lambda: now[0]), SECRET, owner=SERVER, clock=lambda: now[0])
    repository.delete_copy(copy_volume(repository, draft(VOLUME), VOLUME).copy_id)
    now[0] += 7 * HOUR
    return repository, now


def write_all(writer):
    for number in writer.plan(0, 3):
        writer.write(number, VOLUME.content(number))
    writer.checkpoint()


def test_a_pack_that_a_writer_took_for_present_is_spared(aged):
    repository, now = aged
    plan = draft(VOLUME)
    writer = CopyWriter(repository, plan)
    assert prune(repository).condemned == 1
    now[0] += 2 * HOUR
    write_all(writer)
    now[0] += 23 * HOUR

    report = prune(repository)
    copy = repository.finish_copy(plan)

    assert (report.deleted, report.reprieved) == (0, 1) and copy.figures["new"] == 0
    assert holds(repository, copy, VOLUME) and verify(repository, Depth.FULL).findings == []
    assert repository.view().condemned == {}


def test_a_writer_that_knows_of_the_condemnation_stores_its_blocks_anew(aged):
    repository, now = aged
    prune(repository)
    plan = draft(VOLUME)

    copy = copy_volume(repository, plan, VOLUME)
    now[0] += 25 * HOUR
    report = prune(repository)

    assert copy.figures["new"] == VOLUME.size and report.deleted == 1
    assert holds(repository, copy, VOLUME) and verify(repository, Depth.FULL).findings == []


def test_a_parent_that_is_deleted_meanwhile_does_not_take_the_copy_with_it(tmp_path):
    repository = new_repository(tmp_path)
    parent = copy_volume(repository, draft(VOLUME), VOLUME)
    plan = draft(VOLUME)
    writer = CopyWriter(repository, plan, parent=parent)
    assert writer.plan(0, 3, []) == []
    repository.delete_copy(parent.copy_id)
    prune(repository, delays=AT_ONCE)
    writer.checkpoint()

    for _ in range(3):
        prune(repository, delays=AT_ONCE)

    assert holds(repository, repository.finish_copy(plan), VOLUME)


def test_blocks_of_a_condemned_parent_are_named_to_be_read_again(tmp_path):
    repository = new_repository(tmp_path)
    parent = copy_volume(repository, draft(VOLUME), VOLUME)
    repository.delete_copy(parent.copy_id)
    prune(repository, delays=AT_ONCE)

    copy = copy_volume(repository, draft(VOLUME), VOLUME, parent=parent, changed=[])

    assert copy.figures["new"] == VOLUME.size
    prune(repository, delays=AT_ONCE)
    assert holds(repository, copy, VOLUME)


def test_nothing_is_deleted_while_a_root_cannot_be_read(tmp_path):
    repository = new_repository(tmp_path)
    kept = copy_volume(repository, draft(VOLUME), VOLUME)
    doomed = copy_volume(repository, draft(Volume([8])), Volume([8]))
    repository.delete_copy(doomed.copy_id)
    path = tmp_path / "copies" / kept.copy_id
    path.write_bytes(path.read_bytes()[:-1])
    before = {each.name for each in (tmp_path / "packs").iterdir()}

    for _ in range(2):
        with pytest.raises(Damaged, match=kept.copy_id):
            prune(repository, delays=AT_ONCE)

    assert {each.name for each in (tmp_path / "packs").iterdir()} == before


def test_a_lost_index_keeps_packs_that_no_index_names(tmp_path):
    repository = new_repository(tmp_path)
    copy_volume(repository, draft(VOLUME), VOLUME)
    whole = copy_volume(repository, draft(Volume([8])), Volume([8]))
    index = sorted((tmp_path / "index").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    index[-1].unlink()

    with pytest.raises(Damaged):
        prune(repository, delays=AT_ONCE)

    assert len(list((tmp_path / "packs").iterdir())) == 2 and whole.copy_id


def test_mostly_dead_packs_are_repacked_and_little_is_left(tmp_path):
    repository = new_repository(tmp_path)
    mixed, small = Volume([2, 4, 6, 8, 10]), Volume([4])
    kept, doomed = copy_volume(repository, draft(small), small), copy_volume(repository, draft(mixed), mixed)
    repository.delete_copy(kept.copy_id)
    last = copy_volume(repository, draft(Volume([10, 12])), Volume([10, 12]))
    repository.delete_copy(doomed.copy_id)

    reports = [prune(repository, delays=AT_ONCE) for _ in range(3)]

    assert sum(report.repacked for report in reports) == 1
    assert sum(info.size for info in repository.store.list("packs/")) < 2.1 * 512 * 1024
    assert holds(repository, last, Volume([10, 12])) and verify(repository, Depth.FULL).findings == []


def test_many_small_index_objects_are_merged(tmp_path):
    repository = new_repository(tmp_path)
    copies = [copy_volume(repository, draft(Volume([2 * n])), Volume([2 * n])) for n in range(1, 71)]

    prune(repository)

    assert len(list(repository.store.list("index/"))) == 1
    assert all(holds(repository, copies[n - 1], Volume([2 * n])) for n in (1, 35, 70))
    assert verify(repository, Depth.FULL).findings == []
