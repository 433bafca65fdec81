"""Chosen files and folders as a zip, written while they are read."""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from cpm.explore import paths
from cpm.explore.errors import ContentUnreadable, Damaged, NotAFile, VolumeUnreadable
from cpm.explore.filesystems import Entry
from cpm.explore.sandbox import PAGE_SIZE, Session
from cpm.explore.zip_writer import ZipWriter

LEFT_OUT = "LEFT-OUT.txt"
MAX_DEPTH = 1000
MAX_LISTED = 2_000_000
"""Characters of the list of what was left out."""
MAX_ZIP_NAME = 32_000


@dataclass(frozen=True, slots=True)
class _Item:
    """Something on the way through the chosen folders. `why_not` is set for what cannot be in the archive."""

    path: bytes
    name: str
    entry: Entry
    why_not: str = ""


class Names:
    """Names inside the archive: relative, without `..`, drive letters or characters that split paths elsewhere.

    A name that had to be changed gets a mark that nobody can foresee, so no other file can have that name.
    """

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(8)
        self._at_top: set[str] = set()

    def top(self, path: bytes) -> str:
        """The name of a chosen file or folder; chosen ones of the same name are numbered."""
        name = base = self.inside((paths.parts(path) or [b"session"])[-1])
        count = 2
        while name in self._at_top:
            name, count = f"{base} ({count})", count + 1
        self._at_top.add(name)
        return name

    def inside(self, raw: bytes) -> str:
        """The name of an entry in its folder."""
        text = raw.decode("utf-8", "replace")
        safe = "".join("_" if char in "/\\" or not char.isprintable() else char for char in text)
        if safe in {".", ".."}:
            safe = "_" * len(safe)
        if len(safe) > 1 and safe[1] == ":" and safe[0].isalpha():
            safe = f"{safe[0]}_{safe[2:]}"
        if safe.encode() == raw:
            return safe
        return f"{safe}~{hashlib.blake2b(raw, digest_size=6, key=self._salt).hexdigest()}"


def zip_stream(session: Session, chosen: Sequence[bytes]) -> Iterator[bytes]:
    """A zip of the `chosen` files and folders, in pieces, in bounded memory.

    All chosen paths are looked up before this returns, so PathNotFound can still be answered properly. What has no
    content (links, devices) or cannot be decoded is left out and listed in LEFT-OUT.txt. Links are never followed.
    Anything else that fails ends the stream with its error before the zip has its directory: no program takes what
    was sent by then for a complete archive. Closing the iterator ends the work.
    """
    roots = [(path, session.stat(path)) for path in _without_nested(chosen)]
    return _pieces(session, roots)


def _pieces(session: Session, roots: Sequence[tuple[bytes, Entry]]) -> Iterator[bytes]:
    names = Names()
    left_out = _LeftOut()
    with closing(ZipWriter()) as archive:
        for path, entry in roots:
            for item in _walk(session, names, _Item(path, names.top(path), entry)):
                why_not = _why_not(session, item)
                if why_not:
                    left_out.add(item.path, why_not)
                elif item.entry.kind == "D":
                    yield from archive.add_folder(item.name, item.entry.modified)
                else:
                    content = session.stream(item.path)
                    yield from archive.add_file(item.name, item.entry.size, item.entry.modified, content)
        if text := left_out.text():
            yield from archive.add_file(names.top(LEFT_OUT.encode()), len(text), None, [text])
        yield from archive.finish()


class _LeftOut:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._length = 0
        self._more = 0

    def add(self, path: bytes, why_not: str) -> None:
        line = f"{paths.display(path)}: {why_not}"
        self._length += len(line)
        if self._length <= MAX_LISTED:
            self._lines.append(line)
        else:
            self._more += 1

    def text(self) -> bytes:
        if not self._lines and not self._more:
            return b""
        more = [f"and {self._more} more"] if self._more else []
        return "\n".join(["Not in this archive:", *self._lines, *more, ""]).encode("utf-8", "replace")


def _why_not(session: Session, item: _Item) -> str:
    if item.why_not or item.entry.what or item.entry.kind == "D":
        return item.why_not or item.entry.what
    try:
        # Opening shows what cannot be decoded, while the file can still be left out.
        session.read(item.path, 0, 0)
    except (ContentUnreadable, NotAFile) as error:
        return error.message
    return ""


def _without_nested(chosen: Sequence[bytes]) -> list[bytes]:
    """Each path once, and none that lies in another chosen folder."""
    kept: list[tuple[bytes, ...]] = []
    # In this order a folder comes right before all that is in it.
    for names in sorted({tuple(paths.parts(path)) for path in chosen}):
        if not kept or names[: len(kept[-1])] != kept[-1]:
            kept.append(names)
    return [b"/" + b"/".join(names) for names in kept]


def _walk(session: Session, names: Names, top: _Item) -> Iterator[_Item]:
    """`top` and everything in it, depth first, folders before their content.

    Raises Damaged for folders that contain themselves or are nested deeper than any program makes them.
    """
    yield top
    stack = [(top, _children(session, top, depth=1))]
    while stack:
        folder, children = stack[-1]
        entry = next(children, None)
        if entry is None:
            stack.pop()
            continue
        item = _Item(paths.join(folder.path, entry.name), f"{folder.name}/{names.inside(entry.name)}", entry)
        if len(paths.parts(item.path)) == 1 and (volume := _unreadable(session, item.path)):
            yield replace(item, why_not=volume)
            continue
        yield item
        if entry.kind == "D":
            # Nodes are numbers of one volume, and the root has none.
            above = {each.entry.node for each, _ in stack if len(paths.parts(each.path)) > 1}
            if entry.node in above or len(stack) > MAX_DEPTH or len(item.name) > MAX_ZIP_NAME:
                reason = "its folders contain themselves or are nested too deeply"
                raise Damaged(path=paths.display(item.path[-200:]), reason=reason)
            stack.append((item, _children(session, item, depth=len(stack) + 1)))


def _children(session: Session, item: _Item, *, depth: int) -> Iterator[Entry]:
    """The folder's entries. The deeper, the smaller the pages: each folder on the way down has one in memory."""
    if item.entry.kind != "D":
        return iter(())
    return session.entries(item.path, page_size=max(PAGE_SIZE // depth, 1))


def _unreadable(session: Session, volume: bytes) -> str:
    """Why a volume cannot be opened, when all volumes were asked for; one that is asked for by name is an error."""
    try:
        session.listing(volume, limit=1)
    except VolumeUnreadable as error:
        return error.message
    return ""
