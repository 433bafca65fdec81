"""A Redshift cluster."""

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Database, Place


class RedshiftCluster(Database):
    key = "redshift_clusters"
    noun = "Redshift cluster"
    name = "shop-sales"

    def make(self, place: Place) -> str:
        place.client("redshift").create_cluster(
            ClusterIdentifier=self.name,
            NodeType="ra3.large",
            MasterUsername="shop",
            MasterUserPassword="Not-a-secret-1",
        )
        return self.name

    def state(self, place: Place, id: str) -> str:
        redshift = place.client("redshift")
        shown = unless_absent("ClusterNotFound", lambda: redshift.describe_clusters(ClusterIdentifier=id))
        return str(shown["Clusters"][0]["ClusterStatus"]) if shown else ""

    def arn(self, place: Place, id: str) -> str:
        # AWS shows a cluster's namespace but not its own ARN.
        return f"arn:aws:redshift:{place.region}:{place.account.number}:cluster:{id}"

    def delete(self, place: Place, id: str) -> None:
        place.client("redshift").delete_cluster(ClusterIdentifier=id, SkipFinalClusterSnapshot=True)
