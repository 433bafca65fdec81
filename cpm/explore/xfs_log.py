"""Tells whether an XFS was unmounted cleanly. Its log is not replayed here, so this decides what may be missing."""

import struct
from dataclasses import dataclass

from cpm.explore.blocks import Readable

SECTOR = 512
RECORD_MAGIC = b"\xfe\xed\xba\xbe"
UNMOUNT = 0x20
# No record is longer than 256 KiB and its header.
LONGEST_RECORD = 288 * 1024
CYCLES_PER_HEADER = 32 * 1024


@dataclass(frozen=True, slots=True)
class _Log:
    volume: Readable
    start: int
    sectors: int

    def sector(self, index: int, count: int = 1) -> bytes:
        return self.volume.read(self.start + index * SECTOR, count * SECTOR)

    def cycle(self, index: int) -> int:
        """How often the log had been filled when this sector was written; every sector carries that number."""
        return _cycle(self.sector(index))


def is_clean(volume: Readable) -> bool:
    """Whether the last record of the log says that the file system was unmounted and nothing is left to replay.

    Whatever cannot be understood counts as not clean.
    """
    log = _find(volume)
    if log is None:
        return False
    try:
        head = _head(log)
        return head is None or _ends_with_unmount(log, head)
    except struct.error:
        return False


def _find(volume: Readable) -> _Log | None:
    superblock = volume.read(0, SECTOR)
    block_size = struct.unpack_from(">I", superblock, 4)[0]
    start = struct.unpack_from(">Q", superblock, 48)[0]
    group_blocks = struct.unpack_from(">I", superblock, 84)[0]
    blocks = struct.unpack_from(">I", superblock, 96)[0]
    group_bits = superblock[124]
    if not start or not blocks or group_bits > 32:
        # Without a start the log is on a device of its own.
        return None
    group, within = start >> group_bits, start & ((1 << group_bits) - 1)
    offset = (group * group_blocks + within) * block_size
    sectors = blocks * block_size // SECTOR
    return _Log(volume, offset, sectors) if 0 < offset + sectors * SECTOR <= volume.size else None


def _cycle(sector: bytes) -> int:
    number: int = struct.unpack_from(">I", sector, 4 if sector[:4] == RECORD_MAGIC else 0)[0]
    return number


def _head(log: _Log) -> int | None:
    """The sector that would be written next, None when the log was never written."""
    first, last = log.cycle(0), log.cycle(log.sectors - 1)
    if first == 0:
        return None
    if first == last:
        return log.sectors
    low, high = 0, log.sectors - 1
    # From the start to the head sectors carry the newest cycle, behind it the one before (or none yet).
    while high - low > 1:
        middle = (low + high) // 2
        if log.cycle(middle) == first:
            low = middle
        else:
            high = middle
    return high


def _ends_with_unmount(log: _Log, head: int) -> bool:
    start = max(0, head - LONGEST_RECORD // SECTOR)
    raw = log.sector(start, head - start)
    found = raw.rfind(RECORD_MAGIC)
    while found % SECTOR and found >= 0:
        found = raw.rfind(RECORD_MAGIC, 0, found)
    if found < 0:
        return False
    return _is_unmount(log, start + found // SECTOR, raw[found : found + SECTOR], head)


def _is_unmount(log: _Log, index: int, header: bytes, head: int) -> bool:
    length = struct.unpack_from(">I", header, 12)[0]
    operations = struct.unpack_from(">I", header, 40)[0]
    size = struct.unpack_from(">I", header, 320)[0]
    headers = max(1, -(-size // CYCLES_PER_HEADER)) if header[11] & 2 else 1
    end = index + headers + -(-length // SECTOR)
    if operations != 1 or end % log.sectors != head % log.sectors:
        return False
    operation = log.sector((index + headers) % log.sectors)
    return len(operation) > 9 and bool(operation[9] & UNMOUNT)
