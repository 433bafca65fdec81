"""Two buckets in memory, with a clock of whole seconds, pages of a few keys, and a moment at which everything dies."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cpm.s3_sync.buckets import Listed, Page, Stop
from cpm.s3_sync.errors import CHANGED, VANISHED, Halted, Interrupted, Refused, Skipped

START = datetime(2026, 11, 21, tzinfo=UTC)


class FakeBucket:
    def __init__(self, page: int) -> None:
        self.objects: dict[str, tuple[str, Listed]] = {}
        self.most = page
        self.lists = 0

    def put(self, key: str, content: str, modified: datetime, etag: str) -> None:
        self.objects[key] = (content, Listed(key, len(content), modified, etag))

    def contents(self) -> dict[str, str]:
        return {key: content for key, (content, _) in self.objects.items()}

    def page(self, prefix: str, after: str | None, token: str | None) -> Page:
        self.lists += 1
        start = (token or after or "").encode()
        keys = sorted((key for key in list(self.objects) if key.startswith(prefix)), key=str.encode)
        found = [self.objects[key][1] for key in keys if key.encode() > start]
        return Page(found[: self.most], found[self.most - 1].key if len(found) > self.most else None)


class FakeBuckets:
    """``left`` calls succeed, then all fail, as after the death of a process. ``refused`` keys of the source are never
    copied, and those of the destination never deleted."""

    def __init__(self, page: int = 3) -> None:
        self.now = START
        self.source = FakeBucket(page)
        self.destination = FakeBucket(page)
        self.left: int | None = None
        self.refused: set[str] = set()
        self.copied: list[str] = []
        self.interrupted: set[str] = set()
        self.written = 0
        self._lock = threading.Lock()

    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def write(self, key: str, content: str, *, uploaded_for: int = 0) -> None:
        """Puts an object into the source; with ``uploaded_for`` by an upload in parts that took so many seconds."""
        self.written += 1
        etag = f"{self.written}-2" if uploaded_for else str(self.written)
        self.source.put(key, content, self.now - timedelta(seconds=uploaded_for), etag)

    def _live(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise Halted("everything is dead", transient=True)
            self.left -= 1

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        with self._lock:
            self._live()
            return self.source.page(prefix, after, token)

    def list_destination(self, prefix: str, after: str | None, token: str | None) -> Page:
        with self._lock:
            self._live()
            return self.destination.page(prefix, after, token)

    def copy(self, source: Listed, key: str, stop: Stop) -> bool:
        with self._lock:
            self._live()
            if source.key in self.refused:
                raise Refused("AccessDenied")
            if source.key not in self.source.objects:
                raise Skipped(VANISHED)
            if source.size > 1 and source.etag not in self.interrupted and stop():
                # Half of it is copied now; the next try ends it.
                self.interrupted.add(source.etag)
                raise Interrupted(key)
            content, present = self.source.objects[source.key]
            if present.etag != source.etag:
                raise Skipped(CHANGED)
            self.copied.append(key)
            self.destination.put(key, content, self.now, "other")
            return True

    def delete(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        with self._lock:
            self._live()
            for key in keys:
                if key not in self.refused:
                    self.destination.objects.pop(key, None)
            return [(key, "AccessDenied") for key in keys if key in self.refused]
