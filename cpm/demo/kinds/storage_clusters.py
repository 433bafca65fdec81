"""An Aurora cluster and a DocumentDB cluster, each with one instance; AWS has the same calls for both."""

from typing import ClassVar

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Database, Place
from cpm.demo.rest import Json


class StorageCluster(Database):
    """A cluster whose instances share its storage."""

    service: ClassVar[str]
    engine: ClassVar[str]

    def make(self, place: Place) -> str:
        rds = place.client(self.service)
        rds.create_db_cluster(
            DBClusterIdentifier=self.name,
            Engine=self.engine,
            MasterUsername="shop",
            MasterUserPassword="not-a-secret",
        )
        rds.create_db_instance(
            DBInstanceIdentifier=f"{self.name}-1",
            DBClusterIdentifier=self.name,
            Engine=self.engine,
            DBInstanceClass="db.r5.large",
        )
        return self.name

    def state(self, place: Place, id: str) -> str:
        rds = place.client(self.service)
        shown = unless_absent(
            "DBClusterNotFoundFault", lambda: rds.describe_db_clusters(DBClusterIdentifier=id)
        )
        return str(shown["DBClusters"][0]["Status"]) if shown else ""

    def arn(self, place: Place, id: str) -> str:
        shown = place.client(self.service).describe_db_clusters(DBClusterIdentifier=id)
        return str(shown["DBClusters"][0]["DBClusterArn"])

    def delete(self, place: Place, id: str) -> None:
        rds = place.client(self.service)
        for one in rds.describe_db_clusters(DBClusterIdentifier=id)["DBClusters"][0]["DBClusterMembers"]:
            rds.delete_db_instance(DBInstanceIdentifier=one["DBInstanceIdentifier"])
        rds.delete_db_cluster(DBClusterIdentifier=id, SkipFinalSnapshot=True)

    def wanted(self, name: str) -> Json:
        return {self.id_field: name, "aws_dbinstance_id": f"{name}-1"}


class AuroraCluster(StorageCluster):
    key = "rds_clusters"
    dr_key = "dr_rds_clusters"
    noun = "Aurora cluster"
    name = "shop-ledger"
    service, engine = "rds", "aurora-postgresql"


class DocDbCluster(StorageCluster):
    key = "docdb_clusters"
    dr_key = "dr_docdb_clusters"
    noun = "DocumentDB cluster"
    # Aurora and DocumentDB clusters share their names in AWS.
    name = "shop-reviews"
    service = engine = "docdb"
