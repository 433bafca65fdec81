"""Aurora clusters in the suite over all types."""

from typing import Any

from tests.domain.whole_examples.base import REGION, Example
from tests.domain.world import World


class AuroraExample(Example):
    key = "rds_clusters"
    service = "rds"
    engine = "aurora-postgresql"
    creates, lists = "CreateDBClusterSnapshot", "DescribeDBClusterSnapshots"
    timing = ("database_seconds",)

    def make(self, world: World, name: str) -> str:
        rds = world.aws.client(self.service)
        made = rds.create_db_cluster(
            DBClusterIdentifier=name,
            Engine=self.engine,
            MasterUsername="shop",
            MasterUserPassword="not-a-secret",
            Tags=[{"Key": "team", "Value": "shop"}],
        )["DBCluster"]
        rds.create_db_instance(
            DBInstanceIdentifier=f"{name}-1",
            DBClusterIdentifier=name,
            Engine=self.engine,
            DBInstanceClass="db.r5.large",
        )
        world.aws.fill(made["DBClusterArn"], name.encode())
        return str(made["DBClusterIdentifier"])

    def change(self, world: World, id: str) -> None:
        world.aws.fill(self._shown(world, id)["DBClusterArn"], b"something else")

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        shown = self._shown(world, id, region, account)
        classes = [self._class(world, one["DBInstanceIdentifier"], region, account) for one in shown["DBClusterMembers"]]
        return world.aws.content(shown["DBClusterArn"]), classes

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        rds = world.aws.client(self.service, region)
        found = rds.list_tags_for_resource(ResourceName=self._shown(world, id, region)["DBClusterArn"])
        return {tag["Key"]: tag["Value"] for tag in found["TagList"]}

    def destroy(self, world: World, id: str) -> None:
        rds = world.aws.client(self.service)
        for one in self._shown(world, id)["DBClusterMembers"]:
            rds.delete_db_instance(DBInstanceIdentifier=one["DBInstanceIdentifier"])
        rds.delete_db_cluster(DBClusterIdentifier=id, SkipFinalSnapshot=True)

    def resources(self, world: World) -> set[str]:
        found = world.aws.client(self.service).describe_db_clusters()["DBClusters"]
        ours = [one for one in found if one["Engine"] == self.engine]
        return {one["DBClusterIdentifier"] for one in ours if one["Status"] != "deleting"}

    def request(self, name: str) -> dict[str, Any]:
        return {"aws_resource_id": name, "aws_dbinstance_id": f"{name}-first"}

    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        found = world.aws.client(self.service, region, account).describe_db_cluster_snapshots()["DBClusterSnapshots"]
        return {one["DBClusterSnapshotIdentifier"] for one in found if one["Engine"] == self.engine}

    def _shown(self, world: World, id: str, region: str = REGION, account: str | None = None) -> dict[str, Any]:
        rds = world.aws.client(self.service, region, account)
        shown: dict[str, Any] = rds.describe_db_clusters(DBClusterIdentifier=id)["DBClusters"][0]
        return shown

    def _class(self, world: World, id: str, region: str, account: str | None) -> str:
        rds = world.aws.client(self.service, region, account)
        return str(rds.describe_db_instances(DBInstanceIdentifier=id)["DBInstances"][0]["DBInstanceClass"])
