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
        # Digests that nothing refers to any more, whose files stay until the next saved state no longer names them.
        self.unnamed: set[bytes] = set()
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
        """Drops one reference for each digest; the files of blocks that nothing refers to go with ``delete``."""
        with self.lock:
            for digest in digests:
                if digest == ZERO_DIGEST:
                    continue
                self.references[digest] -= 1
                if self.references[digest] <= 0:
                    del self.references[digest]
                    self.unnamed.add(digest)

    def take_unnamed(self) -> set[bytes]:
        """The digests that nothing refers to, to be deleted once that is on disk."""
        with self.lock:
            taken, self.unnamed = self.unnamed, set()
            return taken

    def delete(self, digests: set[bytes]) -> None:
        """Deletes the files of those digests that nothing refers to still."""
        for digest in digests:
            with self.lock:
                if digest not in self.references:
                    self._path(digest).unlink(missing_ok=True)

    def recount(self, maps: Iterator[BlockMap]) -> None:
        """Sets the references from the maps that exist, and deletes every block that none names."""
        with self.lock:
            self.references = Counter(d for blocks in maps for d in blocks.values() if d != ZERO_DIGEST)
            self.unnamed.clear()
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

    def stage(self, start: int, data: bytes) -> list[tuple[int, int, bytes]]:
        """Stores the whole blocks of bytes that begin at ``start``, without touching any map.

        Answers index, place in the block and either the digest (of a whole block) or the bytes (of a part).
        """
        view, position, staged = memoryview(data), start, []
        while view:
            index, inside = divmod(position, BLOCK)
            taken = min(BLOCK - inside, len(view))
            piece = bytes(view[:taken])
            staged.append((index, -1, self.put(piece)) if taken == BLOCK else (index, inside, piece))
            view, position = view[taken:], position + taken
        return staged

    def apply(self, blocks: BlockMap, staged: list[tuple[int, int, bytes]]) -> None:
        """Puts staged blocks into a map. A hole that is written with zeros stays a hole."""
        for index, inside, content in staged:
            old = blocks.get(index)
            if inside >= 0:
                before = bytearray(ZEROS if old is None else self.get(old))
                before[inside : inside + len(content)] = content
                digest = self.put(bytes(before))
            else:
                digest = content
            if old is None and digest == ZERO_DIGEST:
                continue
            blocks[index] = digest
            if old is not None:
                self.release([old])

    def discard(self, staged: list[tuple[int, int, bytes]]) -> None:
        """Gives up staged blocks."""
        self.release([content for _, inside, content in staged if inside < 0])

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
