"""Copies: what they store, what they share, and how they are read."""

import json
import threading
import time

import pytest

from cpm.repository.archiving import CopySource, packs_of
from cpm.repository.blocks import BLOCK_BYTES, SEGMENT_BLOCKS
from cpm.repository.copying import copy_part, copy_volume
from cpm.repository.errors import CopyConflict, CopyIncomplete, StaleView
from cpm.repository.manifest import assemble, progress_of, save_progress
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from cpm.repository.store_local import LocalStore
from cpm.repository.verify import Depth, verify
from cpm.repository.writer import CopyWriter
from tests.repository.world import (
    AT_ONCE,
    SMALL_PACK,
    Volume,
    Wrapped,
    block,
    draft,
    holds,
    new_repository,
    reopened,
)


def test_a_copy_reads_as_the_volume_even_when_its_last_block_is_short(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([1, 2, 0, 3, 4, 5], tail=1000)

    copy = copy_volume(repository, draft(volume), volume, pack_bytes=SMALL_PACK)

    again = reopened(tmp_path).copy(copy.copy_id)
    assert again == copy and holds(repository, again, volume)
    reader = Reader(repository, again)
    assert reader.read(5) == block(5)[:1000] and reader.read(2) == bytes(BLOCK_BYTES)
    reader.restore(tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == b"".join(volume.content(number) for number in range(6))


def test_blocks_are_gathered_pack_by_pack(tmp_path):
    volume = Volume([0, *range(1, 60)])
    copy = copy_volume(new_repository(tmp_path), draft(volume), volume, pack_bytes=SMALL_PACK)
    read = []
    store = Wrapped(LocalStore(tmp_path), before=lambda operation, key: read.append(key))
    reader = Reader(reopened(tmp_path, store), copy)

    with reader.gather(10, 50, threads=1, ahead=2) as blocks:
        found = list(blocks)

    assert sorted(found) == [(number, block(number)) for number in range(10, 50)]
    packs = [key for key in read if key.startswith("packs/")]
    # Each pack is opened by two requests; its blocks come with one more, unless others lie between them.
    assert len(packs) < 2 * len(set(packs)) + len(found) / 2


def test_whoever_stops_gathering_leaves_no_thread_behind(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume(list(range(1, 60)))
    reader = Reader(repository, copy_volume(repository, draft(volume), volume, pack_bytes=SMALL_PACK))

    with reader.gather(threads=3, ahead=1) as blocks:
        next(blocks)
        next(blocks)

    deadline = time.monotonic() + 5
    while any(thread.name == "repository-gather" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_equal_blocks_of_all_volumes_are_stored_once_and_zeros_not_at_all(tmp_path):
    repository = new_repository(tmp_path)
    first, second = Volume([2, 4, 2, 0]), Volume([0, 4, 6, 4])

    one = copy_volume(repository, draft(first), first)
    two = copy_volume(repository, draft(second, volume="vol-2"), second)

    assert one.figures["new"] == 2 * BLOCK_BYTES and one.figures["zero"] == BLOCK_BYTES
    assert two.figures["new"] == BLOCK_BYTES
    assert holds(repository, one, first) and holds(repository, two, second)


def test_only_changed_blocks_are_read_when_they_are_known(tmp_path):
    repository = new_repository(tmp_path)
    before = Volume(list(range(1, 21)))
    parent = copy_volume(repository, draft(before), before)
    after = Volume([*before.seeds[:7], 100, 0, *before.seeds[9:]])
    read = []

    class Watched(Volume):
        def read_into(self, number, target):
            read.append(number)
            return super().read_into(number, target)

    copy = copy_volume(repository, draft(after), Watched(after.seeds), parent=parent, changed=[7, 8])

    assert sorted(read) == [7, 8] and holds(repository, copy, after) and holds(repository, parent, before)


def test_a_volume_that_grew_reads_its_former_last_block_again(tmp_path):
    repository = new_repository(tmp_path)
    before = Volume([2, 4, 6], tail=100)
    parent = copy_volume(repository, draft(before), before)
    after = Volume([2, 4, 6, 8])

    copy = copy_volume(repository, draft(after), after, parent=parent, changed=[])

    assert holds(repository, copy, after)


def test_without_change_tracking_nothing_is_stored_twice(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2, 4, 6, 3])
    parent = copy_volume(repository, draft(volume), volume)

    copy = copy_volume(repository, draft(volume), volume, parent=parent)

    assert copy.figures["stored"] == 0 and copy.segments == parent.segments


def test_parts_written_by_several_writers_at_once_make_one_copy(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([7] * SEGMENT_BLOCKS + [2, 4] + [0] * (SEGMENT_BLOCKS - 2) + [6, 9])
    plan = draft(volume)
    writers = [
        CopyWriter(reopened(tmp_path), plan, first=part, end=part + 1, pack_bytes=SMALL_PACK)
        for part in range(3)
    ]
    for writer in reversed(writers):
        copy_part(writer, volume)
        writer.close()

    copy = repository.finish_copy(plan)

    assert holds(repository, copy, volume) and repository.finish_copy(plan) == copy
    assert not list(repository.store.list("progress/"))


def test_a_copy_with_a_missing_part_is_not_finished(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([1] * (SEGMENT_BLOCKS + 1))
    plan = draft(volume)
    with CopyWriter(repository, plan, end=1) as writer:
        copy_part(writer, volume)

    with pytest.raises(CopyIncomplete, match="1 of 2"):
        repository.finish_copy(plan)

    assert list(repository.copies()) == []


def test_two_processes_that_disagree_about_a_part_are_told(tmp_path):
    repository = new_repository(tmp_path)
    volume, other = Volume([2]), Volume([4])
    plan = draft(volume)
    with CopyWriter(repository, plan) as one, CopyWriter(repository, plan) as two:
        copy_part(one, volume)

        with pytest.raises(CopyConflict):
            copy_part(two, other)

    assert holds(repository, repository.finish_copy(plan), volume)


def test_the_cursor_is_json_and_a_successor_goes_on_from_it(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2] * SEGMENT_BLOCKS + [4] * SEGMENT_BLOCKS + [6])
    plan = draft(volume)
    cursors = []
    with CopyWriter(repository, plan, end=1) as writer:
        copy_part(writer, volume, slice_blocks=SEGMENT_BLOCKS, on_checkpoint=cursors.append)
    cursor = json.loads(json.dumps(cursors[-1]))

    copy = copy_volume(reopened(tmp_path), plan, volume, cursor=cursor)

    assert cursor["next"] == 1 and holds(repository, copy, volume)


def test_a_planned_block_that_was_not_written_stops_the_checkpoint(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2, 4])
    with CopyWriter(repository, draft(volume)) as writer:
        writer.plan(0, 2)
        writer.write(0, block(2))

        with pytest.raises(CopyIncomplete):
            writer.checkpoint()


def test_a_writer_that_looked_too_long_ago_has_to_look_again(tmp_path):
    now = [1_000_000.0]
    repository = new_repository(tmp_path, clock=lambda: now[0])
    volume = Volume([2])
    plan = draft(volume)
    with CopyWriter(repository, plan) as writer:
        writer.plan(0, 1)
        writer.write(0, block(2))
        now[0] += 7 * 3600

        with pytest.raises(StaleView):
            writer.checkpoint()

    assert holds(repository, copy_volume(repository, plan, volume), volume)


def test_packs_stored_before_a_crash_are_not_stored_again(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume(list(range(2, 42, 2)))
    plan = draft(volume)
    writer = CopyWriter(repository, plan, pack_bytes=SMALL_PACK)
    for number in writer.plan(0, 20):
        writer.write(number, volume.content(number))
    stored = len(list(repository.store.list("packs/")))
    watched = Wrapped(repository.store)

    copy = copy_volume(reopened(tmp_path, watched), plan, volume, pack_bytes=SMALL_PACK)

    assert stored >= 4 and not list(repository.store.list("index/"))[1:]
    assert watched.put_bytes < (20 - 3 * stored + 1) * BLOCK_BYTES + 20_000
    assert holds(repository, copy, volume)


def test_a_deleted_copy_is_gone_and_the_others_keep_what_they_share(tmp_path):
    repository = new_repository(tmp_path)
    first, second = Volume([2, 4, 6]), Volume([4, 8])
    one, two = copy_volume(repository, draft(first), first), copy_volume(repository, draft(second), second)

    repository.delete_copy(one.copy_id)
    prune(repository, delays=AT_ONCE)
    report = prune(repository, delays=AT_ONCE)

    assert report.deleted and [copy.copy_id for copy in repository.copies()] == [two.copy_id]
    assert holds(repository, two, second) and verify(repository, Depth.FULL).findings == []


def test_an_archive_shares_nothing_with_its_source(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2, 4, 0, 3])
    source = copy_volume(repository, draft(volume), volume)

    archive = copy_volume(
        repository, draft(volume, archive=True, parent=source.copy_id), CopySource(Reader(repository, source))
    )
    repository.delete_copy(source.copy_id)
    for _ in range(2):
        prune(repository, delays=AT_ONCE)

    assert list(repository.store.list("packs/")) == [] and len(list(packs_of(repository, archive))) >= 1
    assert holds(repository, archive, volume) and verify(repository, Depth.FULL).findings == []
    repository.delete_copy(archive.copy_id)
    prune(repository, delays=AT_ONCE)
    assert list(repository.store.list("archives/")) == []


def test_everything_about_the_copies_is_in_the_bucket(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2])
    about = {"account": "123456789012", "tags": {"Name": "db"}, "backup": 7}
    copy_volume(repository, draft(volume, metadata=about, retain_until="2027-01-01T00:00:00+00:00"), volume)

    (found,) = reopened(tmp_path).copies()

    assert (
        found.draft.metadata == about and found.draft.volume == "vol-1" and found.draft.snapshot == "snap-1"
    )


def test_repeating_a_progress_object_is_no_conflict(tmp_path):
    repository = new_repository(tmp_path)
    volume = Volume([2])
    plan = draft(volume)
    with CopyWriter(repository, plan) as writer:
        copy_part(writer, volume)
    (part,) = progress_of(repository.store, repository.ciphers)

    save_progress(repository.store, repository.ciphers, part)

    assert assemble(repository.store, repository.ciphers, plan).segments == part.ids


def test_a_huge_sparse_volume_costs_what_is_in_it(tmp_path):
    repository = new_repository(tmp_path)
    size = 16 << 40

    class Sparse:
        size = 16 << 40

        def read_into(self, number, target):
            target[:] = block(2 + 2 * (number % 5))
            return len(target)

    used = [0, 5, 40_000, 20_000_000, (size // BLOCK_BYTES) - 1]
    plan = draft(Sparse())

    copy = copy_volume(repository, plan, Sparse(), changed=used)
    again = copy_volume(repository, draft(Sparse()), Sparse(), parent=copy, changed=[7])

    reader = Reader(repository, repository.copy(again.copy_id))
    assert list(reader.allocated()) == sorted([*used, 7])
    assert reader.read(20_000_000) == block(2 + 2 * (20_000_000 % 5)) and reader.read(1) == bytes(BLOCK_BYTES)
    assert repository.store.head(f"copies/{copy.copy_id}").size < 4096
