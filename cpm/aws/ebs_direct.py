"""The blocks of EBS snapshots: listed, compared, read and written, every block checked against its SHA-256.

EBS direct APIs over ``cpm.aws.http_pool``. A block is 512 KiB. Block tokens are good for a limited time only; reading
renews them by itself.
"""

import base64
import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import orjson

from cpm.aws import errors, gateway
from cpm.aws.answers import Damaged
from cpm.aws.errors import AwsError
from cpm.aws.http_connection import Answer, Buffer
from cpm.aws.http_pool import HttpPool, Request
from cpm.aws.identity import Identity
from cpm.aws.linear_checksum import LinearChecksum
from cpm.aws.parallel import Parallel
from cpm.aws.signing import UNSIGNED, path_of, query_of

BLOCK = 512 * 1024
PAGE = 10_000
# More blocks than are under way at once.
BEHIND = 256
"""Blocks of one page of a list, the most that AWS gives."""
# With tokens of some hundred characters a page of changed blocks has several megabytes.
_LONGEST_PAGE = 32 * 1024 * 1024
_SNAPSHOT = re.compile(r"snap-[0-9a-f]{1,32}")

Ref = tuple[int, str]
"""A block's index and the token that reads it."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A block that differs. Without ``second`` the later snapshot does not have it: it reads as zeros."""

    index: int
    first: str | None
    second: str | None


class EbsDirect:
    """The EBS direct APIs of one region as one identity. Safe to share between threads.

    ``ahead`` bounds the blocks that are in memory for one reading or writing: under way, or not taken yet.
    """

    def __init__(self, identity: Identity, region: str, *, ahead: int = 128) -> None:
        self.region = region
        self.ahead = ahead
        self._pool: HttpPool = gateway.pool(identity, "ebs", region)
        self._spare: deque[memoryview] = deque(maxlen=ahead)

    @property
    def pool(self) -> HttpPool:
        return self._pool

    # -- listing ------------------------------------------------------------------------------------------

    def list_blocks(self, snapshot: str, start: int = 0, *, page_size: int = PAGE) -> Iterator[Ref]:
        """The blocks from index ``start``, in order; a list that was cut is resumed one after its last index.

        A page (AWS: of 100 blocks at least) is asked for when its first block is taken.
        """
        path = path_of("snapshots", _checked(snapshot), "blocks")
        for page in self._pages("ListSnapshotBlocks", path, start, {}, page_size):
            for block in page.get("Blocks") or ():
                yield block["BlockIndex"], block["BlockToken"]

    def list_changed_blocks(self, first: str, second: str, start: int = 0) -> Iterator[Changed]:
        """Where ``second`` differs from ``first``, from index ``start``, in order."""
        path = path_of("snapshots", _checked(second), "changedblocks")
        for page in self._pages("ListChangedBlocks", path, start, {"firstSnapshotId": _checked(first)}):
            for block in page.get("ChangedBlocks") or ():
                yield Changed(
                    block["BlockIndex"], block.get("FirstBlockToken"), block.get("SecondBlockToken")
                )

    def _pages(
        self, action: str, path: str, start: int, more: Mapping[str, str], page_size: int = PAGE
    ) -> Iterator[dict[str, Any]]:
        token: str | None = None
        seen = -1
        while True:
            place = {"pageToken": token} if token else {"startingBlockIndex": str(start)}
            query = query_of([*more.items(), *place.items(), ("maxResults", str(page_size))])
            answer = self._pool.send(Request(action, "GET", path, query, size=_LONGEST_PAGE, check=_is_list))
            page: dict[str, Any] = orjson.loads(answer.body)
            if page.get("BlockSize") != BLOCK:
                raise self._own(
                    errors.Unknown, action, "BlockSize", f"The blocks have {page.get('BlockSize')} bytes."
                )
            blocks = page.get("Blocks") or page.get("ChangedBlocks") or ()
            if blocks and blocks[0]["BlockIndex"] <= seen:
                raise self._own(
                    errors.Unknown, action, "RepeatedToken", "The list of blocks does not go forward."
                )
            seen = blocks[-1]["BlockIndex"] if blocks else seen
            yield page
            following = page.get("NextToken")
            if not following:
                return
            if following == token:
                raise self._own(errors.Unknown, action, "RepeatedToken", "The list repeats a page for ever.")
            token = following

    # -- reading ------------------------------------------------------------------------------------------

    def get_block(self, snapshot: str, index: int, token: str) -> Buffer:
        """The block's bytes, whose length and checksum are right. Raises ``Invalid`` for a token that expired."""
        path = path_of("snapshots", _checked(snapshot), "blocks", str(index))
        query = query_of([("blockToken", token)])
        try:
            into = self._spare.pop()
        except IndexError:
            # Python clears the memory of a bytearray, and lets no other thread run meanwhile.
            into = np.empty(BLOCK, np.uint8).data
        request = Request("GetSnapshotBlock", "GET", path, query, size=BLOCK, into=into, check=_is_block)
        return self._pool.send(request).body

    def recycle(self, block: Buffer) -> None:
        """Takes back a block that was read: from now on its memory is that of another block.

        Nobody has to; but memory that changes hands between threads is not given back to the system.
        """
        if isinstance(block, memoryview) and len(block) == BLOCK:
            self._spare.append(block)

    def read_blocks(self, snapshot: str, refs: Iterable[Ref]) -> Parallel[Ref, tuple[int, Buffer]]:
        """The blocks named by ``refs``, as they come: in no order, many requests at once, in bounded memory.

        A token that is not valid any more is replaced by one from a new list of the same snapshot.
        """
        tokens = _Tokens(self, snapshot)

        def read(ref: Ref) -> tuple[int, Buffer]:
            index, given = ref
            token = tokens.of(index, given)
            try:
                return index, self.get_block(snapshot, index, token)
            except errors.Invalid as error:
                if "INVALID_BLOCK_TOKEN" not in error.message:
                    raise
                renewed = tokens.renewed(index, token)
                if renewed is None:
                    raise
            return index, self.get_block(snapshot, index, renewed)

        return self._parallel(read, refs, "ebs-read")

    # -- writing ------------------------------------------------------------------------------------------

    def start_snapshot(
        self,
        size: int,
        *,
        client_token: str,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        encrypted: bool = False,
        kms_key: str | None = None,
        timeout: int = 60,
    ) -> dict[str, Any]:
        """AWS's answer, the same one for the same ``client_token``. ``size`` in GiB.

        AWS drops the snapshot when no block comes for ``timeout`` minutes (10 to 4,320) before it is completed.
        """
        wanted: dict[str, Any] = {
            "VolumeSize": size,
            "ClientToken": client_token,
            "Description": description,
            "Timeout": timeout,
            "Tags": [{"Key": key, "Value": value} for key, value in (tags or {}).items()],
            "ParentSnapshotId": parent,
            "KmsKeyArn": kms_key,
            # EBS refuses the field beside a parent, which decides.
            "Encrypted": True if encrypted and parent is None else None,
        }
        body = orjson.dumps({name: value for name, value in wanted.items() if value not in (None, [], "")})
        headers = {"Content-Type": "application/json"}
        payload = hashlib.sha256(body).hexdigest()
        request = Request(
            "StartSnapshot", "POST", "/snapshots", "", headers, (body,), payload, check=_is_json
        )
        answer: dict[str, Any] = orjson.loads(self._pool.send(request).body)
        return answer

    def put_block(self, snapshot: str, index: int, data: Buffer, *, progress: int | None = None) -> bytes:
        """Writes a whole block, twice if need be, which is the same as once; its SHA-256."""
        if len(data) != BLOCK:
            raise ValueError(f"a block has {BLOCK} bytes, not {len(data)}")
        digest = hashlib.sha256(data).digest()
        checksum = base64.b64encode(digest).decode()
        headers = {
            "x-amz-Data-Length": str(BLOCK),
            "x-amz-Checksum": checksum,
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        if progress is not None:
            headers["x-amz-Progress"] = str(progress)

        def check(answer: Answer) -> None:
            if answer.headers.get("x-amz-checksum") != checksum:
                raise Damaged(f"block {index} arrived with another checksum")

        path = path_of("snapshots", _checked(snapshot), "blocks", str(index))
        # The payload is not signed (EBS: v4-unsigned-body); its checksum is, among the headers.
        self._pool.send(
            Request(
                "PutSnapshotBlock", "PUT", path, "", headers, (data,), UNSIGNED, again=_conflict, check=check
            )
        )
        return digest

    def write_blocks(
        self, snapshot: str, blocks: Iterable[tuple[int, Buffer]], checksum: LinearChecksum | None = None
    ) -> Parallel[tuple[int, Buffer], tuple[int, bytes]]:
        """Index and SHA-256 of each block as it has been written: in no order, many requests at once.

        ``blocks`` is read only as fast as there is room, and must be ascending when a ``checksum`` is kept.
        """

        def begun() -> Iterator[tuple[int, Buffer]]:
            for index, data in blocks:
                if checksum is not None:
                    checksum.begin(index)
                yield index, data

        def write(block: tuple[int, Buffer]) -> tuple[int, bytes]:
            index, data = block
            digest = self.put_block(snapshot, index, data)
            if checksum is not None:
                checksum.end(index, digest)
            return index, digest

        return self._parallel(write, begun(), "ebs-write")

    def complete_snapshot(self, snapshot: str, changed: int, checksum: bytes | None = None) -> str:
        """Seals a snapshot of ``changed`` written blocks; "pending", "completed" or "error".

        ``checksum`` is what ``LinearChecksum`` says. The snapshot is whole when EC2 DescribeSnapshots says
        completed.
        """
        headers = {"x-amz-ChangedBlocksCount": str(changed)}
        if checksum is not None:
            headers["x-amz-Checksum"] = base64.b64encode(checksum).decode()
            headers["x-amz-Checksum-Algorithm"] = "SHA256"
            headers["x-amz-Checksum-Aggregation-Method"] = "LINEAR"
        path = path_of("snapshots", "completion", _checked(snapshot))
        request = Request("CompleteSnapshot", "POST", path, "", headers, check=_is_json)
        try:
            answer = orjson.loads(self._pool.send(request).body)
        except errors.Invalid as error:
            if request.lost and "INVALID_SNAPSHOT_ID" in error.message:
                # The first try sealed it and its answer was lost; a sealed snapshot refuses to be sealed again.
                return "pending"
            raise
        return str(answer.get("Status", ""))

    # -- inside -------------------------------------------------------------------------------------------

    def _parallel(self, work: Callable[[Any], Any], items: Iterable[Any], name: str) -> Parallel[Any, Any]:
        in_flight = self._pool.in_flight
        return Parallel(work, items, threads=lambda: int(in_flight.limit), ahead=self.ahead, name=name)

    def _own(self, kind: type[AwsError], action: str, code: str, message: str) -> AwsError:
        account = self._pool.identity.account_number
        return kind(code, message, action=action, service="ebs", region=self.region, account=account)


class _Tokens:
    """Tokens that took the place of expired ones: a page of them, renewed where it ends.

    Blocks that were asked for before, and whose refusal comes later, are on the same page.
    """

    def __init__(self, ebs: EbsDirect, snapshot: str) -> None:
        self._ebs = ebs
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._page: dict[int, str] = {}

    def of(self, index: int, given: str) -> str:
        return self._page.get(index, given) if self._page else given

    def renewed(self, index: int, refused: str) -> str | None:
        """Another token than the refused one, or None when a new list does not name the block."""
        with self._lock:
            known = self._page.get(index)
            if known is not None and known != refused:
                return known
            listed = self._ebs.list_blocks(self._snapshot, max(0, index - BEHIND))
            page = dict(islice(listed, PAGE))
            self._page = page
            found = page.get(index)
            return found if found != refused else None


def _checked(snapshot: str) -> str:
    if not _SNAPSHOT.fullmatch(snapshot):
        raise ValueError(f"not the id of a snapshot: {snapshot!r}")
    return snapshot


def _is_block(answer: Answer) -> None:
    headers, body = answer.headers, answer.body
    if headers.get("x-amz-checksum-algorithm") != "SHA256":
        raise Damaged("a block came without a SHA-256 checksum")
    if len(body) != BLOCK or headers.get("x-amz-data-length") != str(BLOCK):
        raise Damaged(f"a block came with {len(body)} bytes")
    if base64.b64encode(hashlib.sha256(body).digest()).decode() != headers.get("x-amz-checksum"):
        raise Damaged("a block's bytes do not match its checksum")


def _is_json(answer: Answer) -> None:
    """A page of a proxy must not pass for an answer."""
    if not bytes(answer.body[:64]).lstrip().startswith(b"{"):
        raise Damaged("the answer is none of AWS; a proxy on the way may have written it", "BadAnswer")


def _is_list(answer: Answer) -> None:
    _is_json(answer)
    if b'"BlockSize"' not in answer.body:
        raise Damaged("the answer is no list of blocks", "BadAnswer")


def _conflict(error: AwsError) -> bool:
    """An earlier try of the same block is still being written, or took too long there."""
    return isinstance(error, errors.Invalid) and error.message.startswith(
        ("CONFLICTING_BLOCK_UPDATE", "WRITE_REQUEST_TIMEOUT")
    )
