"""The workload: keeps writing to every volume, but not around the moment of a backup."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from cpm.demo.aws import SimulatedAws
from cpm.demo.errors import DemoFailed
from cpm.demo.world import Volume

RECORD = 16 * 1024
SECONDS_BETWEEN = 0.5


class Writer:
    """A thread that books records into the ledger of every volume. `bytes` and `last_at` tell what it has written.

    The bytes are arbitrary but go into an allocated file, so the file systems stay whole.
    """

    def __init__(self, aws: SimulatedAws, volumes: tuple[Volume, ...]) -> None:
        self.bytes = 0
        self.last_at = 0.0
        self._aws = aws
        self._volumes = volumes
        self._random = random.Random()
        self._free = threading.Lock()
        self._ended = threading.Event()
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    @contextmanager
    def at_work(self) -> Iterator["Writer"]:
        """Writing goes on inside the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join(timeout=10)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Nothing is written inside the block. Raises DemoFailed when writing has failed before."""
        with self._free:
            if self._trouble:
                raise DemoFailed(f"the workload could not write: {self._trouble}") from self._trouble
            yield

    def _work(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            with self._free:
                try:
                    for volume in self._volumes:
                        self._book(volume)
                except requests.RequestException as error:
                    self._trouble = error
                    return

    def _book(self, volume: Volume) -> None:
        start, length = volume.image.ledger
        offset = start + self._random.randrange(length - RECORD)
        self._aws.write(volume.id, offset, self._random.randbytes(RECORD))
        self.bytes += RECORD
        self.last_at = time.time()
