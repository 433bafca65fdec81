"""Which volumes a set of disks has: whole disks, partitions, and LVM over any of them."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cpm.explore import lvm, partition_tables
from cpm.explore.blocks import Readable, Slice
from cpm.explore.signatures import Signature, identify


@dataclass(frozen=True, slots=True)
class Volume:
    """Something that may hold a file system.

    `name` is unique in a session and has no slash; `disk` and `offset` are where it begins, without offset for a
    logical volume. `why_not` says why it cannot be opened, empty if it can.
    """

    name: str
    disk: str
    kind: str
    size: int
    label: str = ""
    offset: int | None = None
    why_not: str = ""
    content: Readable | None = None


def find_volumes(disks: Mapping[str, Readable]) -> list[Volume]:
    """All volumes of `disks`, by name of disk, in their order. What cannot be opened is in the list too."""
    found: list[Volume] = []
    physical: list[tuple[str, Readable]] = []
    for disk, content in disks.items():
        for volume in _readable_ones(disk, content):
            if volume.kind == "LVM2" and volume.content:
                physical.append((disk, volume.content))
            else:
                found.append(volume)
    names = ", ".join(dict.fromkeys(disk for disk, _ in physical))
    for logical in lvm.logical_volumes([content for _, content in physical]):
        name = f"{logical.group}-{logical.name}" if logical.name else logical.group
        found.append(_volume(name, names, None, logical.size, logical.content, why_not=logical.why_not))
    return list(_with_unique_names(found))


def _readable_ones(disk: str, content: Readable) -> list[Volume]:
    """One disk that makes no sense must not hide the others."""
    try:
        return list(_of_disk(disk, content))
    except (OSError, ValueError, IndexError, struct.error) as error:
        reason = f"its partition table is damaged ({error})"
        return [Volume(disk, disk, "unknown", content.size, offset=0, why_not=reason)]


def _of_disk(disk: str, content: Readable) -> Iterator[Volume]:
    whole = identify(content)
    # Boot loaders leave their mark before the first partition, so a table counts more than a file system of which
    # only the superblock is seen; but the boot sectors of these file systems look like tables themselves.
    clear = whole.kind in {"NTFS", "exFAT", "FAT12", "FAT16", "FAT32", "BitLocker", "LUKS", "LVM2", "XFS"}
    table = None if clear else partition_tables.partitions(content)
    if table is None:
        yield _volume(disk, disk, 0, content.size, content, found=whole)
        return
    if not table:
        reason = "its partition table is empty or damaged"
        yield Volume(disk, disk, "unknown", content.size, offset=0, why_not=reason)
    for partition in table:
        reason = "it is part of a Windows dynamic disk" if partition.dynamic else ""
        part = Slice(content, partition.offset, partition.size)
        name = f"{disk}-part{partition.number}"
        yield _volume(name, disk, partition.offset, part.size, part, label=partition.label, why_not=reason)


def _volume(
    name: str,
    disk: str,
    offset: int | None,
    size: int,
    content: Readable | None,
    *,
    found: Signature | None = None,
    label: str = "",
    why_not: str = "",
) -> Volume:
    if content is None or why_not:
        return Volume(name, disk, "unknown", size, label, offset, why_not)
    try:
        found = found or identify(content)
    except OSError as error:
        return Volume(name, disk, "unknown", size, label, offset, f"its beginning cannot be read ({error})")
    return Volume(name, disk, found.kind, size, found.label or label, offset, found.why_not, content)


def _with_unique_names(volumes: list[Volume]) -> Iterator[Volume]:
    taken: set[str] = set()
    for volume in volumes:
        name = base = volume.name.replace("/", "_").replace("\0", "") or "volume"
        count = 2
        while name in taken:
            name, count = f"{base}-{count}", count + 1
        taken.add(name)
        yield replace(volume, name=name)
