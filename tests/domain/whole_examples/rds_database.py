"""RDS databases in the suite over all types."""

from typing import Any

from tests.domain.whole_examples.base import REGION, Example
from tests.domain.world import World


class RdsExample(Example):
    key = "rds_databases"
    creates, lists = "CreateDBSnapshot", "DescribeDBSnapshots"
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

    def change(self, world: World, id: str) -> None:
        world.aws.fill(self._shown(world, id)["DBInstanceArn"], b"something else")

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        return world.aws.content(self._shown(world, id, region, account)["DBInstanceArn"])

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self._shown(world, id, region)["TagList"]}

    def destroy(self, world: World, id: str) -> None:
        world.aws.client("rds").delete_db_instance(DBInstanceIdentifier=id, SkipFinalSnapshot=True)

    def resources(self, world: World) -> set[str]:
        found = world.aws.client("rds").describe_db_instances()["DBInstances"]
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
