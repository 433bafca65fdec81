"""EBS direct APIs: true lists, differences, bytes and writes."""

import base64
import hashlib
import os

import pytest

from tests.simulated_aws import SimulatedAws

BLOCK = 512 * 1024


def checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs, snapshot: str, index: int, data: bytes, **more):
    wanted = {"DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256", **more}
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **wanted)


def test_blocks_of_a_snapshot_are_listed_and_read(aws: SimulatedAws) -> None:
    """AWS: EBS direct APIs Reference, ListSnapshotBlocks and GetSnapshotBlock."""
    ebs = aws.client("ebs")
    volume = aws.volume(size=2)
    data = {index: os.urandom(BLOCK) for index in (0, 7, 4095)}
    for index, block in data.items():
        aws.write(volume, block, index * BLOCK)
    snapshot = aws.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"]

    listing = ebs.list_snapshot_blocks(SnapshotId=snapshot)

    assert [block["BlockIndex"] for block in listing["Blocks"]] == [0, 7, 4095]
    assert (listing["BlockSize"], listing["VolumeSize"]) == (BLOCK, 2) and "ExpiryTime" in listing
    for block in listing["Blocks"]:
        got = ebs.get_snapshot_block(SnapshotId=snapshot, **block)
        content = got["BlockData"].read()
        assert content == data[block["BlockIndex"]] and got["DataLength"] == BLOCK
        assert (got["Checksum"], got["ChecksumAlgorithm"]) == (checksum(content), "SHA256")


def test_differences_are_true_both_ways(aws: SimulatedAws) -> None:
    """AWS: EBS direct APIs Reference, ListChangedBlocks."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    volume = aws.volume()
    for index in (1, 2):
        aws.write(volume, os.urandom(BLOCK), index * BLOCK)
    first = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    for index in (2, 9):
        aws.write(volume, os.urandom(BLOCK), index * BLOCK)
    second = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]

    forth = ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)["ChangedBlocks"]
    back = ebs.list_changed_blocks(FirstSnapshotId=second, SecondSnapshotId=first)["ChangedBlocks"]
    whole = ebs.list_changed_blocks(SecondSnapshotId=second)["ChangedBlocks"]

    assert [set(block) for block in forth] == [
        {"BlockIndex", "FirstBlockToken", "SecondBlockToken"},
        {"BlockIndex", "SecondBlockToken"},
    ]
    assert [block["BlockIndex"] for block in forth] == [block["BlockIndex"] for block in back] == [2, 9]
    assert "SecondBlockToken" not in back[1] and [block["BlockIndex"] for block in whole] == [1, 2, 9]
    token = forth[1]["SecondBlockToken"]
    got = ebs.get_snapshot_block(SnapshotId=second, BlockIndex=9, BlockToken=token)["BlockData"].read()
    assert got == aws.read(volume, 9 * BLOCK, BLOCK)


def test_difference_reaches_over_copies_and_restores_but_not_to_strangers(aws: SimulatedAws, refused) -> None:
    """AWS: EBS direct APIs Reference, ListChangedBlocks: snapshots of one lineage."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    volume = aws.volume()
    first = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.write(volume, b"x")
    copied = ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=first)["SnapshotId"]
    second = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    stranger = ec2.create_snapshot(VolumeId=aws.volume())["SnapshotId"]

    changed = ebs.list_changed_blocks(FirstSnapshotId=copied, SecondSnapshotId=second)["ChangedBlocks"]

    assert [block["BlockIndex"] for block in changed] == [0]
    with refused("ValidationException"):
        ebs.list_changed_blocks(FirstSnapshotId=stranger, SecondSnapshotId=second)


def test_lists_come_in_pages_from_any_block(aws: SimulatedAws, refused) -> None:
    """AWS: EBS direct APIs Reference, ListSnapshotBlocks, MaxResults, NextToken and StartingBlockIndex."""
    ebs = aws.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    data = os.urandom(BLOCK)
    for index in range(250):
        put(ebs, snapshot, index * 2, data)
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=250)
    found, token, pages = [], None, 0

    while token or not pages:
        more = {"NextToken": token} if token else {}
        answer = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, StartingBlockIndex=100, **more)
        found += [block["BlockIndex"] for block in answer["Blocks"]]
        token, pages = answer.get("NextToken"), pages + 1

    assert (found, pages) == (list(range(100, 500, 2)), 2)
    with refused("ValidationException"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot, NextToken="bm9uc2Vuc2Vub25zZW5zZQ==")


def test_written_snapshot_becomes_a_volume(aws: SimulatedAws, refused) -> None:
    """AWS: EBS direct APIs Reference, StartSnapshot, PutSnapshotBlock and CompleteSnapshot."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    data = os.urandom(BLOCK)

    started = ebs.start_snapshot(VolumeSize=1, Description="written", Tags=[{"Key": "a", "Value": "b"}])
    snapshot = started["SnapshotId"]
    answer = put(ebs, snapshot, 3, data)

    assert started["Status"] == "pending" and started["BlockSize"] == BLOCK
    assert answer["Checksum"] == checksum(data)
    shown = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert shown["State"] == "pending" and shown["Tags"] == [{"Key": "a", "Value": "b"}]
    with refused("IncorrectState"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)
    with refused("ValidationException"):
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=2)
    total = checksum(hashlib.sha256(data).digest())
    how = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    with refused("ValidationException"):
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1, Checksum=checksum(b""), **how)
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1, Checksum=total, **how)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    assert aws.read(volume, 3 * BLOCK, BLOCK) == data
    with refused("ValidationException"):
        put(ebs, snapshot, 4, data)


def test_child_inherits_the_blocks_of_its_parent(aws: SimulatedAws) -> None:
    """AWS: EBS direct APIs Reference, StartSnapshot, ParentSnapshotId."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, b"parent" * BLOCK)
    parent = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    data = os.urandom(BLOCK)

    child = ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=parent)["SnapshotId"]
    put(ebs, child, 1, data)
    ebs.complete_snapshot(SnapshotId=child, ChangedBlocksCount=1)

    changed = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    assert [block["BlockIndex"] for block in changed] == [1]
    assert aws.read(child, 0, BLOCK) == aws.read(parent, 0, BLOCK) and aws.read(child, BLOCK, BLOCK) == data


def test_client_token_starts_one_snapshot(aws: SimulatedAws) -> None:
    """AWS: EBS direct APIs Reference, Idempotency for StartSnapshot."""
    ebs = aws.client("ebs")

    first, second = (ebs.start_snapshot(VolumeSize=1, ClientToken="same")["SnapshotId"] for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    "wrong",
    [{"Checksum": checksum(b"")}, {"DataLength": 4096}, {"BlockIndex": 2048}],
)
def test_block_that_is_not_whole_is_refused(aws: SimulatedAws, refused, wrong) -> None:
    """AWS: EBS direct APIs Reference, PutSnapshotBlock."""
    ebs = aws.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    data = os.urandom(BLOCK)
    wanted = {"BlockIndex": 0, "DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"}

    with refused("ValidationException"):
        ebs.put_snapshot_block(SnapshotId=snapshot, BlockData=data, **{**wanted, **wrong})


def test_tokens_and_ids_are_checked(aws: SimulatedAws, refused) -> None:
    """AWS: EBS direct APIs Reference, GetSnapshotBlock, errors."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, os.urandom(2 * BLOCK))
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    first, second = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]

    with refused("ValidationException"):
        ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=second["BlockToken"])
    with refused("ValidationException"):
        ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken="x" * 40)
    with refused("ResourceNotFoundException"):
        ebs.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")
    with refused("ResourceNotFoundException"):
        aws.client("ebs", account="210987654321").list_snapshot_blocks(SnapshotId=snapshot)
    ec2.delete_snapshot(SnapshotId=snapshot)
    with refused("ResourceNotFoundException"):
        ebs.get_snapshot_block(SnapshotId=snapshot, **first)


def test_expired_block_token_is_refused(aws: SimulatedAws, refused) -> None:
    """AWS: EBS direct APIs Reference, ListSnapshotBlocks, ExpiryTime."""
    ebs = aws.client("ebs")
    volume = aws.volume()
    aws.write(volume, b"x")
    snapshot = aws.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.limits(block_token_seconds=0)

    token = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]

    with refused("ValidationException"):
        ebs.get_snapshot_block(SnapshotId=snapshot, **token)
