"""Logical volumes of LVM2, also of groups that span several disks.

Linear and striped volumes are arithmetic over extents; all others (thin, RAID, cache) are named and not opened.
"""

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpm.explore import lvm_metadata as metadata
from cpm.explore.blocks import Readable, Slice
from cpm.explore.lvm_metadata import MetadataDamaged, Section

SECTOR = 512
MAX_METADATA = 16 * 1024 * 1024
MAX_STRIPES = 128
AREA_MAGIC = b" LVM2 x[5A%r0N*>"
DAMAGED = "its LVM metadata cannot be read"


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """`content` is None when the volume cannot be opened; `why_not` says why."""

    group: str
    name: str
    size: int
    content: Readable | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Segment:
    start: int
    size: int
    stripe_size: int
    stripes: tuple[Readable, ...]

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes: those that lie in one piece on one disk."""
        count = len(self.stripes)
        if count == 1:
            return self.stripes[0].read(offset, length)
        chunk, within = divmod(offset, self.stripe_size)
        length = min(length, self.stripe_size - within)
        return self.stripes[chunk % count].read(chunk // count * self.stripe_size + within, length)


class _Extents:
    """A logical volume as one run of bytes."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.start)
        self._starts = [segment.start for segment in self._segments]
        position = 0
        for segment in self._segments:
            if segment.start != position:
                raise MetadataDamaged("segments do not follow each other")
            position += segment.size
        self.size = position

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        parts = []
        while offset < end:
            segment = self._segments[bisect_right(self._starts, offset) - 1]
            within = offset - segment.start
            part = segment.read(within, min(end - offset, segment.size - within))
            if not part:
                raise OSError(f"the logical volume has no data at {offset}")
            parts.append(part)
            offset += len(part)
        return b"".join(parts)


def logical_volumes(physical: Sequence[Readable]) -> list[LogicalVolume]:
    """All logical volumes that users see of the groups which the physical volumes form."""
    disks: dict[str, Readable] = {}
    groups: dict[tuple[str, str], tuple[int, Section]] = {}
    found: list[LogicalVolume] = []
    for content in physical:
        try:
            identifier, text = _inspect(content)
            disks[identifier] = content
            for name, group in metadata.sections(metadata.parse(text)).items():
                # Copies of one machine have groups of the same name; their identifiers tell them apart.
                key = name, str(group.get("id"))
                if key not in groups or metadata.number(group, "seqno") > groups[key][0]:
                    groups[key] = metadata.number(group, "seqno"), group
        except (MetadataDamaged, struct.error):
            found.append(LogicalVolume("lvm", "", content.size, None, DAMAGED))
    for key in sorted(groups):
        try:
            found += _open_group(key[0], groups[key][1], disks)
        except MetadataDamaged:
            found.append(LogicalVolume(key[0], "", 0, None, DAMAGED))
    return found


def _inspect(content: Readable) -> tuple[str, str]:
    """The identifier of a physical volume and the text of its newest metadata."""
    head = content.read(0, 4 * SECTOR)
    for at in range(0, len(head), SECTOR):
        label = head[at : at + SECTOR]
        if label[:8] == b"LABELONE":
            start = struct.unpack_from("<I", label, 20)[0]
            identifier = label[start : start + 32].decode("ascii", "replace")
            for offset in _metadata_areas(label, start + 40):
                if text := _metadata_text(content, offset):
                    return identifier, text
            # A physical volume may keep no metadata as long as another of its group does.
            return identifier, ""
    raise MetadataDamaged("there is no label")


def _metadata_areas(label: bytes, at: int) -> list[int]:
    """Two lists of (offset, size) follow, each closed by zeros: first the data areas, then the metadata areas."""
    closed = 0
    found = []
    while closed < 2 and at + 16 <= len(label):
        offset = struct.unpack_from("<Q", label, at)[0]
        at += 16
        if not offset:
            closed += 1
        elif closed:
            found.append(offset)
    return found


def _metadata_text(content: Readable, offset: int) -> str:
    area = content.read(offset, SECTOR)
    if len(area) < SECTOR or area[4:20] != AREA_MAGIC:
        return ""
    area_size, start, length = struct.unpack_from("<QQQ", area, 32)
    if not 0 < length <= min(MAX_METADATA, area_size) or not SECTOR <= start < area_size:
        return ""
    # The area behind its first sector is a ring.
    first = min(length, area_size - start)
    raw = content.read(offset + start, first)
    if length > first:
        raw += content.read(offset + SECTOR, length - first)
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _open_group(name: str, group: Section, disks: Mapping[str, Readable]) -> list[LogicalVolume]:
    extent = metadata.number(group, "extent_size") * SECTOR
    present: dict[str, Readable] = {}
    for alias, described in metadata.sections(metadata.section(group, "physical_volumes")).items():
        disk = disks.get(str(described.get("id", "")).replace("-", ""))
        if disk:
            start = metadata.number(described, "pe_start") * SECTOR
            present[alias] = Slice(disk, start, disk.size)
    # A group without any has no such section.
    volumes = metadata.section(group, "logical_volumes") if "logical_volumes" in group else {}
    return [
        _open_volume(name, title, volume, extent, present)
        for title, volume in metadata.sections(volumes).items()
        if "VISIBLE" in metadata.words(volume, "status")
    ]


def _open_volume(
    group: str, name: str, volume: Section, extent: int, present: Mapping[str, Readable]
) -> LogicalVolume:
    parts = list(metadata.sections(volume).values())
    size = sum(metadata.number(part, "extent_count") for part in parts) * extent
    strange = sorted({str(part.get("type")) for part in parts} - {"striped"})
    if strange:
        return LogicalVolume(group, name, size, None, f"its LVM type is {', '.join(strange)}")
    used = {str(alias) for part in parts for alias in metadata.words(part, "stripes")[::2]}
    if missing := used - present.keys():
        reason = f"{len(missing)} of the {len(used)} physical volumes under it are not in this session"
        return LogicalVolume(group, name, size, None, reason)
    return LogicalVolume(group, name, size, _Extents([_segment(part, extent, present) for part in parts]))


def _segment(part: Section, extent: int, present: Mapping[str, Readable]) -> _Segment:
    stripes = metadata.words(part, "stripes")
    count = metadata.number(part, "stripe_count")
    size = metadata.number(part, "extent_count") * extent
    stripe_size = metadata.number(part, "stripe_size") * SECTOR if count > 1 else size
    if not 0 < count <= MAX_STRIPES or len(stripes) != 2 * count or not size or not stripe_size:
        raise MetadataDamaged("a segment makes no sense")
    areas = []
    for alias, start in zip(stripes[::2], stripes[1::2], strict=True):
        if not isinstance(start, int) or start < 0:
            raise MetadataDamaged("a stripe has no start")
        areas.append(Slice(present[str(alias)], start * extent, size // count))
    return _Segment(metadata.number(part, "start_extent") * extent, size, stripe_size, tuple(areas))
