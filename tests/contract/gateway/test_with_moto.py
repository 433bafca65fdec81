"""The same gateway against moto's server, which checks parameters and keeps state per account."""

import pytest

from cpm.aws import errors, gateway
from cpm.aws.identity import AssumedRole, Keys

KEYS = Keys("AKIAEXAMPLE", "secret")


def test_an_assumed_role_acts_in_its_own_account(moto):
    role = AssumedRole.of(KEYS, "444455556666", "Backup", external_id="ext-1")

    volume = gateway.client(role, "ec2", "eu-west-1").call(
        "CreateVolume", AvailabilityZone="eu-west-1a", Size=1
    )
    with pytest.raises(errors.NotFound) as caught:
        gateway.client(KEYS, "ec2", "eu-west-1").call("DescribeVolumes", VolumeIds=[volume["VolumeId"]])

    assert gateway.account_number(role) == "444455556666"
    assert gateway.account_number(KEYS) != "444455556666"
    assert caught.value.ids == (volume["VolumeId"],)
    assert caught.value.request_id


def test_pages_together_hold_every_snapshot_once(moto):
    client = gateway.client(AssumedRole.of(KEYS, "777788889999", "Backup"), "ec2", "eu-west-1")
    volume = client.call("CreateVolume", AvailabilityZone="eu-west-1a", Size=1)["VolumeId"]
    made = {client.call("CreateSnapshot", VolumeId=volume)["SnapshotId"] for _ in range(12)}

    with gateway.recording() as calls:
        listed = [
            item["SnapshotId"]
            for item in client.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], MaxResults=5)
        ]

    assert sorted(listed) == sorted(made)
    assert set(calls) == {("ec2", "DescribeSnapshots")}


def test_enabled_regions_are_listed(moto):
    regions = gateway.regions_enabled(KEYS)

    assert "eu-west-1" in regions
    assert regions == sorted(regions)


def test_a_volume_that_is_attached_is_in_use_and_one_without_zone_is_invalid(moto):
    client = gateway.client(KEYS, "ec2", "eu-west-1")
    instance = client.call("RunInstances", ImageId="ami-12345678", MinCount=1, MaxCount=1)["Instances"][0]
    mine = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
    attached = client.call("DescribeVolumes", Filters=mine)["Volumes"][0]["VolumeId"]

    with pytest.raises(errors.InUse):
        client.call("DeleteVolume", VolumeId=attached)
    with pytest.raises(errors.Invalid):
        client.call("CreateSnapshot")


def test_a_streamed_body_is_read_whole(moto):
    client = gateway.client(KEYS, "ebs", "eu-west-1")
    snapshot = client.call("StartSnapshot", VolumeSize=1)["SnapshotId"]
    block = bytes(range(256)) * 2048
    checksum = "planted-checksum"

    client.call(
        "PutSnapshotBlock", SnapshotId=snapshot, BlockIndex=0, BlockData=block, DataLength=len(block),
        Checksum=checksum, ChecksumAlgorithm="SHA256",
    )  # fmt: skip
    token = client.call("ListSnapshotBlocks", SnapshotId=snapshot)["Blocks"][0]["BlockToken"]
    answer = client.call("GetSnapshotBlock", SnapshotId=snapshot, BlockIndex=0, BlockToken=token)

    assert answer["BlockData"] == block
