"""Any history of a repository keeps every copy equal to what its volume was."""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from cpm.repository.archiving import CopySource
from cpm.repository.copying import copy_part, copy_volume
from cpm.repository.errors import CopyIncomplete, ObjectMissing, StaleView
from cpm.repository.keys import RawKey
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.prune import Delays, prune
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository, create, open_repository
from cpm.repository.store import Info
from cpm.repository.store_local import LocalStore
from cpm.repository.verify import Depth, verify
from cpm.repository.writer import CopyWriter
from tests.repository.world import SECRET, SERVER, SMALL_PACK, Volume, draft, holds, referenced_only

EXAMPLES = 100 if os.environ.get("CPM_CHAOS") == "long" else 15
HOUR = 3600.0
DELAYS = Delays(grace=24 * HOUR, young=6 * HOUR, abandoned=7 * 24 * HOUR)
BLOCKS = 6
SEEDS = st.integers(0, 12)


class Clocked(LocalStore):
    """A directory whose objects are as old as the test's clock says."""

    def __init__(self, root: Path, clock) -> None:
        super().__init__(root)
        self._clock = clock
        self._times: dict[str, float] = {}

    def put(self, key, data, *, if_absent=True, options=None):
        super().put(key, data, if_absent=if_absent, options=options)
        self._times[key] = self._clock()

    def list(self, prefix):
        for info in super().list(prefix):
            yield Info(info.key, info.size, self._times[info.key])


@dataclass
class Session:
    """A copy under way in some process."""

    plan: Draft
    volume: Volume
    writer: CopyWriter
    todo: list[int] = field(default_factory=list)


class Histories(RuleBasedStateMachine):
    copies = Bundle("copies")
    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1_000_000.0
        self.store = Clocked(self.folder, self.clock)
        self.secret = SECRET
        self.repository: Repository = create(self.store, SECRET, owner=SERVER, clock=self.clock)
        self.kept: dict[str, tuple[Manifest, Volume]] = {}
        self.volumes = [Volume([1, 2, 3, 4, 5, 6]), Volume([0, 2, 0, 8, 6, 6])]
        self.rotations = 0

    def clock(self) -> float:
        return self.now

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _keep(self, manifest: Manifest, volume: Volume) -> str:
        self.kept[manifest.copy_id] = (manifest, Volume(list(volume.seeds)))
        return manifest.copy_id

    @rule(which=st.integers(0, 1), block=st.integers(0, BLOCKS - 1), seed=SEEDS)
    def write(self, which: int, block: int, seed: int) -> None:
        self.volumes[which].seeds[block] = seed

    @rule(target=copies, which=st.integers(0, 1), parent=st.none() | copies, tracked=st.booleans())
    def copy(self, which: int, parent: str | None, tracked: bool) -> str:
        volume = self.volumes[which]
        base, changed = self.kept.get(parent or "", (None, None)), None
        if base[0] is not None and tracked:
            changed = [at for at in range(BLOCKS) if base[1].seeds[at] != volume.seeds[at]]
        manifest = copy_volume(
            self.repository, draft(volume), volume, parent=base[0], changed=changed, pack_bytes=SMALL_PACK
        )
        return self._keep(manifest, volume)

    @rule(target=sessions, which=st.integers(0, 1), parent=st.none() | copies)
    def start_session(self, which: int, parent: str | None) -> Session:
        volume = Volume(list(self.volumes[which].seeds))
        base = self.kept.get(parent or "", (None, None))
        plan = draft(volume)
        writer = CopyWriter(self.repository, plan, parent=base[0], pack_bytes=SMALL_PACK)
        changed = None
        if base[0] is not None:
            changed = [at for at in range(BLOCKS) if base[1].seeds[at] != volume.seeds[at]]
        return Session(plan, volume, writer, writer.plan(0, BLOCKS, changed))

    @rule(session=sessions, count=st.integers(1, BLOCKS))
    def write_some(self, session: Session, count: int) -> None:
        for _ in range(min(count, len(session.todo))):
            block = session.todo.pop()
            session.writer.write(block, session.volume.content(block))

    @rule(session=sessions)
    def checkpoint(self, session: Session) -> None:
        if not session.todo and session.writer.first == 0:
            try:
                session.writer.checkpoint()
            except StaleView:
                # As the runner does: a new writer from the last cursor, which is the beginning here.
                session.writer = CopyWriter(self.repository, session.plan, pack_bytes=SMALL_PACK)
                session.writer.adopt_orphans()
                copy_part(session.writer, session.volume)

    @rule(target=copies, session=sessions)
    def finish(self, session: Session):
        try:
            return self._keep(self.repository.finish_copy(session.plan), session.volume)
        except CopyIncomplete:
            return multiple()

    @rule(target=copies, source=copies)
    def archive(self, source: str):
        if source not in self.kept:
            return multiple()
        manifest, volume = self.kept[source]
        plan = draft(volume, archive=True, parent=source)
        origin = CopySource(Reader(self.repository, manifest))
        return self._keep(copy_volume(self.repository, plan, origin, pack_bytes=SMALL_PACK), volume)

    @rule(copy=copies)
    def delete(self, copy: str) -> None:
        self.repository.delete_copy(copy)
        self.kept.pop(copy, None)

    @rule(hours=st.sampled_from([1, 5, 7, 25, 200]))
    def wait(self, hours: int) -> None:
        self.now += hours * HOUR

    @rule(share=st.sampled_from([0.0, 0.5, 1.0]))
    def prune(self, share: float) -> None:
        assert prune(self.repository, delays=DELAYS, repack_below=share).lost_blocks == 0

    @rule()
    def rotate_key(self) -> None:
        self.rotations += 1
        self.secret = RawKey(bytes([self.rotations % 256]) * 32)
        self.repository.rotate_key(self.repository.slots()[0].id, self.secret)
        self.repository = open_repository(self.store, self.secret, owner=SERVER, clock=self.clock)

    @invariant()
    def every_kept_copy_is_its_volume(self) -> None:
        if hasattr(self, "kept"):
            found = {copy.copy_id: copy for copy in self.repository.copies()}
            assert found.keys() == self.kept.keys()
            assert all(holds(self.repository, found[each], volume) for each, (_, volume) in self.kept.items())

    @rule()
    def all_is_clean_after_the_grace(self) -> None:
        """Once unfinished copies are forgotten and the waits are over, only what is referenced is left."""
        for _ in range(4):
            self.now += 8 * 24 * HOUR
            prune(self.repository, delays=DELAYS, repack_below=1.0)
        assert verify(self.repository, Depth.FULL).findings == [] and referenced_only(self.repository)


Histories.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = pytest.mark.chaos(pytest.mark.timeout(20 * EXAMPLES)(Histories.TestCase))


def test_nothing_is_deleted_before_the_grace_is_over(tmp_path):
    now = [1_000_000.0]
    store = Clocked(tmp_path, lambda: now[0])
    repository = create(store, SECRET, owner=SERVER, clock=lambda: now[0])
    volume = Volume([2, 4])
    copy = copy_volume(repository, draft(volume), volume)
    repository.delete_copy(copy.copy_id)
    now[0] += timedelta(hours=7).total_seconds()

    first = prune(repository)
    now[0] += timedelta(hours=23).total_seconds()
    second = prune(repository)
    now[0] += timedelta(hours=2).total_seconds()
    third = prune(repository)

    assert (first.condemned, first.deleted, second.deleted, third.deleted) == (1, 0, 0, 1)
    with pytest.raises(ObjectMissing):
        repository.copy(copy.copy_id)


def test_packs_that_waited_too_long_for_their_index_are_not_named(tmp_path):
    """A writer that stood still for days: a prune has deleted what it stored and never named."""
    now = [1_000_000.0]
    store = Clocked(tmp_path, lambda: now[0])
    repository = create(store, SECRET, owner=SERVER, clock=lambda: now[0])
    volume = Volume([2, 4, 6, 8])
    plan = draft(volume)
    writer = CopyWriter(repository, plan, pack_bytes=SMALL_PACK, background=0)
    for block in writer.plan(0, len(volume.seeds)):
        writer.write(block, volume.content(block))
    for _ in range(3):
        now[0] += 8 * 24 * HOUR
        prune(repository, delays=DELAYS)

    with pytest.raises(StaleView):
        writer.checkpoint()
    again = copy_volume(repository, draft(volume), volume, pack_bytes=SMALL_PACK)

    # What the writer stored at last is a leftover, which the next prune condemns.
    assert [one for one in verify(repository, Depth.FULL).findings if not one.leftover] == []
    assert holds(repository, again, volume)
