"""Where a repository lives: a flat name space of objects that are written once.

Two promises carry everything else. A put either happens wholly or not at all, and with ``if_absent`` exactly one
of several writers of the same key succeeds; the others get `ObjectExists`.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from cpm.repository.errors import ObjectExists, StoreUnsuitable

Buffer: TypeAlias = bytes | bytearray | memoryview


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
    """Keys are relative to the repository's folder. All methods may be called from several threads.

    A store repeats by itself what passes, and a put whose answer was lost finds its own bytes when it is repeated.
    `StoreUnavailable` is what is left of that.
    """

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
