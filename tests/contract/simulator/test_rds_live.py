"""Live databases of RDS: rows that clients write go through snapshots, copies, restores and exports."""

from typing import Any

import psycopg

from tests.contract.simulator.test_rds import database, snapshot
from tests.simulated_aws import SimulatedAws

OTHER = "210987654321"
PASSWORD = "not-a-secret"


def live(aws: SimulatedAws, name: str = "shop", **more: Any) -> "psycopg.Connection[Any]":
    """A new live instance with a database ``app``, connected to."""
    aws.live_databases()
    database(aws, name, DBName="app", MasterUserPassword=PASSWORD, **more)
    return aws.connect(name, PASSWORD)


def test_rows_are_those_of_the_moment_through_copies_and_restores(aws: SimulatedAws) -> None:
    with live(aws) as link:
        link.execute(
            "CREATE TABLE orders AS SELECT number, 'order ' || number AS text FROM generate_series(1, 500) number"
        )
        with aws.connect("shop", PASSWORD) as other, other.transaction():
            other.execute("DELETE FROM orders WHERE number < 100")
            arn = snapshot(aws)
        link.execute("DROP TABLE orders")
    aws.client("rds").modify_db_snapshot_attribute(
        DBSnapshotIdentifier="before", AttributeName="restore", ValuesToAdd=[OTHER]
    )
    theirs = aws.client("rds", account=OTHER)
    theirs.copy_db_snapshot(SourceDBSnapshotIdentifier=arn, TargetDBSnapshotIdentifier="mine")
    aws.client("rds").delete_db_snapshot(DBSnapshotIdentifier="before")

    theirs.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="shop", DBSnapshotIdentifier="mine")

    with aws.connect("shop", PASSWORD, account=OTHER) as link:
        found = link.execute("SELECT count(*), min(number), max(text) FROM orders").fetchone()
        assert found == (500, 1, "order 99")
        assert link.execute("SELECT current_user, current_database()").fetchone() == ("owner", "app")
    with aws.connect("shop", PASSWORD) as link:
        assert link.execute("SELECT to_regclass('orders')").fetchone() == (None,)
