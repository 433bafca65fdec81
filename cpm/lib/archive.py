"""A compressed tar file as a stream of bytes, made while it is sent."""

import bz2
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

CHUNK = 64 * 1024
# A tar file ends with two empty records of 512 bytes.
END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Member:
    """One text file of an archive. Its pieces are read once, when its turn comes."""

    name: str
    pieces: Iterable[str]


def tar_bz2(members: Iterable[Member], *, modified: datetime) -> Iterator[bytes]:
    """The archive of these files, compressed with bzip2.

    Memory stays constant whatever the size: a tar header needs the length of its file, so each one waits for its turn in
    a temporary file. What fails while a member is read raises out of the iteration.
    """
    packer = bz2.BZ2Compressor()
    for member in members:
        with tempfile.TemporaryFile() as spool:
            for piece in member.pieces:
                spool.write(piece.encode(errors="replace"))
            info = tarfile.TarInfo(member.name)
            info.size, info.mtime, info.mode = spool.tell(), int(modified.timestamp()), 0o600
            spool.seek(0)
            yield packer.compress(info.tobuf(format=tarfile.PAX_FORMAT))
            while chunk := spool.read(CHUNK):
                yield packer.compress(chunk)
            yield packer.compress(bytes(-info.size % tarfile.BLOCKSIZE))
    yield packer.compress(END)
    yield packer.flush()
