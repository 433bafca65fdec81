"""Which blocks are referenced, and from where they are best kept. FORMAT.md, "Prune"."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cpm.repository import manifest
from cpm.repository.blocks import ZERO_ID, Marks, segment_ids
from cpm.repository.index import View
from cpm.repository.manifest import Draft
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import Repository


@dataclass(slots=True)
class Marked:
    """``live`` counts, per pack, the referenced blocks that it is to keep; ``unknown`` ones are in no index."""

    marks: Marks
    live: npt.NDArray[np.int64]
    unknown: set[bytes] = field(default_factory=set)


def roots(repository: Repository) -> Iterator[tuple[Draft, bytes]]:
    """Every list of segments that counts: of unfinished copies first, since these turn into manifests meanwhile.

    Raises `Damaged`: what an unreadable root references is unknown, so nothing may be deleted.
    """
    for part in manifest.progress_of(repository.store, repository.ciphers):
        yield part.draft, part.ids
    for copy in repository.copies():
        yield copy.draft, copy.segments


def mark(repository: Repository, view: View) -> Marked:
    """Find what copies of this area reference, and count it where writers would look for it first."""
    marks = Marks(view.blocks)
    marked = Marked(marks, np.zeros(len(view.packs), np.int64))
    reader = BlockReader(repository.store, repository.ciphers, view)
    scratch = Scratch()
    seen: set[bytes] = set()
    for draft, ids in roots(repository):
        if draft.area != view.area:
            continue
        for segment_id in segment_ids(ids):
            if segment_id == ZERO_ID or segment_id in seen:
                continue
            seen.add(segment_id)
            marked.unknown.update(marks.mark(segment_id))
            marked.unknown.update(marks.mark(bytes(reader.read(segment_id, scratch))))
    for block_id, places in marks.marked():
        marked.live[keeper(view, block_id, places)] += 1
    return marked


def keeper(view: View, block_id: bytes, places: list[int]) -> int:
    """The pack that is to keep a block: a sound one that is not condemned, and of these the first by name, so that
    two prunes at once do not each rely on the pack that the other condemns."""
    return min(
        places,
        key=lambda number: (
            (block_id, number) in view.bad or not view.packs.usable[number],
            view.packs.name(number),
        ),
    )
