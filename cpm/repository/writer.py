"""Writing a copy: its blocks, the map of its segments, and the cursor from which a successor goes on.

FORMAT.md, "Write order": packs, then the index, then progress, at last the manifest.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import zstandard

from cpm.repository.blocks import (
    BLOCK_BYTES,
    DATA,
    MAP,
    RAW,
    SEGMENT_BLOCKS,
    ZERO_ID,
    ZSTD,
    is_zero,
    segment_ids,
)
from cpm.repository.cipher import ID_BYTES
from cpm.repository.delays import VIEW_LIFETIME
from cpm.repository.errors import CopyIncomplete, Damaged, StaleView
from cpm.repository.index import IndexedPack, View
from cpm.repository.manifest import Draft, Manifest, Progress, save_progress
from cpm.repository.packs import HEAD_BYTES, LEAST_PACK_BYTES, PackReader, foot_bytes
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository
from cpm.repository.store import Buffer
from cpm.repository.uploads import PackUploads

LEVEL = 3
# A block that zstd does not make smaller than this is stored as it is.
WORTH_PACKING = 0.97
# Maps of at most so many segments (256 GiB of volume) wait in memory for their checkpoint.
MOST_OPEN_SEGMENTS = 512


@dataclass(slots=True)
class _Segment:
    ids: bytearray
    have: bytearray


@dataclass(slots=True)
class Figures:
    """Bytes of the volume: read and not all zero, of these new to the repository, and stored for them."""

    read: int = 0
    zero: int = 0
    new: int = 0
    stored: int = 0

    def as_dict(self) -> dict[str, int]:
        return {"read": self.read, "zero": self.zero, "new": self.new, "stored": self.stored}


@dataclass
class CopyWriter:
    """Writes segments ``first`` to ``end`` of one copy; several processes may each write their own part.

    Use: `plan` a range, `write` what it names (from several threads), `checkpoint`. What is checkpointed survives
    anything; a successor starts a writer at the cursor's ``next``. When all parts are through, anybody calls
    ``repository.finish_copy``.
    """

    repository: Repository
    draft: Draft
    first: int = 0
    end: int = -1
    parent: Manifest | None = None
    threads: int = 2
    background: int = 0
    pack_bytes: int = LEAST_PACK_BYTES
    view: View | None = None
    figures: Figures = field(default_factory=Figures)
    _segments: dict[int, _Segment] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _claimed: set[bytes] = field(default_factory=set)
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        if self.end < 0:
            self.end = self.draft.segment_count
        repository, draft = self.repository, self.draft
        self._view = self.view or repository.view(draft.area)
        self._parent: Reader | None = None
        self._open_parent()
        self._uploads = PackUploads(
            repository,
            self._view,
            draft.session,
            options=repository.put_options(archive=draft.archive, until=draft.retain_until),
            index_options=repository.put_options(until=draft.retain_until),
            fillers=self.threads,
            background=self.background,
            pack_bytes=self.pack_bytes,
            stored=self._pack_stored,
        )

    def _open_parent(self) -> None:
        if self.parent:
            shared = self._view if self.parent.draft.area == self._view.area else None
            self._parent = Reader(self.repository, self.parent, shared)

    def _look_again(self) -> None:
        """A copy may take longer than one look at the index is good for."""
        self._view = self.repository.view(self.draft.area)
        self._open_parent()

    def __enter__(self) -> "CopyWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._uploads.close()

    def adopt_orphans(self) -> int:
        """Take over packs that an earlier attempt at this copy stored without living to index them."""
        known = self._view.packs.numbers()
        count = 0
        for info in self.repository.store.list(self._view.area.packs + self.draft.session.hex()):
            name = bytes.fromhex(info.key.rpartition("/")[2])
            if name in known or name in self._view.condemned_names():
                continue
            try:
                pack = read_table(self.repository, info.key, name, info.size)
            except Damaged:
                continue
            self._uploads.adopt(pack)
            self._pack_stored(pack)
            count += 1
        return count

    def plan(self, first: int, end: int, changed: Iterable[int] | None = None) -> list[int]:
        """Prepare blocks ``first`` to ``end`` (whole segments) and say which have to be read and written.

        With a parent, ``changed`` are the blocks that differ from it; blocks that the repository has lost since are
        named as well, which heals them. Without a parent, blocks that are not in ``changed`` are zeros. When
        ``changed`` is None nothing is known, and all have to be read.
        """
        by_segment: dict[int, list[int]] | None = None
        if changed is not None:
            by_segment = {}
            for block in changed:
                by_segment.setdefault(block // SEGMENT_BLOCKS, []).append(block)
        empty: list[int] = []
        needed: list[int] = []
        for number in range(first // SEGMENT_BLOCKS, -(-end // SEGMENT_BLOCKS)):
            if number in self._segments:
                continue
            if len(self._segments) >= MOST_OPEN_SEGMENTS:
                raise CopyIncomplete(f"Checkpoint after at most {MOST_OPEN_SEGMENTS} segments.")
            needed += self._plan_segment(
                number, by_segment.get(number, empty) if by_segment is not None else None
            )
        return needed

    def _plan_segment(self, number: int, touched: list[int] | None) -> list[int]:
        start = number * SEGMENT_BLOCKS
        count = min(SEGMENT_BLOCKS, self.draft.blocks - start)
        segment = _Segment(bytearray(ID_BYTES * count), bytearray(count))
        self._segments[number] = segment
        inherited = b"" if touched is None else self._inherited(number, count)
        if is_zero(inherited):
            segment.have[: len(inherited) // ID_BYTES] = b"\x01" * (len(inherited) // ID_BYTES)
        else:
            for at, block_id in enumerate(segment_ids(inherited)):
                if block_id == ZERO_ID or self._present(block_id):
                    segment.ids[ID_BYTES * at : ID_BYTES * (at + 1)] = block_id
                    segment.have[at] = 1
        for block in touched or ():
            if block < start + count:
                segment.have[block - start] = 0
        return [start + at for at in range(count) if not segment.have[at]]

    def _inherited(self, number: int, count: int) -> bytes:
        """What the blocks of a segment were in the parent; less where it does not tell."""
        if self._parent is None:
            return bytes(ID_BYTES * count)
        if number >= self._parent.manifest.draft.segment_count:
            return b""
        try:
            inherited = self._parent.segment(number)
        except Damaged:
            return b""
        if self.draft.size != self._parent.manifest.draft.size and len(inherited) < ID_BYTES * SEGMENT_BLOCKS:
            # The volume has grown or shrunk here; a last block may be shorter than its id says.
            return inherited[: ID_BYTES * (min(count, len(inherited) // ID_BYTES) - 1)]
        return inherited[: ID_BYTES * count]

    def _present(self, block_id: bytes) -> bool:
        with self._lock:
            return block_id in self._claimed or self._view.present(block_id)

    def _claim(self, block_id: bytes) -> bool:
        """Whether the caller has to store the block; from now on nobody else will."""
        with self._lock:
            if block_id in self._claimed or self._view.present(block_id):
                return False
            self._claimed.add(block_id)
            return True

    def _pack_stored(self, pack: IndexedPack) -> None:
        raw = pack.table.tobytes()
        width = pack.table.dtype.itemsize
        with self._lock:
            self._view.add_pack(pack, 0)
            self._view.blocks.settle()
            self._claimed.difference_update(raw[at : at + ID_BYTES] for at in range(0, len(raw), width))

    def write(self, block: int, data: Buffer) -> None:
        """Block ``block`` of the volume; ``data`` may be used again when this returns."""
        number, at = divmod(block, SEGMENT_BLOCKS)
        segment = self._segments[number]
        size = len(data)
        if size != min(BLOCK_BYTES, self.draft.size - block * BLOCK_BYTES):
            raise ValueError(f"Block {block} of the volume does not have {size} bytes.")
        if is_zero(data):
            block_id = ZERO_ID
            with self._lock:
                self.figures.zero += size
        else:
            block_id = self.repository.ciphers.data_id(data)
            new = self._claim(block_id)
            with self._lock:
                self.figures.read += size
                self.figures.new += size if new else 0
            if new:
                self._store(block_id, DATA, size, data)
        segment.ids[ID_BYTES * at : ID_BYTES * (at + 1)] = block_id
        segment.have[at] = 1

    def _store(self, block_id: bytes, kind: int, size: int, data: Buffer) -> None:
        squeeze: zstandard.ZstdCompressor | None = getattr(self._local, "squeeze", None)
        if squeeze is None:
            squeeze = self._local.squeeze = zstandard.ZstdCompressor(level=LEVEL)
        packed = squeeze.compress(data)
        if len(packed) < WORTH_PACKING * size:
            self._uploads.add(block_id, kind, ZSTD, size, packed)
        else:
            self._uploads.add(block_id, kind, RAW, size, data)

    def checkpoint(self, upto: int | None = None) -> dict[str, object]:
        """Make everything below block ``upto`` durable; returns the cursor, which JSON can carry.

        No `write` may run meanwhile. Raises `CopyIncomplete` when a planned block was not written, and `StaleView`
        when the repository was looked at too long ago: then start a new writer at the last cursor.
        """
        last = self.end if upto is None else -(-upto // SEGMENT_BLOCKS)
        done = range(self.first, min(last, self.end))
        ids = bytearray()
        for number in done:
            segment = self._segments.get(number)
            if segment is None or not all(segment.have):
                raise CopyIncomplete(f"Segment {number} of the volume has blocks that were not written.")
            ids += self._store_map(bytes(segment.ids))
        self._uploads.flush()
        if self.repository.clock() - self._view.taken > VIEW_LIFETIME:
            raise StaleView("The index was read too long ago to rely on; go on from the last cursor.")
        if done:
            self.figures.stored = self._uploads.stored_bytes
            progress = Progress(self.draft, self.first, bytes(ids), self.figures.as_dict())
            save_progress(self.repository.store, self.repository.ciphers, progress)
            self.first = done.stop
            self.figures = Figures()
            self._uploads.stored_bytes = 0
            for number in done:
                del self._segments[number]
        if self.repository.clock() - self._view.taken > VIEW_LIFETIME / 4:
            self._look_again()
        return {"copy": self.draft.copy_id, "next": self.first, "end": self.end}

    def _store_map(self, segment: bytes) -> bytes:
        if is_zero(segment):
            return ZERO_ID
        map_id = self.repository.ciphers.map_id(segment)
        if self._claim(map_id):
            self._store(map_id, MAP, len(segment), segment)
        return map_id


def read_table(repository: Repository, key: str, name: bytes, size: int) -> IndexedPack:
    """What a pack says of itself. Raises `Damaged`."""
    store = repository.store
    if size < HEAD_BYTES + foot_bytes(1):
        raise Damaged(key, "it is cut short")
    cipher = PackReader(repository.ciphers, name, key).cipher(store.get(key, 0, HEAD_BYTES))
    entries = int.from_bytes(store.get(key, size - 12, 4), "little")
    length = foot_bytes(entries)
    if length > size:
        raise Damaged(key, "it does not end like a pack")
    return IndexedPack(name, size, cipher.table(store.get(key, size - length, length), size))
