"""A file kept as an EBS snapshot, written and read through the EBS direct APIs.

Block 0 holds a JSON line, {"format": "cpmdata/1", "length": bytes, "sha256": of the file}, and zeros. The file begins
with block 1; the last block is filled up with zeros.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from cpm.aws.gateway import AwsClient
from cpm.flows.server.server_dump import BadDump

# EBS direct APIs: the only size of a block.
BLOCK = 512 * 1024
GIB = 1024**3
FORMAT = "cpmdata/1"

Tick = Callable[[int], None]


def gib_of(path: Path) -> int:
    """The size of the smallest volume that holds the file."""
    return -(-(_blocks(path.stat().st_size) * BLOCK) // GIB)


def put(ebs: AwsClient, snapshot: str, path: Path, tick: Tick) -> None:
    """Write the file into a started snapshot and complete it. `tick` gets the percentage before each block."""
    length = path.stat().st_size
    count = _blocks(length)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = json.dumps({"format": FORMAT, "length": length, "sha256": digest}).encode() + b"\n"
        for index, data in enumerate(_parts(head, file)):
            tick(100 * index // count)
            _put(ebs, snapshot, index, data.ljust(BLOCK, b"\0"))
    ebs.call("CompleteSnapshot", SnapshotId=snapshot, ChangedBlocksCount=count)


def get(ebs: AwsClient, snapshot: str, file: IO[bytes], tick: Tick) -> None:
    """Write what `put` has kept into a file; raises BadDump if the snapshot holds anything else."""
    blocks = ebs.paginate("ListSnapshotBlocks", "Blocks", SnapshotId=snapshot)
    first = next(blocks, None)
    if first is None or first["BlockIndex"] != 0:
        raise BadDump(f"{snapshot} is no backup of a CPM server.")
    head = _head(snapshot, _get(ebs, snapshot, first))
    left, digest, expected = head["length"], hashlib.sha256(), 1
    for block in blocks:
        if block["BlockIndex"] != expected or not left:
            raise BadDump(f"{snapshot} is damaged: block {expected} is missing or too much.")
        tick(100 * expected // _blocks(head["length"]))
        data = _get(ebs, snapshot, block)[: min(left, BLOCK)]
        file.write(data)
        digest.update(data)
        left, expected = left - len(data), expected + 1
    if left or digest.hexdigest() != head["sha256"]:
        raise BadDump(f"{snapshot} is damaged: what was read is not what was written.")


def _blocks(length: int) -> int:
    return 1 - (-length // BLOCK)


def _parts(head: bytes, file: IO[bytes]) -> Iterator[bytes]:
    yield head
    while data := file.read(BLOCK):
        yield data


def _put(ebs: AwsClient, snapshot: str, index: int, data: bytes) -> None:
    ebs.call(
        "PutSnapshotBlock",
        SnapshotId=snapshot,
        BlockIndex=index,
        BlockData=data,
        DataLength=BLOCK,
        Checksum=base64.b64encode(hashlib.sha256(data).digest()).decode(),
        ChecksumAlgorithm="SHA256",
    )


def _get(ebs: AwsClient, snapshot: str, block: dict[str, Any]) -> bytes:
    answer = ebs.call(
        "GetSnapshotBlock", SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
    )
    data: bytes = answer["BlockData"]
    if base64.b64encode(hashlib.sha256(data).digest()).decode() != answer["Checksum"]:
        raise BadDump(f"Block {block['BlockIndex']} of {snapshot} arrived damaged; try again.")
    return data


def _head(snapshot: str, data: bytes) -> dict[str, Any]:
    try:
        head = json.loads(data.partition(b"\n")[0])
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise BadDump(f"{snapshot} is no backup of a CPM server.")
    return head
