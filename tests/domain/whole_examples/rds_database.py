"""RDS databases in the suite over all types."""

from typing import Any

from tests.domain.whole_examples.base import REGION, Example, customer_key, subnets_in
from tests.domain.world import World


class RdsExample(Example):
    key = "rds_databases"
    creates, lists = "CreateDBSnapshot", "DescribeDBSnapshots"
    copies, restores = "CopyDBSnapshot", "RestoreDBInstanceFromDBSnapshot"
    timing = ("database_seconds",)

    def make(self, world: World, name: str) -> str:
        made = world.aws.client("rds").create_db_instance(
            DBInstanceIdentifier=name,
            DBInstanceClass="db.t3.micro",
            Engine="postgres",
            AllocatedStorage=20,
            MasterUsername="shop",
            MasterUserPassword="not-a-secret",
            Tags=[{"Key": "team", "Value": "shop"}],
        )["DBInstance"]
        world.aws.fill(made["DBInstanceArn"], name.encode())
        return str(made["DBInstanceIdentifier"])

    def make_unusual(self, world: World, name: str) -> str:
        rds = world.aws.client("rds")
        subnets = subnets_in(world, "us-east-1b", "us-east-1c")
        rds.create_db_subnet_group(DBSubnetGroupName="shop", DBSubnetGroupDescription="shop", SubnetIds=subnets)
        made = rds.create_db_instance(
            DBInstanceIdentifier=name, DBInstanceClass="db.r5.large", Engine="mysql", AllocatedStorage=150,
            StorageType="io1", Iops=3000, Port=3399, PubliclyAccessible=True, MultiAZ=True, StorageEncrypted=True,
            KmsKeyId=customer_key(world), DBSubnetGroupName="shop", MasterUsername="shop",
            MasterUserPassword="not-a-secret", Tags=[{"Key": "Name", "Value": "Ledger"}],
        )["DBInstance"]  # fmt: skip
        world.aws.fill(made["DBInstanceArn"], name.encode())
        return name

    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        shown = self._shown(world, id)
        return {
            "aws_resource_class": shown["DBInstanceClass"],
            "engine": shown["Engine"],
            "iops": shown["Iops"],
            "multi_az": shown["MultiAZ"],
            "publicly_accessible": shown["PubliclyAccessible"],
            "status": shown["DBInstanceStatus"],
            "storage": shown["AllocatedStorage"],
            "storage_type": shown["StorageType"],
            "zone": shown["AvailabilityZone"],
        }

    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        shown = self._shown(world, id)
        rds = world.aws.client("rds", region)
        taken = rds.describe_db_snapshots(DBSnapshotIdentifier=snapshot)["DBSnapshots"][0]
        return {
            "db_instance_class": shown["DBInstanceClass"],
            "iops": taken["Iops"],
            "multi_az": shown["MultiAZ"],
            "port": taken["Port"],
            "publicly_accessible": shown["PubliclyAccessible"],
            "storage_type": taken["StorageType"],
            "subnet_group_name": shown["DBSubnetGroup"]["DBSubnetGroupName"],
            "zone": shown["AvailabilityZone"],
        }

    def change(self, world: World, id: str) -> None:
        world.aws.fill(self._shown(world, id)["DBInstanceArn"], b"something else")

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        return world.aws.content(self._shown(world, id, region, account)["DBInstanceArn"])

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self._shown(world, id, region)["TagList"]}

    def destroy(self, world: World, id: str) -> None:
        world.aws.client("rds").delete_db_instance(DBInstanceIdentifier=id, SkipFinalSnapshot=True)

    def resources(self, world: World) -> set[str]:
        pages = world.aws.client("rds").get_paginator("describe_db_instances").paginate()
        found = [one for page in pages for one in page["DBInstances"]]
        # Members of clusters belong to those.
        alone = [one for one in found if not one.get("DBClusterIdentifier")]
        return {one["DBInstanceIdentifier"] for one in alone if one["DBInstanceStatus"] != "deleting"}

    def request(self, name: str) -> dict[str, Any]:
        return {"aws_resource_id": name}

    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        found = world.aws.client("rds", region, account).describe_db_snapshots()["DBSnapshots"]
        return {one["DBSnapshotIdentifier"] for one in found}

    def _shown(self, world: World, id: str, region: str = REGION, account: str | None = None) -> dict[str, Any]:
        rds = world.aws.client("rds", region, account)
        shown: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=id)["DBInstances"][0]
        return shown
