"""The checksum of a whole snapshot, as EBS CompleteSnapshot wants it."""

import hashlib
import heapq
import threading


class LinearChecksum:
    """SHA-256 over the SHA-256 of every written block, in order of index (EBS aggregation method LINEAR).

    Blocks are announced in the order in which they are begun, which must be ascending, and added as they end,
    in any order; so memory holds only what has ended before its predecessors. May be used by several threads.
    """

    def __init__(self) -> None:
        self._total = hashlib.sha256()
        self._lock = threading.Lock()
        self._begun: list[int] = []
        self._ended: dict[int, bytes] = {}
        self._last = -1
        self.count = 0

    def begin(self, index: int) -> None:
        with self._lock:
            if index <= self._last:
                raise ValueError(f"block {index} comes after block {self._last}; the order must be ascending")
            self._last = index
            heapq.heappush(self._begun, index)

    def end(self, index: int, digest: bytes) -> None:
        with self._lock:
            self._ended[index] = digest
            while self._begun and self._begun[0] in self._ended:
                self._total.update(self._ended.pop(heapq.heappop(self._begun)))
                self.count += 1

    def digest(self) -> bytes:
        """Raises ``ValueError`` while blocks that were begun have not ended."""
        with self._lock:
            if self._begun or self._ended:
                raise ValueError(f"{len(self._begun)} blocks have not been written yet")
            return self._total.digest()
