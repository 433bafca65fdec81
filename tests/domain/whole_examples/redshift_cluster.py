"""Redshift clusters in the suite over all types."""

from typing import Any

from tests.domain.whole_examples.base import REGION, Example
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT


def arn(id: str, region: str = REGION, account: str | None = None) -> str:
    return f"arn:aws:redshift:{region}:{account or DEFAULT_ACCOUNT}:cluster:{id}"


class RedshiftExample(Example):
    key = "redshift_clusters"
    creates, lists = "CreateClusterSnapshot", "DescribeClusterSnapshots"
    timing = ("database_seconds",)

    def make(self, world: World, name: str, **more: Any) -> str:
        made = {"NodeType": "ra3.large", "MasterUsername": "admin", "MasterUserPassword": "Passw0rdPassw0rd"}
        world.aws.client("redshift").create_cluster(
            ClusterIdentifier=name, Tags=[{"Key": "team", "Value": "shop"}], **{**made, **more}
        )
        world.aws.fill(arn(name), f"rows of {name}".encode())
        return name

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
