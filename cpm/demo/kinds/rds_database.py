"""An RDS database."""

from typing import Any

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Database, Place


class RdsDatabase(Database):
    key = "rds_databases"
    dr_key = "dr_rds_databases"
    noun = "RDS database"
    name = "shop-db"

    def make(self, place: Place) -> str:
        place.client("rds").create_db_instance(
            DBInstanceIdentifier=self.name,
            DBInstanceClass="db.t3.micro",
            Engine="postgres",
            AllocatedStorage=20,
            MasterUsername="shop",
            MasterUserPassword="not-a-secret",
        )
        return self.name

    def state(self, place: Place, id: str) -> str:
        shown = self._shown(place, id)
        return str(shown["DBInstances"][0]["DBInstanceStatus"]) if shown else ""

    def arn(self, place: Place, id: str) -> str:
        shown = place.client("rds").describe_db_instances(DBInstanceIdentifier=id)
        return str(shown["DBInstances"][0]["DBInstanceArn"])

    def delete(self, place: Place, id: str) -> None:
        place.client("rds").delete_db_instance(DBInstanceIdentifier=id, SkipFinalSnapshot=True)

    def _shown(self, place: Place, id: str) -> dict[str, Any] | None:
        rds = place.client("rds")
        return unless_absent("DBInstanceNotFound", lambda: rds.describe_db_instances(DBInstanceIdentifier=id))
