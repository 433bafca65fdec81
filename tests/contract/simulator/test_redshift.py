"""Redshift: clusters, snapshots and what is in them, sharing, copies to other regions, restores."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import simulated_aws
from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"
ME = "123456789012"
SLOW = 0.6


def cluster(client: Any, name: str = "sales", **more: Any) -> str:
    """The ARN of a new cluster."""
    made = {"NodeType": "ra3.large", "MasterUsername": "admin", "MasterUserPassword": "Passw0rdPassw0rd"}
    client.create_cluster(**{"ClusterIdentifier": name, **made, **more})
    return f"arn:aws:redshift:{client.meta.region_name}:{ME}:cluster:{name}"


def state(client: Any, name: str = "sales") -> str:
    found: str = client.describe_clusters(ClusterIdentifier=name)["Clusters"][0]["ClusterStatus"]
    return found


def snapshot(client: Any, name: str = "nightly", of: str = "sales", **more: Any) -> str:
    """The ARN of a new snapshot."""
    made = client.create_cluster_snapshot(SnapshotIdentifier=name, ClusterIdentifier=of, **more)
    found: str = made["Snapshot"]["SnapshotArn"]
    return found


def shown(client: Any, name: str = "nightly", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.describe_cluster_snapshots(SnapshotIdentifier=name, **more)["Snapshots"][0]
    return found


def names(client: Any, **narrowed: Any) -> list[str]:
    return [one["SnapshotIdentifier"] for one in client.describe_cluster_snapshots(**narrowed)["Snapshots"]]


def write(aws: SimulatedAws, arn: str, data: bytes) -> None:
    requests.put(f"{aws.control_url}/contents/{arn}", data=data, timeout=10).raise_for_status()


def read(aws: SimulatedAws, arn: str) -> bytes:
    return requests.get(f"{aws.control_url}/contents/{arn}", timeout=10).content


def test_a_restored_cluster_has_what_the_cluster_had_when_the_snapshot_was_taken(
    aws: SimulatedAws, refused
) -> None:
    """AWS: Redshift API Reference, SnapshotCreateTime and RestoreFromClusterSnapshot."""
    client = aws.client("redshift")
    source = cluster(client, Port=5440, PubliclyAccessible=True)
    write(aws, source, b"before")
    kept = snapshot(client)
    write(aws, source, b"after")
    aws.timing(database_seconds=SLOW)
    with refused("ClusterAlreadyExists"):
        client.restore_from_cluster_snapshot(ClusterIdentifier="sales", SnapshotIdentifier="nightly")
    again = {"ClusterIdentifier": "again", "SnapshotIdentifier": "Nightly"}
    with refused("InvalidParameterValue"):
        client.restore_from_cluster_snapshot(**again, Port=3306)

    again.update(NodeType="ra3.4xlarge", AvailabilityZone="us-east-1b")
    restored = client.restore_from_cluster_snapshot(**again)["Cluster"]

    assert restored["ClusterStatus"] == "creating" and "Endpoint" not in restored
    wait_for(lambda: state(client, "again") == "available")
    (found,) = client.describe_clusters(ClusterIdentifier="again")["Clusters"]
    assert (found["NodeType"], found["AvailabilityZone"]) == ("ra3.4xlarge", "us-east-1b")
    assert found["Endpoint"]["Port"] == 5440
    assert found["PubliclyAccessible"] is False and found["RestoreStatus"]["Status"] == "completed"
    assert read(aws, source.replace(":sales", ":again")) == b"before" == read(aws, kept)
    assert read(aws, source) == b"after"


def test_a_snapshot_is_creating_with_progress_and_of_an_available_cluster_only(
    aws: SimulatedAws, refused
) -> None:
    """AWS: Redshift API Reference, CreateClusterSnapshot, Snapshot, DeleteClusterSnapshot."""
    client = aws.client("redshift")
    aws.timing(database_seconds=0.3)
    cluster(client)
    with refused("InvalidClusterState"):
        snapshot(client)
    wait_for(lambda: state(client) == "available")
    aws.timing(database_snapshot_seconds=1)
    snapshot(client, Tags=[{"Key": "a", "Value": "b"}], ManualSnapshotRetentionPeriod=3)
    seen = []

    def available() -> bool:
        seen.append(shown(client))
        return seen[-1]["Status"] == "available"

    with refused("InvalidClusterSnapshotState"):
        client.delete_cluster_snapshot(SnapshotIdentifier="nightly")
    with refused("InvalidClusterSnapshotState"):
        client.restore_from_cluster_snapshot(ClusterIdentifier="again", SnapshotIdentifier="nightly")
    wait_for(available)
    moved = [one["BackupProgressInMegaBytes"] for one in seen]
    assert moved == sorted(moved) and moved[0] < moved[-1] == seen[-1]["TotalBackupSizeInMegaBytes"]
    assert any(one["CurrentBackupRateInMegaBytesPerSecond"] for one in seen[:-1])
    assert seen[-1]["EstimatedSecondsToCompletion"] == seen[-1]["CurrentBackupRateInMegaBytesPerSecond"] == 0
    assert seen[-1]["ManualSnapshotRemainingDays"] == 3 and seen[-1]["Tags"] == [{"Key": "a", "Value": "b"}]
    with refused("ClusterSnapshotAlreadyExists"):
        snapshot(client)
    with refused("InvalidRetentionPeriodFault"):
        snapshot(client, "other", ManualSnapshotRetentionPeriod=0)
    with refused("ClusterNotFound"):
        snapshot(client, "other", of="absent")
    assert client.delete_cluster_snapshot(SnapshotIdentifier="nightly")["Snapshot"]["Status"] == "deleted"
    with refused("ClusterSnapshotNotFound"):
        shown(client)


def test_an_injected_failure_fails_the_snapshot_and_lag_hides_it(aws: SimulatedAws, refused) -> None:
    """AWS: Redshift API Reference, Snapshot, Status: failed; deletable in that state."""
    client = aws.client("redshift")
    write(aws, cluster(client), b"data")
    aws.fault(service="redshift", action="CreateClusterSnapshot", snapshots_error=True, resource_id="sales")

    failed = snapshot(client)

    assert shown(client)["Status"] == "failed" and read(aws, failed) == b""
    with refused("InvalidClusterSnapshotState"):
        client.restore_from_cluster_snapshot(ClusterIdentifier="again", SnapshotIdentifier="nightly")
    client.delete_cluster_snapshot(SnapshotIdentifier="nightly")
    aws.clear_faults()
    snapshot(client)
    aws.fault(service="redshift", action="DescribeClusterSnapshots", list_lag_seconds=30)
    assert names(client) == []
    with refused("ClusterSnapshotNotFound"):
        shown(client)


def test_an_automated_snapshot_goes_with_its_cluster_unless_it_was_made_manual(
    aws: SimulatedAws, refused
) -> None:
    """AWS: Redshift API Reference, CopyClusterSnapshot, DeleteCluster."""
    client = aws.client("redshift")
    arn = cluster(client)
    (first,) = names(client, SnapshotType="automated")
    write(aws, arn, b"data")
    automated = aws.control("POST", f"/automated/{arn}")["snapshot"]
    manual = snapshot(client)

    keep = {"SourceSnapshotIdentifier": automated, "TargetSnapshotIdentifier": "kept"}
    copied = client.copy_cluster_snapshot(**keep)["Snapshot"]

    assert first.startswith("rs:sales-") and automated.startswith("rs:sales-")
    assert (copied["SnapshotType"], copied["Status"]) == ("manual", "creating")
    with refused("InvalidClusterSnapshotState"):
        client.copy_cluster_snapshot(SourceSnapshotIdentifier="nightly", TargetSnapshotIdentifier="x")
    with refused("InvalidClusterSnapshotState"):
        client.delete_cluster_snapshot(SnapshotIdentifier=automated)
    with refused("ClusterSnapshotNotFound"):
        client.delete_cluster_snapshot(SnapshotIdentifier="nightly", SnapshotClusterIdentifier="other")
    with refused("InvalidParameterCombination"):
        client.delete_cluster(ClusterIdentifier="sales")
    client.delete_cluster(ClusterIdentifier="sales", FinalClusterSnapshotIdentifier="last")
    with refused("ClusterNotFound"):
        state(client)
    assert sorted(names(client)) == ["kept", "last", "nightly"]
    assert sorted(names(client, ClusterIdentifier="sales", ClusterExists=False)) == [
        "kept",
        "last",
        "nightly",
    ]
    held = [read(aws, one) for one in (copied["SnapshotArn"], manual, manual.replace("nightly", "last"))]
    assert held == [b"data"] * 3
    assert read(aws, arn) == b""


def test_a_shared_snapshot_is_restored_by_the_other_account_and_by_nobody_else(
    aws: SimulatedAws, refused
) -> None:
    """AWS: Redshift API Reference, AuthorizeSnapshotAccess; Management Guide, Sharing a snapshot."""
    client, other = aws.client("redshift"), aws.client("redshift", account=OTHER)
    source = cluster(client)
    write(aws, source, b"data")
    snapshot(client, Tags=[{"Key": "a", "Value": "b"}])
    theirs = {"ClusterIdentifier": "mine", "SnapshotIdentifier": "nightly"}
    grant = {"SnapshotIdentifier": "nightly", "AccountWithRestoreAccess": OTHER}
    with refused("AccessToSnapshotDenied"):
        other.restore_from_cluster_snapshot(**theirs, OwnerAccount=ME)
    with refused("InvalidParameterValue"):
        client.authorize_snapshot_access(**{**grant, "AccountWithRestoreAccess": ME})

    client.authorize_snapshot_access(**grant)

    assert shown(client)["AccountsWithRestoreAccess"] == [{"AccountId": OTHER}]
    with refused("AuthorizationAlreadyExists"):
        client.authorize_snapshot_access(**grant)
    with refused("InvalidClusterSnapshotState"):
        client.delete_cluster_snapshot(SnapshotIdentifier="nightly")
    assert names(other) == []
    seen = shown(other, OwnerAccount=ME)
    assert seen["OwnerAccount"] == ME and not seen.get("Tags") and "AccountsWithRestoreAccess" not in seen
    with refused("ClusterSnapshotNotFound"):
        other.restore_from_cluster_snapshot(**theirs)
    other.restore_from_cluster_snapshot(**theirs, OwnerAccount=ME)
    assert read(aws, f"arn:aws:redshift:us-east-1:{OTHER}:cluster:mine") == b"data"
    client.revoke_snapshot_access(**grant)
    with refused("AuthorizationNotFound"):
        client.revoke_snapshot_access(**grant)
    with refused("ClusterSnapshotNotFound"):
        shown(other, OwnerAccount=ME)


def test_what_a_key_encrypts_needs_the_key_to_be_shared(aws: SimulatedAws, refused) -> None:
    """AWS: KMS Developer Guide, Allowing users in other accounts to use a KMS key, and AWS managed keys."""
    client, other, kms = aws.client("redshift"), aws.client("redshift", account=OTHER), aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    cluster(client, "own", KmsKeyId=key)
    cluster(client, "default", KmsKeyId="alias/aws/redshift")
    for name in ("own", "default"):
        snapshot(client, f"of-{name}", of=name)
    wanted = {"ClusterIdentifier": "mine", "SnapshotIdentifier": "of-own", "OwnerAccount": ME}

    with refused("UnsupportedOperation"):
        client.authorize_snapshot_access(SnapshotIdentifier="of-default", AccountWithRestoreAccess=OTHER)
    client.authorize_snapshot_access(SnapshotIdentifier="of-own", AccountWithRestoreAccess=OTHER)

    assert shown(client, "of-own")["KmsKeyId"] == key
    with refused("UnauthorizedOperation"):
        other.restore_from_cluster_snapshot(**wanted)
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "kms:*", "Resource": "*"}
        for account in (ME, OTHER)
    ]  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy)
    assert other.restore_from_cluster_snapshot(**wanted)["Cluster"]["Encrypted"]


def test_snapshots_are_copied_to_the_other_region_once_they_are_available(aws: SimulatedAws, refused) -> None:
    """AWS: Redshift API Reference, EnableSnapshotCopy and its like; Management Guide, Copying a snapshot to another
    AWS Region."""
    client, abroad = aws.client("redshift"), aws.client("redshift", "eu-west-1")
    arn = cluster(client)
    write(aws, arn, b"data")
    snapshot(client, "early")
    here = {"ClusterIdentifier": "sales"}
    with refused("SnapshotCopyAlreadyDisabledFault"):
        client.disable_snapshot_copy(**here)
    with refused("UnknownSnapshotCopyRegionFault"):
        client.enable_snapshot_copy(**here, DestinationRegion="us-east-1")

    client.enable_snapshot_copy(**here, DestinationRegion="eu-west-1", ManualSnapshotRetentionPeriod=5)

    with refused("SnapshotCopyAlreadyEnabledFault"):
        client.enable_snapshot_copy(**here, DestinationRegion="eu-west-1")
    automated = aws.control("POST", f"/automated/{arn}")["snapshot"]
    assert names(abroad) == [f"copy:{automated}"]
    aws.timing(database_snapshot_seconds=SLOW)
    snapshot(client)
    assert names(abroad, SnapshotType="manual") == []
    wait_for(lambda: names(abroad, SnapshotType="manual") == ["copy:nightly"])
    assert shown(client)["Status"] == "available"
    wait_for(lambda: shown(abroad, "copy:nightly")["Status"] == "available")
    copied = shown(abroad, "copy:nightly")
    assert (copied["SourceRegion"], copied["ManualSnapshotRetentionPeriod"]) == ("us-east-1", 5)
    assert read(aws, copied["SnapshotArn"]) == b"data"
    changed = client.modify_snapshot_copy_retention_period(**here, RetentionPeriod=9)["Cluster"]
    assert changed["ClusterSnapshotCopyStatus"]["RetentionPeriod"] == 9
    snapshot(client, "late")
    client.disable_snapshot_copy(**here)
    abroad.restore_from_cluster_snapshot(ClusterIdentifier="again", SnapshotIdentifier="copy:nightly")
    assert read(aws, arn.replace("us-east-1", "eu-west-1").replace("sales", "again")) == b"data"
    wait_for(lambda: shown(client, "late")["Status"] == "available")
    assert set(names(abroad, ClusterIdentifier="sales")) == {f"copy:{automated}", "copy:nightly"}


def test_lists_are_paged_and_narrowed_by_tags_and_time(aws: SimulatedAws, refused) -> None:
    """AWS: Redshift API Reference, DescribeClusterSnapshots (MaxRecords 20 to 100), CreateTags, DescribeTags."""
    client = aws.client("redshift")
    arn = cluster(client, Tags=[{"Key": "team", "Value": "red"}])
    for number in range(25):
        snapshot(client, f"s{number}", Tags=[{"Key": "number", "Value": str(number)}])

    paginator = client.get_paginator("describe_cluster_snapshots")
    pages = paginator.paginate(SnapshotType="manual", PaginationConfig={"PageSize": 20})

    assert [len(page["Snapshots"]) for page in pages] == [20, 5]
    with refused("InvalidParameterValue"):
        client.describe_cluster_snapshots(MaxRecords=5)
    assert names(client, TagKeys=["number"], TagValues=["3", "4"]) == ["s3", "s4"]
    assert client.describe_clusters(TagKeys=["absent"])["Clusters"] == []
    moment = shown(client, "s24")["SnapshotCreateTime"]
    assert names(client, StartTime=moment + timedelta(hours=1)) == []
    assert len(names(client, EndTime=moment + timedelta(hours=1), SnapshotType="manual")) == 25
    client.create_tags(ResourceName=arn, Tags=[{"Key": "team", "Value": "blue"}])
    (tagged,) = client.describe_tags(ResourceType="cluster")["TaggedResources"]
    assert (tagged["ResourceName"], tagged["Tag"]) == (arn, {"Key": "team", "Value": "blue"})
    client.delete_tags(ResourceName=arn, TagKeys=["team"])
    assert client.describe_tags(ResourceName=arn)["TaggedResources"] == []
    with refused("ResourceNotFoundFault"):
        client.create_tags(ResourceName=arn + "x", Tags=[{"Key": "team", "Value": "blue"}])
    with refused("InvalidTagFault"):
        client.create_tags(ResourceName=arn, Tags=[{"Key": "aws:x", "Value": "blue"}])


def test_a_cluster_in_a_subnet_group_is_restored_into_a_subnet_group(aws: SimulatedAws, refused) -> None:
    """AWS: Redshift API Reference, CreateClusterSubnetGroup, RestoreFromClusterSnapshot (ClusterSubnetGroupName)."""
    client, ec2 = aws.client("redshift"), aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="us-east-1c")
    for name in ("one", "two"):
        client.create_cluster_subnet_group(
            ClusterSubnetGroupName=name, Description=name, SubnetIds=[subnet["Subnet"]["SubnetId"]]
        )
    cluster(client, ClusterSubnetGroupName="one")
    snapshot(client)
    again = {"ClusterIdentifier": "again", "SnapshotIdentifier": "nightly"}
    place = {"ClusterSubnetGroupName": "two"}

    with refused("InvalidRestore"):
        client.restore_from_cluster_snapshot(**again)
    with refused("ClusterSubnetGroupNotFoundFault"):
        client.restore_from_cluster_snapshot(**again, ClusterSubnetGroupName="absent")
    with refused("InvalidVPCNetworkStateFault"):
        client.restore_from_cluster_snapshot(**again, **place, AvailabilityZone="us-east-1a")
    restored = client.restore_from_cluster_snapshot(**again, **place)["Cluster"]

    assert (restored["ClusterSubnetGroupName"], restored["VpcId"]) == ("two", vpc)
    assert restored["AvailabilityZone"] == "us-east-1c"
    with refused("InvalidClusterSubnetGroupStateFault"):
        client.delete_cluster_subnet_group(ClusterSubnetGroupName="two")
    client.delete_cluster(ClusterIdentifier="again", SkipFinalClusterSnapshot=True)
    client.delete_cluster_subnet_group(ClusterSubnetGroupName="two")
    (left,) = client.describe_cluster_subnet_groups()["ClusterSubnetGroups"]
    assert left["ClusterSubnetGroupName"] == "one"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"NodeType": "dc9.huge"}, "InvalidParameterValue"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue"),
        ({"ClusterType": "multi-node"}, "InvalidParameterCombination"),
        ({"Encrypted": False}, "InvalidParameterValue"),
        ({"AutomatedSnapshotRetentionPeriod": 0}, "InvalidRetentionPeriodFault"),
        ({"ClusterIdentifier": "Sales"}, "InvalidParameterValue"),
        ({"ClusterIdentifier": "sales"}, "ClusterAlreadyExists"),
    ],
)
def test_a_cluster_that_aws_would_not_make_is_refused(aws: SimulatedAws, refused, more, code) -> None:
    """AWS: Redshift API Reference, CreateCluster."""
    client = aws.client("redshift")
    cluster(client)

    with refused(code):
        cluster(client, "other", **more)


def test_a_cluster_pauses_resumes_and_takes_its_time_to_go(aws: SimulatedAws, refused) -> None:
    """AWS: Redshift API Reference, PauseCluster, ResumeCluster, DeleteCluster, ClusterStatus."""
    client = aws.client("redshift")
    cluster(client)
    client.pause_cluster(ClusterIdentifier="sales")
    assert state(client) == "paused"
    with refused("InvalidClusterState"):
        snapshot(client)
    client.resume_cluster(ClusterIdentifier="sales")
    assert state(client) == "available"
    aws.timing(database_seconds=0.4, database_snapshot_seconds=0.4)

    client.delete_cluster(ClusterIdentifier="sales", FinalClusterSnapshotIdentifier="last")

    assert state(client) == "final-snapshot"
    wait_for(lambda: shown(client, "last")["Status"] == "available")
    assert state(client) == "deleting"
    with refused("ClusterAlreadyExists"):
        cluster(client)
    wait_for(lambda: client.describe_clusters()["Clusters"] == [])


def test_warehouses_survive_a_restart(tmp_path: Path) -> None:
    """Our own design."""
    first = simulated_aws.start(tmp_path)
    try:
        write(first, cluster(first.client("redshift")), b"kept")
        kept = snapshot(first.client("redshift"))
    finally:
        assert first.stop() == 0

    second = simulated_aws.start(tmp_path)
    try:
        assert read(second, kept) == b"kept"
        assert state(second.client("redshift")) == "available"
    finally:
        assert second.stop() == 0
