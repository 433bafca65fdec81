"""The log of every API call, which tests count and read through the control endpoint."""

import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Entry:
    seq: int
    service: str
    action: str
    account: str | None
    region: str
    time: float
    error: str | None = None
    ids: dict[str, Any] = field(default_factory=dict)
    access_key: str | None = None


class CallLog:
    """Calls in the order of their arrival; numbers start at 1 and never repeat."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: list[Entry] = []
        self.first = 1

    def add(self, **what: Any) -> Entry:
        with self.lock:
            entry = Entry(seq=self.first + len(self.entries), **what)
            self.entries.append(entry)
            return entry

    def since(self, seq: int, limit: int | None = None) -> list[dict[str, Any]]:
        """Entries whose number is greater than ``seq``."""
        with self.lock:
            skipped = max(0, seq - self.first + 1)
            end = None if limit is None else skipped + limit
            return [asdict(entry) for entry in self.entries[skipped:end]]

    def count(self, seq: int) -> dict[str, Any]:
        """How many calls since, in all and by action, and the newest number."""
        with self.lock:
            newer = self.entries[max(0, seq - self.first + 1) :]
            by_action = Counter(f"{entry.service}:{entry.action}" for entry in newer)
            errors = Counter(entry.error for entry in newer if entry.error)
            last = self.first + len(self.entries) - 1
        return {"total": len(newer), "by_action": dict(by_action), "errors": dict(errors), "last": last}

    def clear(self) -> None:
        """Forgets the entries; numbering goes on."""
        with self.lock:
            self.first += len(self.entries)
            self.entries = []
