"""Objects copied by S3 from one bucket into another, over ``cpm.aws.http_pool``: lists of any keys, copies, deletions.

The gateway's clients would pace these calls at ten per second and spend most of their time on parsing lists. Keys are
those of customers, so any character may be in them: lists come with keys quoted.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cpm.aws import errors, gateway
from cpm.aws.answers import Damaged, xml
from cpm.aws.errors import AwsError
from cpm.aws.http_connection import Answer
from cpm.aws.http_pool import Request
from cpm.aws.identity import Identity
from cpm.aws.signing import path_of, query_of

PAGE = 1000
# A thousand keys of a thousand bytes, each of which is quoted as three.
_LONGEST_LIST = 16 * 1024 * 1024
_PASSING = frozenset(
    {"InternalError", "ServiceUnavailable", "SlowDown", "OperationAborted", "RequestTimeout"}
)
"""What S3 says inside of an answer of status 200, and no longer says a moment later."""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_SYSTEM_METADATA = (
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
    "x-amz-website-redirect-location",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """An object in a list. ``archived``: it can be read only after a retrieval, which has not happened."""

    key: str
    size: int
    modified: datetime
    etag: str
    archived: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """The version of an object that is copied: if it was written anew meanwhile, S3 says PreconditionFailed."""

    bucket: str
    key: str
    etag: str

    def headers(self) -> dict[str, str]:
        return {
            "x-amz-copy-source": quote(f"{self.bucket}/{self.key}", safe="/-._~"),
            "x-amz-copy-source-if-match": f'"{self.etag}"',
        }


@dataclass(frozen=True, slots=True)
class Upload:
    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    size: int
    etag: str


class S3Copies:
    """One bucket: the source for lists and metadata, the destination for copies. Safe to share between threads."""

    def __init__(self, identity: Identity, region: str, bucket: str) -> None:
        self.bucket = bucket
        self._pool = gateway.pool(identity, "s3", region, bucket)

    # -- reading ------------------------------------------------------------------------------------------

    def page(self, prefix: str, after: str | None, token: str | None) -> tuple[list[Shown], str | None]:
        """Up to a thousand objects, and the token of what follows, None after the last."""
        wanted = [
            ("list-type", "2"),
            ("max-keys", str(PAGE)),
            ("encoding-type", "url"),
            ("prefix", prefix),
        ]
        if token:
            wanted.append(("continuation-token", token))
        elif after:
            wanted.append(("start-after", after))
        root = self._ask(
            "ListObjectsV2", "GET", "", "ListBucketResult", query=query_of(wanted),
            headers={"x-amz-optional-object-attributes": "RestoreStatus"}, longest=_LONGEST_LIST,
        )  # fmt: skip
        following = root.findtext("NextContinuationToken")
        cut = root.findtext("IsTruncated", "false").lower() == "true"
        if cut and (not following or following == token):
            raise self._pool.told(
                "ListObjectsV2", "MissingToken", "The list is cut, and does not say how to go on."
            )
        quoted = root.findtext("EncodingType") == "url"
        now = datetime.now(UTC)
        return [_shown(found, quoted, now) for found in root.iterfind("Contents")], following if cut else None

    def metadata(self, key: str, etag: str) -> dict[str, str]:
        """The headers that an upload needs to keep an object's metadata; a copy of S3 keeps it by itself."""
        answer = self._pool.send(
            Request("HeadObject", "HEAD", path_of(key), "", {"If-Match": f'"{etag}"'})
        )  # fmt: skip
        return {
            name: value
            for name, value in answer.headers.items()
            if name in _SYSTEM_METADATA or name.startswith("x-amz-meta-")
        }

    def tags(self, key: str) -> dict[str, str]:
        query = query_of([("tagging", "")])
        root = self._ask("GetObjectTagging", "GET", key, "Tagging", query=query)
        return {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in root.iterfind("TagSet/Tag")}

    # -- copying ------------------------------------------------------------------------------------------

    def copy(self, origin: Origin, key: str, *, storage_class: str, tags: bool) -> None:
        """Up to 5 GiB in one call. Without ``tags`` the copy has none."""
        headers = {
            **origin.headers(),
            "x-amz-metadata-directive": "COPY",
            "x-amz-tagging-directive": "COPY" if tags else "REPLACE",
            "x-amz-storage-class": storage_class,
        }
        self._ask("CopyObject", "PUT", key, "CopyObjectResult", headers=headers)

    def uploads(self, key: str) -> list[Upload]:
        """Uploads in parts to this very key that were begun and not ended."""
        found: list[Upload] = []
        place: list[tuple[str, str]] = []
        while True:
            query = query_of([("uploads", ""), ("encoding-type", "url"), ("prefix", key), *place])
            root = self._ask("ListMultipartUploads", "GET", "", "ListMultipartUploadsResult", query=query)
            read = unquote_plus if root.findtext("EncodingType") == "url" else str
            for each in root.iterfind("Upload"):
                if read(each.findtext("Key", "")) == key:
                    found.append(Upload(key, each.findtext("UploadId", "")))
            at, upload = read(root.findtext("NextKeyMarker", "")), root.findtext("NextUploadIdMarker", "")
            # Lists are in the order of keys, and the wanted key comes before all longer ones.
            if root.findtext("IsTruncated", "false").lower() != "true" or at != key:
                return found
            place = [("key-marker", at), ("upload-id-marker", upload)]

    def begin(
        self, key: str, *, metadata: Mapping[str, str], tags: Mapping[str, str], storage_class: str
    ) -> Upload:
        """Not repeated when its answer is lost: the upload would be there twice. `uploads` finds it."""
        headers = {**metadata, "x-amz-storage-class": storage_class}
        if tags:
            headers["x-amz-tagging"] = query_of(list(tags.items()))
        root = self._ask(
            "CreateMultipartUpload", "POST", key, "InitiateMultipartUploadResult",
            query=query_of([("uploads", "")]), headers=headers, repeatable=False,
        )  # fmt: skip
        return Upload(key, root.findtext("UploadId", ""))

    def parts(self, upload: Upload) -> list[Part]:
        found: list[Part] = []
        marker = "0"
        while True:
            query = query_of([("uploadId", upload.upload_id), ("part-number-marker", marker)])
            root = self._ask("ListParts", "GET", upload.key, "ListPartsResult", query=query)
            for each in root.iterfind("Part"):
                number, size = int(each.findtext("PartNumber", "0")), int(each.findtext("Size", "0"))
                found.append(Part(number, size, each.findtext("ETag", "").strip('"')))
            following = root.findtext("NextPartNumberMarker", "")
            if root.findtext("IsTruncated", "false").lower() != "true" or following in ("", marker):
                return found
            marker = following

    def copy_part(self, upload: Upload, origin: Origin, number: int, start: int, size: int) -> Part:
        query = query_of([("partNumber", str(number)), ("uploadId", upload.upload_id)])
        headers = {**origin.headers(), "x-amz-copy-source-range": f"bytes={start}-{start + size - 1}"}
        root = self._ask("UploadPartCopy", "PUT", upload.key, "CopyPartResult", query=query, headers=headers)
        return Part(number, size, root.findtext("ETag", "").strip('"'))

    def complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;</ETag></Part>"
            for part in sorted(parts, key=lambda part: part.number)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        query = query_of([("uploadId", upload.upload_id)])
        request = _with_body("CompleteMultipartUpload", path_of(upload.key), query, body)
        try:
            self._told(request, "CompleteMultipartUploadResult")
        except errors.NotFound as error:
            # The answer that said it was complete may be the one that was lost.
            if error.code != "NoSuchUpload" or not request.lost:
                raise

    def abort(self, upload: Upload) -> None:
        """An upload that is gone already is fine."""
        query = query_of([("uploadId", upload.upload_id)])
        try:
            self._pool.send(Request("AbortMultipartUpload", "DELETE", path_of(upload.key), query))
        except errors.NotFound as error:
            if error.code != "NoSuchUpload":
                raise

    # -- deleting -----------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[str]) -> list[tuple[str, AwsError]]:
        """Up to a thousand; absent ones count as deleted. What was refused, and why. In a bucket with versions this
        hides the objects behind delete markers."""
        refused: list[tuple[str, AwsError]] = []
        told = [key for key in keys if not _NOT_IN_XML.search(key)]
        if told:
            # S3 reads a plain carriage return in XML as a line feed, and would delete another key.
            listed = "".join(
                f"<Object><Key>{escape(key, {chr(13): '&#13;', chr(10): '&#10;', chr(9): '&#9;'})}</Key></Object>"
                for key in told
            )
            body = f"<Delete>{listed}<Quiet>true</Quiet></Delete>"
            request = _with_body("DeleteObjects", "/", query_of([("delete", "")]), body)
            root = self._told(request, "DeleteResult", check=_nothing_passing)
            for found in root.iterfind("Error"):
                key, code, text = (found.findtext(name, "") for name in ("Key", "Code", "Message"))
                refused.append((key, self._pool.told("DeleteObjects", code, text)))
        for key in set(keys) - set(told):
            try:
                self._pool.send(Request("DeleteObject", "DELETE", path_of(key)))
            except AwsError as error:
                refused.append((key, error))
        return refused

    # -- inside -------------------------------------------------------------------------------------------

    def _ask(
        self,
        action: str,
        method: str,
        key: str,
        root: str,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        longest: int = 0,
        repeatable: bool = True,
    ) -> ElementTree.Element:
        path = path_of(key) if key else "/"
        request = Request(action, method, path, query, headers or {}, longest=longest, repeatable=repeatable)
        return self._told(request, root)

    def _told(
        self, request: Request, name: str, check: Callable[[ElementTree.Element], None] | None = None
    ) -> ElementTree.Element:
        """The answer, which is an element ``name``. S3 may say 200 first and then fail: CopyObject, UploadPartCopy and
        CompleteMultipartUpload begin their answer before they have ended."""
        roots: list[ElementTree.Element] = []
        # Not all servers name their answers as AWS does.
        request.check = partial(_read, roots, (name, f"{request.action}Response", "Error"), check)
        self._pool.send(request)
        root = roots[-1]
        if root.tag == "Error":
            raise self._pool.told(request.action, root.findtext("Code", ""), root.findtext("Message", ""))
        return root


def _read(
    roots: list[ElementTree.Element],
    names: Sequence[str],
    check: Callable[[ElementTree.Element], None] | None,
    answer: Answer,
) -> None:
    root = xml(bytes(answer.body).strip())
    code = root.findtext("Code", "")
    if root.tag not in names:
        raise Damaged(f"the answer is no {names[0]}", "BadAnswer")
    if root.tag == "Error" and code in _PASSING:
        raise Damaged(root.findtext("Message", ""), code)
    if check is not None:
        check(root)
    roots.append(root)


def _nothing_passing(root: ElementTree.Element) -> None:
    """Deleting again what is gone is harmless, so a batch of which a part passed by is repeated as a whole."""
    for found in root.iterfind("Error"):
        code = found.findtext("Code", "")
        if code in _PASSING:
            raise Damaged(f"{found.findtext('Key')} was not deleted: {found.findtext('Message')}", code)


def _with_body(action: str, path: str, query: str, body: str) -> Request:
    data = body.encode()
    headers = {
        "Content-Type": "application/xml",
        "Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
    }
    method = "POST"
    return Request(action, method, path, query, headers, (data,), hashlib.sha256(data).hexdigest())


def _shown(found: ElementTree.Element, quoted: bool, now: datetime) -> Shown:
    key = found.findtext("Key", "")
    archived = found.findtext("StorageClass") in _ARCHIVES
    if archived:
        until = found.findtext("RestoreStatus/RestoreExpiryDate")
        archived = until is None or datetime.fromisoformat(until) <= now
    return Shown(
        unquote_plus(key) if quoted else key,
        int(found.findtext("Size", "0")),
        datetime.fromisoformat(found.findtext("LastModified", "")),
        found.findtext("ETag", "").strip('"'),
        archived,
    )
