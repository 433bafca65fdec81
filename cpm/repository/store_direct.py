"""`ObjectClient` spoken by the gateway's own client for block I/O, which costs 60 % of boto3's CPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from cpm.aws import errors
from cpm.aws.errors import AwsError
from cpm.aws.s3_objects import Placement, S3Objects, Stored
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


@contextmanager
def _told(key: str) -> Iterator[None]:
    try:
        yield
    except AwsError as error:
        raise _meaning(key, error) from error


def _meaning(key: str, error: AwsError) -> StoreError:
    if error.code in ("NoSuchKey", "404"):
        return ObjectMissing(key)
    if isinstance(error, errors.AlreadyExists):
        return ObjectExists(key)
    if error.code == "InvalidObjectState":
        return ObjectArchived(key)
    if error.transient:
        return StoreUnavailable(f"{key}: {error.explain()}")
    return StoreError(f"{key}: {error.explain()}")


class DirectObjects:
    """One bucket. ``versioned`` says that it keeps versions, as Object Lock requires: deletions remove them too."""

    def __init__(self, objects: S3Objects, *, versioned: bool = False) -> None:
        self._objects = objects
        self._versioned = versioned

    def put(self, key: str, data: Buffer, options: PutOptions, *, if_absent: bool) -> None:
        placement = Placement(
            options.storage_class,
            options.encryption,
            options.kms_key,
            options.retain_until,
            options.lock_mode,
        )
        with _told(key):
            self._objects.put(key, data, only_if_absent=if_absent, placement=placement)

    def get(self, key: str, start: int, length: int | None) -> bytes:
        with _told(key):
            return bytes(self._objects.get(key, start, length))

    def get_into(self, key: str, start: int, target: memoryview) -> int:
        with _told(key):
            return self._objects.read_into(key, start, target)

    def head(self, key: str) -> Info:
        with _told(key):
            return _info(self._objects.head(key), headed=True)

    def list(self, prefix: str, token: str | None) -> Page:
        with _told(prefix):
            found, following = self._objects.page(prefix, token)
        return Page([_info(one) for one in found], following)

    def delete(self, keys: Sequence[str]) -> None:
        with _told(keys[0]):
            refused = (self._objects.delete_versions if self._versioned else self._objects.delete)(keys)
        for key, error in refused:
            if isinstance(error, errors.Denied) and self._is_locked(key):
                raise ObjectLocked(key) from error
            if not isinstance(error, errors.NotFound):
                raise _meaning(key, error) from error

    def _is_locked(self, key: str) -> bool:
        try:
            until = self.head(key).retain_until
        except ObjectMissing:
            return False
        return until is not None and until > datetime.now(UTC)

    def retain(self, key: str, until: datetime, mode: str) -> None:
        with _told(key):
            self._objects.retain(key, until, mode)

    def restore(self, key: str, *, tier: str, days: int) -> None:
        try:
            self._objects.restore(key, tier=tier, days=days)
        except AwsError as error:
            # Asking twice is not wrong.
            if error.code != "RestoreAlreadyInProgress":
                raise _meaning(key, error) from error


def _info(one: Stored, *, headed: bool = False) -> Info:
    retrieval = None
    if headed and one.storage_class in _ARCHIVED:
        retrieval = "ongoing" if one.retrieving else "ready" if one.retrieval else "needed"
    until = one.retrieved_until if retrieval == "ready" else None
    modified = one.modified.timestamp()
    return Info(one.key, one.size, modified, one.storage_class, one.retain_until, retrieval, until)
