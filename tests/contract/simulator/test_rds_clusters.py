"""Clusters of Aurora, DocumentDB and Neptune, and their snapshots."""

from typing import Any

import pytest

from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"


def cluster(aws: SimulatedAws, name: str = "shop", engine: str = "aurora-mysql", **more: Any) -> str:
    wanted: dict[str, Any] = {"MasterUsername": "owner", "MasterUserPassword": "not-a-secret", **more}
    made = aws.client("rds").create_db_cluster(DBClusterIdentifier=name, Engine=engine, **wanted)
    return made["DBCluster"]["DBClusterArn"]


def member(aws: SimulatedAws, name: str, of: str = "shop", engine: str = "aurora-mysql") -> dict[str, Any]:
    made = aws.client("rds").create_db_instance(
        DBInstanceIdentifier=name, DBClusterIdentifier=of, Engine=engine, DBInstanceClass="db.r6g.large"
    )
    return made["DBInstance"]


def snapshot(aws: SimulatedAws, name: str = "before", source: str = "shop") -> str:
    made = aws.client("rds").create_db_cluster_snapshot(
        DBClusterSnapshotIdentifier=name, DBClusterIdentifier=source
    )
    return made["DBClusterSnapshot"]["DBClusterSnapshotArn"]


def test_cluster_has_members_and_cannot_go_before_them(aws: SimulatedAws, refused) -> None:
    """AWS: Aurora User Guide, Deleting Aurora DB clusters; RDS API Reference, CreateDBInstance and CreateDBSnapshot."""
    rds = aws.client("rds")
    cluster(aws)
    for name in ("one", "two"):
        member(aws, name)

    [shown] = rds.describe_db_clusters(DBClusterIdentifier="Shop")["DBClusters"]
    listed = rds.describe_db_instances(Filters=[{"Name": "db-cluster-id", "Values": ["shop"]}])["DBInstances"]

    assert [(m["DBInstanceIdentifier"], m["IsClusterWriter"]) for m in shown["DBClusterMembers"]] == [
        ("one", True),
        ("two", False),
    ]
    assert [one["DBInstanceIdentifier"] for one in listed] == ["one", "two"]
    with refused("InvalidParameterCombination"):
        member(aws, "three", engine="aurora-postgresql")
    with refused("DBClusterNotFoundFault"):
        member(aws, "three", of="none")
    with refused("DBClusterAlreadyExistsFault"):
        cluster(aws)
    with refused("InvalidParameterValue"):
        rds.create_db_snapshot(DBSnapshotIdentifier="s", DBInstanceIdentifier="one")
    with refused("InvalidDBClusterStateFault"):
        rds.delete_db_cluster(DBClusterIdentifier="shop", SkipFinalSnapshot=True)
    for name in ("one", "two"):
        rds.delete_db_instance(DBInstanceIdentifier=name)
    rds.delete_db_cluster(DBClusterIdentifier="shop", FinalDBSnapshotIdentifier="last")
    with refused("DBClusterNotFoundFault"):
        rds.describe_db_clusters(DBClusterIdentifier="shop")
    assert (
        rds.describe_db_cluster_snapshots()["DBClusterSnapshots"][0]["DBClusterSnapshotIdentifier"] == "last"
    )


@pytest.mark.parametrize(
    ("service", "engine"), [("rds", "aurora-postgresql"), ("docdb", "docdb"), ("neptune", "neptune")]
)
def test_snapshot_copied_abroad_restores_the_content_of_its_moment(
    aws: SimulatedAws, refused, service: str, engine: str
) -> None:
    """AWS: RDS, DocumentDB and Neptune API References, CopyDBClusterSnapshot and RestoreDBClusterFromSnapshot."""
    here, abroad = aws.client(service), aws.client(service, "eu-west-1")
    source = cluster(aws, engine=engine)
    aws.fill(source, b"monday")
    first = snapshot(aws)
    aws.fill(source, b"tuesday")

    copied = abroad.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier=first,
        TargetDBClusterSnapshotIdentifier="far",
        SourceRegion="us-east-1",
        Tags=[{"Key": "step", "Value": "7"}],
    )["DBClusterSnapshot"]
    here.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="before")
    made = abroad.restore_db_cluster_from_snapshot(
        DBClusterIdentifier="new", SnapshotIdentifier="far", Engine=engine
    )["DBCluster"]

    assert copied["SourceDBClusterSnapshotArn"] == first
    tags = abroad.list_tags_for_resource(ResourceName=copied["DBClusterSnapshotArn"])["TagList"]
    assert tags == [{"Key": "step", "Value": "7"}]
    assert made["Engine"] == engine and made["DBClusterMembers"] == []
    assert aws.content(made["DBClusterArn"]) == b"monday"
    with refused("DBClusterSnapshotNotFoundFault"):
        here.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier="before")


def test_restored_cluster_takes_instances_once_it_is_available(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, CopyDBClusterSnapshot (status copying) and RestoreDBClusterFromSnapshot."""
    rds = aws.client("rds")
    cluster(aws)
    snapshot(aws)
    aws.timing(database_seconds=1, database_snapshot_seconds=1)

    def state() -> str:
        shown = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier="copy")["DBClusterSnapshots"]
        return shown[0]["Status"]

    rds.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier="before", TargetDBClusterSnapshotIdentifier="copy"
    )
    wanted = {"DBClusterIdentifier": "new", "SnapshotIdentifier": "copy", "Engine": "aurora-mysql"}
    assert state() == "copying"
    with refused("InvalidDBClusterSnapshotStateFault"):
        rds.restore_db_cluster_from_snapshot(**wanted)
    wait_for(lambda: state() == "available")
    rds.restore_db_cluster_from_snapshot(**wanted)
    with refused("InvalidDBClusterStateFault"):
        member(aws, "one", of="new")
    wait_for(
        lambda: rds.describe_db_clusters(DBClusterIdentifier="new")["DBClusters"][0]["Status"] == "available"
    )
    assert member(aws, "one", of="new")["DBInstanceStatus"] == "creating"


def test_keys_and_sharing_of_cluster_snapshots(aws: SimulatedAws, refused) -> None:
    """AWS: Aurora User Guide, Sharing encrypted snapshots; RDS API Reference, CopyDBClusterSnapshot, KmsKeyId."""
    rds, theirs = aws.client("rds"), aws.client("rds", account=OTHER)
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    cluster(aws, StorageEncrypted=True)
    cluster(aws, "plain")
    aws.fill(cluster(aws, "open"), b"shared")
    snapshot(aws, "locked")
    arn = snapshot(aws, "open", "open")
    snapshot(aws, "plain", "plain")

    with refused("InvalidParameterCombination"):
        rds.modify_db_cluster_snapshot_attribute(
            DBClusterSnapshotIdentifier="locked", AttributeName="restore", ValuesToAdd=[OTHER]
        )
    with refused("InvalidParameterCombination"):
        rds.copy_db_cluster_snapshot(
            SourceDBClusterSnapshotIdentifier="plain", TargetDBClusterSnapshotIdentifier="c", KmsKeyId=key
        )
    with refused("DBClusterSnapshotAlreadyExistsFault"):
        rds.copy_db_cluster_snapshot(
            SourceDBClusterSnapshotIdentifier="plain", TargetDBClusterSnapshotIdentifier="open"
        )
    copied = rds.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier="locked", TargetDBClusterSnapshotIdentifier="c", KmsKeyId=key
    )
    assert copied["DBClusterSnapshot"]["KmsKeyId"] == key
    rds.modify_db_cluster_snapshot_attribute(
        DBClusterSnapshotIdentifier="open", AttributeName="restore", ValuesToAdd=[OTHER]
    )
    [shared] = theirs.describe_db_cluster_snapshots(SnapshotType="shared")["DBClusterSnapshots"]
    restored = theirs.restore_db_cluster_from_snapshot(
        DBClusterIdentifier="mine", SnapshotIdentifier=arn, Engine="aurora-mysql"
    )
    assert shared["DBClusterSnapshotArn"] == arn
    assert aws.content(restored["DBCluster"]["DBClusterArn"]) == b"shared"


def test_deleting_the_source_ends_the_copy(aws: SimulatedAws) -> None:
    """AWS: RDS API Reference, DeleteDBClusterSnapshot."""
    rds = aws.client("rds")
    cluster(aws)
    snapshot(aws)
    aws.timing(database_snapshot_seconds=1)
    rds.copy_db_cluster_snapshot(
        SourceDBClusterSnapshotIdentifier="before", TargetDBClusterSnapshotIdentifier="copy"
    )

    rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="before")

    def states() -> list[str]:
        return [one["Status"] for one in rds.describe_db_cluster_snapshots()["DBClusterSnapshots"]]

    wait_for(lambda: states() == ["failed"])
