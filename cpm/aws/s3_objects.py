"""Objects of one S3 bucket, over ``cpm.aws.http_pool``: what a repository reads and writes all the time.

Questions about the bucket itself stay with the gateway's clients.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cpm.aws import errors, gateway
from cpm.aws.answers import Damaged, xml
from cpm.aws.errors import AwsError
from cpm.aws.http_connection import Answer, Buffer
from cpm.aws.http_pool import HttpPool, Request
from cpm.aws.identity import Identity
from cpm.aws.signing import UNSIGNED, path_of, query_of

LARGEST = 5 * 1024**3
"""Bytes that one put may carry. Packs are far smaller, so there is no multipart upload here."""
USUAL = 1024 * 1024
"""What an object of unknown length is counted as while it is read."""
PAGE = 1000
_NOT_NOW = frozenset({"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted"})
"""What DeleteObjects says of single objects in an answer of status 200, and no longer says a moment later."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How an object is stored. ``encryption`` is ``AES256`` or ``aws:kms``; ``lock_mode`` ``GOVERNANCE`` or
    ``COMPLIANCE``, together with ``retain_until``."""

    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    retain_until: datetime | None = None
    lock_mode: str | None = None

    def headers(self) -> dict[str, str]:
        wanted = {
            "x-amz-storage-class": self.storage_class,
            "x-amz-server-side-encryption": self.encryption,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key,
            "x-amz-object-lock-mode": self.lock_mode if self.retain_until else None,
            "x-amz-object-lock-retain-until-date": _iso(self.retain_until) if self.retain_until else None,
        }
        return {name: value for name, value in wanted.items() if value}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a list or a HEAD shows it. A list knows neither locks nor retrievals.

    ``retrieval`` is S3's ``x-amz-restore`` as it stands, None when none was asked for.
    """

    key: str
    size: int
    modified: datetime
    etag: str = ""
    storage_class: str = "STANDARD"
    retrieval: str | None = None
    lock_mode: str | None = None
    retain_until: datetime | None = None
    version: str | None = None

    @property
    def retrieving(self) -> bool:
        return bool(self.retrieval) and 'ongoing-request="true"' in str(self.retrieval)

    @property
    def retrieved_until(self) -> datetime | None:
        found = re.search(r'expiry-date="([^"]+)"', self.retrieval or "")
        return parsedate_to_datetime(found.group(1)) if found else None


class S3Objects:
    """The objects of ``bucket``. Safe to share between threads.

    ``checksum`` is what S3 checks an upload by: ``crc32``, or ``sha256`` which costs a third of a core per
    500 MB/s. Over plain HTTP the body is signed too, by its SHA-256, unless ``signed`` says otherwise.
    """

    def __init__(
        self,
        identity: Identity,
        region: str,
        bucket: str,
        *,
        checksum: str = "crc32",
        signed: bool | None = None,
    ) -> None:
        if checksum not in _CHECKSUMS:
            raise ValueError(f"checksum is one of {', '.join(_CHECKSUMS)}, not {checksum!r}")
        self.bucket = bucket
        self.region = region
        self._checksum = checksum
        self._pool: HttpPool = gateway.pool(identity, "s3", region, bucket)
        self._signed = not self._pool.secure if signed is None else signed

    @property
    def pool(self) -> HttpPool:
        return self._pool

    # -- writing ------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: Buffer | Sequence[Buffer],
        *,
        only_if_absent: bool = False,
        placement: Placement | None = None,
    ) -> str:
        """The ETag of the object, which is stored whole or not at all. ``data`` may be in pieces.

        With ``only_if_absent`` raises ``AlreadyExists`` when the key was taken by somebody else. A put whose answer
        was lost finds its own object when it is repeated.
        """
        body = (data,) if isinstance(data, bytes | bytearray | memoryview) else tuple(data)
        headers = (placement or Placement()).headers()
        payload = UNSIGNED
        if self._signed:
            payload = _sha256(body).hex()
        name = f"x-amz-checksum-{self._checksum}"
        # Puts with a lock are refused without this or a Content-MD5.
        headers["x-amz-sdk-checksum-algorithm"] = self._checksum.upper()
        given = bytes.fromhex(payload) if self._checksum == "sha256" and payload != UNSIGNED else None
        headers[name] = base64.b64encode(given or _CHECKSUMS[self._checksum](body)).decode()
        if only_if_absent:
            headers["If-None-Match"] = "*"
        request = Request(
            "PutObject", "PUT", path_of(key), "", headers, body, payload, check=_has_etag, again=_in_conflict
        )
        try:
            return self._pool.send(request).headers["etag"].strip('"')
        except AwsError as error:
            if error.code != "PreconditionFailed":
                raise
        if request.lost and (etag := self._holds(key, body)):
            return etag
        raise self._pool.told("PutObject", "ObjectAlreadyExists", f"The key {key} is taken.")

    def _holds(self, key: str, body: Sequence[Buffer]) -> str | None:
        """The ETag when the object has these very bytes: then it is ours, and only the answer was lost."""
        shown = self.head(key)
        same = shown.size == sum(len(piece) for piece in body) and self.get(key) == b"".join(body)
        return shown.etag if same else None

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, AwsError]]:
        """Deletes up to a thousand at a time; absent ones count as deleted. What was refused, and why.

        In a bucket with versions this only hides the objects; see ``delete_versions``.
        """
        return self._delete((key, "") for key in keys)

    def delete_versions(self, keys: Iterable[str]) -> Sequence[tuple[str, AwsError]]:
        """Deletes all versions of the objects, as a bucket with Object Lock needs it."""
        return self._delete((key, version) for key in keys for version in self.versions(key))

    def _delete(self, doomed: Iterable[tuple[str, str]]) -> Sequence[tuple[str, AwsError]]:
        refused: list[tuple[str, AwsError]] = []
        rest = iter(doomed)
        while batch := list(islice(rest, PAGE)):
            listed = "".join(
                f"<Object><Key>{escape(key)}</Key>"
                + (f"<VersionId>{escape(version)}</VersionId>" if version else "")
                + "</Object>"
                for key, version in batch
            )
            result = _Xml("DeleteResult")
            body = f"<Delete>{listed}<Quiet>true</Quiet></Delete>"
            self._post("DeleteObjects", "", "delete", body, check=partial(_are_deleted, result))
            for found in result.root.iterfind("Error"):
                key, code, text = (found.findtext(name, "") for name in ("Key", "Code", "Message"))
                refused.append((key, self._pool.told("DeleteObjects", code, text)))
        return refused

    def retain(self, key: str, until: datetime, mode: str) -> None:
        """Locks the object until then; S3 refuses to shorten what is locked in COMPLIANCE."""
        body = f"<Retention><Mode>{escape(mode)}</Mode><RetainUntilDate>{_iso(until)}</RetainUntilDate></Retention>"
        self._post("PutObjectRetention", key, "retention", body, method="PUT")

    def restore(self, key: str, *, days: int, tier: str) -> None:
        """Asks for a readable copy of an archived object; ``InvalidState`` while one is being made already."""
        body = (
            f"<RestoreRequest><Days>{days:d}</Days><GlacierJobParameters><Tier>{escape(tier)}</Tier>"
            "</GlacierJobParameters></RestoreRequest>"
        )
        self._post("RestoreObject", key, "restore", body)

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytearray:
        """The object, or so many bytes of it from ``start``; fewer only where it ends.

        A whole object is compared with the checksum it was stored with, where S3 gives it.
        """
        if length == 0:
            return bytearray()
        if start == 0 and length is None:
            answer = self._read(key, {"x-amz-checksum-mode": "ENABLED"}, USUAL, _is_whole)
        else:
            answer = self._read(key, _range(start, length), length or USUAL, _is_part(start, length))
        body = answer.body if answer else b""
        return body if isinstance(body, bytearray) else bytearray(body)

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        """Fills ``target`` from ``start`` on; how many bytes there were."""
        if not len(target):
            return 0
        size = len(target)
        answer = self._read(key, _range(start, size), size, _is_part(start, size), target)
        return len(answer.body) if answer else 0

    def head(self, key: str) -> Stored:
        """Raises ``NotFound`` when there is no such object."""
        answer = self._send("HeadObject", "HEAD", key, check=_has_etag)
        headers = answer.headers
        until = headers.get("x-amz-object-lock-retain-until-date")
        return Stored(
            key,
            int(headers.get("content-length", "0")),
            parsedate_to_datetime(headers["last-modified"]),
            headers["etag"].strip('"'),
            headers.get("x-amz-storage-class", "STANDARD"),
            headers.get("x-amz-restore"),
            headers.get("x-amz-object-lock-mode"),
            datetime.fromisoformat(until) if until else None,
            headers.get("x-amz-version-id"),
        )

    def list(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """All objects below ``prefix`` whose key comes after ``after``, in S3's order, page by page."""
        token: str | None = None
        while True:
            found, following = self.page(prefix, token, after)
            yield from found
            if following is None:
                return
            if following == token:
                raise self._pool.told("ListObjectsV2", "RepeatedToken", "The list repeats a page for ever.")
            token = following

    def page(
        self, prefix: str, token: str | None = None, after: str = ""
    ) -> tuple[Sequence[Stored], str | None]:
        """A thousand objects at most, and the token of the next page, None after the last."""
        wanted = [("list-type", "2"), ("max-keys", str(PAGE)), ("prefix", prefix)]
        if token:
            wanted.append(("continuation-token", token))
        elif after:
            wanted.append(("start-after", after))
        result = _Xml("ListBucketResult")
        self._send("ListObjectsV2", "GET", "", query=query_of(wanted), check=result.read)
        more = result.root.findtext("IsTruncated", "false").lower() == "true"
        following = result.root.findtext("NextContinuationToken")
        if more and not following:
            raise self._pool.told(
                "ListObjectsV2", "MissingToken", "The list is cut, and does not say how to go on."
            )
        return [_listed(found) for found in result.root.iterfind("Contents")], following if more else None

    def versions(self, key: str) -> Iterator[str]:
        """Ids of all versions and delete markers of this very key."""
        place: list[tuple[str, str]] = []
        while True:
            result = _Xml("ListVersionsResult")
            query = query_of([("versions", ""), ("prefix", key), *place])
            self._send("ListObjectVersions", "GET", "", query=query, check=result.read)
            for kind in ("Version", "DeleteMarker"):
                for found in result.root.iterfind(kind):
                    if found.findtext("Key") == key:
                        yield found.findtext("VersionId", "null")
            at, version = (result.root.findtext(f"Next{name}Marker", "") for name in ("Key", "VersionId"))
            # Markers lead on in the order of keys, and the wanted key comes before all longer ones.
            if result.root.findtext("IsTruncated", "false").lower() != "true" or at != key:
                return
            place = [("key-marker", at), ("version-id-marker", version)]

    # -- inside -------------------------------------------------------------------------------------------

    def _read(
        self,
        key: str,
        headers: dict[str, str],
        size: int,
        check: Callable[[Answer], None],
        into: memoryview | None = None,
    ) -> Answer | None:
        """None when the range begins where the object ends."""
        try:
            more: dict[str, Any] = {
                "headers": headers,
                "size": size,
                "longest": LARGEST,
                "check": check,
                "into": into,
            }
            return self._send("GetObject", "GET", key, **more)
        except errors.Invalid as error:
            if error.code != "InvalidRange":
                raise
            return None

    def _send(self, action: str, method: str, key: str, *, query: str = "", **more: Any) -> Answer:
        path = path_of(key) if key else "/"
        return self._pool.send(Request(action, method, path, query, **more))

    def _post(self, action: str, key: str, what: str, body: str, method: str = "POST", **more: Any) -> Answer:
        data = body.encode()
        digest = hashlib.sha256(data)
        headers = {
            "Content-Type": "application/xml",
            # Some S3s know only this one.
            "Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
        }
        more |= {"headers": headers, "body": (data,), "payload": digest.hexdigest()}
        return self._send(action, method, key, query=query_of([(what, "")]), **more)


# -- checksums --------------------------------------------------------------------------------------------


def _sha256(body: Sequence[Buffer]) -> bytes:
    total = hashlib.sha256()
    for piece in body:
        total.update(piece)
    return total.digest()


def _crc32(body: Sequence[Buffer]) -> bytes:
    total = 0
    for piece in body:
        total = zlib.crc32(piece, total)
    return total.to_bytes(4, "big")


_CHECKSUMS: dict[str, Callable[[Sequence[Buffer]], bytes]] = {"crc32": _crc32, "sha256": _sha256}


# -- what an answer must be -------------------------------------------------------------------------------


def _has_etag(answer: Answer) -> None:
    """Every S3 says what it stored; a page that a proxy wrote does not."""
    if "etag" not in answer.headers:
        raise Damaged("the answer is none of S3; a proxy on the way may have written it", "BadAnswer")


def _is_whole(answer: Answer) -> None:
    _has_etag(answer)
    for name, sum_of in _CHECKSUMS.items():
        told = answer.headers.get(f"x-amz-checksum-{name}", "")
        # A dash marks the checksum of an upload in parts, which is not that of the bytes.
        if told and "-" not in told and base64.b64encode(sum_of((answer.body,))).decode() != told:
            raise Damaged("an object's bytes do not match the checksum it was stored with")


def _is_part(start: int, length: int | None) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        _has_etag(answer)
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", ""))
        if answer.status != 206 or told is None:
            raise Damaged("a part of an object was asked for, and something else came", "BadAnswer")
        first, last, whole = (int(number) for number in told.groups())
        end = whole if length is None else min(whole, start + length)
        if first != start or last + 1 != end or len(answer.body) != end - start:
            raise Damaged("another part of the object came than was asked for", "BadAnswer")

    return check


def _listed(found: ElementTree.Element) -> Stored:
    return Stored(
        found.findtext("Key", ""),
        int(found.findtext("Size", "0")),
        datetime.fromisoformat(found.findtext("LastModified", "")),
        found.findtext("ETag", "").strip('"'),
        found.findtext("StorageClass") or "STANDARD",
    )


class _Xml:
    """Reads an answer that must be an element ``name``; afterwards ``root`` is that, without its name space."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.root = ElementTree.Element(name)

    def read(self, answer: Answer) -> None:
        root = xml(answer.body)
        if root.tag != self._name:
            raise Damaged(f"the answer is no {self._name}", "BadAnswer")
        self.root = root


def _are_deleted(result: _Xml, answer: Answer) -> None:
    """Deleting again what is gone is harmless, so a batch of which a part passed by is repeated as a whole."""
    result.read(answer)
    for found in result.root.iterfind("Error"):
        code = found.findtext("Code", "")
        if code in _NOT_NOW:
            raise Damaged(f"{found.findtext('Key')} was not deleted: {found.findtext('Message')}", code)


def _in_conflict(error: AwsError) -> bool:
    """Another put of the same key was under way at that moment; the next try finds out who won."""
    return error.code in ("ConditionalRequestConflict", "OperationAborted")


def _range(start: int, length: int | None) -> dict[str, str]:
    end = "" if length is None else str(start + length - 1)
    return {"Range": f"bytes={start}-{end}"}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
