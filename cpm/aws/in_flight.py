"""How many requests are under way at once: found out by asking more until the other side slows down.

Additive increase, multiplicative decrease, after a start that doubles. The limit grows only while it is what
holds requests back, and one storm of refusals halves it once, not once per request that was already under way.
"""

import threading
from dataclasses import dataclass

CUT = 0.5
SMALLEST = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """``largest`` requests and ``largest_bytes`` of their bodies and answers at once, ``first`` at the start."""

    first: int = 8
    largest: int = 128
    largest_bytes: int = 128 * 1024 * 1024


class InFlight:
    """Safe to share between threads."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.limit = float(min(bounds.first, bounds.largest))
        self.now = 0
        self.bytes = 0
        self.most = 0
        self.cuts = 0
        self._starting = True
        self._begun = 0
        self._cut_at = -1
        self._waiting = 0
        self._turn = threading.Condition(threading.Lock())

    def enter(self, size: int) -> int:
        """Waits for a place for a request that moves ``size`` bytes. The answer is for ``leave``.

        A request larger than all that is allowed goes alone.
        """
        with self._turn:
            while self.now >= int(self.limit) or (self.now and self.bytes + size > self.bounds.largest_bytes):
                self._waiting += 1
                self._turn.wait()
                self._waiting -= 1
            self.now += 1
            self.bytes += size
            self.most = max(self.most, self.now)
            self._begun += 1
            return self._begun

    def leave(self, ticket: int, size: int, *, slow_down: bool) -> None:
        """``slow_down``: the other side refused for its rate, or did not answer in time."""
        with self._turn:
            full = self.now >= int(self.limit)
            self.now -= 1
            self.bytes -= size
            if slow_down:
                self._cut(ticket)
            elif full and self.limit < self.bounds.largest:
                step = 1.0 if self._starting else 1.0 / self.limit
                self.limit = min(float(self.bounds.largest), self.limit + step)
            if self._waiting:
                # Sizes differ, so whoever is woken may have to let another go first; the limit may have grown.
                self._turn.notify(2)

    def _cut(self, ticket: int) -> None:
        self._starting = False
        if ticket > self._cut_at:
            self.limit = max(SMALLEST, self.limit * CUT)
            self._cut_at = self._begun
            self.cuts += 1
