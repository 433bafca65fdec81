"""The confined process: `python -m cpm.explore.child`, with its connection to the session as standard input.

It has no other way to the outside. Blocks come from the session, one request at a time, in order.
"""

import socket
import struct
import sys
from collections import OrderedDict
from typing import Any

from cpm.explore import frames
from cpm.explore.blocks import Readable
from cpm.explore.confinement import confine
from cpm.explore.errors import Damaged, ExploreError, TooLarge
from cpm.explore.explorer import Explorer
from cpm.explore.filesystems import Entry
from cpm.explore.frames import Message

PAGE = 64 * 1024
CACHED_PAGES = 256
LARGEST_REQUEST = 2 * 1024 * 1024


class RemoteDisk:
    """A disk of the session. Small reads go through pages, as libraries read a few bytes at a time."""

    def __init__(self, connection: socket.socket, name: str, size: int) -> None:
        self._connection = connection
        self._name = name
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise OSError("the file system points before its beginning")
        length = max(0, min(length, self.size - offset))
        if length > PAGE:
            pieces = range(offset, offset + length, LARGEST_REQUEST)
            return b"".join(self._fetch(at, min(LARGEST_REQUEST, offset + length - at)) for at in pieces)
        parts = []
        while length:
            index, within = divmod(offset, PAGE)
            part = self._page(index)[within : within + length]
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _page(self, index: int) -> bytes:
        if index in self._pages:
            self._pages.move_to_end(index)
            return self._pages[index]
        page = self._fetch(index * PAGE, min(PAGE, self.size - index * PAGE))
        self._pages[index] = page
        if len(self._pages) > CACHED_PAGES:
            self._pages.popitem(last=False)
        return page

    def _fetch(self, offset: int, length: int) -> bytes:
        frames.send(self._connection, {"disk": self._name, "offset": offset, "length": length})
        _, data = frames.receive(self._connection)
        if len(data) != length:
            raise frames.Broken("the session sent a part of another length")
        return data


class Server:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._explorer: Explorer | None = None
        self._disks: dict[str, Readable] = {}

    def run(self) -> None:
        """Answers requests until the session hangs up."""
        start, _ = frames.receive(self._connection)
        for name, size in start["disks"].items():
            self._disks[name] = RemoteDisk(self._connection, name, size)
        # Codecs are modules, and there are no more files to import from after this.
        "".encode("utf-16-le").decode("utf-16-le")
        frames.send(self._connection, {"confined": confine(memory=start["memory"])})
        while True:
            try:
                request, _ = frames.receive(self._connection)
            except frames.Broken:
                return
            message, payload = self._answer(request)
            frames.send(self._connection, message, payload)

    def _answer(self, request: Message) -> tuple[Message, bytes]:
        try:
            if self._explorer is None:
                self._explorer = Explorer(self._disks)
            return HANDLERS[request["operation"]](self._explorer, request)
        except ExploreError as error:
            return _refused(error)
        except MemoryError:
            return _refused(TooLarge(path=_shown(request), reason="it needs more memory than is allowed"))
        except (
            OSError,
            struct.error,
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as error:
            # Parsers of tables and wrappers of libraries meet numbers that no sound disk has.
            return _refused(Damaged(path=_shown(request), reason=f"{type(error).__name__}: {error}"))


def _refused(error: ExploreError) -> tuple[Message, bytes]:
    return {"error": error.code, "data": {name: str(value) for name, value in error.data.items()}}, b""


def _shown(request: Message) -> str:
    return frames.raw(request.get("path", "/")).decode("utf-8", "replace")


def _entry(entry: Entry) -> list[Any]:
    return [
        frames.text(entry.name),
        entry.kind,
        entry.size,
        entry.modified,
        entry.node,
        entry.what.encode("utf-8", "replace").decode(),
    ]


def _volumes(explorer: Explorer, request: Message) -> tuple[Message, bytes]:
    del request
    described = []
    for name, volume in explorer.volumes.items():
        warnings: list[str] = []
        why_not = volume.why_not
        try:
            warnings = explorer.warnings(name)
        except ExploreError as error:
            why_not = why_not or str(error.data.get("reason", error))
        described.append(
            [
                volume.name,
                volume.disk,
                volume.kind,
                volume.size,
                volume.label,
                volume.offset,
                why_not,
                warnings,
            ]
        )
    return {"volumes": described}, b""


def _list(explorer: Explorer, request: Message) -> tuple[Message, bytes]:
    path = frames.raw(request["path"])
    entries, total = explorer.listed(path, request["offset"], request["limit"])
    return {"entries": [_entry(entry) for entry in entries], "total": total}, b""


def _stat(explorer: Explorer, request: Message) -> tuple[Message, bytes]:
    return {"entry": _entry(explorer.stat(frames.raw(request["path"])))}, b""


def _search(explorer: Explorer, request: Message) -> tuple[Message, bytes]:
    path, text = frames.raw(request["path"]), request["text"]
    found, more = explorer.find(path, text, request["depth"], request["limit"], request["seconds"])
    return {"found": [[frames.text(each.path), _entry(each.entry)] for each in found], "more": more}, b""


def _read(explorer: Explorer, request: Message) -> tuple[Message, bytes]:
    return {}, explorer.read(frames.raw(request["path"]), request["offset"], request["length"])


HANDLERS = {"volumes": _volumes, "list": _list, "stat": _stat, "search": _search, "read": _read}


def main() -> int:
    Server(socket.socket(fileno=0)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
