"""The files of an open explore session: listed, searched and downloaded, read in this very process.

Any process may be asked; the first request opens the session here. Every use moves the session's end on.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Generic, Self, TypeVar

import structlog
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from cpm import permissions
from cpm.explore import paths
from cpm.explore.archive import zip_stream
from cpm.explore.errors import ExploreError, TooLarge, VolumeUnreadable
from cpm.explore.filesystems import Entry
from cpm.explore.sandbox import Session
from cpm.flows.explore_sessions.explore_open import HERE, opened
from cpm.lib.errors import ValidationFailed
from cpm.models import Actor, ExploreSession
from cpm.services import audit, explore_sessions
from cpm.services.explore_sessions import NOTED_EVERY, RIGHT

log = structlog.get_logger(__name__)

MOST_NESTED = 20_000
"""Entries of one answer that shows folders in folders."""
MOST_FOUND = 5000
DEEPEST = 32
MOST_PATHS = 1000
NAMES_RECORDED = 20
Item = TypeVar("Item")


@dataclass(slots=True)
class Node:
    """An entry at its path. `depth` is how many levels below it were looked into; `children` is the first of them."""

    path: bytes
    entry: Entry
    depth: int = 0
    children: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list: the entries in `path`, down to `depth` folders below; with `search` those named like it."""

    path: str = ""
    depth: int = 0
    search: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the entries, how many there are in all, and in words what may be missing, empty if nothing."""

    nodes: Sequence[Node]
    total: int
    incomplete: str = ""


@contextmanager
def reading(actor: Actor, session: ExploreSession) -> Iterator[Session]:
    """The session's reader. Raises PreconditionFailed when the session is not open, and what opening it here raises."""
    permissions.require(actor, RIGHT)
    explore_sessions.used(session, now=timezone.now())
    with HERE.use(session.pk, lambda: opened(_row(session))) as files:
        yield files


def _row(session: ExploreSession) -> ExploreSession:
    # Which records it reads from is known only since it was opened.
    return ExploreSession.objects.get(pk=session.pk)


def page(
    *, actor: Actor, session: ExploreSession, wanted: Wanted, offset: int = 0, limit: int | None = None
) -> Page:
    """A part of the list, by name, or all of it. Raises `ExploreError`: `PathNotFound`, `VolumeUnreadable` and their
    like; `TooLarge` for more than `MOST_NESTED` entries."""
    with reading(actor, session) as files:
        path = files.resolve(wanted.path or "/")
        if wanted.search:
            found = files.search(path, wanted.search, depth=wanted.depth + 1, limit=MOST_FOUND)
            nodes = [Node(at, entry) for at, entry in found.matches]
            return _cut(nodes, offset, limit, found.more)
        entry = files.stat(path)
        if entry.kind == "F":
            return _cut([Node(path, entry)], offset, limit)
        if limit is None:
            nodes = list(islice(_nodes(files, path), MOST_NESTED + 1))
            _nest(files, nodes, wanted.depth)
            return Page(nodes, len(nodes))
        listing = files.listing(path, offset=offset, limit=limit)
        nodes = [Node(paths.join(path, each.name), each) for each in listing.entries]
        _nest(files, nodes, wanted.depth)
        return Page(nodes, listing.total)


def _cut(nodes: Sequence[Node], offset: int, limit: int | None, incomplete: str = "") -> Page:
    return Page(nodes[offset : None if limit is None else offset + limit], len(nodes), incomplete)


def whole(*, actor: Actor, session: ExploreSession, wanted: Wanted) -> "Stream[Node]":
    """All entries of a folder, read while they are taken. The first of them are read now, so that what can fail at the
    start fails here."""
    with ExitStack() as stack:
        files = stack.enter_context(reading(actor, session))
        path = files.resolve(wanted.path or "/")
        entry = files.stat(path)
        found = _nodes(files, path) if entry.kind == "D" else iter([Node(path, entry)])
        first = list(islice(found, 1))
        return Stream(chain(first, found), session, stack.pop_all())


def download(*, actor: Actor, session: ExploreSession, chosen: Sequence[str]) -> "Stream[bytes]":
    """The files and folders as a zip, read while it is taken; see `cpm.explore.archive`.

    Raises `ExploreError` for a path that is not there, and what `reading` raises, before the first byte.
    """
    if not chosen or len(chosen) > MOST_PATHS:
        code = "too_many" if chosen else "required"
        raise ValidationFailed.one("paths", f"Name 1 to {MOST_PATHS} paths.", code)
    with ExitStack() as stack:
        files = stack.enter_context(reading(actor, session))
        pieces = zip_stream(files, _resolved(files, chosen))
        stack.callback(_closed, pieces)
        _record(actor, session, chosen)
        return Stream(pieces, session, stack.pop_all())


def entry_at(*, actor: Actor, session: ExploreSession, path: str) -> Entry:
    """What is at the path. Raises `PathNotFound` and what `reading` raises."""
    with reading(actor, session) as files:
        return files.stat(files.resolve(path))


def content(*, actor: Actor, session: ExploreSession, path: str) -> "tuple[Entry, Stream[bytes]]":
    """A file and its bytes, read while they are taken. Raises as `download` does, and `NotAFile` for everything else."""
    with ExitStack() as stack:
        files = stack.enter_context(reading(actor, session))
        (at,) = _resolved(files, [path])
        entry = files.stat(at)
        # Says what is no file, or cannot be decoded.
        files.read(at, 0, 0)
        _record(actor, session, [path])
        return entry, Stream(files.stream(at), session, stack.pop_all())


def _record(actor: Actor, session: ExploreSession, chosen: Sequence[str]) -> None:
    # A name from the command line need not be text, which the database refuses.
    shown = [paths.display(name.encode("utf-8", "surrogateescape")) for name in chosen[:NAMES_RECORDED]]
    names = ", ".join(shown)
    more = f" and {len(chosen) - NAMES_RECORDED} more" if len(chosen) > NAMES_RECORDED else ""
    text = f"Downloaded {names}{more} of backup {session.backup_id} in session {session.pk}."
    with transaction.atomic():
        audit.record(actor, "explore_session.downloaded", session, text=text)


class Stream(Generic[Item]):
    """What is read from a session for as long as a client takes it.

    The use is noted from time to time; `PreconditionFailed` ends it when the session has ended meanwhile. A failure is
    raised out of the iteration. `close` gives the session back, and must be called.
    """

    def __init__(self, items: Iterator[Item], session: ExploreSession, stack: ExitStack) -> None:
        self._items = items
        self._session = session
        self._stack = stack
        self._noted = time.monotonic()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if time.monotonic() - self._noted > NOTED_EVERY.total_seconds():
            self._noted = time.monotonic()
            self._note()
        try:
            return next(self._items)
        except ExploreError as error:
            log.warning("reading an explore session broke off", session=self._session.pk, error=str(error))
            raise

    def close(self) -> None:
        self._stack.close()

    def _note(self) -> None:
        try:
            explore_sessions.used(self._session, now=timezone.now())
        except DatabaseError as error:
            # Files do not come from the database: the next note tells.
            connection.close()
            log.warning("database away, the reading goes on", session=self._session.pk, error=str(error))


def moment(seconds: float | None) -> datetime | None:
    """A file's time; None where the file system has none, or claims one that is no time."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _resolved(files: Session, chosen: Sequence[str]) -> list[bytes]:
    try:
        return [files.resolve(text) for text in chosen]
    except ExploreError as error:
        error.field = "paths"
        raise


def _closed(pieces: Iterator[bytes]) -> None:
    """End a generator that may have been left in the middle."""
    if isinstance(pieces, Generator):
        pieces.close()


def _nodes(files: Session, path: bytes) -> Iterator[Node]:
    for entry in files.entries(path):
        yield Node(paths.join(path, entry.name), entry)


def _nest(files: Session, level: Sequence[Node], depth: int) -> None:
    """Look into the folders, level by level. Volumes that cannot be opened are not looked into."""
    top, count = level, 0
    for left in range(depth, -1, -1):
        count += len(level)
        deeper: list[Node] = []
        for node in level if left else ():
            if node.entry.kind == "D" and _look_into(files, node):
                node.depth = left
                deeper += node.children
            if count + len(deeper) > MOST_NESTED:
                break
        if count + len(deeper) > MOST_NESTED:
            reason = f"there are more than {MOST_NESTED} entries down to this depth"
            raise TooLarge(path=paths.display(top[0].path), reason=reason)
        level = deeper


def _look_into(files: Session, node: Node) -> bool:
    try:
        node.children = list(islice(_nodes(files, node.path), MOST_NESTED + 1))
    except VolumeUnreadable:
        if len(paths.parts(node.path)) > 1:
            raise
        return False
    return True
