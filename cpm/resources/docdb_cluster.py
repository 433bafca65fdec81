"""DocumentDB clusters. Beside what other clusters do, AWS shows their tags in calls of their own, and lists snapshots whole.

AWS: Amazon DocumentDB Developer Guide, API reference: CopyDBClusterSnapshot, DescribeDBClusterSnapshots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cpm.aws.client import AwsClient
from cpm.aws.iam_policy import IamAction
from cpm.resources import rds_snapshots as rds
from cpm.resources.base import Described
from cpm.resources.storage_cluster import StorageCluster
from cpm.resources.whole import Held, Place

# The tags of up to so many clusters are asked for one by one; those of more are taken from their targets.
FEW = 10


class DocDbCluster(StorageCluster):
    """A DocumentDB cluster with all its instances."""

    key = "docdb_clusters"
    noun = "DocumentDB cluster"
    service = "docdb"
    since = since_snapshots = dr_since = "1.5.0"
    details = (*StorageCluster.details, "tags")
    kind = "docdb_clusters"
    dr_kind = "dr_docdb_clusters"
    snapshot_word = "docdb"
    iam_actions = (
        *StorageCluster.iam_actions,
        IamAction("rds:ListTagsForResource", "backup", "keeps the tags of a DocumentDB cluster for its recovery"),
        IamAction("rds:ListTagsForResource", "dr copies", "recognises copies that an interrupted call has made"),
        IamAction("rds:ListTagsForResource", "catalogue", "rebuilds a lost database from the tags of our snapshots"),
        IamAction("rds:ListTagsForResource", "recovery", "recognises what an interrupted call has made"),
    )

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        return _keeping_tags(super().describe(client, ids))

    def existing(self, client: AwsClient, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Described]:
        if len(known) <= FEW:
            return self.describe(client, list(known))
        names = list(known)
        return _keeping_tags(self.described(client, names, lambda row: known[row["DBClusterIdentifier"]].get("tags") or {}))

    def unfit(self, found: Described) -> str:
        engine = found.details["engine"]
        return "" if self.has_engine(engine) else f"{found.id} is a cluster of {engine}, and not of DocumentDB."

    def has_engine(self, engine: str) -> bool:
        return engine == "docdb"

    def labels(self, client: AwsClient, row: rds.Row, arn: str) -> dict[str, str]:
        return rds.tags_of(client.call("ListTagsForResource", ResourceName=arn))

    def snapshot_rows(self, client: AwsClient, ids: Sequence[str]) -> list[rds.Row]:
        if not ids:
            return []
        listed = client.paginate("DescribeDBClusterSnapshots", "DBClusterSnapshots", SnapshotType="manual")
        wanted = set(ids)
        return [row for row in listed if row["DBClusterSnapshotIdentifier"] in wanted]

    def why_not_copied(self, held: Held, target: Place) -> str:
        if target.same_account or target.region == held.region:
            return ""
        return "AWS copies the DocumentDB snapshots of another account only within their region."


def _keeping_tags(found: Mapping[str, Described]) -> dict[str, Described]:
    """With the tags among the details, where a target keeps them."""
    return {name: replace(one, details={**one.details, "tags": dict(one.tags)}) for name, one in found.items()}
