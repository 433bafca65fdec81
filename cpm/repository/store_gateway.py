"""`ObjectClient` spoken by the gateway's pooled HTTP client: the account's credentials, proxy and endpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice

from cpm.aws import errors
from cpm.aws.errors import AwsError
from cpm.aws.s3_objects import PAGE, Placement, S3Objects, Stored
from cpm.repository.errors import (
    ObjectArchived,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from cpm.repository.store import Buffer, Info, PutOptions
from cpm.repository.store_s3 import Page

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


class GatewayObjects:
    """The objects of one bucket. Deletes the newest version only; a folder is emptied of all versions elsewhere."""

    def __init__(self, objects: S3Objects) -> None:
        self._objects = objects

    def put(self, key: str, data: Buffer, options: PutOptions, *, if_absent: bool) -> None:
        placement = Placement(
            options.storage_class,
            options.encryption,
            options.kms_key,
            options.retain_until,
            options.lock_mode,
        )
        try:
            with _told(key):
                self._objects.put(key, data, only_if_absent=if_absent, placement=placement)
        except ObjectExists:
            # The client below repeats a put whose answer was lost, and meets its own object then.
            if self.get(key, 0, None) != bytes(data):
                raise

    def get(self, key: str, start: int, length: int | None) -> bytes:
        with _told(key):
            return bytes(self._objects.get(key, start, length))

    def get_into(self, key: str, start: int, target: memoryview) -> int:
        with _told(key):
            return self._objects.read_into(key, start, target)

    def head(self, key: str) -> Info:
        with _told(key):
            return _info(self._objects.head(key))

    def list(self, prefix: str, token: str | None) -> Page:
        with _told(prefix):
            found = list(islice(self._objects.list(prefix, token or ""), PAGE))
        return Page([_info(stored) for stored in found], found[-1].key if len(found) == PAGE else None)

    def delete(self, keys: "list[str]") -> None:
        with _told(keys[0]):
            refused = self._objects.delete(keys)
        for key, error in refused:
            if isinstance(error, errors.Denied) and self._is_locked(key):
                raise ObjectLocked(key)
            with _told(key):
                raise error

    def _is_locked(self, key: str) -> bool:
        try:
            until = self.head(key).retain_until
        except ObjectMissing:
            return False
        return until is not None and until > datetime.now(until.tzinfo)

    def retain(self, key: str, until: datetime, mode: str) -> None:
        with _told(key):
            self._objects.retain(key, until, mode)

    def restore(self, key: str, *, tier: str, days: int) -> None:
        try:
            with _told(key):
                self._objects.restore(key, days=days, tier=tier)
        except StoreError as refused:
            # Asking twice is not wrong.
            if getattr(refused.__cause__, "code", "") != "RestoreAlreadyInProgress":
                raise


def _info(stored: Stored) -> Info:
    retrieval = None
    if stored.storage_class in _ARCHIVED:
        retrieval = "ongoing" if stored.retrieving else "ready" if stored.retrieval else "needed"
    return Info(
        stored.key,
        stored.size,
        stored.modified.timestamp(),
        stored.storage_class,
        stored.retain_until,
        retrieval,
        stored.retrieved_until,
    )


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Errors of AWS as those of a store; the cause stays with them."""
    try:
        yield
    except AwsError as error:
        if error.code == "NoSuchBucket":
            raise StoreError(error.explain()) from error
        if isinstance(error, errors.NotFound):
            raise ObjectMissing(key) from error
        if isinstance(error, errors.AlreadyExists):
            raise ObjectExists(key) from error
        if error.code == "InvalidObjectState":
            raise ObjectArchived(key) from error
        if error.transient:
            raise StoreUnavailable(error.explain()) from error
        raise StoreError(error.explain()) from error
