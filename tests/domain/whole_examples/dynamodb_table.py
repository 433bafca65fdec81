"""DynamoDB tables in the suite over all types."""

import math
from typing import Any

from tests.domain.whole_examples.base import REGION, Example
from tests.domain.world import World


class TableExample(Example):
    key = "dynamodb_tables"
    creates, lists = "CreateBackup", "ListBackups"
    restores = "RestoreTableFromBackup"
    # A backup of a table either starts or does not; AWS knows no failed one.
    fails_later = False
    timing = ("table_seconds",)

    def make(self, world: World, name: str) -> str:
        dynamo = world.aws.client("dynamodb")
        dynamo.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            Tags=[{"Key": "team", "Value": "shop"}],
        )
        dynamo.put_item(TableName=name, Item={"id": {"S": "1"}, "name": {"S": name}})
        return name

    def make_unusual(self, world: World, name: str) -> str:
        dynamo = world.aws.client("dynamodb")
        dynamo.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "shop", "KeyType": "HASH"}, {"AttributeName": "day", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "shop", "AttributeType": "S"}, {"AttributeName": "day", "AttributeType": "N"}
            ],
            BillingMode="PAY_PER_REQUEST",
            Tags=[{"Key": "Name", "Value": "Ledger"}],
        )  # fmt: skip
        dynamo.put_item(TableName=name, Item={"shop": {"S": "1"}, "day": {"N": "7"}})
        return name

    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        table = world.aws.client("dynamodb").describe_table(TableName=id)["Table"]
        keys = {one["KeyType"]: one["AttributeName"] for one in table["KeySchema"]}
        return {
            "aws_resource_name": table["TableName"],
            "partition_key": keys["HASH"],
            "sort_key": keys["RANGE"],
            "status": table["TableStatus"],
            "storage": math.ceil(table["TableSizeBytes"] / 2**30),
            "table_arn": table["TableArn"],
        }

    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        return {}

    def change(self, world: World, id: str) -> None:
        world.aws.client("dynamodb").put_item(TableName=id, Item={"id": {"S": "2"}})

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        items = world.aws.client("dynamodb", region, account).scan(TableName=id)["Items"]
        return sorted(items, key=lambda item: str(item["id"]["S"]))

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        dynamo = world.aws.client("dynamodb", region)
        arn = dynamo.describe_table(TableName=id)["Table"]["TableArn"]
        return {tag["Key"]: tag["Value"] for tag in dynamo.list_tags_of_resource(ResourceArn=arn)["Tags"]}

    def destroy(self, world: World, id: str) -> None:
        world.aws.client("dynamodb").delete_table(TableName=id)

    def resources(self, world: World) -> set[str]:
        return set(world.aws.client("dynamodb").list_tables()["TableNames"])

    def request(self, name: str) -> dict[str, Any]:
        return {"aws_resource_name": name}

    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        found = world.aws.client("dynamodb", region, account).list_backups(BackupType="USER")
        return {one["BackupArn"] for one in found["BackupSummaries"]}
