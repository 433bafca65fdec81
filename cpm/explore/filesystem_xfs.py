"""XFS through libfsxfs."""

import stat
from collections.abc import Iterator
from typing import Any

import pyfsxfs

from cpm.explore import xfs_log, xfs_names
from cpm.explore.blocks import FileObject, Readable
from cpm.explore.filesystems import Entry, OpenFile, link_text

NOT_CLEAN = (
    "The XFS was in use when the snapshot was taken, and its log was not replayed: the last changes before the "
    "snapshot are missing, and files that were being written may show old content. Freeze the file system in a "
    "backup script, or recover the volume, to get them."
)
SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class _XfsFile:
    def __init__(self, entry: Any, volume: Any) -> None:
        self._entry = entry
        # The library frees the volume with the last reference to it.
        self._volume = volume
        self.size = int(entry.get_size())

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        data: bytes = self._entry.read_buffer_at_offset(length, offset)
        if len(data) != length:
            raise OSError(f"its content ends at {offset + len(data)} instead of {self.size}")
        return data


class XfsFileSystem:
    def __init__(self, volume: Readable) -> None:
        self._readable = volume
        self._file = FileObject(volume)
        self._volume = pyfsxfs.volume()
        self._volume.open_file_object(self._file)
        self.root = int(self._volume.get_root_directory().get_inode_number())
        self.warnings = [] if xfs_log.is_clean(volume) else [NOT_CLEAN]

    def entries(self, node: int) -> Iterator[Entry]:
        folder = self._volume.get_file_entry_by_inode(node)
        odd: dict[int, list[bytes]] | None = None
        for index in range(folder.get_number_of_sub_file_entries()):
            entry = folder.get_sub_file_entry(index)
            name = _name(entry)
            if name is None:
                if odd is None:
                    odd = self._odd_names(folder, node)
                # Several names may lead to one file.
                names = odd.get(int(entry.get_inode_number()))
                if not names:
                    raise OSError("a name in the folder cannot be read")
                name = names.pop()
            yield _entry(entry, name)

    def open(self, node: int) -> OpenFile:
        return _XfsFile(self._volume.get_file_entry_by_inode(node), self._volume)

    def _odd_names(self, folder: Any, node: int) -> dict[int, list[bytes]]:
        try:
            extents = [folder.get_extent(index)[:2] for index in range(folder.get_number_of_extents())]
        except OSError:
            # Small folders stand in their inode and have none.
            extents = []
        names = xfs_names.raw_names(self._readable, node, extents)
        return {target: [name for name in found if not _is_text(name)] for target, found in names.items()}


def _entry(entry: Any, name: bytes) -> Entry:
    node = int(entry.get_inode_number())
    mode = stat.S_IFMT(int(entry.get_file_mode()))
    folder = mode == stat.S_IFDIR
    return Entry(
        name=name,
        kind="D" if folder else "F",
        size=0 if folder else int(entry.get_size()),
        modified=int(entry.get_modification_time_as_integer()) / 1e9 or None,
        node=node,
        what=_what(mode, entry),
    )


def _name(entry: Any) -> bytes | None:
    """None for a name that is not UTF-8, which the library does not give away."""
    try:
        name: str = entry.get_name()
    except OSError:
        return None
    return name.encode("utf-8", "surrogatepass")


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _what(mode: int, entry: Any) -> str:
    if mode in {stat.S_IFDIR, stat.S_IFREG}:
        return ""
    if mode != stat.S_IFLNK:
        return SPECIAL.get(mode, "a special file")
    try:
        return link_text(entry.get_symbolic_link_target())
    except OSError:
        return link_text(None)
