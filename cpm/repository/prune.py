"""Removing what no copy references: mark, condemn, wait, mark again, delete. FORMAT.md, "Prune".

Nothing stops while this runs, and it may die anywhere: every step leaves a repository that is whole.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from cpm.repository import index, manifest
from cpm.repository.delays import ABANDONED, GRACE, VIEW_LIFETIME, YOUNG
from cpm.repository.errors import Damaged, ObjectLocked, StaleView
from cpm.repository.index import COMMON, CONDEMNED, MOST_ROWS, Area, IndexedPack, View
from cpm.repository.marking import Marked, keeper, mark
from cpm.repository.packs import LEAST_PACK_BYTES, row_id
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import Repository
from cpm.repository.store import Info
from cpm.repository.uploads import PackUploads

ARCHIVES = "archives/"
# More index objects than this, and small ones are merged.
MANY_INDEXES = 64


@dataclass(frozen=True, slots=True)
class Delays:
    """See `cpm.repository.delays`, which says what each protects. Only tests shorten them."""

    grace: float = GRACE
    young: float = YOUNG
    abandoned: float = ABANDONED


@dataclass(slots=True)
class PruneReport:
    condemned: int = 0
    repacked: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    locked: int = 0
    reprieved: int = 0
    # Referenced blocks that no index knows: damage, which keeps unindexed packs from being deleted.
    lost_blocks: int = 0


def prune(repository: Repository, *, delays: Delays | None = None, repack_below: float = 0.5) -> PruneReport:
    """One round. Data is gone after the second round that finds it unreferenced, at least ``grace`` later.

    Packs of which less than ``repack_below`` is referenced are replaced by packs without the dead blocks.
    Raises `Damaged` when a root cannot be read (delete or heal that copy first).
    """
    return _Prune(repository, delays or Delays(), repack_below).run()


class _Prune:
    def __init__(self, repository: Repository, delays: Delays, repack_below: float) -> None:
        self.repository = repository
        self.store = repository.store
        self.delays = delays
        self.repack_below = repack_below
        self.report = PruneReport()
        self.now = repository.clock()

    def run(self) -> PruneReport:
        self._leftovers()
        self._abandoned_progress()
        view = self.repository.view()
        stored = {bytes.fromhex(info.key.rpartition("/")[2]): info for info in self.store.list(COMMON.packs)}
        marked = mark(self.repository, view)
        if marked.unknown:
            # A copy may have gone on between the two looks; a second one tells that from a loss.
            view = self.repository.view()
            stored = {
                bytes.fromhex(info.key.rpartition("/")[2]): info for info in self.store.list(COMMON.packs)
            }
            marked = mark(self.repository, view)
        self.report.lost_blocks = len(marked.unknown)
        self._sweep(view, stored, marked)
        self._condemn(view, stored, marked)
        self._settled_damage(view)
        self._archives()
        return self.report

    def _leftovers(self) -> None:
        old = self.now - self.delays.young
        self.store.discard_unfinished(old)
        self.store.delete([info.key for info in self.store.list("probe/") if info.modified <= old])

    def _abandoned_progress(self) -> None:
        newest: dict[str, float] = {}
        for info in self.store.list(manifest.PROGRESS):
            copy_id = info.key.split("/")[1]
            newest[copy_id] = max(newest.get(copy_id, 0.0), info.modified)
        finished = set(manifest.ids(self.store)) if newest else set()
        for copy_id, modified in newest.items():
            if copy_id in finished or modified <= self.now - self.delays.abandoned:
                manifest.drop_progress(self.store, copy_id)

    def _fresh(self, view: View) -> None:
        if self.repository.clock() - view.taken > VIEW_LIFETIME:
            raise StaleView("This prune has taken too long to delete by what it read; start it again.")

    # Sweep: what was condemned long ago and is still unreferenced.

    def _sweep(self, view: View, stored: dict[bytes, Info], marked: Marked) -> None:
        ripe = {
            key: names
            for key, (since, names) in view.condemned.items()
            if since + self.delays.grace <= self.now
        }
        numbers = view.packs.numbers()
        # A pack that anybody needs is live here, since a block counts for a condemned pack only as a last resort.
        doomed = {
            name
            for names in ripe.values()
            for name in names
            if (not marked.unknown if name not in numbers else not marked.live[numbers[name]])
        }
        self._fresh(view)
        self._rewrite_index(view, {numbers[name] for name in doomed if name in numbers})
        self._fresh(view)
        locked: set[bytes] = set()
        for name in sorted(doomed):
            try:
                self.store.delete([COMMON.pack_key(name)])
            except ObjectLocked:
                locked.add(name)
                continue
            if name in stored:
                self.report.deleted += 1
                self.report.deleted_bytes += stored[name].size
        self.report.locked += len(locked)
        for key, names in ripe.items():
            if not names & locked:
                self.report.reprieved += len(names - doomed)
                self.store.delete([key])

    def _rewrite_index(self, view: View, doomed: set[int]) -> None:
        """Replace the index objects that name doomed packs, and small ones when there are many."""
        origins = {view.packs.origins[number] for number in doomed}
        rows: dict[int, int] = {}
        for number in range(len(view.packs)):
            origin = view.packs.origins[number]
            rows[origin] = rows.get(origin, 0) + view.packs.rows[number]
        objects = set(range(len(view.objects)))
        small = {origin for origin in objects if rows.get(origin, 0) < MOST_ROWS // 4}
        if len(small) > MANY_INDEXES:
            origins |= small
        # Objects that name only packs which others name too are left over from an interrupted merge.
        origins |= objects - rows.keys()
        if not origins:
            return
        gone = {view.packs.name(number) for number in doomed}
        keys = [view.objects[origin] for origin in sorted(origins)]
        names = [key.removeprefix(COMMON.index) for key in keys]
        groups = list(index.grouped(self._kept_packs(keys, gone)))
        for at, group in enumerate(groups):
            index.write(
                self.store,
                self.repository.ciphers,
                COMMON,
                group,
                names if at + 1 == len(groups) else (),
                self.repository.put_options(),
            )
        for key in keys:
            try:
                self.store.delete([key])
            except ObjectLocked:
                self.report.locked += 1

    def _kept_packs(self, keys: Iterable[str], gone: set[bytes]) -> Iterable[IndexedPack]:
        seen = set(gone)
        for key in keys:
            content = self.repository.ciphers.open(key, self.store.get(key))
            for pack in index.decode(key, content)[1]:
                if pack.name not in seen:
                    seen.add(pack.name)
                    yield pack

    # Condemn: what is unreferenced now.

    def _condemn(self, view: View, stored: dict[bytes, Info], marked: Marked) -> None:
        known = view.packs.numbers()
        already = view.condemned_names()
        settled = {
            name for name, info in stored.items() if info.modified <= self.now - self.delays.young
        } - already
        dead: set[bytes] = set()
        sparse: set[int] = set()
        for name, number in known.items():
            if name in already or (name in stored and name not in settled):
                continue
            if not marked.live[number]:
                dead.add(name)
            elif marked.live[number] < self.repack_below * view.packs.rows[number] and name in stored:
                sparse.add(number)
        if not marked.unknown:
            dead |= settled - known.keys()
        dead = {name for name in dead if not self._locked(name, stored)}
        sparse = {number for number in sparse if not self._locked(view.packs.name(number), stored)}
        if sparse:
            self._repack(view, marked, sparse)
            dead |= {view.packs.name(number) for number in sparse}
        if dead:
            content = {"time": self.repository.clock(), "packs": sorted(name.hex() for name in dead)}
            index.write_list(self.store, self.repository.ciphers, CONDEMNED, content)
            self.report.condemned += len(dead)

    def _locked(self, name: bytes, stored: dict[bytes, Info]) -> bool:
        if not self.repository.settings.lock_mode or name not in stored:
            return False
        until = self.store.head(COMMON.pack_key(name)).retain_until
        if until is None or until.timestamp() <= self.now:
            return False
        self.report.locked += 1
        return True

    def _repack(self, view: View, marked: Marked, sparse: set[int]) -> None:
        """Copy what is live in these packs into new ones, without unpacking more than the check needs."""
        options = self.repository.put_options()
        uploads = PackUploads(
            self.repository,
            view,
            os.urandom(8),
            options=options,
            index_options=options,
            fillers=1,
            pack_bytes=LEAST_PACK_BYTES,
            stored=lambda pack: None,
        )
        reader = BlockReader(self.store, self.repository.ciphers, view)
        scratch = Scratch()
        wanted: dict[int, list[bytes]] = {}
        for block_id, places in marked.marks.marked():
            number = keeper(view, block_id, places)
            if number in sparse:
                wanted.setdefault(number, []).append(block_id)
        for number, ids in sorted(wanted.items()):
            pack = reader.pack(number)
            rows = [(pack.find(block_id), block_id) for block_id in ids]
            for entry, block_id in sorted(rows):
                row = pack.table[entry]
                length = int(row["stored"])
                stored = scratch.fetched[:length]
                count = self.store.read_into(pack.key, int(pack.starts[entry]), stored)
                # Raises `Damaged` unless it is the block; what is written is still compressed.
                pack.cipher.block_into(entry, row, stored[:count], scratch.plain, scratch.inflate)
                payload = pack.cipher.payload(entry, row, stored[:count])
                assert row_id(row) == block_id
                uploads.add(block_id, int(row["kind"]), int(row["codec"]), int(row["size"]), payload)
            self.report.repacked += 1
        uploads.flush()
        uploads.close()

    def _settled_damage(self, view: View) -> None:
        """Forget noted damage of packs that are gone from the index."""
        if not view.damage:
            return
        known = self.repository.view().packs.numbers()
        for key, packs_of in view.damage.items():
            if not any(bytes.fromhex(name) in known for name in packs_of):
                self.store.delete([key])

    def _archives(self) -> None:
        """Archives without manifest and progress, deleted or abandoned ones, go: packs first, then their index. Finished
        ones lose what their writers have left; that is looked for until they are as old as an abandoned copy."""
        newest: dict[str, float] = {}
        for info in self.store.list(ARCHIVES):
            copy_id = info.key.split("/")[1]
            newest[copy_id] = max(newest.get(copy_id, 0.0), info.modified)
        if not newest:
            return
        under_way = {info.key.split("/")[1] for info in self.store.list(manifest.PROGRESS)}
        finished = set(manifest.ids(self.store))
        old = self.now - max(self.delays.young, self.delays.grace)
        for copy_id, modified in newest.items():
            if copy_id in under_way or modified > old:
                continue
            if copy_id not in finished:
                infos = self.store.list(f"{ARCHIVES}{copy_id}/")
                self._delete_in_order(sorted(infos, key=lambda info: "/index/" in info.key))
            elif modified > old - self.delays.abandoned:
                self._delete_in_order(self._unindexed(copy_id))

    def _unindexed(self, copy_id: str) -> list[Info]:
        """Packs of a finished archive that its index does not name. Whoever died between the two left them, and nobody
        could read them to adopt them."""
        area = Area.of_archive(copy_id)
        try:
            known = self.repository.view(area).packs.numbers()
        except Damaged:
            return []
        infos = self.store.list(area.packs)
        return [info for info in infos if bytes.fromhex(info.key.rpartition("/")[2]) not in known]

    def _delete_in_order(self, infos: Iterable[Info]) -> None:
        for info in infos:
            try:
                self.store.delete([info.key])
            except ObjectLocked:
                self.report.locked += 1
                return
            self.report.deleted += 1
            self.report.deleted_bytes += info.size
