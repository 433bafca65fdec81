"""A store in a folder of an S3 bucket, over a small protocol that any HTTP client can speak.

`ObjectClient` is all that is asked of S3; `store_direct` speaks it with the gateway's own client.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cpm.repository.store import Buffer, Info, PutOptions

DELETES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing; ``token`` leads to the next one and is None at the end. Keys are whole keys."""

    infos: list[Info]
    token: str | None


class ObjectClient(Protocol):
    """One bucket. Every method repeats what passes by itself, and raises only `StoreError` and its kinds:

    `ObjectMissing` (404), `ObjectExists` (412, unless it is our own put whose answer was lost), `ObjectLocked` (retention
    forbids it), `ObjectArchived` (InvalidObjectState), `StoreUnavailable` (5xx, throttling, time-outs, cut bodies, 409 of
    conditional writers that met, each after several attempts), and `StoreError` for all else.
    """

    def put(self, key: str, data: Buffer, options: PutOptions, *, if_absent: bool) -> None: ...

    def get(self, key: str, start: int, length: int | None) -> bytes: ...

    def get_into(self, key: str, start: int, target: memoryview) -> int: ...

    def head(self, key: str) -> Info: ...

    def list(self, prefix: str, token: str | None) -> Page: ...

    def delete(self, keys: Sequence[str]) -> None:
        """At most 1000. Of a versioned bucket, the versions themselves."""

    def retain(self, key: str, until: datetime, mode: str) -> None: ...

    def restore(self, key: str, *, tier: str, days: int) -> None: ...


class S3Store:
    """Objects below ``folder`` of the client's bucket. ``defaults`` fill what a put leaves open."""

    def __init__(self, client: ObjectClient, folder: str, defaults: PutOptions | None = None) -> None:
        self._client = client
        self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._defaults = defaults or PutOptions()

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        given = options or PutOptions()
        merged = PutOptions(
            given.storage_class or self._defaults.storage_class,
            given.encryption or self._defaults.encryption,
            given.kms_key or self._defaults.kms_key,
            given.retain_until,
            given.lock_mode,
        )
        self._client.put(self._prefix + key, data, merged, if_absent=if_absent)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        return self._client.get(self._prefix + key, start, length)

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        return self._client.get_into(self._prefix + key, start, target) if len(target) else 0

    def head(self, key: str) -> Info:
        return self._relative(self._client.head(self._prefix + key))

    def _relative(self, info: Info) -> Info:
        return Info(
            info.key.removeprefix(self._prefix),
            info.size,
            info.modified,
            info.storage_class,
            info.retain_until,
            info.retrieval,
            info.retrieved_until,
        )

    def list(self, prefix: str) -> Iterator[Info]:
        token: str | None = None
        while True:
            page = self._client.list(self._prefix + prefix, token)
            for info in page.infos:
                yield self._relative(info)
            if page.token is None:
                return
            token = page.token

    def delete(self, keys: Iterable[str]) -> None:
        doomed = [self._prefix + key for key in keys]
        for start in range(0, len(doomed), DELETES_AT_ONCE):
            self._client.delete(doomed[start : start + DELETES_AT_ONCE])

    def retain(self, key: str, until: datetime, mode: str) -> None:
        self._client.retain(self._prefix + key, until, mode)

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        self._client.restore(self._prefix + key, tier=tier, days=days)

    def discard_unfinished(self, older_than: float) -> int:
        # Every object is put by one request, which happens wholly or not at all.
        return 0
