"""Volumes against what AWS documents of them."""

import hashlib

import pytest
from botocore.exceptions import ClientError

from tests.simulated_aws import SimulatedAws, wait_for

BLOCK = 512 * 1024


def test_volume_made_from_snapshot_holds_its_bytes_and_may_be_larger(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CreateVolume."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, b"written" * 100_000, offset=BLOCK - 3)
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]

    made = ec2.create_volume(AvailabilityZone="us-east-1b", SnapshotId=snapshot, Size=2, VolumeType="gp3")

    assert made["Size"] == 2 and made["Iops"] == 3000 and made["Throughput"] == 125
    assert aws.read(made["VolumeId"], 0, 2 * BLOCK) == aws.read(volume, 0, 2 * BLOCK)


def test_volume_smaller_than_its_snapshot_is_refused(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, CreateVolume, Size."""
    ec2 = aws.client("ec2")
    snapshot = ec2.create_snapshot(VolumeId=aws.volume(size=3))["SnapshotId"]

    with refused("InvalidParameterValue"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot, Size=2)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"Size": 1, "AvailabilityZone": "us-east-1z"}, "InvalidZone.NotFound"),
        ({"AvailabilityZone": "us-east-1a"}, "MissingParameter"),
        ({"Size": 1, "AvailabilityZone": "us-east-1a", "VolumeType": "gp9"}, "InvalidParameterValue"),
        ({"Size": 1, "AvailabilityZone": "us-east-1a", "VolumeType": "st1"}, "InvalidParameterValue"),
        ({"Size": 10, "AvailabilityZone": "us-east-1a", "VolumeType": "io1"}, "MissingParameter"),
        (
            {"Size": 10, "AvailabilityZone": "us-east-1a", "VolumeType": "gp2", "Iops": 100},
            "InvalidParameterCombination",
        ),
        (
            {"SnapshotId": "snap-0123456789abcdef0", "AvailabilityZone": "us-east-1a"},
            "InvalidSnapshot.NotFound",
        ),
        (
            {"Size": 1, "AvailabilityZone": "us-east-1a", "KmsKeyId": "alias/aws/ebs", "Encrypted": False},
            "InvalidParameterDependency",
        ),
    ],
)
def test_volume_that_aws_does_not_offer_is_refused(aws: SimulatedAws, refused, wanted, code) -> None:
    """AWS: EC2 API Reference, CreateVolume; EBS User Guide, Amazon EBS volume types."""
    with refused(code):
        aws.client("ec2").create_volume(**wanted)


def test_client_token_makes_one_volume_only(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Ensuring idempotency."""
    ec2 = aws.client("ec2")
    wanted = {"AvailabilityZone": "us-east-1a", "Size": 1, "ClientToken": "once"}

    first, second = ec2.create_volume(**wanted), ec2.create_volume(**wanted)

    assert first["VolumeId"] == second["VolumeId"]
    assert len(ec2.describe_volumes()["Volumes"]) == 1
    with refused("IdempotentParameterMismatch"):
        ec2.create_volume(**{**wanted, "Size": 2})


def test_attaching_obeys_instance_device_and_zone(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, AttachVolume."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance()
    here, other = aws.volume(), aws.volume()
    elsewhere = ec2.create_volume(AvailabilityZone="us-east-1b", Size=1)["VolumeId"]

    attached = ec2.attach_volume(VolumeId=here, InstanceId=instance, Device="/dev/sdf")

    assert attached["State"] == "attaching"
    shown = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])[
        "Volumes"
    ]
    assert {(v["VolumeId"], v["State"]) for v in shown} >= {(here, "in-use")}
    with refused("VolumeInUse"):
        ec2.attach_volume(VolumeId=here, InstanceId=instance, Device="/dev/sdg")
    with refused("InvalidParameterValue"):
        ec2.attach_volume(VolumeId=other, InstanceId=instance, Device="/dev/sdf")
    with refused("InvalidVolume.ZoneMismatch"):
        ec2.attach_volume(VolumeId=elsewhere, InstanceId=instance, Device="/dev/sdg")
    with refused("InvalidInstanceID.NotFound"):
        ec2.attach_volume(VolumeId=other, InstanceId="i-0123456789abcdef0", Device="/dev/sdg")
    with refused("VolumeInUse"):
        ec2.delete_volume(VolumeId=here)


def test_detaching_needs_no_instance_id_and_checks_one_that_is_given(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, DetachVolume."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance((1, 1))
    data = devices["/dev/xvdb"]

    with refused("InvalidAttachment.NotFound"):
        ec2.detach_volume(VolumeId=data, InstanceId="i-0123456789abcdef0")
    detached = ec2.detach_volume(VolumeId=data)

    assert detached["State"] == "detaching" and detached["InstanceId"] == instance
    assert ec2.describe_volumes(VolumeIds=[data])["Volumes"][0]["State"] == "available"
    with refused("IncorrectState"):
        ec2.detach_volume(VolumeId=data)
    with refused("OperationNotPermitted"):
        ec2.detach_volume(VolumeId=devices["/dev/xvda"])


def test_volume_is_creating_for_as_long_as_the_timing_says(aws: SimulatedAws, refused) -> None:
    """AWS: EBS User Guide, Volume states."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance()
    aws.timing(volume_seconds=0.4)

    volume = aws.volume()

    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "creating"
    with refused("IncorrectState"):
        ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    wait_for(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")


def test_unknown_volumes_are_not_found_and_malformed_ids_are_refused(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Error codes."""
    ec2 = aws.client("ec2")

    with refused("InvalidVolume.NotFound"):
        ec2.describe_volumes(VolumeIds=["vol-0123456789abcdef0"])
    with refused("InvalidParameterValue"):
        ec2.describe_volumes(VolumeIds=["nonsense"])
    with refused("InvalidVolume.NotFound"):
        ec2.create_snapshot(VolumeId="vol-0123456789abcdef0")


def test_volumes_are_listed_in_pages_filtered_by_tag(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, DescribeVolumes, MaxResults and Filters."""
    ec2 = aws.client("ec2")
    label = [{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "a*b"}]}]
    tagged = {aws.volume(TagSpecifications=label) for _ in range(7)}
    aws.volume()
    literal = [{"Name": "tag:team", "Values": ["a\\*b"]}]

    pages = list(
        ec2.get_paginator("describe_volumes").paginate(Filters=literal, PaginationConfig={"PageSize": 5})
    )

    assert [len(page["Volumes"]) for page in pages] == [5, 2]
    assert {v["VolumeId"] for page in pages for v in page["Volumes"]} == tagged
    with refused("InvalidParameterValue"):
        ec2.describe_volumes(Filters=[{"Name": "nonsense", "Values": ["x"]}])
    with refused("InvalidParameterValue"):
        ec2.describe_volumes(MaxResults=4)
    with refused("InvalidParameterCombination"):
        ec2.describe_volumes(MaxResults=5, VolumeIds=list(tagged))


def test_tags_are_put_changed_and_removed(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, CreateTags and DeleteTags; EC2 User Guide, Tag restrictions."""
    ec2 = aws.client("ec2")
    volume = aws.volume()

    ec2.create_tags(Resources=[volume], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "<&>"}])
    ec2.delete_tags(Resources=[volume], Tags=[{"Key": "a"}])

    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Tags"] == [{"Key": "b", "Value": "<&>"}]
    with refused("InvalidParameterValue"):
        ec2.create_tags(Resources=[volume], Tags=[{"Key": "aws:x", "Value": "1"}])
    with refused("InvalidVolume.NotFound"):
        ec2.create_tags(Resources=["vol-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "1"}])
    with refused("TagLimitExceeded"):
        ec2.create_tags(Resources=[volume], Tags=[{"Key": f"k{n}", "Value": ""} for n in range(51)])


def test_modify_volume_only_grows(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, ModifyVolume."""
    ec2 = aws.client("ec2")
    volume = aws.volume(size=2)

    ec2.modify_volume(VolumeId=volume, Size=4, VolumeType="gp3")

    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 4
    with refused("InvalidParameterValue"):
        ec2.modify_volume(VolumeId=volume, Size=3)


def test_control_endpoint_reads_and_writes_any_range(aws: SimulatedAws) -> None:
    """Our own: design of the control endpoint."""
    volume, same = aws.volume(), aws.volume()
    expected = bytearray(1024**3 // 256)
    for offset, data in [(10, b"abc" * 400_000), (600_000, bytes(BLOCK)), (4 * BLOCK - 1, b"xy")]:
        aws.write(volume, data, offset)
        expected[offset : offset + len(data)] = data

    actual = aws.read(volume, 0, len(expected))

    assert hashlib.sha256(actual).digest() == hashlib.sha256(expected).digest()
    assert aws.read(volume, 4 * BLOCK - 1, 2) == b"xy"
    assert aws.sha256(volume) == hashlib.sha256(bytes(expected) + bytes(1024**3 - len(expected))).hexdigest()
    assert aws.fingerprint(volume) != aws.fingerprint(same)
    aws.write(same, bytes(expected))
    assert aws.fingerprint(volume) == aws.fingerprint(same)


def test_dry_run_changes_nothing(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DryRun."""
    ec2 = aws.client("ec2")

    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, DryRun=True)

    assert ec2.describe_volumes()["Volumes"] == []
