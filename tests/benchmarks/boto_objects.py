"""The peer of `cpm.repository.store_direct`: the same protocol spoken by boto3."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

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
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_EXISTS = frozenset({"PreconditionFailed", "412"})
_THROTTLED = frozenset(
    {
        "ConditionalRequestConflict",
        "SlowDown",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
        "RequestTimeTooSkewed",
    }
)
_EXPIRY = re.compile(r'expiry-date="([^"]+)"')


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _told(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _code(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _MISSING:
            raise ObjectMissing(key) from error
        if code in _EXISTS:
            raise ObjectExists(key) from error
        if code == "InvalidObjectState":
            raise ObjectArchived(key) from error
        # ConditionalRequestConflict: two writers met, and which of them succeeded is not decided yet.
        if status >= 500 or code in _THROTTLED:
            raise StoreUnavailable(f"S3 could not serve {key} this time ({code or status}).") from error
        message = error.response.get("Error", {}).get("Message", "")
        raise StoreError(f"S3 refused {key}: {code} {message}".rstrip()) from error
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(f"S3 did not answer for {key}: {type(error).__name__}.") from error


class BotoObjects:
    """One bucket through a boto3 S3 client (which brings endpoint, region, credentials and proxy).

    ``versioned`` says that the bucket keeps versions, as Object Lock requires: deletions then remove the versions,
    since a mere delete marker would leave the data where it is, and paid for.
    """

    def __init__(self, client: Any, bucket: str, *, versioned: bool = False) -> None:
        self._client = client
        self._bucket = bucket
        self._versioned = versioned

    def put(self, key: str, data: Buffer, options: PutOptions, *, if_absent: bool) -> None:
        digest = hashlib.sha256(data).digest()
        more: dict[str, object] = {
            "StorageClass": options.storage_class,
            "ServerSideEncryption": options.encryption,
            "SSEKMSKeyId": options.kms_key,
            "ObjectLockMode": options.lock_mode if options.retain_until else None,
            "ObjectLockRetainUntilDate": options.retain_until,
            "IfNoneMatch": "*" if if_absent else None,
        }
        with _told(key):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data if isinstance(data, (bytes, bytearray)) else BytesIO(data),
                # Named as well: puts with a retention are refused without the algorithm.
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=b64encode(digest).decode(),
                **{name: value for name, value in more.items() if value is not None},
            )

    def get(self, key: str, start: int, length: int | None) -> bytes:
        with _told(key):
            return self._body(key, start, length, lambda stream, size: bytes(stream.read()))

    def get_into(self, key: str, start: int, target: memoryview) -> int:
        def fill(stream: Any, size: int) -> bytes:
            done = 0
            while done < size:
                part = stream.read(min(size - done, 1 << 20))
                if not part:
                    raise StoreUnavailable(f"S3 sent less of {key} than it announced.")
                target[done : done + len(part)] = part
                done += len(part)
            return done.to_bytes(8)

        with _told(key):
            return int.from_bytes(self._body(key, start, len(target), fill))

    def _body(self, key: str, start: int, length: int | None, take: Callable[[Any, int], bytes]) -> bytes:
        last = "" if length is None else start + length - 1
        extra = {"Range": f"bytes={start}-{last}"} if start or length is not None else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **extra)
        except ClientError as error:
            if _code(error) in ("InvalidRange", "416"):
                return b""
            raise
        with answer["Body"] as stream:
            return take(stream, int(answer["ContentLength"]))

    def head(self, key: str) -> Info:
        with _told(key):
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        retrieval, until = _retrieval(found.get("StorageClass"), found.get("Restore"))
        return Info(
            key,
            int(found["ContentLength"]),
            found["LastModified"].timestamp(),
            found.get("StorageClass"),
            found.get("ObjectLockRetainUntilDate"),
            retrieval,
            until,
        )

    def list(self, prefix: str, token: str | None) -> Page:
        extra = {"ContinuationToken": token} if token else {}
        with _told(prefix):
            found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **extra)
        infos = [
            Info(each["Key"], int(each["Size"]), each["LastModified"].timestamp(), each.get("StorageClass"))
            for each in found.get("Contents", [])
        ]
        return Page(infos, found.get("NextContinuationToken") if found.get("IsTruncated") else None)

    def delete(self, keys: Sequence[str]) -> None:
        if self._versioned:
            for key in keys:
                self._delete_versions(key)
            return
        with _told(keys[0]):
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        for error in answer.get("Errors", []):
            self._refused(error["Key"], error.get("Code", ""))

    def _refused(self, key: str, code: str) -> None:
        if code in _MISSING:
            return
        if code == "AccessDenied" and self._is_locked(key):
            raise ObjectLocked(key)
        if code in ("InternalError", "ServiceUnavailable", *_THROTTLED):
            raise StoreUnavailable(f"S3 could not delete {key} this time ({code}).")
        raise StoreError(f"S3 refused to delete {key}: {code}.")

    def _is_locked(self, key: str) -> bool:
        try:
            until = self.head(key).retain_until
        except ObjectMissing:
            return False
        return until is not None and until > datetime.now(until.tzinfo)

    def _delete_versions(self, key: str) -> None:
        with _told(key):
            found = self._client.list_object_versions(Bucket=self._bucket, Prefix=key)
        versions = [*found.get("Versions", []), *found.get("DeleteMarkers", [])]
        for version in versions:
            if version["Key"] != key:
                continue
            try:
                self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version["VersionId"])
            except ClientError as error:
                if _code(error) in ("AccessDenied", "InvalidRequest", "ObjectLocked"):
                    self._refused(key, "AccessDenied")
                with _told(key):
                    raise

    def retain(self, key: str, until: datetime, mode: str) -> None:
        with _told(key):
            self._client.put_object_retention(
                Bucket=self._bucket, Key=key, Retention={"Mode": mode, "RetainUntilDate": until}
            )

    def restore(self, key: str, *, tier: str, days: int) -> None:
        try:
            with _told(key):
                self._client.restore_object(
                    Bucket=self._bucket,
                    Key=key,
                    RestoreRequest={"Days": days, "GlacierJobParameters": {"Tier": tier}},
                )
        except StoreError as refused:
            # Asking twice is not wrong: RestoreAlreadyInProgress.
            if "RestoreAlreadyInProgress" not in str(refused):
                raise


def _retrieval(storage_class: str | None, restore: str | None) -> tuple[str | None, datetime | None]:
    """State and end of a retrieval, out of the x-amz-restore header."""
    if storage_class not in _ARCHIVED:
        return None, None
    if not restore:
        return "needed", None
    if 'ongoing-request="true"' in restore:
        return "ongoing", None
    found = _EXPIRY.search(restore)
    until = parsedate_to_datetime(found[1]) if found else None
    return "ready", until
