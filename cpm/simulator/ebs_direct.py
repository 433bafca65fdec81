"""EBS direct APIs: list, compare, read and write the blocks of snapshots.

AWS: EBS direct APIs Reference, all six actions. Tokens are signed with this process's key, name the block they
stand for and expire; a token of another snapshot or block is refused.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends

from cpm.simulator import blocks, kms, tags
from cpm.simulator.blocks import BLOCK
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import Settling, now
from cpm.simulator.world import Snapshot, new_id

PATHS = [
    ("GET", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>[^/]+)"), "GetSnapshotBlock"),
    ("PUT", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks/(?P<BlockIndex>[^/]+)"), "PutSnapshotBlock"),
    ("GET", re.compile(r"/snapshots/(?P<SnapshotId>[^/]+)/blocks"), "ListSnapshotBlocks"),
    ("GET", re.compile(r"/snapshots/(?P<SecondSnapshotId>[^/]+)/changedblocks"), "ListChangedBlocks"),
    ("POST", re.compile(r"/snapshots/completion/(?P<SnapshotId>[^/]+)"), "CompleteSnapshot"),
    ("POST", re.compile(r"/snapshots"), "StartSnapshot"),
]


def route(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """Action and path parameters of a request."""
    for verb, pattern, action in PATHS:
        match = pattern.fullmatch(path)
        if match and verb == method:
            return action, match.groupdict()
    return None


def refused(reason: str, message: str) -> AwsError:
    """A ValidationException with one of the documented reasons."""
    return AwsError("ValidationException", message, 400, Reason=reason)


def find(call: Call, snapshot_id: str, reason: str = "SNAPSHOT_NOT_FOUND") -> Snapshot:
    """A snapshot of this region that the caller may read."""
    if not re.fullmatch(r"snap-[0-9a-f]{8,17}", snapshot_id):
        raise refused("INVALID_SNAPSHOT_ID", f"The snapshot id '{snapshot_id}' is not valid")
    snapshot = call.state.snapshots.by_id.get(snapshot_id)
    if snapshot is None or snapshot.region != call.region or not snapshot.visible_to(call.account):
        raise AwsError(
            "ResourceNotFoundException", f"The snapshot '{snapshot_id}' does not exist.", 404, Reason=reason
        )
    if snapshot.kms_key_id and kms.caller_can_use(call, snapshot.kms_key_id):
        raise AwsError(
            "AccessDeniedException", "The KMS key is not accessible", 403, Reason="DEPENDENCY_ACCESS_DENIED"
        )
    return snapshot


def completed(call: Call, snapshot_id: str) -> Snapshot:
    """A snapshot whose blocks can be read."""
    snapshot = find(call, snapshot_id)
    if snapshot.state != "completed":
        raise refused(
            "INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is {snapshot.state}, not completed"
        )
    return snapshot


# -- tokens -----------------------------------------------------------------------------------------------


def token(call: Call, *parts: Any) -> str:
    """A signed token for these parts, valid as long as the limits say (AWS: 7 days)."""
    expires = int(time.time() + call.state.limits.block_token_seconds)
    body = json.dumps([*parts, expires], separators=(",", ":")).encode()
    seal = hmac.digest(call.world.token_key, body, "sha256")[:12]
    return base64.b64encode(seal + body).decode()


def opened(call: Call, text: str, reason: str) -> list[Any]:
    """The parts of a token; raises ValidationException when it is forged or expired."""
    try:
        raw = base64.b64decode(text.encode(), validate=True)
    except ValueError as broken:
        raise refused(reason, "The token is not valid") from broken
    seal, body = raw[:12], raw[12:]
    if not hmac.compare_digest(seal, hmac.digest(call.world.token_key, body, "sha256")[:12]):
        raise refused(reason, "The token is not valid")
    parts: list[Any]
    *parts, expires = json.loads(body)
    if time.time() > expires:
        raise refused(reason, "The token has expired")
    return parts


# -- read -------------------------------------------------------------------------------------------------


def _window(call: Call, indexes: list[int], *names: str) -> tuple[list[int], str | None]:
    """The page of block indexes that the request asks for, and the token of the next."""
    limit = _number(call.query.get("maxResults", "10000"))
    # AWS: ListSnapshotBlocks, MaxResults: below 100 it answers 100, above 10,000 it answers 10,000.
    limit = min(10000, max(100, limit))
    start = _number(call.query.get("startingBlockIndex", "0"))
    if page_token := call.query.get("pageToken"):
        parts = opened(call, page_token, "INVALID_PAGE_TOKEN")
        if parts[:-1] != ["page", *names]:
            raise refused("INVALID_PAGE_TOKEN", "The token belongs to another request")
        start = parts[-1]
    left = [index for index in indexes if index >= start]
    rest = left[limit : limit + 1]
    return left[:limit], token(call, "page", *names, rest[0]) if rest else None


def _number(text: str) -> int:
    if not text.isdigit():
        raise refused("INVALID_PARAMETER_VALUE", f"{text[:40]!r} is not a number")
    return int(text)


def _listing(
    call: Call, snapshot: Snapshot, key: str, found: list[dict[str, Any]], after: str | None
) -> dict[str, Any]:
    expires = datetime.fromtimestamp(time.time() + call.state.limits.block_token_seconds, UTC)
    result = {key: found, "ExpiryTime": expires, "VolumeSize": snapshot.size, "BlockSize": BLOCK}
    return {**result, "NextToken": after} if after else result


def list_blocks(call: Call) -> dict[str, Any]:
    """AWS: EBS direct APIs Reference, ListSnapshotBlocks."""
    snapshot = completed(call, call.params["SnapshotId"])
    part, after = _window(call, sorted(snapshot.blocks), snapshot.id)
    found = [{"BlockIndex": index, "BlockToken": token(call, "block", snapshot.id, index)} for index in part]
    return _listing(call, snapshot, "Blocks", found, after)


def list_changed(call: Call) -> dict[str, Any]:
    """AWS: EBS direct APIs Reference, ListChangedBlocks.

    A block without a token in one of the snapshots is absent there. Without a first snapshot every block of the
    second is listed. Snapshots that do not come from one volume are refused as unrelated.
    """
    second = completed(call, call.params["SecondSnapshotId"])
    first = completed(call, call.query["firstSnapshotId"]) if call.query.get("firstSnapshotId") else None
    if first and not first.lineage & second.lineage:
        raise refused(
            "UNRELATED_SNAPSHOTS", f"The snapshots {first.id} and {second.id} are not of the same lineage"
        )
    before = first.blocks if first else {}
    part, after = _window(call, blocks.changed(before, second.blocks), first.id if first else "", second.id)
    found = []
    for index in part:
        entry: dict[str, Any] = {"BlockIndex": index}
        if first and index in before:
            entry["FirstBlockToken"] = token(call, "block", first.id, index)
        if index in second.blocks:
            entry["SecondBlockToken"] = token(call, "block", second.id, index)
        found.append(entry)
    return _listing(call, second, "ChangedBlocks", found, after)


def get_block(call: Call) -> tuple[bytes, dict[str, str]]:
    """AWS: EBS direct APIs Reference, GetSnapshotBlock: the bytes, with their SHA-256 in the headers."""
    with call.world.lock:
        snapshot = completed(call, call.params["SnapshotId"])
        index = _number(call.params["BlockIndex"])
        parts = opened(call, call.query.get("blockToken", ""), "INVALID_BLOCK_TOKEN")
        if parts != ["block", snapshot.id, index]:
            raise refused("INVALID_BLOCK_TOKEN", "The token belongs to another block")
        digest = snapshot.blocks.get(index)
    if digest is None:
        raise refused("INVALID_BLOCK", f"The snapshot has no block {index}")
    try:
        data = call.world.blocks.get(digest)
    except FileNotFoundError as deleted:
        raise AwsError(
            "ResourceNotFoundException", "The snapshot was deleted", 404, Reason="SNAPSHOT_NOT_FOUND"
        ) from deleted
    checksum = base64.b64encode(digest).decode()
    return data, {
        "Content-Type": "application/octet-stream",
        "x-amz-Data-Length": str(BLOCK),
        "x-amz-Checksum": checksum,
        "x-amz-Checksum-Algorithm": "SHA256",
    }


# -- write ------------------------------------------------------------------------------------------------


def start(call: Call) -> dict[str, Any]:
    """AWS: EBS direct APIs Reference, StartSnapshot. The same client token answers with the first snapshot."""
    try:
        call.params.update(json.loads(call.body or b"{}"))
    except ValueError as broken:
        raise refused("INVALID_PARAMETER_VALUE", "The request body is not JSON") from broken
    return call.once(lambda: _started(call))


def _started(call: Call) -> dict[str, Any]:
    params = call.params
    size = params.get("VolumeSize")
    if not isinstance(size, int) or not 1 <= size <= 65536:
        raise refused("INVALID_VOLUME_SIZE", "VolumeSize must be between 1 and 65536 GiB")
    parent = _parent(call, size)
    labels = tags.as_dict(params.get("Tags", []))
    key = _key(call, parent)
    snapshot = Snapshot(
        id=new_id("snap"),
        account=call.account,
        region=call.region,
        volume_id="vol-ffffffffffffffff0",
        size=size,
        description=params.get("Description", ""),
        encrypted=key is not None,
        kms_key_id=key,
        settling=call.world.settling("snapshot"),
        blocks=call.world.blocks.retain(parent.blocks) if parent else {},
        open_for_writing=True,
        parent_id=parent.id if parent else None,
    )
    snapshot.lineage = {snapshot.id} | (parent.lineage if parent else set())
    call.state.snapshots.add(snapshot)
    tags.put(call, snapshot, labels)
    return _as_started(snapshot, tags.listed(labels))


def _parent(call: Call, size: int) -> Snapshot | None:
    if not call.params.get("ParentSnapshotId"):
        return None
    if call.params.get("Encrypted") is not None:
        raise refused("INVALID_PARAMETER_VALUE", "Encrypted cannot be used with ParentSnapshotId")
    parent = completed(call, call.params["ParentSnapshotId"])
    if parent.size > size:
        raise refused("INVALID_VOLUME_SIZE", "The volume size is smaller than the parent snapshot's")
    return parent


def _as_started(snapshot: Snapshot, labels: list[dict[str, str]]) -> dict[str, Any]:
    answer = {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.account,
        "Status": "pending",
        "StartTime": snapshot.created,
        "VolumeSize": snapshot.size,
        "BlockSize": BLOCK,
        "Description": snapshot.description,
        "Tags": labels,
        "ParentSnapshotId": snapshot.parent_id,
        "KmsKeyArn": snapshot.kms_key_id,
        "SseType": "sse-kms" if snapshot.encrypted else "none",
    }
    return {name: value for name, value in answer.items() if value is not None}


def _key(call: Call, parent: Snapshot | None) -> str | None:
    wanted = call.params.get("KmsKeyArn")
    if parent is not None:
        return parent.kms_key_id
    if wanted and not call.params.get("Encrypted"):
        raise refused("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted")
    by_default = bool(ec2_backends[call.account][call.region].ebs_encryption_by_default)
    if not (call.params.get("Encrypted") or by_default):
        return None
    if not wanted:
        return kms.default_key(call.account, call.region)
    arn, refusal = kms.resolve(call, wanted, call.region)
    if refusal:
        raise refused("INVALID_CUSTOMER_KEY", refusal)
    return arn


def _writable(call: Call, snapshot_id: str) -> Snapshot:
    snapshot = find(call, snapshot_id)
    if snapshot.account != call.account:
        raise AwsError("AccessDeniedException", "Not the owner", 403, Reason="UNAUTHORIZED_ACCOUNT")
    if not snapshot.open_for_writing:
        raise refused("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' does not accept blocks")
    return snapshot


def put_block(call: Call) -> tuple[bytes, dict[str, str]]:
    """AWS: EBS direct APIs Reference, PutSnapshotBlock: whole blocks, and the checksum must be theirs."""
    index = _number(call.params["BlockIndex"])
    headers = call.headers
    with call.world.lock:
        snapshot = _writable(call, call.params["SnapshotId"])
    if len(call.body) != BLOCK or headers.get("x-amz-data-length") != str(BLOCK):
        raise refused("INVALID_PARAMETER_VALUE", f"A block holds {BLOCK} bytes")
    if index * BLOCK >= snapshot.bytes:
        raise refused("INVALID_BLOCK", f"Block {index} lies beyond the end of the volume")
    if headers.get("x-amz-checksum-algorithm") != "SHA256":
        raise refused("INVALID_PARAMETER_VALUE", "The checksum algorithm must be SHA256")
    checksum = base64.b64encode(hashlib.sha256(call.body).digest()).decode()
    if headers.get("x-amz-checksum") != checksum:
        raise refused("INVALID_BLOCK", "The checksum does not match the block's data")
    digest = call.world.blocks.put(call.body)
    with call.world.lock:
        if not snapshot.open_for_writing or snapshot.id not in call.state.snapshots.by_id:
            call.world.blocks.release([digest])
            raise refused("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot.id}' does not accept blocks")
        old = snapshot.blocks.get(index)
        snapshot.blocks[index] = digest
        snapshot.touched.add(index)
        if old is not None:
            call.world.blocks.release([old])
    return b"{}", {"x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256"}


def complete(call: Call) -> dict[str, Any]:
    """AWS: EBS direct APIs Reference, CompleteSnapshot: the count must be what was written.

    The optional checksum is the SHA-256 of the blocks' checksums in index order (aggregation LINEAR).
    """
    snapshot = _writable(call, call.params["SnapshotId"])
    told = _number(call.headers.get("x-amz-changedblockscount", ""))
    if told != len(snapshot.touched):
        raise refused("INVALID_PARAMETER_VALUE", f"{len(snapshot.touched)} blocks were written, not {told}")
    if checksum := call.headers.get("x-amz-checksum"):
        total = hashlib.sha256(
            b"".join(snapshot.blocks[index] for index in sorted(snapshot.touched))
        ).digest()
        if base64.b64encode(total).decode() != checksum:
            raise refused("INVALID_PARAMETER_VALUE", "The checksum does not match the blocks written")
    snapshot.open_for_writing = False
    snapshot.settling = Settling(now(), call.state.timing.snapshot_seconds)
    return {"Status": "pending" if snapshot.state == "pending" else "completed"}


ACTIONS = {
    "ListSnapshotBlocks": list_blocks,
    "ListChangedBlocks": list_changed,
    "StartSnapshot": start,
    "CompleteSnapshot": complete,
}
# These move block data and take the lock themselves, for as short as they can.
DATA_ACTIONS = {"GetSnapshotBlock": get_block, "PutSnapshotBlock": put_block}
