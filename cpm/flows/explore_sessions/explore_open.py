"""Explore sessions that are open in this process: their sources, their confined reader, and when they are closed.

Any process can open any session from its row, so it does not matter which one a request meets.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.conf import settings

from cpm.explore.blocks import BlockCache, BlockSource, Device
from cpm.explore.errors import SourceFailed
from cpm.explore.sandbox import Session
from cpm.flows.explore_sessions.explore_sources import Sources
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.models import ExploreSession, S3Copy, Snapshot
from cpm.repository.errors import RepositoryError

UNUSED_SECONDS = 300.0
"""How long a process keeps a session that nobody uses. Opening it anew takes seconds."""
LOOKS_EVERY = 15.0


class Opened:
    """The volumes of a session and the process that reads them. `close` ends it, also under somebody's request."""

    def __init__(self, sources: Mapping[str, BlockSource]) -> None:
        cache = BlockCache()
        self._devices = {name: Device(source, cache=cache) for name, source in sources.items()}
        self.files = Session(self._devices)

    def close(self) -> None:
        self.files.close()
        for device in self._devices.values():
            device.close()


def opened(row: ExploreSession) -> Opened:
    """What an open session reads from, as its row says. Raises `AwsError`, and `SourceFailed` for everything else."""
    sources = Sources(session_name(row.pk))
    try:
        return Opened({name: sources.of(record) for name, record in records_of(row).items()})
    except (RepositoryError, SecretUnreadable, KeyFileError) as error:
        raise SourceFailed(reason=str(error).rstrip(".")) from error


def records_of(row: ExploreSession) -> dict[str, Snapshot | S3Copy]:
    """The record that each volume is read from, in the order of the volumes. Raises `SourceFailed` if one is gone."""
    snapshots = Snapshot.objects.select_related("account").filter(pk__in=row.snapshots)
    copies = S3Copy.objects.select_related("snapshot", "repository__account").filter(pk__in=row.s3_copies)
    found: dict[str, Snapshot | S3Copy] = {one.source_id: one for one in snapshots if one.account is not None}
    found |= {one.snapshot.source_id: one for one in copies if one.repository is not None}
    missing = [volume for volume in row.volume_ids if volume not in found]
    if missing:
        raise SourceFailed(reason=f"the records of {', '.join(missing)} are gone")
    return {volume: found[volume] for volume in row.volume_ids}


def session_name(pk: int) -> str:
    return f"cpm-explore-{pk}"


@dataclass(eq=False, slots=True)
class _Slot:
    opening: threading.Lock = field(default_factory=threading.Lock)
    opened: Opened | None = None
    users: int = 0
    used_at: float = 0.0


class Registry:
    """The sessions that this process has open, by id: at most so many beside those that are being used.

    Safe to use from several threads. What nobody has used for a while is closed by a thread that exists only while
    something is open.
    """

    def __init__(self, *, unused_seconds: float = UNUSED_SECONDS, looks_every: float = LOOKS_EVERY) -> None:
        self._unused_seconds = unused_seconds
        self._looks_every = looks_every
        self._lock = threading.Lock()
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._keeper: threading.Thread | None = None

    @contextmanager
    def use(self, pk: int, open_it: Callable[[], Opened]) -> Iterator[Session]:
        """The session's files, opened if need be by `open_it`, whose errors are raised to everybody who waits for it."""
        slot = self._taken(pk)
        try:
            with slot.opening:
                if slot.opened is None:
                    slot.opened = open_it()
                files = slot.opened.files
            yield files
        finally:
            self._given_back(pk, slot)

    def drop(self, pk: int) -> None:
        """Close a session that has ended; requests under way end with `SessionClosed`."""
        with self._lock:
            slot = self._slots.pop(pk, None)
        if slot is not None and slot.opened is not None:
            slot.opened.close()

    def drop_all(self) -> None:
        for pk in self.ids():
            self.drop(pk)

    def ids(self) -> list[int]:
        """Those that are open here, the one used last at the end."""
        with self._lock:
            return list(self._slots)

    def _taken(self, pk: int) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(pk, _Slot())
            self._slots.move_to_end(pk)
            slot.users += 1
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name="explore-keeper", daemon=True)
                self._keeper.start()
            return slot

    def _given_back(self, pk: int, slot: _Slot) -> None:
        doomed: list[_Slot] = []
        with self._lock:
            slot.users -= 1
            slot.used_at = time.monotonic()
            if self._slots.get(pk) is not slot:
                # Dropped meanwhile, perhaps before it was opened.
                doomed += [slot] if not slot.users else []
            elif slot.opened is None and not slot.users:
                del self._slots[pk]
            doomed += self._surplus()
        _close(doomed)

    def _surplus(self) -> list[_Slot]:
        idle = [pk for pk, slot in self._slots.items() if not slot.users]
        count = len(self._slots) - settings.CPM_EXPLORE_OPEN_SESSIONS
        return [self._slots.pop(pk) for pk in idle[: max(count, 0)]]

    def _keep(self) -> None:
        while True:
            time.sleep(self._looks_every)
            with self._lock:
                late = time.monotonic() - self._unused_seconds
                old = [pk for pk, slot in self._slots.items() if not slot.users and slot.used_at < late]
                doomed = [self._slots.pop(pk) for pk in old]
                over = not self._slots
                if over:
                    self._keeper = None
            _close(doomed)
            if over:
                return


def _close(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        if slot.opened is not None:
            slot.opened.close()


HERE = Registry()
