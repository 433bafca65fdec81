"""DynamoDB: tables that take their time, backups of a moment, and what a restored table has of it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from tests import simulated_aws
from tests.simulated_aws import SimulatedAws, wait_for

SLOW = 0.6


def table(ddb: Any, name: str = "orders", **more: Any) -> str:
    arn: str = ddb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": "k", "AttributeType": "S"},
            {"AttributeName": "g", "AttributeType": "S"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-g",
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
        **more,
    )["TableDescription"]["TableArn"]
    return arn


def put(ddb: Any, name: str, **values: str) -> None:
    ddb.put_item(TableName=name, Item={key: {"S": value} for key, value in values.items()})


def items(ddb: Any, name: str) -> dict[str, str]:
    return {item["k"]["S"]: item["g"]["S"] for item in ddb.scan(TableName=name)["Items"]}


def status(ddb: Any, name: str) -> str:
    found: str = ddb.describe_table(TableName=name)["Table"]["TableStatus"]
    return found


def back_up(ddb: Any, name: str = "orders", called: str = "nightly") -> str:
    arn: str = ddb.create_backup(TableName=name, BackupName=called)["BackupDetails"]["BackupArn"]
    return arn


def backup_status(ddb: Any, arn: str) -> str:
    shown = ddb.describe_backup(BackupArn=arn)["BackupDescription"]["BackupDetails"]
    found: str = shown["BackupStatus"]
    return found


def test_a_table_is_creating_before_it_can_be_used(aws: SimulatedAws, refused) -> None:
    """AWS: DynamoDB API Reference, CreateTable, DeleteTable, PutItem (ResourceNotFoundException), CreateBackup."""
    ddb = aws.client("dynamodb")
    aws.timing(table_seconds=SLOW)
    table(ddb)

    assert (status(ddb, "orders"), ddb.list_tables()["TableNames"]) == ("CREATING", ["orders"])
    with refused("ResourceNotFoundException"):
        put(ddb, "orders", k="1", g="a")
    with refused("ResourceInUseException"):
        ddb.delete_table(TableName="orders")
    with refused("TableInUseException"):
        back_up(ddb)
    with refused("TableNotFoundException"):
        back_up(ddb, "absent")
    wait_for(lambda: status(ddb, "orders") == "ACTIVE")
    put(ddb, "orders", k="1", g="a")
    assert items(ddb, "orders") == {"1": "a"}


def test_a_restored_table_has_the_items_of_the_backup_and_none_of_the_settings(
    aws: SimulatedAws, refused
) -> None:
    """AWS: DynamoDB API Reference, CreateBackup and RestoreTableFromBackup (what must be set up by hand)."""
    ddb = aws.client("dynamodb")
    tags = [{"Key": "team", "Value": "red"}]
    streams = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    source = table(ddb, Tags=tags, StreamSpecification=streams)
    ddb.update_time_to_live(
        TableName="orders", TimeToLiveSpecification={"Enabled": True, "AttributeName": "t"}
    )
    put(ddb, "orders", k="1", g="before")
    arn = back_up(ddb, source)
    put(ddb, "orders", k="1", g="after")
    put(ddb, "orders", k="2", g="after")
    described = ddb.describe_backup(BackupArn=arn)["BackupDescription"]

    aws.timing(table_seconds=SLOW)
    restoring = ddb.restore_table_from_backup(TargetTableName="again", BackupArn=arn)["TableDescription"]

    assert described["SourceTableDetails"]["ItemCount"] == 1
    assert described["SourceTableFeatureDetails"]["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    assert (restoring["TableStatus"], restoring["RestoreSummary"]["RestoreInProgress"]) == ("CREATING", True)
    with refused("TableInUseException"):
        ddb.restore_table_from_backup(TargetTableName="again", BackupArn=arn)
    with refused("TableAlreadyExistsException"):
        ddb.restore_table_from_backup(TargetTableName="orders", BackupArn=arn)
    with refused("BackupInUseException"):
        ddb.delete_backup(BackupArn=arn)
    with refused("ResourceNotFoundException"):
        items(ddb, "again")
    wait_for(lambda: status(ddb, "again") == "ACTIVE")
    restored = ddb.describe_table(TableName="again")["Table"]
    assert items(ddb, "again") == {"1": "before"}
    assert restored["RestoreSummary"] == {
        "SourceBackupArn": arn,
        "SourceTableArn": source,
        "RestoreDateTime": described["BackupDetails"]["BackupCreationDateTime"],
        "RestoreInProgress": False,
    }
    assert restored["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [index["IndexName"] for index in restored["GlobalSecondaryIndexes"]] == ["by-g"]
    assert "StreamSpecification" not in restored
    assert ddb.list_tags_of_resource(ResourceArn=restored["TableArn"]).get("Tags", []) == []
    ttl = ddb.describe_time_to_live(TableName="again")["TimeToLiveDescription"]
    assert ttl["TimeToLiveStatus"] == "DISABLED"


def test_indexes_can_be_left_out_and_others_cannot_be_asked_for(aws: SimulatedAws, refused) -> None:
    """AWS: DynamoDB API Reference, RestoreTableFromBackup, the overrides."""
    ddb = aws.client("dynamodb")
    table(ddb)
    arn = back_up(ddb)
    unknown = {
        "IndexName": "new",
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }

    ddb.restore_table_from_backup(
        TargetTableName="bare",
        BackupArn=arn,
        GlobalSecondaryIndexOverride=[],
        BillingModeOverride="PROVISIONED",
        ProvisionedThroughputOverride={"ReadCapacityUnits": 3, "WriteCapacityUnits": 2},
    )

    bare = ddb.describe_table(TableName="bare")["Table"]
    assert not bare.get("GlobalSecondaryIndexes")
    assert bare["ProvisionedThroughput"]["ReadCapacityUnits"] == 3
    with refused("ValidationException"):
        ddb.restore_table_from_backup(
            TargetTableName="other", BackupArn=arn, GlobalSecondaryIndexOverride=[unknown]
        )


def test_a_backup_takes_its_time_and_outlives_its_table(aws: SimulatedAws, refused) -> None:
    """AWS: DynamoDB API Reference, BackupDetails, DeleteBackup, DescribeBackup."""
    ddb = aws.client("dynamodb")
    arn_of_table = table(ddb)
    put(ddb, "orders", k="1", g="a")
    aws.timing(table_seconds=SLOW)
    arn = back_up(ddb)

    assert arn.startswith(f"{arn_of_table}/backup/") and backup_status(ddb, arn) == "CREATING"
    with refused("BackupInUseException"):
        ddb.delete_backup(BackupArn=arn)
    with refused("BackupInUseException"):
        ddb.restore_table_from_backup(TargetTableName="again", BackupArn=arn)
    with refused("ResourceNotFoundException"):
        ddb.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    wait_for(lambda: backup_status(ddb, arn) == "AVAILABLE")
    ddb.delete_table(TableName="orders")
    assert [b["BackupArn"] for b in ddb.list_backups(TableName="orders")["BackupSummaries"]] == [arn]
    deleted = ddb.delete_backup(BackupArn=arn)["BackupDescription"]["BackupDetails"]
    assert deleted["BackupStatus"] == "DELETED"
    for absent in (ddb.describe_backup, ddb.delete_backup):
        with refused("BackupNotFoundException"):
            absent(BackupArn=arn)
    with refused("BackupNotFoundException"):
        ddb.restore_table_from_backup(TargetTableName="again", BackupArn=arn)


def test_a_list_is_narrowed_paged_and_late(aws: SimulatedAws) -> None:
    """AWS: DynamoDB API Reference, ListBackups: names need not differ; bounds of time; pages of up to 100."""
    ddb = aws.client("dynamodb")
    table(ddb)
    table(ddb, "people")
    made = [back_up(ddb) for _ in range(3)]
    other = back_up(ddb, "people")

    def arns(**narrowed: Any) -> list[str]:
        return [one["BackupArn"] for one in ddb.list_backups(**narrowed)["BackupSummaries"]]

    first = ddb.list_backups(TableName="orders", Limit=2)
    middle = ddb.describe_backup(BackupArn=made[1])["BackupDescription"]["BackupDetails"]
    moment = middle["BackupCreationDateTime"]
    assert {one["BackupName"] for one in first["BackupSummaries"]} == {"nightly"}
    assert sorted(arns()) == sorted([*made, other])
    assert arns(TableName="orders", Limit=2, ExclusiveStartBackupArn=first["LastEvaluatedBackupArn"]) == [
        sorted(made)[2]
    ]
    hour = timedelta(hours=1)
    assert arns(TimeRangeLowerBound=moment + hour) == [] == arns(TimeRangeUpperBound=moment - hour)
    later, earlier = arns(TimeRangeLowerBound=moment), arns(TimeRangeUpperBound=moment)
    assert set(later) | set(earlier) == {*made, other} and not set(later) & set(earlier)
    assert arns(BackupType="SYSTEM") == [] and len(arns(BackupType="ALL")) == 4
    aws.fault(service="dynamodb", action="ListBackups", list_lag_seconds=30)
    assert arns() == []
    assert aws.client("dynamodb", "eu-west-1").list_backups()["BackupSummaries"] == []


def test_a_backup_that_shall_fail_is_refused(aws: SimulatedAws, refused) -> None:
    """AWS: DynamoDB API Reference, CreateBackup, InternalServerError; BackupStatus knows no failure."""
    ddb = aws.client("dynamodb")
    table(ddb)
    table(ddb, "people")
    aws.fault(service="dynamodb", snapshots_error=True, resource_id="orders")

    with refused("InternalServerError"):
        back_up(ddb)

    assert backup_status(ddb, back_up(ddb, "people")) == "AVAILABLE"
    assert ddb.list_backups(TableName="orders")["BackupSummaries"] == []


def test_tables_and_backups_survive_a_restart(tmp_path: Path) -> None:
    """Our own design."""
    first = simulated_aws.start(tmp_path)
    try:
        ddb = first.client("dynamodb")
        table(ddb, Tags=[{"Key": "team", "Value": "red"}])
        put(ddb, "orders", k="1", g="kept")
        arn = back_up(ddb)
        ddb.delete_item(TableName="orders", Key={"k": {"S": "1"}})
    finally:
        assert first.stop() == 0

    second = simulated_aws.start(tmp_path)
    try:
        ddb = second.client("dynamodb")
        ddb.restore_table_from_backup(TargetTableName="again", BackupArn=arn)

        assert items(ddb, "orders") == {}
        assert items(ddb, "again") == {"1": "kept"}
    finally:
        assert second.stop() == 0
