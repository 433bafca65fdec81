"""Blocks of a volume, segments of its map, and the memory that knows where every block lies."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cpm.repository.cipher import ID_BYTES

BLOCK_BYTES = 512 * 1024
SEGMENT_BLOCKS = 1024
ZERO_ID = bytes(ID_BYTES)

DATA, MAP = 0, 1
RAW, ZSTD = 0, 1

U64: TypeAlias = npt.NDArray[np.uint64]
U32: TypeAlias = npt.NDArray[np.uint32]

_ZEROS = bytes(BLOCK_BYTES)
_BUCKET_BITS = 10
_SHIFT = np.uint64(64 - _BUCKET_BITS)
_BUCKETS = 1 << _BUCKET_BITS
_STAGED = 1 << 18
_RECENT = 1 << 13


def is_zero(block: bytes | bytearray | memoryview) -> bool:
    """Whether every byte is zero; a block that is not is usually told by its first bytes."""
    if bytes(block[:16]) != ZERO_ID:
        return False
    if isinstance(block, memoryview):
        words = np.frombuffer(block[: len(block) & ~7], dtype=np.uint64)
        return not words.any() and not any(block[len(block) & ~7 :])
    return block == (_ZEROS if len(block) == BLOCK_BYTES else bytes(len(block)))


def block_count(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def segment_count(blocks: int) -> int:
    return -(-blocks // SEGMENT_BLOCKS)


def segment_ids(segment: bytes) -> Iterator[bytes]:
    for start in range(0, len(segment), ID_BYTES):
        yield segment[start : start + ID_BYTES]


def split_ids(ids: bytes | memoryview) -> tuple[U64, U64]:
    """Packed ids as two arrays of numbers, most significant half first."""
    pairs = np.frombuffer(ids, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


class _Bucket:
    """One slice of the id space, sorted by the ids' upper halves."""

    __slots__ = ("high", "low", "pack")

    def __init__(self) -> None:
        self.high: U64 = np.empty(0, np.uint64)
        self.low: U64 = np.empty(0, np.uint64)
        self.pack: U32 = np.empty(0, np.uint32)

    def merge(self, high: U64, low: U64, pack: U32) -> None:
        high = np.concatenate((self.high, high))
        low = np.concatenate((self.low, low))
        pack = np.concatenate((self.pack, pack))
        order = np.argsort(high, kind="stable")
        if (np.diff(high[order]) == 0).any():
            # Entries of one block have to lie side by side.
            order = np.lexsort((pack, low, high))
        self.high, self.low, self.pack = high[order], low[order], pack[order]


class BlockIndex:
    """Which packs hold a block: 20 bytes per block, so 40 MiB for a TiB of distinct blocks.

    The whole id is compared, never a part of it. A block may be in several packs. Lookups may run in many threads
    while one adds, provided additions are serialised by the caller.
    """

    def __init__(self) -> None:
        self._buckets = [_Bucket() for _ in range(_BUCKETS)]
        self._staged: list[tuple[U64, U64, U32]] = []
        self._staged_count = 0
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        self.settle()
        return sum(len(bucket.high) for bucket in self._buckets)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for bucket in self._buckets for part in (bucket.high, bucket.low, bucket.pack))

    def add(self, block_id: bytes, pack: int) -> None:
        """Known from now on; meant for single new blocks of a writer."""
        if len(self._recent) >= _RECENT:
            self._drain_recent()
            self._distribute()
        self._recent[block_id] = pack

    def add_many(self, high: U64, low: U64, pack: int) -> None:
        """All of one pack, for loading; found after `settle`."""
        self._staged.append((high, low, np.full(len(high), pack, np.uint32)))
        self._staged_count += len(high)
        if self._staged_count >= _STAGED:
            self._distribute()

    def settle(self) -> None:
        self._drain_recent()
        self._distribute()

    def _drain_recent(self) -> None:
        if self._recent:
            recent = dict(self._recent)
            high, low = split_ids(b"".join(recent))
            self._staged.append((high, low, np.fromiter(recent.values(), np.uint32, len(recent))))
            self._staged_count += len(recent)

    def _distribute(self) -> None:
        if self._staged:
            high, low, pack = (np.concatenate(parts) for parts in zip(*self._staged, strict=True))
            self._staged.clear()
            self._staged_count = 0
            order = np.argsort(high, kind="stable")
            high, low, pack = high[order], low[order], pack[order]
            starts = np.searchsorted(high >> _SHIFT, np.arange(_BUCKETS + 1, dtype=np.uint64))
            for number in np.flatnonzero(np.diff(starts)):
                part = slice(starts[number], starts[number + 1])
                self._buckets[number].merge(high[part], low[part], pack[part])
        self._recent = {}

    def find(self, block_id: bytes) -> list[int]:
        """Numbers of the packs that hold the block, lowest first."""
        value = np.uint64(int.from_bytes(block_id[:8]))
        bucket = self._buckets[int(value >> _SHIFT)]
        high, low, pack = bucket.high, bucket.low, bucket.pack
        found: list[int] = []
        at = int(high.searchsorted(value))
        if at < len(high) and high[at] == value:
            rest = int.from_bytes(block_id[8:])
            while at < len(high) and high[at] == value:
                if int(low[at]) == rest:
                    found.append(int(pack[at]))
                at += 1
        recent = self._recent.get(block_id)
        if recent is not None:
            found.append(recent)
        return found

    def arrays(self) -> Iterable[tuple[U64, U64, U32]]:
        """Everything, in order of id, bucket by bucket."""
        self.settle()
        for bucket in self._buckets:
            yield bucket.high, bucket.low, bucket.pack


class Marks:
    """One flag for every entry of a `BlockIndex` that no longer changes."""

    def __init__(self, index: BlockIndex) -> None:
        index.settle()
        self._buckets = index._buckets
        self._flags = [np.zeros(len(bucket.high), bool) for bucket in self._buckets]

    def mark(self, ids: bytes) -> list[bytes]:
        """Flag all these blocks; returns those the index does not know."""
        unknown = []
        for block_id in set(segment_ids(ids)):
            if block_id != ZERO_ID and not self._mark(block_id):
                unknown.append(block_id)
        return unknown

    def _mark(self, block_id: bytes) -> bool:
        value = np.uint64(int.from_bytes(block_id[:8]))
        number = int(value >> _SHIFT)
        high, low = self._buckets[number].high, self._buckets[number].low
        rest = int.from_bytes(block_id[8:])
        known = False
        at = int(high.searchsorted(value))
        while at < len(high) and high[at] == value:
            if int(low[at]) == rest:
                self._flags[number][at] = known = True
            at += 1
        return known

    def marked(self) -> Iterator[tuple[bytes, list[int]]]:
        """Every flagged block with the packs that hold it."""
        for bucket, flags in zip(self._buckets, self._flags, strict=True):
            last, packs = b"", list[int]()
            for at in np.flatnonzero(flags):
                block_id = int(bucket.high[at]).to_bytes(8) + int(bucket.low[at]).to_bytes(8)
                if block_id != last:
                    if packs:
                        yield last, packs
                    last, packs = block_id, []
                packs.append(int(bucket.pack[at]))
            if packs:
                yield last, packs
