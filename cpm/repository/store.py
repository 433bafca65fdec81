"""Where a repository lives: a flat name space of objects that are written once.

Two promises carry everything else. A put either happens wholly or not at all, and with ``if_absent`` exactly one
of several writers of the same key succeeds; the others get `ObjectExists`.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar

from cpm.repository.errors import (
    ObjectExists,
    StoreError,
    StoreUnavailable,
    StoreUnsuitable,
)

Buffer: TypeAlias = bytes | bytearray | memoryview

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How objects are stored. A store without the notion (a directory) keeps retention and ignores the rest."""

    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    retain_until: datetime | None = None
    lock_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """``modified`` is seconds since the epoch by the store's clock."""

    key: str
    size: int
    modified: float
    storage_class: str | None = None
    retain_until: datetime | None = None
    # None: readable at once. "ongoing": a retrieval runs. "ready": retrieved. "needed": archived, not requested.
    retrieval: str | None = None
    retrieved_until: datetime | None = None


class Store(Protocol):
    """Keys are relative to the repository's folder. All methods may be called from several threads."""

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        """Raises `ObjectExists` when ``if_absent`` and the key is taken."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The object, or a range of it; less only where the object ends. Raises `ObjectMissing`."""

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        """Like `get`, into memory of the caller; returns how many bytes there were."""

    def head(self, key: str) -> Info: ...

    def list(self, prefix: str) -> Iterator[Info]:
        """Everything below ``prefix``, in order of key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Absent keys are fine. Raises `ObjectLocked` for the first key under retention; others may be gone."""

    def retain(self, key: str, until: datetime, mode: str) -> None:
        """Keep the object until then; a lock is only ever extended."""

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        """Ask for a readable copy of an archived object."""

    def discard_unfinished(self, older_than: float) -> int:
        """Remove what writers that died left behind outside the name space."""


def probe(store: Store) -> None:
    """Refuse a store that lets the second of two conditional writers win, or that does not list what it holds."""
    key = f"probe/{uuid.uuid4().hex}"
    store.put(key, b"first")
    try:
        try:
            store.put(key, b"second")
        except ObjectExists:
            pass
        else:
            raise StoreUnsuitable(
                "The store ignores If-None-Match, so that two writers could overwrite each other. Use an S3 "
                "that supports conditional writes."
            )
        if store.get(key) != b"first" or store.get(key, 1, 2) != b"ir" or not list(store.list(key)):
            raise StoreUnsuitable("The store does not return or list what was just written.")
    finally:
        store.delete([key])


@dataclass(slots=True)
class Retrying:
    """Repeats what a store could not do this time.

    A write whose answer was lost is found out on the repetition: the key is taken then, and if it holds the very
    bytes, the write has happened.
    """

    inner: Store
    attempts: int = ATTEMPTS
    sleep: Callable[[float], None] = field(default=time.sleep)

    def _repeat(self, call: Callable[[], T]) -> T:
        for attempt in range(self.attempts):
            try:
                return call()
            except StoreUnavailable:
                if attempt + 1 == self.attempts:
                    raise
                self.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
        raise StoreError("A store cannot be asked less than once.")

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        unsure = False

        def call() -> None:
            nonlocal unsure
            try:
                self.inner.put(key, data, if_absent=if_absent, options=options)
            except StoreUnavailable:
                unsure = True
                raise
            except ObjectExists:
                if not unsure or self.inner.get(key) != bytes(data):
                    raise

        self._repeat(call)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._repeat(lambda: self.inner.get(key, start, length))

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        return self._repeat(lambda: self.inner.read_into(key, start, target))

    def head(self, key: str) -> Info:
        return self._repeat(lambda: self.inner.head(key))

    def list(self, prefix: str) -> Iterator[Info]:
        # A page that failed is asked for again by the store itself; here the whole listing is repeated.
        return iter(self._repeat(lambda: list(self.inner.list(prefix))))

    def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        self._repeat(lambda: self.inner.delete(doomed))

    def retain(self, key: str, until: datetime, mode: str) -> None:
        self._repeat(lambda: self.inner.retain(key, until, mode))

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        self._repeat(lambda: self.inner.retrieve(key, tier=tier, days=days))

    def discard_unfinished(self, older_than: float) -> int:
        return self._repeat(lambda: self.inner.discard_unfinished(older_than))
