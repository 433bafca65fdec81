"""One tree over all volumes of a session: `/volume/folder/file`. Runs in the confined process."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cpm.explore import paths
from cpm.explore.blocks import Readable
from cpm.explore.errors import (
    ContentUnreadable,
    Damaged,
    NotADirectory,
    NotAFile,
    PathNotFound,
    TooLarge,
    VolumeUnreadable,
)
from cpm.explore.filesystem_tsk import TYPES, TskFileSystem
from cpm.explore.filesystem_xfs import XfsFileSystem
from cpm.explore.filesystems import Entry, FileSystem, OpenFile, UnsupportedForm
from cpm.explore.partitions import Volume, find_volumes

MAX_ENTRIES = 1_000_000
CACHED_ENTRIES = 200_000
CACHED_FILES = 16
LARGEST_FILE = (1 << 63) - 1
MAX_DEPTH = 128
ROOT = Entry(b"", "D", 0, None, 0)


@dataclass(frozen=True, slots=True)
class _Folder:
    names: list[bytes]
    entries: dict[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Found:
    path: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path leads: `file_system` is None at the root and at volumes that cannot be opened."""

    path: bytes
    entry: Entry
    volume: Volume | None = None
    file_system: FileSystem | None = None


class Explorer:
    """Lists and reads. All errors are ExploreErrors; damage never shows as an empty folder."""

    def __init__(self, disks: Mapping[str, Readable]) -> None:
        self.volumes = {volume.name.encode(): volume for volume in find_volumes(disks)}
        self._file_systems: dict[bytes, FileSystem] = {}
        self._folders: OrderedDict[tuple[bytes, int], _Folder] = OrderedDict()
        self._files: OrderedDict[bytes, OpenFile] = OrderedDict()

    def warnings(self, name: bytes) -> list[str]:
        """What a user must know before he trusts the content of a volume."""
        return self._file_system(name).warnings

    def listed(self, path: bytes, offset: int, limit: int) -> tuple[list[Entry], int]:
        """A page of the folder in order of names, and how many entries the folder has."""
        folder = self._folder(self._place(path))
        return [folder.entries[name] for name in folder.names[offset : offset + limit]], len(folder.names)

    def stat(self, path: bytes) -> Entry:
        return self._place(path).entry

    def find(self, path: bytes, text: str, depth: int, limit: int, seconds: float) -> tuple[list[Found], str]:
        """Entries whose names contain `text`, in any case, down to `depth` folders below `path`; level by level.

        The second answer is empty, or says why there may be more. Folders that are damaged or of volumes that
        cannot be opened are passed over and counted there.
        """
        wanted = text.casefold()
        until = time.monotonic() + seconds
        level = [self._place(path)]
        self._folder(level[0])
        found: list[Found] = []
        passed_over = 0
        seen: set[tuple[str, int]] = set()
        for _ in range(min(depth, MAX_DEPTH)):
            deeper: list[_Place] = []
            for place in level:
                try:
                    children = self._children(place, seen)
                except (VolumeUnreadable, Damaged, TooLarge):
                    passed_over += 1
                    continue
                for child in children:
                    if wanted in paths.display(child.entry.name).casefold():
                        if len(found) == limit:
                            return found, f"more than {limit} entries match"
                        found.append(Found(child.path, child.entry))
                    if child.entry.kind == "D":
                        deeper.append(child)
                if time.monotonic() > until:
                    return found, f"searching took longer than {seconds:.0f} seconds"
                if len(seen) + len(deeper) > MAX_ENTRIES:
                    return found, f"more than {MAX_ENTRIES} folders were searched"
            level = deeper
        return found, f"{passed_over} folders or volumes could not be read" if passed_over else ""

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """Content at `offset`, short only at the end of the file."""
        try:
            return self._opened(path).read(offset, length)
        except OSError as error:
            raise Damaged(path=paths.display(path), reason=_reason(error)) from error

    def _opened(self, path: bytes) -> OpenFile:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        place = self._place(path)
        shown = paths.display(path)
        if place.entry.kind == "D":
            raise NotAFile(path=shown, what="a folder")
        if place.entry.what or place.file_system is None:
            raise NotAFile(path=shown, what=place.entry.what)
        try:
            file = place.file_system.open(place.entry.node)
        except UnsupportedForm as error:
            raise ContentUnreadable(path=shown, form=str(error)) from error
        self._files[path] = file
        while len(self._files) > CACHED_FILES:
            self._files.popitem(last=False)
        return file

    def _children(self, place: _Place, seen: set[tuple[str, int]]) -> Iterator[_Place]:
        """A folder that was seen already has no children: only damage makes folders contain each other."""
        key = (place.volume.name if place.volume else "", place.entry.node)
        if key in seen:
            return iter(())
        seen.add(key)
        folder = self._folder(place)
        return (self._child(place, folder.entries[name]) for name in folder.names)

    def _child(self, place: _Place, entry: Entry) -> _Place:
        path = paths.join(place.path, entry.name)
        if place.volume is None:
            return self._volume_place(entry.name)
        return _Place(path, entry, place.volume, place.file_system)

    def _place(self, path: bytes) -> _Place:
        names = paths.parts(path)
        if not names:
            return _Place(b"/", ROOT)
        if names[0] not in self.volumes:
            raise PathNotFound(path=paths.display(path))
        place = self._volume_place(names[0])
        for name in names[1:]:
            if place.entry.kind != "D":
                raise PathNotFound(path=paths.display(path))
            entry = self._folder(place).entries.get(name)
            if entry is None:
                raise PathNotFound(path=paths.display(path))
            place = _Place(paths.join(place.path, name), entry, place.volume, place.file_system)
        return place

    def _volume_place(self, name: bytes) -> _Place:
        volume = self.volumes[name]
        entry = self._volume_entry(name)
        file_system = None if volume.why_not else self._file_system(name)
        node = file_system.root if file_system else 0
        return _Place(b"/" + name, Entry(name, "D", entry.size, None, node), volume, file_system)

    def _volume_entry(self, name: bytes) -> Entry:
        return Entry(name, "D", self.volumes[name].size, None, 0)

    def _file_system(self, name: bytes) -> FileSystem:
        volume = self.volumes[name]
        if volume.why_not or volume.content is None:
            raise VolumeUnreadable(volume=volume.name, reason=volume.why_not)
        if name not in self._file_systems:
            try:
                self._file_systems[name] = open_file_system(volume.content, volume.kind)
            except OSError as error:
                reason = f"its {volume.kind} file system is damaged ({_reason(error)})"
                raise VolumeUnreadable(volume=volume.name, reason=reason) from error
        return self._file_systems[name]

    def _folder(self, place: _Place) -> _Folder:
        if place.entry.kind != "D":
            raise NotADirectory(path=paths.display(place.path))
        if place.volume is None:
            entries = {name: self._volume_entry(name) for name in self.volumes}
            return _Folder(list(entries), entries)
        key = place.volume.name.encode(), place.entry.node
        if key in self._folders:
            self._folders.move_to_end(key)
            return self._folders[key]
        file_system = self._file_system(place.volume.name.encode())
        folder = _read_folder(file_system, place.entry.node, paths.display(place.path))
        self._folders[key] = folder
        while (
            len(self._folders) > 1
            and sum(len(each.names) for each in self._folders.values()) > CACHED_ENTRIES
        ):
            self._folders.popitem(last=False)
        return folder


def open_file_system(volume: Readable, kind: str) -> FileSystem:
    """Raises OSError when it is damaged."""
    if kind == "XFS":
        return XfsFileSystem(volume)
    if kind in TYPES:
        return TskFileSystem(volume, kind)
    raise OSError(f"{kind} is not supported")


def _read_folder(file_system: FileSystem, node: int, shown: str) -> _Folder:
    entries: dict[bytes, Entry] = {}
    try:
        for entry in file_system.entries(node):
            # A slash or an empty name exists on no sound disk and would lead elsewhere.
            if entry.name and b"/" not in entry.name and entry.name not in {b".", b".."}:
                entries.setdefault(entry.name, _possible(entry))
            if len(entries) > MAX_ENTRIES:
                raise TooLarge(path=shown, reason=f"it has more than {MAX_ENTRIES} entries")
    except OSError as error:
        raise Damaged(path=shown, reason=_reason(error)) from error
    except MemoryError:
        raise TooLarge(path=shown, reason="listing it needs more memory than is allowed") from None
    return _Folder(sorted(entries), entries)


def _possible(entry: Entry) -> Entry:
    """Damage may give a file a size that no file has."""
    if 0 <= entry.size <= LARGEST_FILE:
        return entry
    return replace(entry, size=0, what=entry.what or "a damaged file")


def _reason(error: BaseException) -> str:
    """The libraries' messages are chains that name functions; what comes first is enough."""
    first = str(error).split(". ", 1)[0].strip()
    return first[:200] or type(error).__name__
