"""Snapshots: points in time, groups, states, sharing, copies, encryption."""

import json

import pytest

from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"
BLOCK = 512 * 1024


def snapshot_of(ec2, snapshot_id: str) -> dict:
    return ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]


def test_snapshot_keeps_the_bytes_of_its_moment(aws: SimulatedAws) -> None:
    """AWS: EBS User Guide, How Amazon EBS snapshots work."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, b"before" * 1000)
    before = aws.fingerprint(volume)
    aws.timing(snapshot_seconds=0.3)

    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.write(volume, b"after!" * 1000)

    wait_for(lambda: snapshot_of(ec2, snapshot)["State"] == "completed")
    assert aws.fingerprint(snapshot) == before != aws.fingerprint(volume)


def test_snapshot_outlives_its_volume(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DeleteVolume."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, b"kept")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]

    ec2.delete_volume(VolumeId=volume)

    assert aws.read(snapshot, 0, 4) == b"kept"


def test_progress_goes_up_and_is_complete_only_at_the_end(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Snapshot, State and Progress."""
    ec2 = aws.client("ec2")
    aws.timing(snapshot_seconds=3)
    snapshot = ec2.create_snapshot(VolumeId=aws.volume())
    seen = []

    def completed() -> bool:
        now = snapshot_of(ec2, snapshot["SnapshotId"])
        seen.append((now["State"], int(now["Progress"].rstrip("%"))))
        return now["State"] == "completed"

    assert snapshot["State"] == "pending"
    with refused("IncorrectState"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot["SnapshotId"])
    with refused("IncorrectState"):
        aws.client("ec2", "eu-west-1").copy_snapshot(
            SourceRegion="us-east-1", SourceSnapshotId=snapshot["SnapshotId"]
        )
    wait_for(completed)
    assert seen[-1] == ("completed", 100)
    assert all(state == "pending" and percent < 100 for state, percent in seen[:-1])
    assert [percent for _, percent in seen] == sorted(percent for _, percent in seen)


def test_create_snapshots_takes_what_is_not_excluded(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CreateSnapshots."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance((1, 1, 2))
    ec2.create_tags(Resources=[devices["/dev/xvdc"]], Tags=[{"Key": "from", "Value": "volume"}])

    answer = ec2.create_snapshots(
        InstanceSpecification={
            "InstanceId": instance,
            "ExcludeBootVolume": True,
            "ExcludeDataVolumeIds": [devices["/dev/xvdb"]],
        },
        CopyTagsFromSource="volume",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "step", "Value": "7"}]}],
    )["Snapshots"]

    assert [(one["VolumeId"], one["VolumeSize"], one["State"]) for one in answer] == [
        (devices["/dev/xvdc"], 2, "completed")
    ]
    tags = {tag["Key"]: tag["Value"] for tag in snapshot_of(ec2, answer[0]["SnapshotId"])["Tags"]}
    assert tags == {"from": "volume", "step": "7"}


def test_create_snapshots_makes_all_or_none(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, CreateSnapshots."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance((1, 1))
    before = len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])
    aws.limits(seconds_between_snapshots=60)
    ec2.create_snapshot(VolumeId=devices["/dev/xvdb"])

    with refused("SnapshotCreationPerVolumeRateExceeded"):
        ec2.create_snapshots(InstanceSpecification={"InstanceId": instance})
    with refused("InvalidParameterValue"):
        ec2.create_snapshots(
            InstanceSpecification={"InstanceId": instance, "ExcludeDataVolumeIds": [devices["/dev/xvda"]]}
        )

    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == before + 1


def test_snapshot_told_to_fail_ends_in_error(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Snapshot, State: error."""
    ec2 = aws.client("ec2")
    good, bad = aws.volume(), aws.volume()
    aws.fault(snapshots_error=True, volume_id=bad, count=1)

    first, second, third = (ec2.create_snapshot(VolumeId=v)["SnapshotId"] for v in (good, bad, bad))

    assert [snapshot_of(ec2, s)["State"] for s in (first, second, third)] == [
        "completed",
        "error",
        "completed",
    ]
    with refused("IncorrectState"):
        ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=second)
    ec2.delete_snapshot(SnapshotId=second)
    with refused("InvalidSnapshot.NotFound"):
        snapshot_of(ec2, second)


def test_thousands_of_snapshots_come_in_pages_of_at_most_1000(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DescribeSnapshots, MaxResults."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    label = [{"ResourceType": "snapshot", "Tags": [{"Key": "n", "Value": "1"}]}]
    made = {ec2.create_snapshot(VolumeId=volume, TagSpecifications=label)["SnapshotId"] for _ in range(25)}
    paginator = ec2.get_paginator("describe_snapshots")
    filters = [{"Name": "tag-key", "Values": ["n"]}, {"Name": "status", "Values": ["completed"]}]

    pages = list(paginator.paginate(OwnerIds=["self"], Filters=filters, PaginationConfig={"PageSize": 10}))

    assert [len(page["Snapshots"]) for page in pages] == [10, 10, 5]
    assert {one["SnapshotId"] for page in pages for one in page["Snapshots"]} == made


def test_page_token_survives_deletions_and_rejects_nonsense(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Pagination."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    made = [ec2.create_snapshot(VolumeId=volume)["SnapshotId"] for _ in range(8)]

    first = ec2.describe_snapshots(OwnerIds=["self"], MaxResults=5)
    for snapshot in made[:5]:
        ec2.delete_snapshot(SnapshotId=snapshot)
    second = ec2.describe_snapshots(OwnerIds=["self"], MaxResults=5, NextToken=first["NextToken"])

    assert [one["SnapshotId"] for one in second["Snapshots"]] == made[5:]
    with refused("InvalidNextToken"):
        ec2.describe_snapshots(MaxResults=5, NextToken="nonsense")


def test_shared_snapshot_is_seen_copied_and_used_until_it_is_unshared(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, ModifySnapshotAttribute; EBS User Guide, Share an Amazon EBS snapshot."""
    ec2, other = aws.client("ec2"), aws.client("ec2", account=OTHER)
    volume = aws.volume()
    aws.write(volume, b"shared")
    label = [{"ResourceType": "snapshot", "Tags": [{"Key": "secret", "Value": "of the owner"}]}]
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=label)["SnapshotId"]
    permission = {"SnapshotId": snapshot, "Attribute": "createVolumePermission"}

    with refused("InvalidSnapshot.NotFound"):
        snapshot_of(other, snapshot)
    ec2.modify_snapshot_attribute(**permission, OperationType="add", UserIds=[OTHER])

    assert snapshot_of(other, snapshot)["OwnerId"] == "123456789012"
    assert "Tags" not in snapshot_of(other, snapshot)
    assert ec2.describe_snapshot_attribute(**permission)["CreateVolumePermissions"] == [{"UserId": OTHER}]
    mine = other.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    restorable = other.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]
    assert mine == [] and [one["SnapshotId"] for one in restorable] == [snapshot]
    made = other.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    assert aws.read(made, 0, 6) == b"shared"
    far = aws.client("ec2", "eu-west-1", OTHER)
    copied = far.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot)["SnapshotId"]
    with refused("AuthFailure"):
        other.delete_snapshot(SnapshotId=snapshot)

    ec2.modify_snapshot_attribute(**permission, OperationType="remove", UserIds=[OTHER])

    with refused("InvalidSnapshot.NotFound"):
        other.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)
    with refused("InvalidSnapshot.NotFound"):
        far.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot)
    assert aws.read(copied, 0, 6) == b"shared" and snapshot_of(far, copied)["OwnerId"] == OTHER


def test_copy_carries_data_but_only_the_tags_it_is_given(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, CopySnapshot."""
    ec2, far = aws.client("ec2"), aws.client("ec2", "eu-west-1")
    volume = aws.volume()
    aws.write(volume, b"far away")
    label = [{"ResourceType": "snapshot", "Tags": [{"Key": "old", "Value": "1"}]}]
    source = ec2.create_snapshot(VolumeId=volume, TagSpecifications=label)["SnapshotId"]
    fresh = [{"ResourceType": "snapshot", "Tags": [{"Key": "new", "Value": "2"}]}]

    copied = far.copy_snapshot(
        SourceRegion="us-east-1", SourceSnapshotId=source, Description="dr", TagSpecifications=fresh
    )

    shown = snapshot_of(far, copied["SnapshotId"])
    assert copied["Tags"] == shown["Tags"] == [{"Key": "new", "Value": "2"}]
    assert shown["Description"] == "dr" and aws.fingerprint(source) == aws.fingerprint(copied["SnapshotId"])
    with refused("InvalidSnapshot.NotFound"):
        snapshot_of(ec2, copied["SnapshotId"])
    with refused("InvalidSnapshot.NotFound"):
        far.copy_snapshot(SourceRegion="eu-west-1", SourceSnapshotId=source)


def test_copies_to_one_region_are_limited(aws: SimulatedAws, refused) -> None:
    """AWS: EBS endpoints and quotas, concurrent snapshot copies per destination region."""
    ec2, far = aws.client("ec2"), aws.client("ec2", "eu-west-1")
    source = ec2.create_snapshot(VolumeId=aws.volume())["SnapshotId"]
    aws.timing(copy_seconds=0.5)
    wanted = {"SourceRegion": "us-east-1", "SourceSnapshotId": source}
    for _ in range(20):
        last = far.copy_snapshot(**wanted)["SnapshotId"]

    with refused("ResourceLimitExceeded"):
        far.copy_snapshot(**wanted)

    aws.client("ec2", "us-west-2").copy_snapshot(**wanted)
    wait_for(lambda: snapshot_of(far, last)["State"] == "completed")
    far.copy_snapshot(**wanted)


def test_encrypted_copy_takes_the_key_it_is_given_or_the_default(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CopySnapshot, Encrypted and KmsKeyId."""
    ec2, far = aws.client("ec2"), aws.client("ec2", "eu-west-1")
    kms = aws.client("kms", "eu-west-1")
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/dr", TargetKeyId=key["KeyId"])
    source = ec2.create_snapshot(VolumeId=aws.volume())["SnapshotId"]
    wanted = {"SourceRegion": "us-east-1", "SourceSnapshotId": source, "Encrypted": True}

    by_alias = far.copy_snapshot(**wanted, KmsKeyId="alias/dr")["SnapshotId"]
    by_default = far.copy_snapshot(**wanted)["SnapshotId"]

    assert snapshot_of(far, by_alias)["KmsKeyId"] == key["Arn"]
    default = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]
    assert snapshot_of(far, by_default)["KmsKeyId"] == default["Arn"]
    assert default["KeyManager"] == "AWS"


@pytest.mark.parametrize("key", ["00000000-0000-0000-0000-000000000000", "alias/none", "disabled"])
def test_copy_with_a_key_that_cannot_be_used_ends_in_error(aws: SimulatedAws, key: str) -> None:
    """AWS: EC2 API Reference, CopySnapshot, KmsKeyId: the key is checked asynchronously."""
    ec2, kms = aws.client("ec2"), aws.client("kms")
    if key == "disabled":
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.disable_key(KeyId=key)
    source = ec2.create_snapshot(VolumeId=aws.volume())["SnapshotId"]

    copied = ec2.copy_snapshot(
        SourceRegion="us-east-1", SourceSnapshotId=source, Encrypted=True, KmsKeyId=key
    )

    shown = snapshot_of(ec2, copied["SnapshotId"])
    assert shown["State"] == "error" and "not accessible" in shown["StateMessage"]


def test_default_key_snapshot_cannot_be_shared(aws: SimulatedAws, refused) -> None:
    """AWS: EBS User Guide, Share an Amazon EBS snapshot: default key, public."""
    ec2 = aws.client("ec2")
    own_key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    by_default = ec2.create_snapshot(VolumeId=aws.volume(Encrypted=True))["SnapshotId"]
    by_own = ec2.create_snapshot(VolumeId=aws.volume(Encrypted=True, KmsKeyId=own_key))["SnapshotId"]
    wanted = {"Attribute": "createVolumePermission", "OperationType": "add"}

    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(SnapshotId=by_default, UserIds=[OTHER], **wanted)
    with refused("OperationNotPermitted"):
        ec2.modify_snapshot_attribute(SnapshotId=by_own, GroupNames=["all"], **wanted)
    ec2.modify_snapshot_attribute(SnapshotId=by_own, UserIds=[OTHER], **wanted)

    assert snapshot_of(aws.client("ec2", account=OTHER), by_own)["KmsKeyId"] == own_key


def test_other_account_needs_the_key_as_well_as_the_snapshot(aws: SimulatedAws) -> None:
    """AWS: KMS Developer Guide, Allowing users in other accounts to use a KMS key."""
    ec2, kms, other = aws.client("ec2"), aws.client("kms"), aws.client("ec2", account=OTHER)
    key = kms.create_key()["KeyMetadata"]["Arn"]
    snapshot = ec2.create_snapshot(VolumeId=aws.volume(Encrypted=True, KmsKeyId=key))["SnapshotId"]
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType="add", UserIds=[OTHER]
    )
    wanted = {"SourceRegion": "us-east-1", "SourceSnapshotId": snapshot, "Encrypted": True}

    without = other.copy_snapshot(**wanted)["SnapshotId"]
    owner = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    guest = {**owner, "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [owner, guest]})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy)
    granted = other.copy_snapshot(**wanted)["SnapshotId"]

    assert snapshot_of(other, without)["State"] == "error"
    assert snapshot_of(other, granted)["State"] == "completed"
    assert snapshot_of(other, granted)["KmsKeyId"].startswith(f"arn:aws:kms:us-east-1:{OTHER}:")


def test_key_tags_and_aliases_are_listed(aws: SimulatedAws) -> None:
    """AWS: KMS API Reference, ListResourceTags and ListAliases."""
    kms = aws.client("kms")
    key = kms.create_key(Tags=[{"TagKey": "use", "TagValue": "backup"}])["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/mine", TargetKeyId=key)

    tags = kms.list_resource_tags(KeyId=key)["Tags"]

    assert tags == [{"TagKey": "use", "TagValue": "backup"}]
    assert [a["AliasName"] for a in kms.list_aliases(KeyId=key)["Aliases"]] == ["alias/mine"]
