"""A slice of a sync: from a cursor until the lists end or it is told to stop, with copies in several threads.

A slice may die anywhere and be repeated from its cursor: what it has copied is found unchanged by the next, what it has
deleted is not listed, and parts of a large copy are found again by `Buckets.copy`. Two slices at once waste work, and do
no harm.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import structlog

from cpm.s3_sync.buckets import DELETES_AT_ONCE, Buckets, Listed, Stop
from cpm.s3_sync.comparing import LONGEST_UPLOAD, Action, Decision, decisions
from cpm.s3_sync.counts import Counts, Trouble
from cpm.s3_sync.errors import ARCHIVED, Halted, Interrupted, Refused, Skipped
from cpm.s3_sync.listing import Listing
from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.window import Entry, Window

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """``ahead`` is how many names may be looked at beyond the oldest unfinished object. When the first ``hopeless``
    copies of a slice all fail, the rest is not tried: rights are missing, and the next million would fail alike."""

    threads: int = 16
    ahead: int = 20_000
    hopeless: int = 1_000
    longest_upload: timedelta = LONGEST_UPLOAD


@dataclass(frozen=True, slots=True)
class Slice:
    """``cursor`` is where the next slice begins; when this one ``finished`` the sync, the next sync begins anew. ``halted`` tells what ended this one
    early; what was done until then counts all the same."""

    cursor: str | None
    finished: bool
    counts: Counts
    halted: Halted | None = None


def run(
    mirror: Mirror, buckets: Buckets, *, cursor: str | None, stop: Stop, limits: Limits | None = None
) -> Slice:
    """One slice. ``stop`` is asked for each object, also by other threads; what is under way then is waited for.

    At least one name is decided, so slices come to an end however short they are.
    """
    return _Run(mirror, buckets, cursor, stop, limits or Limits()).run()


class _Run:
    def __init__(
        self, mirror: Mirror, buckets: Buckets, cursor: str | None, stop: Stop, limits: Limits
    ) -> None:
        self._mirror = mirror
        self._buckets = buckets
        self._cursor = cursor
        self._stop = stop
        self._limits = limits
        self._window = Window(cursor, most=limits.ahead)
        # Twice as many as can run, so that no thread waits for the next.
        self._room = threading.Semaphore(2 * limits.threads)
        self._extra: list[Entry] = []
        self._halted: Halted | None = None
        self._interrupted = threading.Event()
        self._failures = 0
        self._lock = threading.Lock()

    def run(self) -> Slice:
        finished = False
        with (
            ThreadPoolExecutor(2, thread_name_prefix="s3-sync-list") as listers,
            ThreadPoolExecutor(self._limits.threads, thread_name_prefix="s3-sync") as workers,
        ):
            sides = self._listings(listers)
            try:
                finished = self._work_through(iter(sides[0]), iter(sides[1]), workers)
                self._delete_extra(workers)
            except Halted as halted:
                # Extra objects that were not yet deleted are left to the next slice: no deletion after an error.
                self._halt(halted)
            except BaseException:
                self._interrupted.set()
                workers.shutdown(wait=False, cancel_futures=True)
                raise
        counts = self._window.counts
        counts.list_calls = sum(side.pages for side in sides)
        cursor = self._window.cursor
        whole = finished and self._halted is None and not self._interrupted.is_set()
        return Slice(None if whole else cursor, whole, counts, self._halted)

    def _listings(self, executor: ThreadPoolExecutor) -> tuple[Listing, Listing]:
        source, destination = self._mirror.source_base, self._mirror.destination_base
        # An object whose key is the prefix itself has a place in the mirror only if that has a prefix, too.
        nameless = bool(source and destination)
        return (
            Listing(self._buckets.list_source, source, self._cursor, executor=executor, nameless=nameless),
            Listing(
                self._buckets.list_destination,
                destination,
                self._cursor,
                executor=executor,
                nameless=nameless,
            ),
        )

    def _work_through(
        self,
        source: Iterator[tuple[str, Listed]],
        destination: Iterator[tuple[str, Listed]],
        workers: ThreadPoolExecutor,
    ) -> bool:
        """Whether the lists came to their end."""
        decided = decisions(
            source,
            destination,
            delete_extra=self._mirror.delete_extra,
            longest_upload=self._limits.longest_upload,
        )
        for number, decision in enumerate(decided):
            if self._ending() or (number and self._stop()):
                return False
            self._act(decision, workers)
            while self._window.full:
                self._delete_extra(workers)
                self._window.wait_for_room(0.5)
                if self._ending() or (self._window.full and self._stop()):
                    return False
        return True

    def _act(self, decision: Decision, workers: ThreadPoolExecutor) -> None:
        if decision.action is Action.KEEP:
            self._window.keep(decision.name)
            return
        entry = self._window.begin(decision.name)
        if decision.action is Action.DELETE:
            self._extra.append(entry)
            if len(self._extra) == DELETES_AT_ONCE:
                self._delete_extra(workers)
            return
        assert decision.source is not None
        source = decision.source
        if source.archived:
            self._skip(entry, source, ARCHIVED)
            return
        self._room.acquire()
        workers.submit(self._worker, self._copy, entry, source)

    def _delete_extra(self, workers: ThreadPoolExecutor) -> None:
        if self._extra:
            self._room.acquire()
            workers.submit(self._worker, self._delete, self._extra)
            self._extra = []

    # -- in the threads -----------------------------------------------------------------------------------

    def _worker(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            if not self._ending():
                work(*arguments)
        except Interrupted:
            self._interrupted.set()
            self._window.wake()
        except Halted as halted:
            self._halt(halted)
        except Exception as error:  # a mistake of ours must end the slice, not vanish in a thread
            log.exception("s3 sync failed unexpectedly")
            self._halt(Halted(f"The sync failed unexpectedly: {type(error).__name__}.", transient=False))
        finally:
            self._room.release()

    def _copy(self, entry: Entry, source: Listed) -> None:
        key = self._mirror.destination_key(entry.name)
        try:
            tagged = self._buckets.copy(source, key, self._stop)
        except Skipped as skipped:
            self._skip(entry, source, skipped.reason)
        except Refused as refused:
            self._fail(entry, source.key, str(refused))
            self._despair(refused)
        else:
            self._failures = -1

            def count(counts: Counts) -> None:
                counts.copied += 1
                counts.copied_bytes += source.size
                counts.untagged += not tagged

            self._window.count(count)
            self._window.end(entry)

    def _delete(self, entries: list[Entry]) -> None:
        by_key = {self._mirror.destination_key(entry.name): entry for entry in entries}
        refused = dict(self._buckets.delete(list(by_key)))
        if not refused.keys() <= by_key.keys():
            raise Halted("S3 answered about other keys than it was asked to delete.", transient=False)
        for key, entry in by_key.items():
            if key in refused:
                self._fail(entry, key, refused[key])
            else:
                self._window.end(entry)
        done = len(by_key) - len(refused)

        def count(counts: Counts) -> None:
            counts.deleted += done

        self._window.count(count)

    def _skip(self, entry: Entry, source: Listed, reason: str) -> None:
        self._window.end(entry, lambda counts: counts.skipped.setdefault(reason, Trouble()).add(source.key))

    def _fail(self, entry: Entry, key: str, text: str) -> None:
        self._window.end(entry, lambda counts: counts.failed.add(key, text))

    def _despair(self, refused: Refused) -> None:
        with self._lock:
            if self._failures >= 0:
                self._failures += 1
            hopeless = self._failures >= self._limits.hopeless
        if hopeless:
            text = f"The first {self._limits.hopeless} copies all failed, the last with: {refused}"
            self._halt(Halted(text, transient=False))

    def _halt(self, halted: Halted) -> None:
        with self._lock:
            self._halted = self._halted or halted
        self._window.wake()

    def _ending(self) -> bool:
        return self._halted is not None or self._interrupted.is_set()
