"""The blocks of a copy as they come: pack by pack, fetched by several threads, in bounded memory."""

import threading
from collections.abc import Callable, Iterable, Iterator

from cpm.lib.results import Results

Block = tuple[int, memoryview | bytes]


class Gathering(Results[Block]):
    """Blocks with their bytes, in no order.

    ``groups`` are taken one by one, by one thread at a time, and ``fetch`` yields the blocks of a group; at most
    ``ahead`` of them wait to be taken, and one of each thread that has ended.
    """

    def __init__(
        self,
        fetch: Callable[[list[int]], Iterable[Block]],
        groups: Iterator[list[int]],
        *,
        threads: int,
        ahead: int,
    ) -> None:
        super().__init__(ahead=ahead)
        self._fetch = fetch
        self._groups = groups
        self._taking = threading.Lock()
        for _ in range(threads):
            self._start(self._make, "repository-gather", most=threads)

    def _make(self) -> None:
        while (group := self._next_group()) is not None:
            for block in self._fetch(group):
                self._room.get()
                if self._over:
                    return
                self._ready.put(block)

    def _next_group(self) -> list[int] | None:
        with self._taking:
            return None if self._over else next(self._groups, None)
