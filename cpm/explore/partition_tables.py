"""Partition tables: MBR with extended partitions, and GPT. Both are read defensively: loops and nonsense end them."""

import struct
import uuid
from dataclasses import dataclass

from cpm.explore.blocks import Readable

SECTOR = 512
MAX_PARTITIONS = 256
EXTENDED = {0x05, 0x0F, 0x85}
PROTECTIVE = 0xEE
DYNAMIC_DISK = 0x42
GPT_DYNAMIC_DATA = uuid.UUID("af9b60a0-1431-4f62-bc68-3311714a69ad")


@dataclass(frozen=True, slots=True)
class Partition:
    """`number` counts as the operating system does: 1 to 4, logical ones of an MBR from 5."""

    number: int
    offset: int
    size: int
    label: str = ""
    dynamic: bool = False


def partitions(disk: Readable) -> list[Partition] | None:
    """The partitions of `disk` by number, None if it has no partition table."""
    start = disk.read(0, SECTOR)
    # A table written for sectors of 4 KiB has its header there.
    for sector in (512, 4096):
        if disk.read(sector, 8) == b"EFI PART":
            return _gpt(disk, sector, sector)
    if len(start) < SECTOR or start[510:512] != b"\x55\xaa":
        return None
    entries = _entries(start)
    if any(kind == PROTECTIVE for kind, _, _ in entries):
        # The copy of a GPT stands at the end of the disk.
        return _gpt(disk, disk.size - SECTOR, SECTOR)
    if not _plausible(start, disk.size):
        return None
    return _mbr(disk, entries)


def _entries(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four entries."""
    return [(sector[at + 4], *struct.unpack_from("<II", sector, at + 8)) for at in range(446, 510, 16)]


def _plausible(sector: bytes, size: int) -> bool:
    """Boot sectors of file systems end in the same mark; their code makes no sense as a table."""
    if any(sector[at] not in {0x00, 0x80} for at in range(446, 510, 16)):
        return False
    used = [(first, count) for kind, first, count in _entries(sector) if kind and count]
    return bool(used) and all(0 < first * SECTOR < size for first, _ in used)


def _mbr(disk: Readable, entries: list[tuple[int, int, int]]) -> list[Partition]:
    found = []
    for number, (kind, first, count) in enumerate(entries, 1):
        if kind in EXTENDED:
            found += _logical(disk, first)
        elif kind and count:
            found.append(_partition(disk, number, first, count, kind))
    return sorted(found, key=lambda partition: partition.number)


def _partition(disk: Readable, number: int, first: int, count: int, kind: int) -> Partition:
    offset = first * SECTOR
    size = max(0, min(count * SECTOR, disk.size - offset))
    return Partition(number, offset, size, dynamic=kind == DYNAMIC_DISK)


def _logical(disk: Readable, extended: int) -> list[Partition]:
    found: list[Partition] = []
    seen: set[int] = set()
    at = extended
    while at not in seen and len(found) < MAX_PARTITIONS:
        seen.add(at)
        sector = disk.read(at * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[510:512] != b"\x55\xaa":
            break
        (kind, first, count), (next_kind, next_first, _), *_rest = _entries(sector)
        if kind and count:
            found.append(_partition(disk, 5 + len(found), at + first, count, kind))
        if next_kind not in EXTENDED or not next_first:
            break
        at = extended + next_first
    return found


def _gpt(disk: Readable, header_at: int, sector: int) -> list[Partition] | None:
    header = disk.read(header_at, 92)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return None
    table, count, width = struct.unpack_from("<QII", header, 72)
    if not 128 <= width <= 4096:
        return []
    count = min(count, MAX_PARTITIONS)
    raw = disk.read(table * sector, count * width)
    found = []
    for index in range(len(raw) // width):
        entry = raw[index * width : (index + 1) * width]
        first, last = struct.unpack_from("<QQ", entry, 32)
        if not any(entry[:16]) or last < first or first * sector >= disk.size:
            continue
        size = min((last - first + 1) * sector, disk.size - first * sector)
        name = entry[56:128].decode("utf-16-le", "replace").split("\0", 1)[0]
        label = "".join(each for each in name if each.isprintable())
        dynamic = uuid.UUID(bytes_le=entry[:16]) == GPT_DYNAMIC_DATA
        found.append(Partition(index + 1, first * sector, size, label, dynamic))
    return found
