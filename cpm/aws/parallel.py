"""Work on many items by a changing number of threads, with results as they come and bounded memory.

Threads, because what is done meanwhile (TLS, hashing, compressing) happens outside of Python's lock.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from cpm.lib.results import Result, Results

Item = TypeVar("Item")

_NO_ITEM: Any = object()


class Parallel(Results[Result], Generic[Item, Result]):
    """Results of items, in no order.

    ``items`` are taken one by one, by one thread at a time, and never more than ``ahead`` before their results
    are. ``threads`` is asked how many may run now.
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
        super().__init__(ahead=ahead)
        self._work = work
        self._items = iter(items)
        self._threads = threads
        self._name = name
        self._taking = threading.Lock()
        self._grow()

    def _grow(self) -> None:
        self._start(self._make, self._name, most=max(1, self._threads()))

    def _make(self) -> None:
        while not self._over:
            self._room.get()
            with self._taking:
                item = _NO_ITEM if self._over else next(self._items, _NO_ITEM)
            if item is _NO_ITEM:
                break
            self._grow()
            self._ready.put(self._work(item))
