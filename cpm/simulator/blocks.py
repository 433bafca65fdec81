"""Block data: immutable 512 KiB blocks named by their SHA-256, and maps from block index to block.

A volume and a snapshot are each one map. Taking a snapshot copies the map, so it costs nothing in bytes and
later writes to the volume cannot reach it; a difference of snapshots is a difference of maps.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

BLOCK = 512 * 1024
GIB = 1024**3
ZEROS = bytes(BLOCK)
ZERO_DIGEST = hashlib.sha256(ZEROS).digest()

BlockMap = dict[int, bytes]


class BlockStore:
    """Blocks below a folder, counted by reference; safe for use by many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.references: Counter[bytes] = Counter()
        self.names = count()
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, digest: bytes) -> Path:
        text = digest.hex()
        return self.folder / text[:2] / text

    def put(self, data: bytes) -> bytes:
        """Stores one whole block and returns its digest, holding one reference to it."""
        digest = hashlib.sha256(data).digest()
        if digest == ZERO_DIGEST:
            return digest
        with self.lock:
            if self.references[digest] > 0:
                self.references[digest] += 1
                return digest
        path = self._path(digest)
        path.parent.mkdir(exist_ok=True)
        temporary = self.folder / f"new-{os.getpid()}-{next(self.names)}"
        temporary.write_bytes(data)
        with self.lock:
            os.replace(temporary, path)
            self.references[digest] += 1
        return digest

    def get(self, digest: bytes) -> bytes:
        """The block's bytes; raises FileNotFoundError once nothing refers to it."""
        return ZEROS if digest == ZERO_DIGEST else self._path(digest).read_bytes()

    def retain(self, blocks: BlockMap) -> BlockMap:
        """A copy of the map that keeps its blocks alive until released."""
        copied = dict(blocks)
        with self.lock:
            self.references.update(digest for digest in copied.values() if digest != ZERO_DIGEST)
        return copied

    def release(self, digests: Iterator[bytes] | list[bytes]) -> None:
        """Drops one reference for each digest; blocks that nothing refers to are deleted."""
        with self.lock:
            for digest in digests:
                if digest == ZERO_DIGEST:
                    continue
                self.references[digest] -= 1
                if self.references[digest] <= 0:
                    del self.references[digest]
                    self._path(digest).unlink(missing_ok=True)

    def recount(self, maps: Iterator[BlockMap]) -> None:
        """Sets the references from the maps that exist, and deletes every block that none names."""
        with self.lock:
            self.references = Counter(d for blocks in maps for d in blocks.values() if d != ZERO_DIGEST)
            for path in self.folder.glob("*/*"):
                if bytes.fromhex(path.name) not in self.references:
                    path.unlink(missing_ok=True)
            for path in self.folder.glob("new-*"):
                path.unlink(missing_ok=True)

    def stored_bytes(self) -> int:
        """Bytes of all the distinct blocks."""
        with self.lock:
            return len(self.references) * BLOCK

    # -- bytes of a map -----------------------------------------------------------------------------------

    def read(self, blocks: BlockMap, start: int, length: int) -> Iterator[bytes]:
        """The bytes from ``start``, in pieces no longer than a block; holes read as zeros."""
        position, end = start, start + length
        while position < end:
            index, inside = divmod(position, BLOCK)
            wanted = min(BLOCK - inside, end - position)
            digest = blocks.get(index)
            data = ZEROS if digest is None else self.get(digest)
            yield data[inside : inside + wanted]
            position += wanted

    def write(self, blocks: BlockMap, start: int, data: bytes) -> None:
        """Writes bytes at ``start``. A hole that is written with zeros stays a hole."""
        view, position = memoryview(data), start
        while view:
            index, inside = divmod(position, BLOCK)
            taken = min(BLOCK - inside, len(view))
            self._write_block(blocks, index, inside, bytes(view[:taken]))
            view, position = view[taken:], position + taken

    def _write_block(self, blocks: BlockMap, index: int, inside: int, piece: bytes) -> None:
        old = blocks.get(index)
        if len(piece) < BLOCK:
            before = bytearray(ZEROS if old is None else self.get(old))
            before[inside : inside + len(piece)] = piece
            piece = bytes(before)
        digest = self.put(piece)
        if old is None and digest == ZERO_DIGEST:
            return
        blocks[index] = digest
        if old is not None:
            self.release([old])

    def sha256(self, blocks: BlockMap, size: int) -> str:
        """SHA-256 of a whole volume's bytes."""
        total = hashlib.sha256()
        for piece in self.read(blocks, 0, size):
            total.update(piece)
        return total.hexdigest()


def fingerprint(blocks: BlockMap) -> str:
    """A digest of the contents from the digests of the blocks; blocks of zeros count as holes."""
    total = hashlib.sha256()
    for index in sorted(index for index, digest in blocks.items() if digest != ZERO_DIGEST):
        total.update(index.to_bytes(8, "big") + blocks[index])
    return total.hexdigest()


def changed(first: BlockMap, second: BlockMap) -> list[int]:
    """Indexes at which the two differ, in order; both ways round the same."""
    return sorted(index for index in first.keys() | second.keys() if first.get(index) != second.get(index))
