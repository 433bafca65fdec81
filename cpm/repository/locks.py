"""Object Lock: whatever a kept copy needs stays locked at least as long as the copy. FORMAT.md, "Immutability"."""

from datetime import UTC, datetime

import numpy as np

from cpm.repository import keys
from cpm.repository.blocks import ZERO_ID, segment_ids
from cpm.repository.index import View
from cpm.repository.manifest import Draft
from cpm.repository.marking import keeper
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import CONFIG, Repository


def extend(repository: Repository) -> int:
    """Lock manifests, packs and indexes until the latest ``retain_until`` of the copies that need them.

    Also what opens the repository: config and key slots. Returns how many objects were extended; a lock is never
    shortened. Does nothing for a repository without ``lock_mode``.
    """
    if not repository.settings.lock_mode:
        return 0
    needed: dict[str, datetime] = {}
    views: dict[str, tuple[View, dict[bytes, datetime], BlockReader]] = {}
    for copy in repository.copies():
        if copy.draft.retain_until is None:
            continue
        until = datetime.fromisoformat(copy.draft.retain_until)
        if until <= datetime.fromtimestamp(repository.clock(), UTC):
            continue
        area = copy.draft.area
        if area.prefix not in views:
            view = repository.view(area)
            views[area.prefix] = (view, {}, BlockReader(repository.store, repository.ciphers, view))
        view, done, reader = views[area.prefix]
        packs = _packs(copy.draft, copy.segments, until, view, done, reader)
        keys_needed = {copy.draft.key, CONFIG, *(info.key for info in repository.store.list(keys.PREFIX))}
        keys_needed.update(view.pack_key(int(number)) for number in packs)
        keys_needed.update(view.objects[view.packs.origins[int(number)]] for number in packs)
        for key in keys_needed:
            needed[key] = max(until, needed.get(key, until))
    extended = 0
    for key, until in needed.items():
        locked = repository.store.head(key).retain_until
        if locked is None or locked < until:
            repository.store.retain(key, until, repository.settings.lock_mode)
            extended += 1
    return extended


def _packs(
    draft: Draft,
    segments: bytes,
    until: datetime,
    view: View,
    done: dict[bytes, datetime],
    reader: BlockReader,
) -> "np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
    """Numbers of the packs that a copy needs, less those found for a copy that is kept longer."""
    used = np.zeros(len(view.packs), bool)
    scratch = Scratch()
    for segment_id in segment_ids(segments):
        if segment_id == ZERO_ID or done.get(segment_id, datetime.min.replace(tzinfo=UTC)) >= until:
            continue
        done[segment_id] = until
        for block_id in (segment_id, *segment_ids(bytes(reader.read(segment_id, scratch)))):
            if block_id != ZERO_ID:
                places = view.places(block_id)
                if places:
                    used[keeper(view, block_id, places)] = True
    return np.flatnonzero(used)
