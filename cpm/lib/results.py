"""Results that several threads make and several take: in no order, and with room for so many at once."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Result = TypeVar("Result")

_END: Any = object()


class Results(Generic[Result]):
    """An iterator of what its threads make. Several threads may take from it.

    Makers take a token of ``_room`` for each result, of which there are ``ahead``, and put it into ``_ready``. The
    first error ends everything and is raised by the next taking. Leave it by its context manager or to its end,
    else threads stay.
    """

    def __init__(self, *, ahead: int) -> None:
        # Tokens in a queue, which is written in C, cost far less than a semaphore, which is not.
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(ahead):
            self._room.put(None)
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._state = threading.Lock()
        self._alive = 0
        self._over = False
        self._error: BaseException | None = None

    def __iter__(self) -> Self:
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
        """Begins nothing more. What is under way ends by itself and is dropped."""
        with self._state:
            self._over = True
        # One thread that waits for room wakes, ends, and wakes the next.
        self._room.put(None)

    def _start(self, make: Callable[[], None], name: str, *, most: int) -> None:
        """One thread more that makes results, unless so many are at it or all is over."""
        with self._state:
            if self._over or self._alive >= most:
                return
            self._alive += 1
        threading.Thread(target=self._run, args=(make,), name=name, daemon=True).start()

    def _run(self, make: Callable[[], None]) -> None:
        try:
            make()
        except BaseException as error:  # noqa: BLE001  # raised again where results are taken
            with self._state:
                self._over, self._error = True, self._error or error
        with self._state:
            self._alive -= 1
            last = self._alive == 0
        # Another thread may wait for room. It finds that there is nothing to do, and wakes the next.
        self._room.put(None)
        if last:
            self._ready.put(_END)
