"""Waiting that Ctrl-C ends at once."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cpm.demo.errors import DemoFailed, Stopped

Found = TypeVar("Found")


class Patience:
    """How the demo's thread waits: it polls with a deadline, and stops when `stop` is called."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Raises Stopped once a stop was asked for."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped

    def until(
        self, what: str, look: Callable[[], Found | None], *, within: float, every: float = 0.5
    ) -> Found:
        """What `look` finds, asked again while that is nothing. Raises DemoFailed when time is up, Stopped."""
        deadline = time.monotonic() + within
        while True:
            self.check()
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} did not happen within {within:.0f} s")
            self.pause(every)
