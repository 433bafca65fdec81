"""An image that is a tar of files: where everything lies in it, and the files read back. FORMAT.md, "Images of files".

The tar is the same for the same names and sizes, so any part of it can be made at any time, by anybody. Files of a block
or more begin at a block: one that has not changed has the same blocks as in the image before, wherever it has moved to.
"""

import io
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.reader import Reader

TRAILER = 2 * tarfile.BLOCKSIZE
AHEAD, READERS = 16, 4
"""Blocks that are read before they are asked for, and the threads that do so."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file of the image."""

    name: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A file in the image: the header from `at` on, then the data. `filler` bytes of comment bring that to a block."""

    name: str
    size: int
    at: int
    data: int
    filler: int


class Layout:
    """Where files of these names and sizes lie, in the order of their names. `size` is in whole blocks."""

    def __init__(self, files: Iterable[tuple[str, int]]) -> None:
        self._places: list[_Place] = []
        at = 0
        for name, size in sorted(files):
            filler, header = _aligned(name, size, at) if size >= BLOCK_BYTES else (0, len(_header(name, size)))
            self._places.append(_Place(name, size, at, at + header, filler))
            at = _full(at + header + size, tarfile.BLOCKSIZE)
        self._starts = [place.at for place in self._places]
        self.size = _full(at + TRAILER, BLOCK_BYTES)

    def pieces(self, start: int, end: int) -> Iterator[bytes | Range]:
        """What the bytes from `start` to `end` consist of, in order."""
        at = start
        for place in self._places[max(0, bisect_right(self._starts, start) - 1) :]:
            if place.at >= end:
                break
            if at < place.data:
                upto = min(end, place.data)
                yield _header(place.name, place.size, place.filler)[at - place.at : upto - place.at]
                at = upto
            if at < (upto := min(end, place.data + place.size)):
                yield Range(place.name, at - place.data, upto - at)
                at = upto
            if at < (upto := min(end, _full(place.data + place.size, tarfile.BLOCKSIZE))):
                yield bytes(upto - at)
                at = upto
        if at < end:
            yield bytes(end - at)


def _full(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _header(name: str, size: int, filler: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    if filler:
        info.pax_headers = {"comment": "-" * filler}
    return info.tobuf(tarfile.PAX_FORMAT)


def _aligned(name: str, size: int, at: int) -> tuple[int, int]:
    """Bytes of comment with which the data begins at a block, and the length of the header then."""
    plain = len(_header(name, size))
    if (at + plain) % BLOCK_BYTES == 0:
        return 0, plain
    least = len(_header(name, size, 1))
    wanted = _full(at + least, BLOCK_BYTES) - at
    filler = wanted - least + 1
    # The comment's own length is written in front of it, with as many digits as it needs.
    while len(_header(name, size, filler)) > wanted:
        filler -= 1
    return filler, wanted


class ImageFile(io.RawIOBase):
    """The bytes of an image, read on ahead by several threads. Raises what the reader raises."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at = 0
        self._threads = ThreadPoolExecutor(READERS, "image")
        self._read: OrderedDict[int, Future[bytes]] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.manifest.draft.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, target: "bytearray | memoryview") -> int:  # type: ignore[override]
        if self._at >= self._reader.manifest.draft.size:
            return 0
        block, start = divmod(self._at, BLOCK_BYTES)
        data = self._block(block)[start : start + len(target)]
        target[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        super().close()

    def _block(self, block: int) -> bytes:
        # Only who reads on is read for: whoever looks at headers skips the data.
        following = AHEAD if block - 1 in self._read else 1
        last = min(block + following, self._reader.manifest.draft.blocks)
        for number in range(block, last):
            if number not in self._read:
                self._read[number] = self._threads.submit(self._reader.read, number)
        found = self._read[block]
        while len(self._read) > AHEAD + 2:
            self._read.popitem(last=False)
        return found.result()


def opened(reader: Reader) -> tarfile.TarFile:
    """The files of an image. Close it, and the `fileobj` below it."""
    return tarfile.open(fileobj=io.BufferedReader(ImageFile(reader), BLOCK_BYTES), mode="r:")
