"""ext2/3/4, NTFS, FAT and exFAT through The Sleuth Kit."""

import struct
from collections.abc import Iterator
from typing import Any

import pytsk3

from cpm.explore import ext_folder
from cpm.explore.blocks import Readable
from cpm.explore.ext_journal import NotReplayed, Replayed
from cpm.explore.filesystems import Entry, Kind, OpenFile, UnsupportedForm, link_text

TYPES = {
    "ext2": pytsk3.TSK_FS_TYPE_EXT_DETECT,
    "ext3": pytsk3.TSK_FS_TYPE_EXT_DETECT,
    "ext4": pytsk3.TSK_FS_TYPE_EXT_DETECT,
    "NTFS": pytsk3.TSK_FS_TYPE_NTFS,
    "FAT12": pytsk3.TSK_FS_TYPE_FAT_DETECT,
    "FAT16": pytsk3.TSK_FS_TYPE_FAT_DETECT,
    "FAT32": pytsk3.TSK_FS_TYPE_FAT_DETECT,
    "exFAT": pytsk3.TSK_FS_TYPE_EXFAT,
}
SPECIAL = {
    int(pytsk3.TSK_FS_META_TYPE_FIFO): "a named pipe",
    int(pytsk3.TSK_FS_META_TYPE_CHR): "a character device",
    int(pytsk3.TSK_FS_META_TYPE_BLK): "a block device",
    int(pytsk3.TSK_FS_META_TYPE_SOCK): "a socket",
    int(pytsk3.TSK_FS_META_TYPE_WHT): "a whiteout",
}
DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_DIR)
REGULAR = int(pytsk3.TSK_FS_META_TYPE_REG)
LINK = int(pytsk3.TSK_FS_META_TYPE_LNK)
UNDEFINED = int(pytsk3.TSK_FS_META_TYPE_UNDEF)
# Bookkeeping that the library shows as files: orphans, tables of FAT, the label.
VIRTUAL = {int(pytsk3.TSK_FS_META_TYPE_VIRT), int(pytsk3.TSK_FS_META_TYPE_VIRT_DIR)}
NAME_TYPES = {
    int(pytsk3.TSK_FS_NAME_TYPE_DIR): DIRECTORY,
    int(pytsk3.TSK_FS_NAME_TYPE_REG): REGULAR,
    int(pytsk3.TSK_FS_NAME_TYPE_LNK): LINK,
    int(pytsk3.TSK_FS_NAME_TYPE_VIRT): int(pytsk3.TSK_FS_META_TYPE_VIRT),
    int(pytsk3.TSK_FS_NAME_TYPE_VIRT_DIR): int(pytsk3.TSK_FS_META_TYPE_VIRT_DIR),
}
UNALLOCATED = int(pytsk3.TSK_FS_NAME_FLAG_UNALLOC)
LONGEST_TARGET = 4096
NTFS_METADATA_FILES = 24
FAT_LABEL = b" (Volume Label Entry)"
EXFAT_METADATA_FILES = {b"$ALLOC_BITMAP", b"$UPCASE_TABLE"}
NTFS_REPARSE_POINT = 192
NTFS_VOLUME_INFORMATION = 112
REPARSE_FORMS = {
    0x80000013: "deduplicated by Windows",
    0x80000017: "compressed by Windows (Compact OS)",
    0x9000001A: "kept in the cloud, with a placeholder on the volume",
}
REPARSE_LINKS = {0xA000000C, 0xA0000003}
EXT_RECOVER = 0x4
EXT_INLINE_DATA = 0x8000
NO_INODE = "damaged, it has no inode"
NOT_REPLAYED = (
    "The file system was in use when the snapshot was taken, and its journal could not be replayed ({reason}): "
    "changes of the last seconds before the snapshot may be missing."
)
EXT_ENCRYPTED = 0x10000


class _Image(pytsk3.Img_Info):  # type: ignore[misc]  # the library is untyped
    def __init__(self, volume: Readable) -> None:
        self._volume = volume
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def read(self, offset: int, size: int) -> bytes:
        return self._volume.read(offset, size)

    def get_size(self) -> int:
        return self._volume.size

    def close(self) -> None:
        """Nothing is held open."""


class _TskFile:
    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        data: bytes = self._file.read_random(offset, length)
        if len(data) != length:
            raise OSError(f"its content ends at {offset + len(data)} instead of {self.size}")
        return data


class TskFileSystem:
    def __init__(self, volume: Readable, kind: str) -> None:
        self._kind = kind
        self._fs = _opened(volume, kind)
        self.warnings = list(_warnings(volume, kind, self._fs))
        if kind.startswith("ext") and _ext_incompatible(volume) & EXT_RECOVER:
            try:
                self._fs = _opened(_replayed(volume, self._fs), kind)
            except NotReplayed as error:
                self.warnings.append(NOT_REPLAYED.format(reason=error))
        # Small folders may stand in their inodes, where only the library finds them.
        self._inline = kind.startswith("ext") and bool(_ext_incompatible(volume) & EXT_INLINE_DATA)
        self.root = int(self._fs.info.root_inum)

    def entries(self, node: int) -> Iterator[Entry]:
        if self._kind.startswith("ext") and not self._inline:
            yield from self._ext_entries(node)
            return
        for file in self._fs.open_dir(inode=node):
            if entry := self._entry(file):
                yield entry

    def _ext_entries(self, node: int) -> Iterator[Entry]:
        folder = self._fs.open_meta(inode=node)
        content = _TskFile(folder, int(folder.info.meta.size))
        # Names are ordered by their hashes; by nodes, each part of the inode table is fetched once.
        for target, name in sorted(ext_folder.names(content, int(self._fs.info.block_size))):
            if name in {b".", b".."}:
                continue
            try:
                file = self._fs.open_meta(inode=target)
            except OSError:
                yield Entry(name, "F", 0, None, target, NO_INODE)
            else:
                yield _described(name, target, file)

    def open(self, node: int) -> OpenFile:
        file = self._fs.open_meta(inode=node)
        meta = file.info.meta
        if meta is None:
            raise OSError("it has no inode")
        if self._kind == "NTFS":
            _refuse_forms(file)
        return _TskFile(file, int(meta.size))

    def _entry(self, file: Any) -> Entry | None:
        name = file.info.name
        if name is None or int(name.flags) & UNALLOCATED or name.name in {None, b".", b"..", b""}:
            return None
        node = int(name.meta_addr)
        meta = file.info.meta
        if self._is_bookkeeping(name.name, node, int(meta.size) if meta is not None else 0):
            return None
        kind = int(meta.type) if meta is not None else NAME_TYPES.get(int(name.type), UNDEFINED)
        if kind in VIRTUAL or NAME_TYPES.get(int(name.type)) in VIRTUAL:
            return None
        if meta is None:
            return Entry(
                name.name, "D" if kind == DIRECTORY else "F", 0, None, node, "damaged, it has no inode"
            )
        return Entry(
            name=name.name,
            kind=_kind(kind),
            size=0 if kind == DIRECTORY else int(meta.size),
            modified=_modified(meta),
            node=node,
            what=_what(kind, file),
        )

    def _is_bookkeeping(self, name: bytes, node: int, size: int) -> bool:
        if self._kind == "NTFS":
            return node < NTFS_METADATA_FILES
        if self._kind == "exFAT" and name in EXFAT_METADATA_FILES:
            return True
        return "FAT" in self._kind and not size and name.endswith(FAT_LABEL)


def _described(name: bytes, node: int, file: Any) -> Entry:
    meta = file.info.meta
    kind = int(meta.type)
    return Entry(
        name=name,
        kind=_kind(kind),
        size=0 if kind == DIRECTORY else int(meta.size),
        modified=_modified(meta),
        node=node,
        what=_what(kind, file),
    )


def _kind(kind: int) -> Kind:
    return "D" if kind == DIRECTORY else "F"


def _what(kind: int, file: Any) -> str:
    if kind in {DIRECTORY, REGULAR}:
        return ""
    return link_text(_target(file)) if kind == LINK else SPECIAL.get(kind, "a special file")


def _target(file: Any) -> bytes | None:
    """The library knows short targets; long ones of ext4 are content."""
    meta = file.info.meta
    if meta.link or not 0 < int(meta.size) <= LONGEST_TARGET:
        return meta.link or None
    try:
        target: bytes = file.read_random(0, int(meta.size))
    except OSError:
        return None
    return target


def _modified(meta: Any) -> float | None:
    seconds = int(meta.mtime)
    return seconds + int(meta.mtime_nano) / 1e9 if seconds else None


def _refuse_forms(file: Any) -> None:
    """Windows keeps the real content of some files elsewhere; their own data would read as zeros."""
    for attribute in file:
        if int(attribute.info.type) == NTFS_REPARSE_POINT:
            tag = int.from_bytes(file.read_random(0, 4, attribute.info.type, attribute.info.id), "little")
            if tag in REPARSE_LINKS:
                raise UnsupportedForm("a link of Windows to another place")
            raise UnsupportedForm(REPARSE_FORMS.get(tag, f"a reparse point of kind 0x{tag:08x}"))
        if int(attribute.info.type) == int(pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA) and int(
            attribute.info.flags
        ) & int(pytsk3.TSK_FS_ATTR_ENC):
            raise UnsupportedForm("encrypted by Windows (EFS)")


def _opened(volume: Readable, kind: str) -> Any:
    return pytsk3.FS_Info(_Image(volume), offset=0, type=TYPES[kind])


def _ext_incompatible(volume: Readable) -> int:
    flags: int = struct.unpack("<I", volume.read(1024 + 96, 4))[0]
    return flags


def _replayed(volume: Readable, fs: Any) -> Readable:
    node, device = struct.unpack("<II", volume.read(1024 + 224, 8))
    if device or not node:
        raise NotReplayed("it is on another volume")
    try:
        file = fs.open_meta(inode=node)
        return Replayed(volume, _TskFile(file, int(file.info.meta.size)))
    except (OSError, AttributeError) as error:
        raise NotReplayed("it is damaged") from error


def _warnings(volume: Readable, kind: str, fs: Any) -> Iterator[str]:
    if kind.startswith("ext") and _ext_incompatible(volume) & EXT_ENCRYPTED:
        yield "Encrypted folders show encrypted names and content."
    if kind == "NTFS" and _ntfs_dirty(fs):
        yield (
            "The file system is marked as in use, and its log was not replayed: changes of the last seconds before "
            "the snapshot may be missing."
        )


def _ntfs_dirty(fs: Any) -> bool:
    try:
        volume = fs.open_meta(inode=3)
        for attribute in volume:
            if int(attribute.info.type) == NTFS_VOLUME_INFORMATION:
                raw = volume.read_random(0, 12, attribute.info.type, attribute.info.id)
                return bool(int.from_bytes(raw[10:12], "little") & 1)
    except OSError:
        return False
    return False
