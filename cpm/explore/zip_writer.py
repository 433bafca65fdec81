"""A zip that is sent while it is written: nothing is ever patched, and its directory waits in a spooled file.

Sizes and checksums follow each file's content. ZIP64 is used where a size, an offset or the number of entries needs
it, so any unzip program reads what fits the old format.
"""

import datetime
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator

DESCRIPTOR_FOLLOWS, NAME_IS_UTF8 = 0x8, 0x800
STORED, DEFLATED = 0, 8
PLAIN_VERSION, ZIP64_VERSION = 20, 45
MADE_ON_UNIX = 3 << 8
NONE_16, NONE_32 = 0xFFFF, 0xFFFF_FFFF
# Content that does not compress grows a little.
ZIP64_FROM = 0xF000_0000
MAX_NAME = 0xFFFF
SPOOL_MEMORY = 1024 * 1024
LEVEL = 1
PIECE = 256 * 1024

LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")


class ZipWriter:
    """Every method gives the next pieces of the zip; they belong one after the other into the stream."""

    def __init__(self) -> None:
        self._directory = tempfile.SpooledTemporaryFile(SPOOL_MEMORY)  # noqa: SIM115 - `close` closes it
        self._offset = 0
        self._count = 0

    def add_folder(self, name: str, modified: float | None) -> Iterator[bytes]:
        raw = _name(name.rstrip("/") + "/")
        date, time = _dos_time(modified)
        extra = _time_extra(modified)
        start = self._offset
        header = (PLAIN_VERSION, NAME_IS_UTF8, STORED, time, date, 0, 0, 0)
        yield self._sent(LOCAL.pack(0x04034B50, *header, len(raw), len(extra)) + raw + extra)
        self._record(header, raw, extra, start, (stat.S_IFDIR | 0o755) << 16 | 0x10)

    def add_file(
        self, name: str, size: int, modified: float | None, content: Iterable[bytes]
    ) -> Iterator[bytes]:
        """`content` must have `size` bytes. Its errors pass through and leave a zip that no program opens."""
        raw = _name(name)
        date, time = _dos_time(modified)
        extra = _time_extra(modified)
        start = self._offset
        large = size >= ZIP64_FROM
        version = ZIP64_VERSION if large else PLAIN_VERSION
        flags = DESCRIPTOR_FOLLOWS | NAME_IS_UTF8
        unknown = NONE_32 if large else 0
        local_extra = extra + (struct.pack("<HHQQ", 1, 16, 0, 0) if large else b"")
        fields = (version, flags, DEFLATED, time, date, 0, unknown, unknown)
        yield self._sent(LOCAL.pack(0x04034B50, *fields, len(raw), len(local_extra)) + raw + local_extra)
        begin = self._offset
        checksum = read = 0
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        for piece in content:
            checksum = zlib.crc32(piece, checksum)
            read += len(piece)
            if packed := deflate.compress(piece):
                yield self._sent(packed)
        if read != size:
            raise ValueError(f"{read} bytes came instead of {size}")
        yield self._sent(deflate.flush())
        packed_size = self._offset - begin
        yield self._sent(struct.pack("<IIQQ" if large else "<IIII", 0x08074B50, checksum, packed_size, size))
        fields = (version, flags, DEFLATED, time, date, checksum, packed_size, size)
        self._record(fields, raw, extra, start, (stat.S_IFREG | 0o644) << 16)

    def finish(self) -> Iterator[bytes]:
        """The directory, without which the file is no zip."""
        start, size, count = self._offset, self._directory.tell(), self._count
        self._directory.seek(0)
        while piece := self._directory.read(PIECE):
            yield self._sent(piece)
        if count >= NONE_16 or start >= NONE_32 or size >= NONE_32:
            end = self._offset
            record = (44, MADE_ON_UNIX | ZIP64_VERSION, ZIP64_VERSION, 0, 0, count, count, size, start)
            yield self._sent(struct.pack("<IQHHIIQQQQ", 0x06064B50, *record))
            yield self._sent(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        short = min(count, NONE_16)
        sizes = min(size, NONE_32), min(start, NONE_32)
        yield self._sent(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, short, short, *sizes, 0))

    def close(self) -> None:
        self._directory.close()

    def _sent(self, piece: bytes) -> bytes:
        self._offset += len(piece)
        return piece

    def _record(
        self,
        fields: tuple[int, int, int, int, int, int, int, int],
        name: bytes,
        extra: bytes,
        start: int,
        attributes: int,
    ) -> None:
        *early, packed, size = fields
        large = [each for each in (size, packed, start) if each >= NONE_32]
        if large:
            early[0] = ZIP64_VERSION
            extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) + extra
        packed, size, start = (min(each, NONE_32) for each in (packed, size, start))
        made_by = MADE_ON_UNIX | ZIP64_VERSION
        record = CENTRAL.pack(
            0x02014B50, made_by, *early, packed, size, len(name), len(extra), 0, 0, 0, attributes, start
        )
        self._directory.write(record + name + extra)
        self._count += 1


def _name(name: str) -> bytes:
    raw = name.encode("utf-8")
    if len(raw) > MAX_NAME:
        raise ValueError("the name is too long for a zip")
    return raw


def _dos_time(modified: float | None) -> tuple[int, int]:
    """Date and time as zips keep them: from 1980 to 2107, every other second, here in UTC."""
    try:
        moment = datetime.datetime.fromtimestamp(modified or 0, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
    if not 1980 <= moment.year <= 2107:
        moment = moment.replace(year=1980 if moment.year < 1980 else 2107, month=1, day=1)
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second // 2


def _time_extra(modified: float | None) -> bytes:
    """The time to the second, which unzip prefers."""
    if modified is None or not -(1 << 31) <= modified < 1 << 31:
        return b""
    return struct.pack("<HHBi", 0x5455, 5, 1, int(modified))
