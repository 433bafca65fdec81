"""Redshift clusters in the suite over all types."""

from typing import Any

from tests.domain.whole_examples.base import REGION, Example, customer_key, subnets_in
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT


def arn(id: str, region: str = REGION, account: str | None = None) -> str:
    return f"arn:aws:redshift:{region}:{account or DEFAULT_ACCOUNT}:cluster:{id}"


class RedshiftExample(Example):
    key = "redshift_clusters"
    creates, lists = "CreateClusterSnapshot", "DescribeClusterSnapshots"
    restores = "RestoreFromClusterSnapshot"
    timing = ("database_seconds",)

    def make(self, world: World, name: str, **more: Any) -> str:
        made: dict[str, Any] = {"NodeType": "ra3.large", "MasterUsername": "admin", "MasterUserPassword": "Passw0rdPassw0rd"}
        made |= {"Tags": [{"Key": "team", "Value": "shop"}]}
        world.aws.client("redshift").create_cluster(ClusterIdentifier=name, **{**made, **more})
        world.aws.fill(arn(name), f"rows of {name}".encode())
        return name

    def make_unusual(self, world: World, name: str) -> str:
        subnets = subnets_in(world, "us-east-1c")
        world.aws.client("redshift").create_cluster_subnet_group(
            ClusterSubnetGroupName="shop", Description="shop", SubnetIds=subnets
        )
        return self.make(
            world, name, NodeType="ra3.4xlarge", ClusterType="multi-node", NumberOfNodes=3, Port=5451,
            PubliclyAccessible=True, ClusterSubnetGroupName="shop", KmsKeyId=customer_key(world),
            Tags=[{"Key": "Name", "Value": "Ledger"}],
        )  # fmt: skip

    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        one = shown(world, id)
        return {
            "aws_resource_type": "multi-node" if one["NumberOfNodes"] > 1 else "single-node",
            "encrypted": one["Encrypted"],
            "node_storage": one["TotalStorageCapacityInMegaBytes"] // one["NumberOfNodes"] // 1024,
            "node_type": one["NodeType"],
            "nodes": one["NumberOfNodes"],
            "publicly_accessible": one["PubliclyAccessible"],
            "status": one["ClusterStatus"],
            "zone": one["AvailabilityZone"],
        }

    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        redshift, one = world.aws.client("redshift", region), shown(world, id)
        taken = redshift.describe_cluster_snapshots(SnapshotIdentifier=snapshot)["Snapshots"][0]
        return {
            "aws_node_type": taken["NodeType"],
            "aws_nodes": taken["NumberOfNodes"],
            "cluster_id": taken["ClusterIdentifier"],
            "port": taken["Port"],
            "publicly_accessible": one["PubliclyAccessible"],
            "subnet_group_name": one["ClusterSubnetGroupName"],
            "zone": taken["AvailabilityZone"],
        }

    def change(self, world: World, id: str) -> None:
        world.aws.fill(arn(id), b"other rows")

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        return world.aws.content(arn(id, region, account))

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in shown(world, id, region)["Tags"]}

    def destroy(self, world: World, id: str) -> None:
        world.aws.client("redshift").delete_cluster(ClusterIdentifier=id, SkipFinalClusterSnapshot=True)

    def resources(self, world: World) -> set[str]:
        found = world.aws.client("redshift").describe_clusters()["Clusters"]
        return {one["ClusterIdentifier"] for one in found if one["ClusterStatus"] != "deleting"}

    def request(self, name: str) -> dict[str, Any]:
        return {"aws_resource_id": name}

    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        redshift = world.aws.client("redshift", region, account)
        found = redshift.get_paginator("describe_cluster_snapshots").paginate(SnapshotType="manual")
        return {one["SnapshotIdentifier"] for page in found for one in page["Snapshots"]}


def shown(world: World, id: str, region: str = REGION) -> dict[str, Any]:
    """A cluster as AWS describes it."""
    found = world.aws.client("redshift", region).describe_clusters(ClusterIdentifier=id)["Clusters"]
    one: dict[str, Any] = found[0]
    return one
