"""Work on many items by a changing number of threads, with results as they come and bounded memory.

Threads, because what is done meanwhile (TLS, hashing, compressing) happens outside of Python's lock.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END: Any = object()


class Parallel(Generic[Item, Result]):
    """An iterator of results, in no order. Several threads may take from it.

    ``items`` are taken one by one, by one thread at a time, and never more than ``ahead`` before their results
    are. ``threads`` is asked how many may run now. The first error ends everything and is raised by the next
    taking. Leave it by its context manager or to its end, else threads stay.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        threads: Callable[[], int],
        ahead: int,
        name: str,
    ) -> None:
        self._work = work
        self._items = iter(items)
        self._threads = threads
        self._name = name
        # Tokens in a queue, which is written in C, cost far less than a semaphore, which is not.
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._taking = threading.Lock()
        self._state = threading.Lock()
        self._alive = 0
        self._over = False
        self._error: BaseException | None = None
        self._grow()

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        result = self._ready.get()
        if result is _END:
            self._ready.put(_END)
            if self._error is not None:
                raise self._error
            raise StopIteration
        self._room.put(None)
        taken: Result = result
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Begins nothing more. What is under way ends by itself; its results are dropped."""
        with self._state:
            self._over = True
        # One thread that waits for room wakes, ends, and wakes the next.
        self._room.put(None)

    def _grow(self) -> None:
        with self._state:
            if self._over or self._alive >= max(1, self._threads()):
                return
            self._alive += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            while not self._over:
                self._room.get()
                with self._taking:
                    item = _END if self._over else next(self._items, _END)
                if item is _END:
                    break
                self._grow()
                self._ready.put(self._work(item))
        except BaseException as error:  # noqa: BLE001  # handed to whoever takes the next result
            with self._state:
                self._over, self._error = True, self._error or error
        with self._state:
            self._alive -= 1
            last = self._alive == 0
        # The next thread that waits for room finds that there is nothing left to take.
        self._room.put(None)
        if last:
            self._ready.put(_END)
