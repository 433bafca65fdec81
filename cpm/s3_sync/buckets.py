"""The two buckets of a mirror, as the engine wants them: whoever speaks S3 speaks this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Stop = Callable[[], bool]
"""Says whether the slice is to end. Asked by several threads."""

DELETES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a list shows it. ``archived``: it lies in an archive class and was not retrieved."""

    key: str
    size: int
    modified: datetime
    etag: str
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``token`` leads to the next part and is None after the last."""

    objects: Sequence[Listed]
    token: str | None


class Buckets(Protocol):
    """All methods may be called from several threads, repeat by themselves what passes, and raise nothing but
    `SyncError` and its kinds. A list that fails raises `Halted`: it never comes out shorter."""

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        """Keys below ``prefix`` that come after ``after``, in the order of their UTF-8 bytes; with a token, what follows
        the page that gave it."""

    def list_destination(self, prefix: str, after: str | None, token: str | None) -> Page: ...

    def copy(self, source: Listed, key: str, stop: Stop) -> bool:
        """Copies this very version of the source with its metadata, and its tags: False when it came without them.

        Raises `Skipped`, `Refused`, `Halted`, and `Interrupted` when ``stop`` said so in the middle.
        """

    def delete(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Deletes up to `DELETES_AT_ONCE` objects of the destination; absent ones are fine. Those refused, and why."""
