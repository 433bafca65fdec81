"""A session: files of a backup's disks, parsed in a confined process that may crash, hang or be taken over."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from cpm.explore import frames, paths
from cpm.explore.blocks import Device
from cpm.explore.errors import (
    BY_CODE,
    Damaged,
    ExploreError,
    ExplorerBusy,
    ExplorerDied,
    ExplorerTimedOut,
    PathNotFound,
    SessionClosed,
    SourceFailed,
)
from cpm.explore.filesystems import Entry, Kind
from cpm.explore.frames import Message

READ_SIZE = 1024 * 1024
PAGE_SIZE = 5000
LARGEST_REQUEST = 2 * 1024 * 1024
LARGEST_NUMBER = (1 << 63) - 1
# What answers of a wrong shape raise when they are taken apart.
NONSENSE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one confined process may use.

    `memory` bounds its address space. `think_seconds` is how long it may compute in one request without asking for
    blocks or answering, `cpu_seconds` the processor time and `request_seconds` the time of one request in all,
    fetching included. A request waits for its turn for at most `wait_seconds`.
    """

    memory: int = 512 * 1024 * 1024
    think_seconds: float = 30
    cpu_seconds: int = 60
    request_seconds: float = 300
    start_seconds: float = 30
    wait_seconds: float = 60


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume of the session. `why_not` says why it cannot be opened, `warnings` what may be missing in it."""

    name: str
    disk: str
    kind: str
    size: int
    label: str
    offset: int | None
    why_not: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listing:
    entries: list[Entry]
    total: int


@dataclass(frozen=True, slots=True)
class Found:
    """`more` is empty when `matches` is everything, else it says why there may be more."""

    matches: list[tuple[bytes, Entry]]
    more: str


class _Gone(Exception):
    """The confined process ended, or sent nonsense."""


class Session:
    """Lists, searches and reads the disks' files. Paths are bytes: `/volume/folder/file`; see `paths` for text.

    Safe to use from several threads: requests take turns, and a stream is many short requests. A process that dies
    is replaced and the request repeated once; ExplorerDied then says that the session itself goes on. `close` ends
    it; the devices belong to the caller.
    """

    def __init__(self, disks: Mapping[str, Device], limits: Limits | None = None) -> None:
        self._disks = dict(disks)
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._closed = False
        self.confined = False
        self.starts = 0

    def volumes(self) -> list[VolumeFacts]:
        message, _ = self._call("volumes")
        return self._believed(lambda: [_volume(each) for each in message["volumes"]])

    def listing(self, path: bytes, *, offset: int = 0, limit: int = PAGE_SIZE) -> Listing:
        """A page of a folder by name. The root lists the volumes."""
        message, _ = self._call("list", path=path, offset=offset, limit=min(limit, PAGE_SIZE))
        return self._believed(
            lambda: Listing([_entry(each) for each in message["entries"]], int(message["total"]))
        )

    def entries(self, path: bytes, *, page_size: int = PAGE_SIZE) -> Iterator[Entry]:
        """All entries of a folder by name, with at most so many of them in memory."""
        offset = 0
        while True:
            page = self.listing(path, offset=offset, limit=page_size)
            yield from page.entries
            offset += len(page.entries)
            if not page.entries or offset >= page.total:
                return

    def stat(self, path: bytes) -> Entry:
        message, _ = self._call("stat", path=path)
        return self._believed(lambda: _entry(message["entry"]))

    def resolve(self, text: str) -> bytes:
        """The path that a client means by `text`, plain or friendly. Raises PathNotFound."""
        *earlier, last = paths.candidates(text)
        for path in earlier:
            try:
                self.stat(path)
            except PathNotFound:
                continue
            return path
        self.stat(last)
        return last

    def search(
        self, path: bytes, text: str = "", *, depth: int = 1, limit: int = PAGE_SIZE, seconds: float = 20
    ) -> Found:
        """Entries whose names contain `text`, in any case, at most `depth` folders below `path`."""
        seconds = min(seconds, self._limits.think_seconds, self._limits.request_seconds) / 2
        message, _ = self._call(
            "search", path=path, text=text, depth=depth, limit=min(limit, PAGE_SIZE), seconds=seconds
        )
        return self._believed(
            lambda: Found(
                [(frames.raw(at), _entry(each)) for at, each in message["found"]], str(message["more"])
            )
        )

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """At most 1 MiB of a file's content; less than `length` only there or at its end."""
        wanted = min(length, READ_SIZE)
        _, data = self._call("read", path=path, offset=offset, length=wanted)
        if len(data) > wanted:
            raise ExplorerDied(reason="it answered more than was asked for")
        return data

    def stream(self, path: bytes) -> Iterator[bytes]:
        """The content of a file in pieces of at most 1 MiB."""
        size = self.stat(path).size
        offset = 0
        while piece := self.read(path, offset, READ_SIZE):
            yield piece
            offset += len(piece)
        if offset != size:
            reason = f"its content ends at {offset} instead of {size}"
            raise Damaged(path=paths.display(path), reason=reason)

    def close(self) -> None:
        """Ends the confined process. A request under way in another thread ends with SessionClosed."""
        self._closed = True
        process = self._process
        if process and process.poll() is None:
            _kill(process)
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _believed(self, take: Callable[[], Answer]) -> Answer:
        """Nothing that comes from the confined process is trusted to have the shape it should have."""
        try:
            return take()
        except NONSENSE as error:
            with self._lock:
                self._stop()
            raise ExplorerDied(reason="it answered nonsense") from error

    def _call(self, operation: str, *, path: bytes = b"/", **arguments: object) -> tuple[Message, bytes]:
        request = {"operation": operation, "path": frames.text(path), **arguments}
        with self._turn():
            for attempt in (1, 2):
                if self._closed:
                    raise SessionClosed
                try:
                    message, payload = self._exchange(request)
                except _Gone as error:
                    reason = self._stop() or str(error)
                    if self._closed:
                        raise SessionClosed from error
                    if attempt == 2:
                        raise ExplorerDied(reason=reason) from error
                    continue
                except BaseException:
                    # An answer may still be on its way; it must not be taken for the next request's.
                    self._stop()
                    raise
                if "error" in message:
                    raise _error(message)
                return message, payload
        raise AssertionError("unreachable")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Threads that wait for a slow image would be missing elsewhere, so none waits for long."""
        if not self._lock.acquire(timeout=self._limits.wait_seconds):
            raise ExplorerBusy(seconds=self._limits.wait_seconds)
        try:
            yield
        finally:
            self._lock.release()

    def _exchange(self, request: Message) -> tuple[Message, bytes]:
        until = time.monotonic() + self._limits.request_seconds
        process, connection = self._running()
        _grant_cpu(process.pid, self._limits.cpu_seconds)
        thinking = self._limits.think_seconds
        try:
            connection.settimeout(thinking)
            frames.send(connection, request)
            while True:
                left = min(thinking, until - time.monotonic())
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                began = time.monotonic()
                message, payload = frames.receive(connection)
                thinking -= time.monotonic() - began
                if "disk" not in message:
                    return message, payload
                frames.send(connection, {}, self._fetch(message))
        except TimeoutError as error:
            late = time.monotonic() >= until
            seconds = self._limits.request_seconds if late else self._limits.think_seconds
            raise ExplorerTimedOut(seconds=seconds) from error
        except frames.Broken as error:
            raise _Gone(str(error)) from error

    def _fetch(self, message: Message) -> bytes:
        disk = self._disks.get(str(message["disk"]))
        offset, length = message.get("offset"), message.get("length")
        if disk is None or not isinstance(offset, int) or not isinstance(length, int):
            raise _Gone("it asked for a disk that is not there")
        if not (offset >= 0 and 0 < length <= LARGEST_REQUEST and offset + length <= disk.size):
            raise _Gone("it asked for data outside the disk")
        try:
            return disk.read(offset, length)
        except SourceFailed:
            raise
        except RuntimeError as error:  # the device was closed
            raise SourceFailed(reason=str(error)) from error

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process and self._connection and self._process.poll() is None:
            return self._process, self._connection
        self._stop()
        return self._start()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-m", "cpm.explore.child"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        self._connection = ours
        self.starts += 1
        ours.settimeout(self._limits.start_seconds)
        sizes = {name: disk.size for name, disk in self._disks.items()}
        try:
            frames.send(ours, {"disks": sizes, "memory": self._limits.memory})
            ready, _ = frames.receive(ours)
        except frames.Broken as error:
            raise _Gone(f"it did not start: {error}") from error
        self.confined = ready.get("confined") is True
        return process, ours

    def _stop(self) -> str:
        """Kills the process if there is one and says how it had ended by itself, if it had."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection:
            connection.close()
        if not process:
            return ""
        try:
            # Closing its input makes a sound process end; the others get no second chance.
            status = process.wait(0.05)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return ""
        if status < 0:
            return f"signal {signal.Signals(-status).name}"
        return f"exit status {status}" if status else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _grant_cpu(pid: int, seconds: int) -> None:
    """Allows the process `seconds` of processor time more than it has used."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        used = (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")
        _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
        resource.prlimit(pid, resource.RLIMIT_CPU, (used + seconds + 1, hard))
    except (OSError, IndexError):
        # It has ended, or this system has no such limit; the time of the request is limited in any case.
        return


def _error(message: Message) -> ExploreError:
    kind = BY_CODE.get(str(message["error"]), ExploreError)
    data = message.get("data")
    try:
        return kind(**data) if isinstance(data, dict) else ExploreError()
    except NONSENSE:
        return ExploreError()


def _volume(raw: object) -> VolumeFacts:
    if not isinstance(raw, list) or len(raw) != 8:
        raise TypeError("a volume is described by eight facts")
    name, disk, kind, size, label, offset, why_not, warnings = raw
    return VolumeFacts(
        name=str(name),
        disk=str(disk),
        kind=str(kind),
        size=int(size),
        label=str(label),
        offset=None if offset is None else int(offset),
        why_not=str(why_not),
        warnings=[str(warning) for warning in warnings],
    )


def _entry(raw: object) -> Entry:
    if not isinstance(raw, list) or len(raw) != 6:
        raise TypeError("an entry is described by six facts")
    name, kind, size, modified, node, what = raw
    if kind not in {"F", "D"}:
        raise ValueError("an entry is a file or a folder")
    path = frames.raw(name)
    if b"/" in path or path in {b".", b".."}:
        raise ValueError("a name leads elsewhere")
    if not 0 <= int(size) <= LARGEST_NUMBER:
        raise ValueError("no file is so large")
    shape: Kind = "D" if kind == "D" else "F"
    when = None if modified is None else float(modified)
    return Entry(path, shape, int(size), when, int(node), str(what))
