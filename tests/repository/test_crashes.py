"""Dying or failing at every write of every operation leaves a repository that is whole, and wastes nothing for long."""

import random
import shutil

import pytest

from cpm.repository.archiving import CopySource
from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.copying import copy_volume
from cpm.repository.errors import CopyIncomplete, StoreUnavailable
from cpm.repository.prune import prune
from cpm.repository.reader import Reader
from cpm.repository.repository import open_repository
from cpm.repository.store_local import LocalStore
from cpm.repository.verify import Depth, verify
from tests.repository.world import (
    AT_ONCE,
    SECRET,
    SMALL_PACK,
    Retrying,
    Volume,
    Wrapped,
    dies_at,
    draft,
    holds,
    in_child,
    new_repository,
    referenced_only,
    reopened,
    unreliable,
)

KEPT = Volume([2, 4, 6, 0, 1])
DOOMED = Volume([8, 10, 12, 14, 2, 3])
FRESH = Volume([2, 16, 18, 5, 20, 22, 24, 4])


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A repository with a copy that stays, one that was deleted, and an archive; the ids of those that stay."""
    path = tmp_path_factory.mktemp("before") / "repository"
    repository = new_repository(path)
    kept = copy_volume(repository, draft(KEPT), KEPT, pack_bytes=SMALL_PACK)
    doomed = copy_volume(repository, draft(DOOMED), DOOMED, pack_bytes=SMALL_PACK)
    archive = copy_volume(
        repository, draft(KEPT, archive=True), CopySource(Reader(repository, kept)), pack_bytes=SMALL_PACK
    )
    return path, kept, doomed, archive


PLAN = draft(FRESH, copy_id="ab" * 16)


def copy(repository, doomed, kept):
    copy_volume(repository, PLAN, FRESH, parent=kept, changed=None, pack_bytes=SMALL_PACK)


def archive(repository, doomed, kept):
    copy_volume(
        repository, draft(DOOMED, copy_id="cd" * 16, archive=True), CopySource(Reader(repository, doomed))
    )


def delete(repository, doomed, kept):
    repository.delete_copy(doomed.copy_id)


def prune_twice(repository, doomed, kept):
    repository.delete_copy(doomed.copy_id)
    prune(repository, delays=AT_ONCE, repack_below=1.0)
    prune(repository, delays=AT_ONCE, repack_below=1.0)


OPERATIONS = [copy, archive, delete, prune_twice]


def settle(repository):
    """What prunes of the following days do, once unfinished copies count as abandoned."""
    delays = type(AT_ONCE)(grace=0, young=0, abandoned=0)
    for _ in range(4):
        prune(repository, delays=delays, repack_below=1.0)


def sound(repository, kept, old_archive):
    return (
        verify(repository, Depth.FULL).damage == []
        and holds(repository, kept, KEPT)
        and holds(repository, old_archive, KEPT)
        and all(
            holds(repository, each, FRESH if each.copy_id == PLAN.copy_id else DOOMED)
            for each in repository.copies()
            if each.copy_id not in (kept.copy_id, old_archive.copy_id)
        )
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_being_killed_at_any_write_harms_no_copy_and_leaves_nothing_behind(before, tmp_path, operation):
    origin, kept, doomed, old_archive = before
    step, finished = 0, False
    while not finished:
        path = tmp_path / str(step)
        shutil.copytree(origin, path)
        repository = reopened(path, dies_at(LocalStore(path), step))

        finished = in_child(lambda repository=repository: operation(repository, doomed, kept))

        after = reopened(path)
        assert sound(after, kept, old_archive), f"killed at write {step}"
        settle(after)
        assert verify(after, Depth.FULL).findings == [], f"killed at write {step}"
        assert sound(after, kept, old_archive) and referenced_only(after), f"killed at write {step}"
        shutil.rmtree(path)
        step += 1
    assert step > (1 if operation is delete else 5)


@pytest.mark.parametrize("operation", [copy, archive], ids=lambda operation: operation.__name__)
def test_the_work_of_a_killed_process_is_completed_by_its_successor(before, tmp_path, operation):
    origin, kept, doomed, _ = before
    step, finished = 0, False
    while not finished:
        path = tmp_path / str(step)
        shutil.copytree(origin, path)
        repository = reopened(path, dies_at(LocalStore(path), step))
        finished = in_child(lambda repository=repository: operation(repository, doomed, kept))

        operation(reopened(path), doomed, kept)

        after = reopened(path)
        assert len(list(after.copies())) == 4 and verify(after, Depth.FULL).damage == []
        shutil.rmtree(path)
        step += 3


def test_a_killed_copy_stores_at_most_one_pack_again(before, tmp_path):
    origin, kept, doomed, _ = before
    whole = Wrapped(LocalStore(shutil.copytree(origin, tmp_path / "whole")))
    copy(open_repository(whole, SECRET), doomed, kept)
    for step in range(2, 12, 2):
        path = tmp_path / str(step)
        shutil.copytree(origin, path)
        in_child(
            lambda path=path, step=step: copy(reopened(path, dies_at(LocalStore(path), step)), doomed, kept)
        )
        there = sum(info.size for info in LocalStore(path).list("packs/"))
        already = there - sum(info.size for info in LocalStore(origin).list("packs/"))
        watched = Wrapped(LocalStore(path))

        copy(open_repository(watched, SECRET), doomed, kept)

        assert watched.put_bytes + already <= whole.put_bytes + BLOCK_BYTES // 20


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_failing_requests_and_lost_answers_are_repeated(before, tmp_path, operation, seed):
    origin, kept, doomed, old_archive = before
    path = shutil.copytree(origin, tmp_path / "repository")
    faulty = Retrying(unreliable(LocalStore(path), random.Random(seed)), attempts=40)

    operation(open_repository(faulty, SECRET), doomed, kept)

    after = reopened(path)
    assert sound(after, kept, old_archive)
    settle(after)
    assert referenced_only(after) and sound(after, kept, old_archive)


def test_a_store_that_stays_away_stops_the_copy_and_harms_nothing(before, tmp_path):
    origin, kept, doomed, old_archive = before
    path = shutil.copytree(origin, tmp_path / "repository")
    left = [4]

    def outage(action, key):
        left[0] -= 1
        if left[0] < 0:
            raise StoreUnavailable("gone")

    broken = Wrapped(LocalStore(path))
    repository = open_repository(broken, SECRET)
    broken.before = lambda action, key: outage(action, key) if action == "put" else None

    with pytest.raises((StoreUnavailable, CopyIncomplete)):
        copy(repository, doomed, kept)

    assert sound(reopened(path), kept, old_archive)


def test_a_truncated_answer_is_noticed_and_never_restored(before, tmp_path):
    origin, kept, *_ = before
    path = shutil.copytree(origin, tmp_path / "repository")

    class Short(LocalStore):
        def read_into(self, key, start, target):
            count = super().read_into(key, start, target)
            target[count // 2 : count] = bytes(count - count // 2)
            return count // 2

    with pytest.raises(Exception, match=r"packs/.*block"):
        Reader(reopened(path, Short(path)), kept).restore(tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
