"""The file systems that the demo protects: reading the packed images, and knowing which bytes are which file."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent / "fixtures"
PIECE = 512 * 1024
ZEROS = bytes(PIECE)
LEDGER = "ledger"

# Reads `length` bytes at `offset` of a volume.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class File:
    """A file of an image: `pieces` are the offsets and lengths on the volume at which its bytes lie, in order."""

    path: str
    sha256: str
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Image:
    """One ext4 file system that fills a volume of `bytes`."""

    name: str
    bytes: int
    files: tuple[File, ...]

    @property
    def ledger(self) -> tuple[int, int]:
        """Offset and length of the file that is written to while the demo runs; it lies in one piece."""
        (piece,) = next(one.pieces for one in self.files if one.path.endswith(f"/{LEDGER}"))
        return piece

    @property
    def settled_files(self) -> list[File]:
        """The files that nobody writes to."""
        return [one for one in self.files if not one.path.endswith(f"/{LEDGER}")]


def load(name: str) -> Image:
    """The image of that name. What it holds is known without unpacking it."""
    held = json.loads((FIXTURES / f"{name}.json").read_text())
    files = (
        File(one["path"], one["sha256"], tuple((offset, length) for offset, length in one["pieces"]))
        for one in held["files"]
    )
    return Image(name, held["bytes"], tuple(files))


def pieces(image: Image) -> Iterator[tuple[int, bytes]]:
    """Offsets and bytes of everything in the image that is not zero."""
    with tarfile.open(FIXTURES / f"{image.name}.tar.xz", "r:xz") as archive:
        member = archive.getmembers()[0]
        content = archive.extractfile(member)
        assert content is not None and member.size == image.bytes
        for offset in range(0, image.bytes, PIECE):
            data = content.read(PIECE)
            if data != ZEROS[: len(data)]:
                yield offset, data


def damaged(files: Iterable[File], read: Read) -> list[str]:
    """Paths of the files whose bytes on the volume are not those they were made of."""
    found = []
    for file in files:
        content = b"".join(read(offset, length) for offset, length in file.pieces)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            found.append(file.path)
    return found
