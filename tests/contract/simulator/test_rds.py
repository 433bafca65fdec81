"""DB instances and their snapshots: states, content, sharing, copies, keys, restores, exports."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import simulated_aws
from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"


def database(aws: SimulatedAws, name: str = "shop", **more: Any) -> str:
    """A small database of PostgreSQL; its ARN."""
    wanted: dict[str, Any] = {
        "DBInstanceClass": "db.t3.medium",
        "Engine": "postgres",
        "AllocatedStorage": 20,
        "MasterUsername": "owner",
        "MasterUserPassword": "not-a-secret",
        **more,
    }
    made = aws.client("rds").create_db_instance(DBInstanceIdentifier=name, **wanted)
    return made["DBInstance"]["DBInstanceArn"]


def snapshot(aws: SimulatedAws, name: str = "before", source: str = "shop", **more: Any) -> str:
    made = aws.client("rds").create_db_snapshot(
        DBSnapshotIdentifier=name, DBInstanceIdentifier=source, **more
    )
    return made["DBSnapshot"]["DBSnapshotArn"]


def status(rds: Any, name: str) -> str:
    return rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"][0]["Status"]


def key_for(aws: SimulatedAws, region: str = "us-east-1", *others: str) -> str:
    """A key that these other accounts may use too."""
    me = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    principals = [f"arn:aws:iam::{other}:root" for other in others]
    policy = {"Statement": [{**me, "Principal": {"AWS": principals}}] if others else []}
    return aws.client("kms", region).create_key(Policy=json.dumps(policy))["KeyMetadata"]["Arn"]


def test_instance_and_snapshot_take_their_time(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, Viewing DB instance status; RDS API Reference, CreateDBSnapshot, PercentProgress."""
    rds = aws.client("rds")
    aws.timing(database_seconds=0.5, database_snapshot_seconds=1.5)
    database(aws, "Shop")
    with refused("InvalidDBInstanceState"):
        snapshot(aws)
    wait_for(lambda: rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "available")
    seen = []

    def done() -> bool:
        shown = rds.describe_db_snapshots(Filters=[{"Name": "db-snapshot-id", "Values": ["before", "none"]}])
        [one] = shown["DBSnapshots"]
        seen.append((one["Status"], one["PercentProgress"]))
        return one["Status"] == "available"

    snapshot(aws, "Before", "SHOP")

    assert (
        rds.describe_db_instances(DBInstanceIdentifier="shop")["DBInstances"][0]["DBInstanceStatus"]
        == "backing-up"
    )
    with refused("InvalidDBInstanceState"):
        snapshot(aws, "second")
    with refused("InvalidDBSnapshotState"):
        rds.delete_db_snapshot(DBSnapshotIdentifier="before")
    with refused("InvalidDBSnapshotState"):
        rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="new", DBSnapshotIdentifier="before")
    wait_for(done)
    assert seen[-1] == ("available", 100)
    assert all(state == "creating" and percent < 100 for state, percent in seen[:-1]) and len(seen) > 1
    assert [percent for _, percent in seen] == sorted(percent for _, percent in seen)


def test_content_is_that_of_the_moment_through_copies_and_restores(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, Creating a DB snapshot, Copying a DB snapshot, Restoring to a DB instance."""
    rds, abroad = aws.client("rds"), aws.client("rds", "eu-west-1")
    source = database(aws, Port=5999, Tags=[{"Key": "team", "Value": "sales"}])
    aws.fill(source, b"monday")
    first = snapshot(aws, Tags=[{"Key": "step", "Value": "7"}])
    aws.fill(source, b"tuesday")

    copied = abroad.copy_db_snapshot(
        SourceDBSnapshotIdentifier=first,
        TargetDBSnapshotIdentifier="far",
        SourceRegion="us-east-1",
        CopyTags=True,
    )["DBSnapshot"]
    rds.delete_db_instance(DBInstanceIdentifier="shop", SkipFinalSnapshot=True)
    rds.delete_db_snapshot(DBSnapshotIdentifier="before")
    made = abroad.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="shop", DBSnapshotIdentifier="far", DBInstanceClass="db.r6g.large", StorageType="io1",
        Iops=2000, AvailabilityZone="eu-west-1b", PubliclyAccessible=True, Tags=[{"Key": "new", "Value": "yes"}],
    )["DBInstance"]  # fmt: skip

    assert (copied["SourceDBSnapshotIdentifier"], copied["SourceRegion"]) == (first, "us-east-1")
    assert copied["TagList"] == [{"Key": "step", "Value": "7"}]
    assert (made["Engine"], made["Endpoint"]["Port"], made["DBInstanceClass"]) == (
        "postgres",
        5999,
        "db.r6g.large",
    )
    assert (made["StorageType"], made["Iops"], made["AvailabilityZone"]) == ("io1", 2000, "eu-west-1b")
    assert made["PubliclyAccessible"] and made["TagList"] == [{"Key": "new", "Value": "yes"}]
    assert aws.content(made["DBInstanceArn"]) == b"monday"
    assert aws.content(source) == aws.content(first) == b""
    with refused("DBSnapshotNotFound"):
        rds.describe_db_snapshots(DBSnapshotIdentifier="before")
    with refused("DBInstanceNotFound"):
        rds.describe_db_instances(DBInstanceIdentifier="shop")


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"DBInstanceIdentifier": "SHOP"}, "DBInstanceAlreadyExists"),
        ({"DBSnapshotIdentifier": "none"}, "DBSnapshotNotFound"),
        ({"DBSubnetGroupName": "none"}, "DBSubnetGroupNotFoundFault"),
        ({"DBInstanceClass": "db.x9.huge"}, "InvalidParameterValue"),
        ({"MultiAZ": True, "AvailabilityZone": "us-east-1a"}, "InvalidParameterCombination"),
        ({"StorageType": "io1"}, "InvalidParameterCombination"),
        ({"StorageType": "aurora"}, "InvalidParameterValue"),
        ({"AvailabilityZone": "us-east-1z"}, "InvalidParameterValue"),
        ({"Port": 80}, "InvalidParameterValue"),
        ({"VpcSecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidParameterValue"),
    ],
)
def test_restore_that_cannot_be_leaves_nothing(aws: SimulatedAws, refused, wanted: dict, code: str) -> None:
    """AWS: RDS API Reference, RestoreDBInstanceFromDBSnapshot, Errors and the constraints of its parameters."""
    rds = aws.client("rds")
    database(aws)
    snapshot(aws)

    with refused(code):
        rds.restore_db_instance_from_db_snapshot(
            **{"DBInstanceIdentifier": "new", "DBSnapshotIdentifier": "before", **wanted}
        )

    assert [one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]] == ["shop"]


def test_subnet_group_decides_zone_and_network(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, CreateDBSubnetGroup and DeleteDBSubnetGroup; RDS User Guide, Working with DB subnet groups."""
    rds, ec2 = aws.client("rds"), aws.client("ec2")
    subnets = {one["AvailabilityZone"]: one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]}
    with refused("DBSubnetGroupDoesNotCoverEnoughAZs"):
        rds.create_db_subnet_group(
            DBSubnetGroupName="one", DBSubnetGroupDescription="-", SubnetIds=[subnets["us-east-1b"]]
        )
    rds.create_db_subnet_group(
        DBSubnetGroupName="Inner",
        DBSubnetGroupDescription="-",
        SubnetIds=[subnets["us-east-1b"], subnets["us-east-1c"]],
    )

    with refused("InvalidVPCNetworkStateFault"):
        database(aws, DBSubnetGroupName="inner", AvailabilityZone="us-east-1a")
    database(aws, DBSubnetGroupName="inner")

    [shown] = rds.describe_db_instances(Filters=[{"Name": "engine", "Values": ["postgres"]}])["DBInstances"]
    assert (
        shown["AvailabilityZone"] == "us-east-1b" and shown["DBSubnetGroup"]["DBSubnetGroupName"] == "inner"
    )
    assert len(shown["DBSubnetGroup"]["Subnets"]) == 2 and shown["VpcSecurityGroups"]
    with refused("InvalidDBSubnetGroupStateFault"):
        rds.delete_db_subnet_group(DBSubnetGroupName="inner")


def test_shared_snapshot_is_for_those_it_is_shared_with(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, Sharing a DB snapshot; RDS API Reference, DescribeDBSnapshots, IncludeShared."""
    rds, theirs = aws.client("rds"), aws.client("rds", account=OTHER)
    aws.fill(database(aws), b"shared")
    arn = snapshot(aws)
    restore = {"DBInstanceIdentifier": "mine", "DBSnapshotIdentifier": arn}
    with refused("DBSnapshotNotFound"):
        theirs.restore_db_instance_from_db_snapshot(**restore)

    rds.modify_db_snapshot_attribute(
        DBSnapshotIdentifier="before", AttributeName="restore", ValuesToAdd=[OTHER]
    )

    assert theirs.describe_db_snapshots()["DBSnapshots"] == []
    [listed] = theirs.describe_db_snapshots(IncludeShared=True, DBSnapshotIdentifier=arn)["DBSnapshots"]
    assert (listed["DBSnapshotArn"], listed["SnapshotType"]) == (arn, "shared")
    with refused("DBSnapshotNotFound"):
        theirs.copy_db_snapshot(SourceDBSnapshotIdentifier="before", TargetDBSnapshotIdentifier="c")
    with refused("DBSnapshotNotFound"):
        theirs.delete_db_snapshot(DBSnapshotIdentifier=arn)
    copied = theirs.copy_db_snapshot(SourceDBSnapshotIdentifier=arn, TargetDBSnapshotIdentifier="before")
    restored = theirs.restore_db_instance_from_db_snapshot(**restore)["DBInstance"]
    assert (
        aws.content(copied["DBSnapshot"]["DBSnapshotArn"])
        == aws.content(restored["DBInstanceArn"])
        == b"shared"
    )
    rds.modify_db_snapshot_attribute(
        DBSnapshotIdentifier="before", AttributeName="restore", ValuesToRemove=[OTHER]
    )
    [attribute] = rds.describe_db_snapshot_attributes(DBSnapshotIdentifier="before")[
        "DBSnapshotAttributesResult"
    ]["DBSnapshotAttributes"]
    assert attribute == {"AttributeName": "restore", "AttributeValues": []}
    with refused("DBSnapshotNotFound"):
        theirs.restore_db_instance_from_db_snapshot(**restore)


def test_default_key_cannot_leave_its_account_or_region(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, Sharing encrypted snapshots; RDS API Reference, CopyDBSnapshot, KmsKeyId."""
    rds, abroad = aws.client("rds"), aws.client("rds", "eu-west-1")
    database(aws, StorageEncrypted=True)
    arn = snapshot(aws)

    with refused("InvalidParameterCombination"):
        rds.modify_db_snapshot_attribute(
            DBSnapshotIdentifier="before", AttributeName="restore", ValuesToAdd=[OTHER]
        )
    with refused("InvalidParameterValue"):
        abroad.copy_db_snapshot(SourceDBSnapshotIdentifier=arn, TargetDBSnapshotIdentifier="far")
    with refused("KMSKeyNotAccessibleFault"):
        abroad.copy_db_snapshot(
            SourceDBSnapshotIdentifier=arn, TargetDBSnapshotIdentifier="far", KmsKeyId=key_for(aws)
        )
    key = key_for(aws, "eu-west-1")
    copied = abroad.copy_db_snapshot(
        SourceDBSnapshotIdentifier=arn, TargetDBSnapshotIdentifier="far", KmsKeyId=key
    )
    assert copied["DBSnapshot"]["KmsKeyId"] == key and copied["DBSnapshot"]["Encrypted"]


def test_shared_encrypted_snapshot_needs_rights_on_its_key_and_a_copy(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, Sharing encrypted snapshots, and Restoring to a DB instance, Considerations."""
    theirs = aws.client("rds", account=OTHER)
    own = aws.client("kms", account=OTHER).create_key()["KeyMetadata"]["Arn"]
    shared = {}
    for name, key in (("closed", key_for(aws)), ("open", key_for(aws, "us-east-1", OTHER))):
        aws.fill(database(aws, name, StorageEncrypted=True, KmsKeyId=key), name.encode())
        shared[name] = snapshot(aws, name, name)
        aws.client("rds").modify_db_snapshot_attribute(
            DBSnapshotIdentifier=name, AttributeName="restore", ValuesToAdd=[OTHER]
        )

    with refused("KMSKeyNotAccessibleFault"):
        theirs.copy_db_snapshot(
            SourceDBSnapshotIdentifier=shared["closed"], TargetDBSnapshotIdentifier="c", KmsKeyId=own
        )
    with refused("KMSKeyNotAccessibleFault"):
        theirs.copy_db_snapshot(SourceDBSnapshotIdentifier=shared["open"], TargetDBSnapshotIdentifier="c")
    with refused("KMSKeyNotAccessibleFault"):
        theirs.restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier="mine", DBSnapshotIdentifier=shared["open"]
        )
    theirs.copy_db_snapshot(
        SourceDBSnapshotIdentifier=shared["open"], TargetDBSnapshotIdentifier="c", KmsKeyId=own
    )
    made = theirs.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="mine", DBSnapshotIdentifier="c")
    assert made["DBInstance"]["KmsKeyId"] == own
    assert aws.content(made["DBInstance"]["DBInstanceArn"]) == b"open"


def test_snapshot_told_to_fail_ends_failed_and_lag_hides_it(aws: SimulatedAws, refused) -> None:
    """AWS: RDS User Guide, status of a DB snapshot; lag is our own, for lists that come late."""
    rds = aws.client("rds")
    database(aws)
    aws.fault(snapshots_error=True, resource_id="shop", count=1)
    aws.fault(list_lag_seconds=60, action="DescribeDBSnapshots", count=1)

    snapshot(aws)

    with refused("DBSnapshotNotFound"):
        status(rds, "before")
    assert rds.describe_db_snapshots()["DBSnapshots"] == []
    aws.clear_faults()
    assert status(rds, "before") == "failed"
    with refused("InvalidDBSnapshotState"):
        rds.copy_db_snapshot(SourceDBSnapshotIdentifier="before", TargetDBSnapshotIdentifier="c")
    rds.delete_db_snapshot(DBSnapshotIdentifier="before")
    snapshot(aws, "again")
    assert status(rds, "again") == "available"


def test_pages_filters_quotas_and_taken_names(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, DescribeDBSnapshots, MaxRecords and Filters; RDS User Guide, Quotas and constraints."""
    rds = aws.client("rds")
    database(aws)
    names = [f"s{number:02}" for number in range(23)]
    for name in names:
        snapshot(aws, name)
    aws.limits(manual_database_snapshots=23)

    pages = [
        [one["DBSnapshotIdentifier"] for one in page["DBSnapshots"]]
        for page in rds.get_paginator("describe_db_snapshots").paginate(PaginationConfig={"PageSize": 20})
    ]

    assert pages == [names[:20], names[20:]]
    wanted = [
        {"Name": "db-snapshot-id", "Values": ["S03", "s07"]},
        {"Name": "db-instance-id", "Values": ["shop"]},
    ]
    assert [s["DBSnapshotIdentifier"] for s in rds.describe_db_snapshots(Filters=wanted)["DBSnapshots"]] == [
        "s03",
        "s07",
    ]
    with refused("InvalidParameterValue"):
        rds.describe_db_snapshots(MaxRecords=5)
    with refused("InvalidParameterValue"):
        rds.describe_db_snapshots(Filters=[{"Name": "colour", "Values": ["red"]}])
    with refused("DBSnapshotAlreadyExists"):
        snapshot(aws, "S00")
    with refused("SnapshotQuotaExceeded"):
        snapshot(aws, "s99")


def test_instance_is_stopped_changed_tagged_and_deleted(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, StopDBInstance, ModifyDBInstance, AddTagsToResource, DeleteDBInstance."""
    rds = aws.client("rds")
    arn = database(aws, DeletionProtection=True, Tags=[{"Key": "a", "Value": "1"}])
    rds.stop_db_instance(DBInstanceIdentifier="shop")
    with refused("InvalidDBInstanceState"):
        snapshot(aws)
    rds.start_db_instance(DBInstanceIdentifier="shop")
    with refused("InvalidParameterCombination"):
        rds.delete_db_instance(DBInstanceIdentifier="shop", SkipFinalSnapshot=True)

    rds.modify_db_instance(
        DBInstanceIdentifier="shop", DBInstanceClass="db.m5.large", DeletionProtection=False
    )
    rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "b", "Value": "2"}])
    rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["a"])

    assert rds.list_tags_for_resource(ResourceName=arn)["TagList"] == [{"Key": "b", "Value": "2"}]
    assert rds.describe_db_instances()["DBInstances"][0]["DBInstanceClass"] == "db.m5.large"
    with refused("InvalidParameterCombination"):
        rds.delete_db_instance(DBInstanceIdentifier="shop")
    aws.timing(database_seconds=30)
    rds.delete_db_instance(DBInstanceIdentifier="shop", FinalDBSnapshotIdentifier="last")
    assert rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] == "deleting"
    assert status(rds, "last") == "available"


def test_orderable_options_tell_which_classes_there_are(aws: SimulatedAws) -> None:
    """AWS: RDS API Reference, DescribeOrderableDBInstanceOptions."""
    rds = aws.client("rds", "eu-west-1")

    def options(**wanted: str) -> list[dict[str, Any]]:
        pages = rds.get_paginator("describe_orderable_db_instance_options").paginate(**wanted)
        return [one for page in pages for one in page["OrderableDBInstanceOptions"]]

    graviton = options(Engine="postgres", DBInstanceClass="db.r6g.large")
    assert {one["StorageType"] for one in graviton} == {"gp2", "gp3", "io1", "io2", "standard"}
    assert {"Name": "eu-west-1a"} in graviton[0]["AvailabilityZones"]
    assert options(Engine="sqlserver-se", DBInstanceClass="db.r6g.large") == []
    assert len(options(Engine="mysql")) > 100


def test_export_puts_the_snapshot_into_the_bucket(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, StartExportTask and DescribeExportTasks; RDS User Guide, Exporting DB snapshot data."""
    rds, s3, iam = aws.client("rds"), aws.client("s3"), aws.client("iam")
    aws.fill(database(aws), b"rows")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "export.rds.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    role = iam.create_role(RoleName="exporter", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    stranger = iam.create_role(RoleName="stranger", AssumeRolePolicyDocument='{"Statement": []}')
    s3.create_bucket(Bucket="exported")
    wanted = {
        "ExportTaskIdentifier": "first",
        "SourceArn": snapshot(aws),
        "S3BucketName": "exported",
        "S3Prefix": "db",
        "IamRoleArn": role["Role"]["Arn"],
        "KmsKeyId": key_for(aws),
    }
    for change, code in (
        ({"S3BucketName": "missing"}, "InvalidS3BucketFault"),
        ({"IamRoleArn": stranger["Role"]["Arn"]}, "IamRoleMissingPermissions"),
        ({"IamRoleArn": role["Role"]["Arn"] + "s"}, "IamRoleNotFound"),
        ({"KmsKeyId": "unknown"}, "KMSKeyNotAccessibleFault"),
    ):
        with refused(code):
            rds.start_export_task(**{**wanted, **change})
    aws.timing(database_snapshot_seconds=1.5)

    def task() -> dict[str, Any]:
        return rds.describe_export_tasks(ExportTaskIdentifier="first")["ExportTasks"][0]

    assert rds.start_export_task(**wanted)["Status"] == "STARTING"

    wait_for(lambda: task()["Status"] == "IN_PROGRESS")
    assert "Contents" not in s3.list_objects_v2(Bucket="exported")
    wait_for(lambda: task()["Status"] == "COMPLETE" and task()["PercentProgress"] == 100)
    names = [one["Key"] for one in s3.list_objects_v2(Bucket="exported", Prefix="db/first/")["Contents"]]
    [data] = [name for name in names if name.endswith(".parquet")]
    assert s3.get_object(Bucket="exported", Key=data)["Body"].read() == b"rows"
    with refused("InvalidExportTaskStateFault"):
        rds.cancel_export_task(ExportTaskIdentifier="first")


def test_what_is_not_ours_is_refused(aws: SimulatedAws, refused) -> None:
    """Our own design: moto must not answer from bookkeeping that knows none of our databases."""
    rds = aws.client("rds")

    with refused("UnsupportedOperation"):
        rds.describe_db_log_files(DBInstanceIdentifier="shop")


def test_databases_survive_a_restart(tmp_path: Path) -> None:
    """Our own design."""
    first = simulated_aws.start(tmp_path)
    try:
        first.fill(database(first), b"kept")
        arn = snapshot(first)
        before = first.objects()
    finally:
        assert first.stop() == 0

    second = simulated_aws.start(tmp_path)
    try:
        assert second.objects() == before and before["db_snapshots"][0]["id"] == arn
        made = second.client("rds").restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier="new", DBSnapshotIdentifier="before"
        )
        assert second.content(made["DBInstance"]["DBInstanceArn"]) == b"kept"
        second.reset()
        assert (
            second.client("rds").describe_db_snapshots()["DBSnapshots"] == [] == second.content(arn).split()
        )
    finally:
        assert second.stop() == 0
