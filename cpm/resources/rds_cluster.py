"""Aurora clusters. Copies go to another region and account in one step (Aurora User Guide, "DB cluster snapshot copying")."""

from typing import Any

from cpm.resources.base import Described
from cpm.resources.storage_cluster import StorageCluster
from cpm.resources.whole import Held


class RdsCluster(StorageCluster):
    """An Aurora cluster with all its instances."""

    key = "rds_clusters"
    noun = "Aurora cluster"
    service = "rds"
    report_word = "aurora"
    kind = "rds_clusters"
    dr_kind = "dr_rds_clusters"
    snapshot_word = "aurora"

    def unfit(self, found: Described) -> str:
        engine = found.details["engine"]
        return "" if self.has_engine(engine) else f"{found.id} is a cluster of {engine}, and not of Aurora."

    def has_engine(self, engine: str) -> bool:
        return engine.startswith("aurora")

    def cluster_settings(self, held: Held) -> dict[str, Any]:
        return {"EnableIAMDatabaseAuthentication": bool(held.details.get("iam_authentication"))}

    def instance_settings(self, held: Held, home: bool) -> dict[str, Any]:
        group = str(held.details.get("parameter_group_name") or "")
        own = {"DBParameterGroupName": group} if home and group and not group.startswith("default.") else {}
        return own | {"PubliclyAccessible": bool(held.details.get("publicly_accessible"))}
