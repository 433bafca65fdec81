"""How far a slice has come although its objects end in no order: the cursor is the last name before all unfinished."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cpm.s3_sync.counts import Counts

Tally = Callable[[Counts], None]


@dataclass(slots=True)
class Entry:
    """An object that is being worked on. ``before`` is the name decided before it; ``kept_after`` counts the objects
    between it and the next entry that needed no work."""

    name: str
    before: str | None
    number: int
    done: bool = False
    tally: Tally | None = None
    kept_after: int = 0


class Window:
    """Names are begun or passed by one thread, in order, and ended by any. ``most`` bounds how many names lie between
    the oldest unfinished and the newest, and so the memory and what the next slice has to look at again."""

    def __init__(self, start: str | None, *, most: int) -> None:
        self.counts = Counts()
        self._last = start
        self._most = most
        self._number = 0
        self._woken = False
        self._entries: deque[Entry] = deque()
        self._changed = threading.Condition()

    @property
    def cursor(self) -> str | None:
        with self._changed:
            return self._entries[0].before if self._entries else self._last

    @property
    def full(self) -> bool:
        with self._changed:
            return self._is_full()

    def keep(self, name: str) -> None:
        """This name needs no work."""
        with self._changed:
            self._last = name
            self._number += 1
            if self._entries:
                self._entries[-1].kept_after += 1
            else:
                self.counts.kept += 1
                self.counts.seen += 1

    def begin(self, name: str) -> Entry:
        with self._changed:
            entry = Entry(name, self._last, self._number)
            self._entries.append(entry)
            self._last = name
            self._number += 1
            return entry

    def end(self, entry: Entry, tally: Tally | None = None) -> None:
        """The object is done with, well or not. ``tally`` is counted when all before it are done, too."""
        with self._changed:
            entry.done, entry.tally = True, tally
            while self._entries and self._entries[0].done:
                oldest = self._entries.popleft()
                self.counts.kept += oldest.kept_after
                self.counts.seen += oldest.kept_after + 1
                if oldest.tally is not None:
                    oldest.tally(self.counts)
            self._changed.notify_all()

    def count(self, tally: Tally) -> None:
        """Counts what was done at once, wherever the cursor is."""
        with self._changed:
            tally(self.counts)

    def wait_for_room(self, seconds: float) -> None:
        """Waits until there is room or `wake` was called, and that long at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or not self._is_full(), seconds)

    def wake(self) -> None:
        """Nothing more is to be waited for."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return bool(self._entries) and self._number - self._entries[0].number >= self._most
