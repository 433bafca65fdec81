"""Aurora clusters in the suite over all types."""

from typing import Any, ClassVar

from tests.domain.whole_examples.base import REGION, Example, customer_key, subnets_in
from tests.domain.world import World


class AuroraExample(Example):
    key = "rds_clusters"
    service = "rds"
    engine = "aurora-postgresql"
    creates, lists = "CreateDBClusterSnapshot", "DescribeDBClusterSnapshots"
    copies, restores = "CopyDBClusterSnapshot", "RestoreDBClusterFromSnapshot"
    timing = ("database_seconds",)
    # What DocumentDB has not.
    public: ClassVar[dict[str, Any]] = {"PubliclyAccessible": True}

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

    def make_unusual(self, world: World, name: str) -> str:
        rds, id = world.aws.client(self.service), self.named(name)
        subnets = subnets_in(world, "us-east-1b", "us-east-1c")
        rds.create_db_subnet_group(DBSubnetGroupName="shop", DBSubnetGroupDescription="shop", SubnetIds=subnets)
        made = rds.create_db_cluster(
            DBClusterIdentifier=id, Engine=self.engine, Port=5599, StorageEncrypted=True, KmsKeyId=customer_key(world),
            DBSubnetGroupName="shop", MasterUsername="shop", MasterUserPassword="not-a-secret",
            Tags=[{"Key": "Name", "Value": "Ledger"}],
        )["DBCluster"]  # fmt: skip
        # The first one writes, though the second comes first by its name.
        for number, size, zone in (("2", "db.r5.2xlarge", "us-east-1c"), ("1", "db.r5.large", "us-east-1b")):
            rds.create_db_instance(
                DBInstanceIdentifier=f"{id}-{number}", DBClusterIdentifier=id, Engine=self.engine, DBInstanceClass=size,
                AvailabilityZone=zone, **self.public,
            )  # fmt: skip
        world.aws.fill(made["DBClusterArn"], name.encode())
        return id

    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        shown = self._shown(world, id)
        return {
            "engine": shown["Engine"],
            "status": shown["Status"],
            "storage": shown.get("AllocatedStorage"),
            "zone": self._writer(world, id)["AvailabilityZone"],
        }

    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        shown, writer = self._shown(world, id), self._writer(world, id)
        rds = world.aws.client(self.service, region)
        (taken,) = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=snapshot)["DBClusterSnapshots"]
        return {
            "cluster_id": taken["DBClusterIdentifier"],
            "db_instance_class": writer["DBInstanceClass"],
            "port": taken["Port"],
            "publicly_accessible": writer["PubliclyAccessible"],
            "subnet_group_name": shown["DBSubnetGroup"],
            "zone": writer["AvailabilityZone"],
        }

    def named(self, name: str) -> str:
        return name

    def _writer(self, world: World, id: str) -> dict[str, Any]:
        members = self._shown(world, id)["DBClusterMembers"]
        (name,) = [one["DBInstanceIdentifier"] for one in members if one["IsClusterWriter"]]
        rds = world.aws.client(self.service)
        writer: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        return writer

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
