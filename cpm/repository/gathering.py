"""The blocks of a copy as they come: pack by pack, fetched by several threads, in bounded memory."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

_END: Any = object()


class Gathering:
    """An iterator of blocks with their bytes, in no order. Several threads may take from it.

    ``groups`` are taken one by one, by one thread at a time, and ``fetch`` yields the blocks of a group; at most
    ``ahead`` of them wait to be taken. The first error ends everything and is raised by the next taking. Leave it
    by its context manager or to its end, else threads stay.
    """

    def __init__(
        self,
        fetch: Callable[[list[int]], Iterable[tuple[int, memoryview | bytes]]],
        groups: Iterator[list[int]],
        *,
        threads: int,
        ahead: int,
    ) -> None:
        self._fetch = fetch
        self._groups = groups
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._turn = threading.Lock()
        self._alive = threads
        self._over = False
        self._error: BaseException | None = None
        for _ in range(threads):
            threading.Thread(target=self._run, name="repository-gather", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[int, memoryview | bytes]]:
        return self

    def __next__(self) -> tuple[int, memoryview | bytes]:
        block = self._ready.get()
        if block is _END:
            self._ready.put(_END)
            if self._error is not None:
                raise self._error
            raise StopIteration
        self._room.put(None)
        taken: tuple[int, memoryview | bytes] = block
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Begins nothing more. What is under way ends by itself and is dropped."""
        self._over = True
        self._room.put(None)

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                for block in self._fetch(group):
                    self._room.get()
                    if self._over:
                        break
                    self._ready.put(block)
        except BaseException as error:  # noqa: BLE001  # raised again where the blocks are taken
            self._over, self._error = True, self._error or error
        with self._turn:
            self._alive -= 1
            last = self._alive == 0
        if self._over:
            # Another thread may wait for room; it ends, and wakes the next.
            self._room.put(None)
        if last:
            self._ready.put(_END)

    def _next_group(self) -> list[int] | None:
        with self._turn:
            return None if self._over else next(self._groups, None)
