"""The checksum of a whole snapshot, as EBS CompleteSnapshot wants it."""

import heapq
import threading
from typing import Any, Self

from cpm.lib.sha256 import Sha256


class LinearChecksum:
    """SHA-256 over the SHA-256 of every written block, in order of index (EBS aggregation method LINEAR).

    Blocks are announced in the order in which they are begun, which must be ascending, and added as they end,
    in any order; so memory holds only what has ended before its predecessors. May be used by several threads.
    Between two parts of a snapshot its state can be stored, and gone on with by another process.
    """

    def __init__(self) -> None:
        self._total = Sha256()
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
            self._require_whole()
            return self._total.digest()

    def state(self) -> dict[str, Any]:
        """What `resumed` goes on from, of JSON values. Raises ``ValueError`` like `digest`."""
        with self._lock:
            self._require_whole()
            return {"total": self._total.state(), "last": self._last, "count": self.count}

    @classmethod
    def resumed(cls, state: dict[str, Any] | None) -> Self:
        """The checksum as it was when its state was taken; a new one without a state."""
        checksum = cls()
        if state is not None:
            checksum._total = Sha256.resumed(state["total"])
            checksum._last, checksum.count = state["last"], state["count"]
        return checksum

    def _require_whole(self) -> None:
        if self._begun or self._ended:
            raise ValueError(f"{len(self._begun)} blocks have not been written yet")
