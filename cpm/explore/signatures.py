"""Tells by its first bytes what a volume holds, also when it is something that cannot be opened."""

import struct
from dataclasses import dataclass

from cpm.explore.blocks import Readable

HEAD = 256 * 1024
EXT_COMPAT_JOURNAL = 0x4
EXT_INCOMPAT_RECOVER = 0x4
EXT_INCOMPAT_JOURNAL_DEV = 0x8
EXT4_INCOMPAT = 0x0040 | 0x0080 | 0x0200 | 0x0400 | 0x1000 | 0x4000 | 0x8000 | 0x10000
EXT4_RO_COMPAT = 0x0008 | 0x0010 | 0x0020 | 0x0040 | 0x0400
ZFS_UBERBLOCKS = (0x00BAB10C).to_bytes(8, "little"), (0x00BAB10C).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Signature:
    """`kind` is the name of a file system or container; `why_not` says why it cannot be opened, empty if it can."""

    kind: str
    label: str = ""
    why_not: str = ""


def identify(volume: Readable) -> Signature:
    """What `volume` holds. Never raises for strange content: unknown content is of kind `unknown`."""
    head = volume.read(0, min(HEAD, volume.size))
    tail = volume.read(max(0, volume.size - 4096 * 36), 4096 * 36)
    for look in (_containers, _windows, _xfs, _ext, _linux, _raid, _zfs):
        if found := look(head, tail):
            return found
    if not head.strip(b"\0"):
        return Signature("empty", why_not="it holds no file system, its beginning is all zeros")
    return Signature("unknown", why_not="its content is no file system known here; it may be encrypted")


def text(raw: bytes) -> str:
    """A label as shown: up to its end mark, without padding or control characters."""
    shown = raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
    return "".join(each for each in shown if each.isprintable())


def _containers(head: bytes, _: bytes) -> Signature | None:
    if head[:6] == b"LUKS\xba\xbe":
        return Signature("LUKS", why_not="it is encrypted with LUKS")
    for sector in range(4):
        start = sector * 512
        if head[start : start + 8] == b"LABELONE" and head[start + 24 : start + 32] == b"LVM2 001":
            return Signature("LVM2")
    return None


def _windows(head: bytes, _: bytes) -> Signature | None:
    name = head[3:11]
    if name == b"-FVE-FS-":
        return Signature("BitLocker", why_not="it is encrypted with BitLocker")
    if name == b"NTFS    ":
        return Signature("NTFS")
    if name == b"EXFAT   ":
        return Signature("exFAT")
    if name[:4] == b"ReFS":
        return Signature("ReFS", why_not="ReFS is not supported")
    if len(head) < 512 or head[510:512] != b"\x55\xaa" or head[0] not in {0xEB, 0xE9}:
        return None
    bytes_per_sector, per_cluster, reserved, fats = struct.unpack_from("<HBHB", head, 11)
    if bytes_per_sector not in {512, 1024, 2048, 4096} or fats not in {1, 2}:
        return None
    if per_cluster == 0 or per_cluster & (per_cluster - 1):
        return None
    root_entries, small_total = struct.unpack_from("<HH", head, 17)
    per_fat = struct.unpack_from("<H", head, 22)[0]
    if root_entries == 0 and per_fat == 0:
        return Signature("FAT32", label=_fat_label(head[71:82]))
    total = small_total or struct.unpack_from("<I", head, 32)[0]
    system = total - reserved - fats * per_fat - -(-root_entries * 32 // bytes_per_sector)
    return Signature("FAT12" if system // per_cluster < 4085 else "FAT16", label=_fat_label(head[43:54]))


def _fat_label(raw: bytes) -> str:
    label = text(raw)
    return "" if label == "NO NAME" else label


def _xfs(head: bytes, _: bytes) -> Signature | None:
    return Signature("XFS", label=text(head[108:120])) if head[:4] == b"XFSB" else None


def _ext(head: bytes, _: bytes) -> Signature | None:
    if head[1080:1082] != b"\x53\xef":
        return None
    compat, incompat, read_only = struct.unpack_from("<III", head, 1024 + 92)
    label = text(head[1144:1160])
    if incompat & EXT_INCOMPAT_JOURNAL_DEV:
        return Signature("ext journal", label, why_not="it is the journal of another volume")
    if incompat & EXT4_INCOMPAT or read_only & EXT4_RO_COMPAT:
        return Signature("ext4", label)
    return Signature("ext3" if compat & EXT_COMPAT_JOURNAL else "ext2", label)


def _linux(head: bytes, _: bytes) -> Signature | None:
    if head[65600:65608] == b"_BHRfS_M":
        return Signature("btrfs", text(head[65536 + 299 : 65536 + 555]), why_not="btrfs is not supported")
    for page in (4096, 8192, 16384, 65536):
        if head[page - 10 : page] in {b"SWAPSPACE2", b"SWAP-SPACE"}:
            return Signature("swap", why_not="it is swap space and holds no files")
    for start, magic, kind in (
        (1024, b"\x10\x20\xf5\xf2", "F2FS"),
        (0, b"hsqs", "squashfs"),
        (32, b"NXSB", "APFS"),
        (1024, b"H+", "HFS+"),
        (4096, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcachefs"),
        (32769, b"CD001", "ISO 9660"),
    ):
        if head[start : start + len(magic)] == magic:
            return Signature(kind, why_not=f"{kind} is not supported")
    return None


def _raid(head: bytes, tail: bytes) -> Signature | None:
    magic = b"\xfc\x4e\x2b\xa9"
    # Versions 1.1 and 1.2 stand at the beginning, 0.90 and 1.0 in the last 128 KiB.
    if magic in {head[:4], head[4096:4100]} or any(
        tail[start : start + 4] == magic for start in range(len(tail) % 4096, len(tail), 4096)
    ):
        return Signature("Linux RAID", why_not="it is a member of a Linux RAID")
    return None


def _zfs(head: bytes, _: bytes) -> Signature | None:
    # The first label ends in a ring of uberblocks, each at a multiple of 1 KiB.
    if any(head[start : start + 8] in ZFS_UBERBLOCKS for start in range(0, len(head), 1024)):
        return Signature("ZFS", why_not="ZFS is not supported")
    return None
