"""A volume as bytes at an offset, over a source that hands out 512 KiB blocks."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from cpm.explore.errors import SourceFailed

BLOCK_SIZE = 512 * 1024
CACHED_BLOCKS = 64
READ_AHEAD = 4
FETCHERS = 8


class BlockSource(Protocol):
    """What a backup offers: its size in bytes and its blocks. Called from several threads at once."""

    @property
    def size(self) -> int: ...

    def read_block(self, index: int) -> bytes | None:
        """Block `index`, None when it is all zeros; the last one may be short. Any exception means: try later."""


class Readable(Protocol):
    """Bytes at an offset. A read inside `size` returns exactly what was asked for, or raises."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class RawFile:
    """An image in a file as a block source."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lock = threading.Lock()
        self.size = self._file.seek(0, 2)

    def read_block(self, index: int) -> bytes | None:
        with self._lock:
            self._file.seek(index * BLOCK_SIZE)
            data = self._file.read(BLOCK_SIZE)
        return data if data.strip(b"\0") else None

    def close(self) -> None:
        self._file.close()


class BlockCache:
    """The blocks used last, of one device or of several that share the memory. Safe to use from several threads."""

    def __init__(self, blocks: int = CACHED_BLOCKS) -> None:
        # What one read needs next, and what was fetched ahead of it, must never push each other out.
        self._capacity = max(blocks, 2 * (FETCHERS + READ_AHEAD))
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], bytes | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._blocks

    def get(self, key: tuple[int, int]) -> bytes | None:
        """The block, now the one used last. Raises KeyError when it is not here, or not any more."""
        with self._lock:
            self._blocks.move_to_end(key)
            return self._blocks[key]

    def put(self, key: tuple[int, int], block: bytes | None) -> None:
        with self._lock:
            self._blocks[key] = block
            while len(self._blocks) > self._capacity:
                self._blocks.popitem(last=False)


class Device:
    """Random reads over a block source, through a cache of the blocks used last.

    Blocks of one read are fetched side by side. When reading goes on where it left off, the following blocks are
    fetched ahead. Safe to use from several threads; no block is fetched twice at the same time. Memory is bounded
    by the cache, which devices that are not read at the same moment may share, and what is in flight.
    """

    def __init__(
        self,
        source: BlockSource,
        *,
        cached_blocks: int = CACHED_BLOCKS,
        read_ahead: int = READ_AHEAD,
        cache: BlockCache | None = None,
    ) -> None:
        self._source = source
        self.size = source.size
        self._count = -(-self.size // BLOCK_SIZE)
        self._read_ahead = read_ahead
        self._lock = threading.Lock()
        self._cache = BlockCache(cached_blocks) if cache is None else cache
        self._pending: dict[int, Future[bytes | None]] = {}
        self._fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="explore-blocks")
        self.bytes_fetched = 0
        self.blocks_fetched = 0

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`, fewer only past the end.

        Raises SourceFailed when the source does not deliver a block.
        """
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        parts = []
        for index, block in self._blocks(offset // BLOCK_SIZE, (end - 1) // BLOCK_SIZE):
            start = max(offset - index * BLOCK_SIZE, 0)
            stop = min(end - index * BLOCK_SIZE, BLOCK_SIZE)
            parts.append(bytes(stop - start) if block is None else block[start:stop])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _blocks(self, first: int, last: int) -> Iterator[tuple[int, bytes | None]]:
        for index in range(first, last + 1):
            for ahead in range(index, min(last + 1, index + FETCHERS)):
                self._wanted(ahead)
            yield index, self._block(index)

    def _block(self, index: int) -> bytes | None:
        wanted = self._wanted(index)
        return wanted.result() if isinstance(wanted, Future) else wanted

    def _wanted(self, index: int) -> "bytes | Future[bytes | None] | None":
        with self._lock:
            try:
                return self._cache.get(self._key(index))
            except KeyError:
                future = self._pending.get(index) or self._fetch_later(index)
            if self._key(index - 1) in self._cache or index - 1 in self._pending:
                for ahead in range(index + 1, min(index + 1 + self._read_ahead, self._count)):
                    if self._key(ahead) not in self._cache and ahead not in self._pending:
                        self._fetch_later(ahead)
            return future

    def _key(self, index: int) -> tuple[int, int]:
        return id(self), index

    def _fetch_later(self, index: int) -> "Future[bytes | None]":
        future = self._fetchers.submit(self._fetch, index)
        self._pending[index] = future
        return future

    def _fetch(self, index: int) -> bytes | None:
        try:
            block = self._source.read_block(index)
            expected = min(BLOCK_SIZE, self.size - index * BLOCK_SIZE)
            if block is not None and len(block) < expected:
                raise EOFError(f"block {index} has {len(block)} bytes instead of {expected}")
        except Exception as error:  # a source may raise anything its store raises
            with self._lock:
                self._pending.pop(index, None)
            raise SourceFailed(reason=str(error).rstrip(".") or type(error).__name__) from error
        with self._lock:
            self._pending.pop(index, None)
            self._cache.put(self._key(index), block)
            if block is not None:
                self.bytes_fetched += len(block)
                self.blocks_fetched += 1
        return block


class Slice:
    """A part of something readable, such as a partition of a disk."""

    def __init__(self, whole: Readable, offset: int, size: int) -> None:
        self._whole = whole
        self._offset = offset
        self.size = max(0, min(size, whole.size - offset))

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return self._whole.read(self._offset + offset, length) if length else b""


class FileObject:
    """Something readable as the file object that the libraries of file systems ask for."""

    def __init__(self, readable: Readable) -> None:
        self._readable = readable
        self._position = 0

    def get_size(self) -> int:
        return self._readable.size

    def read(self, size: int = -1) -> bytes:
        length = self._readable.size - self._position if size < 0 else size
        data = self._readable.read(self._position, length)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._readable.size)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Nothing is held open."""
