"""Object Lock: whatever a kept copy needs stays locked at least as long as the copy. FORMAT.md, "Immutability"."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from cpm.repository import keys, manifest
from cpm.repository.blocks import ZERO_ID, segment_ids
from cpm.repository.delays import LOCK_SLACK
from cpm.repository.errors import Damaged, ObjectMissing
from cpm.repository.index import View
from cpm.repository.manifest import Manifest
from cpm.repository.marking import keeper
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import CONFIG, Repository


def extend(repository: Repository, *, without: Collection[str] = ()) -> int:
    """Lock what the copies need for the repository's retention from now on, or until a copy's later ``retain_until``.

    That is manifests, packs, indexes, and what opens the repository: config and key slots. Returns how many locks
    were extended; a lock is never shortened. Copies ``without`` are not kept: they wait for the end of their locks. Does nothing for a repository without ``lock_mode``. Raises `Damaged`
    at the end, when everything that can be read has been locked.
    """
    if not repository.settings.lock_mode:
        return 0
    return _Extension(repository, without).run()


@dataclass(slots=True)
class _Area:
    view: View
    reader: BlockReader
    # Until when what a segment needs is known to be wanted.
    done: dict[bytes, datetime] = field(default_factory=dict)


class _Extension:
    def __init__(self, repository: Repository, without: Collection[str]) -> None:
        self.repository, self.without = repository, without
        self.now = datetime.fromtimestamp(repository.clock(), UTC)
        self.usual = self.now + (repository.settings.retention or timedelta(0))
        self.opening = (CONFIG, *(info.key for info in repository.store.list(keys.PREFIX)))
        self.needed: dict[str, datetime] = {}
        self.areas: dict[str, _Area] = {}
        self.damage: list[Damaged] = []

    def run(self) -> int:
        for copy_id in sorted(set(manifest.ids(self.repository.store)) - set(self.without)):
            try:
                self._need(self.repository.copy(copy_id))
            except ObjectMissing:
                # Deleted since the listing.
                continue
            except Damaged as damage:
                self.damage.append(damage)
        extended = sum(self._lock(key, until) for key, until in self.needed.items())
        if self.damage:
            raise self.damage[0]
        return extended

    def _need(self, copy: Manifest) -> None:
        asked = copy.draft.retain_until
        until = max(self.usual, datetime.fromisoformat(asked)) if asked else self.usual
        if until <= self.now:
            return
        area = self._area(copy)
        wanted = {copy.draft.key, *self.opening}
        for number in self._packs(copy, area, until):
            wanted.add(area.view.pack_key(int(number)))
            wanted.add(area.view.objects[area.view.packs.origins[int(number)]])
        for key in wanted:
            self.needed[key] = max(until, self.needed.get(key, until))

    def _area(self, copy: Manifest) -> _Area:
        area = copy.draft.area
        if area.prefix not in self.areas:
            view = self.repository.view(area, lenient=True)
            self.damage += view.unreadable
            reader = BlockReader(self.repository.store, self.repository.ciphers, view)
            self.areas[area.prefix] = _Area(view, reader)
        return self.areas[area.prefix]

    def _packs(
        self, copy: Manifest, area: _Area, until: datetime
    ) -> "np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
        """Numbers of the packs that a copy needs, less those found for a copy that is kept longer."""
        if copy.draft.archive:
            # They serve this copy alone, and may lie where they cannot be read at once.
            return np.arange(len(area.view.packs))
        used = np.zeros(len(area.view.packs), bool)
        scratch = Scratch()
        for segment_id in segment_ids(copy.segments):
            if segment_id == ZERO_ID or (segment_id in area.done and area.done[segment_id] >= until):
                continue
            area.done[segment_id] = until
            ids = [segment_id]
            try:
                ids += segment_ids(bytes(area.reader.read(segment_id, scratch)))
            except Damaged as damage:
                self.damage.append(damage)
            for block_id in ids:
                places = area.view.places(block_id) if block_id != ZERO_ID else []
                if places:
                    used[keeper(area.view, block_id, places)] = True
        return np.flatnonzero(used)

    def _lock(self, key: str, until: datetime) -> bool:
        store, mode = self.repository.store, self.repository.settings.lock_mode
        try:
            locked = store.head(key).retain_until
            if mode is None or (locked is not None and locked + timedelta(seconds=LOCK_SLACK) >= until):
                return False
            store.retain(key, until, mode)
        except ObjectMissing:
            self.damage.append(Damaged(key, "the object is missing"))
            return False
        return True
