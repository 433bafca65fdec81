"""Live databases of RDS: rows that clients write go through snapshots, copies, restores and exports."""

import io
import json
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import simulated_aws
from tests.contract.simulator.test_rds import database, key_for, snapshot
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


TYPES = {
    "a_big": ("bigint", -(2**63), pa.int64()),
    "a_int": ("integer", 2**31 - 1, pa.int32()),
    "a_small": ("smallint", -5, pa.int16()),
    "a_double": ("double precision", 0.1, pa.float64()),
    "a_real": ("real", 1.5, pa.float32()),
    "a_bool": ("boolean", True, pa.bool_()),
    "a_bytes": ("bytea", b"\x00\xff'", pa.binary()),
    "a_decimal": ("numeric(40,2)", "12345678901234567890123456789012345678.90", pa.string()),
    "a_text": ("text", 'naïve, \t"quoted"', pa.string()),
    "a_char": ("char(4)", "ab  ", pa.string()),
    "a_date": ("date", "2024-02-29", pa.string()),
    "a_stamp": ("timestamp", "2024-02-29 23:59:59.123456", pa.string()),
    "a_stamptz": ("timestamptz", "2024-02-29 23:59:59.5+00", pa.string()),
    "a_span": ("interval", "1 day 02:00:00", pa.string()),
    "a_uuid": ("uuid", "00000000-0000-4000-8000-000000000001", pa.string()),
    "a_json": ("json", '{"b":  [1, null]}', pa.string()),
    "a_jsonb": ("jsonb", '{"a": {"b": 1.0}}', pa.string()),
    "a_list": ("text[]", '{a,"b c",NULL}', pa.string()),
    "a_inet": ("inet", "10.0.0.0/8", pa.string()),
    "a_range": ("int4range", "[1,5)", pa.string()),
    "a_mood": ("mood", "glad", pa.string()),
    "a_plus": ("positive", "7", pa.string()),
}


def allowed(aws: SimulatedAws) -> dict[str, Any]:
    """What an export needs: a bucket, a role that RDS may assume, a key."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "export.rds.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    role = aws.client("iam").create_role(
        RoleName="exporter", AssumeRolePolicyDocument=json.dumps({"Statement": [statement]})
    )
    aws.client("s3").create_bucket(Bucket="exported")
    return {"S3BucketName": "exported", "IamRoleArn": role["Role"]["Arn"], "KmsKeyId": key_for(aws)}


def exported(
    aws: SimulatedAws, name: str, source: str, **wanted: Any
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A finished export of a snapshot and its files."""
    rds, s3 = aws.client("rds"), aws.client("s3")
    rds.start_export_task(ExportTaskIdentifier=name, SourceArn=source, **wanted)
    [task] = rds.describe_export_tasks(ExportTaskIdentifier=name)["ExportTasks"]
    found = s3.list_objects_v2(Bucket=wanted["S3BucketName"], Prefix=f"{name}/").get("Contents", [])
    return task, {
        one["Key"]: s3.get_object(Bucket=wanted["S3BucketName"], Key=one["Key"])["Body"].read()
        for one in found
    }


def rows(files: dict[str, bytes], table: str) -> pa.Table:
    parts = [
        data for name, data in sorted(files.items()) if f"/{table}/" in name and name.endswith(".parquet")
    ]
    return pa.concat_tables(pq.read_table(io.BytesIO(data)) for data in parts)


def test_export_has_every_table_and_type_as_parquet(aws: SimulatedAws) -> None:
    """AWS: RDS User Guide, Data conversion when exporting, PostgreSQL; File naming conventions; Considerations."""
    with live(aws) as link:
        link.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        link.execute("CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
        link.execute(
            f"CREATE TABLE types (an_oid oid, {', '.join(f'{name} {kind}' for name, (kind, *_) in TYPES.items())})"
        )
        values = [value for _, value, _ in TYPES.values()]
        link.execute(f"INSERT INTO types VALUES (1, {', '.join(['%s'] * len(values))})", values)
        link.execute("INSERT INTO types VALUES (NULL)")
        link.execute("CREATE SCHEMA sales")
        link.execute(
            "CREATE TABLE sales.orders (id integer, area integer) PARTITION BY LIST (area)"
        )
        for area in (1, 2):
            link.execute(f"CREATE TABLE sales.area{area} PARTITION OF sales.orders FOR VALUES IN ({area})")
        link.execute("INSERT INTO sales.orders VALUES (2, 2), (1, 1)")
        link.execute("CREATE TABLE sales.plain AS SELECT n AS id FROM generate_series(1, 2500) n")
        link.execute("CREATE TABLE nothing (id integer)")
        link.execute('CREATE TABLE odd ("a column" integer)')
        link.execute("CREATE DATABASE second")
    with aws.connect("shop", PASSWORD, dbname="second") as link:
        link.execute("CREATE TABLE notes AS SELECT 'kept' AS text")

    needs = allowed(aws)

    task, files = exported(aws, "first", snapshot(aws), **needs)
    _, partial = exported(aws, "part", task["SourceArn"], ExportOnly=["app.sales", "second"], **needs)

    assert (task["Status"], task["PercentProgress"]) == ("COMPLETE", 100)
    assert "app.public.odd" in task["WarningMessage"]
    types = rows(files, "app/public.types")
    assert {one.name: one.type for one in types.schema} == {name: kind for name, (*_, kind) in TYPES.items()}
    assert types.to_pylist() == [{name: value for name, (_, value, _) in TYPES.items()}, dict.fromkeys(TYPES)]
    assert sorted(rows(files, "app/sales.plain")["id"].to_pylist()) == list(range(1, 2501))
    assert len([name for name in files if "/sales.plain/1/part-0000" in name]) == 3
    assert rows(files, "app/sales.orders").to_pylist() == [{"id": 1, "area": 1}, {"id": 2, "area": 2}]
    assert [name for name in files if "public.nothing" in name] == ["first/app/public.nothing/1/_SUCCESS"]
    told = json.loads(files["first/export_tables_info_first_from_1_to_5.json"])["perTableStatus"]
    assert [one["target"] for one in told] == [
        "app.public.nothing", "app.public.types", "app.sales.orders", "app.sales.plain", "second.public.notes",
    ]  # fmt: skip
    assert json.loads(files["first/export_info_first.json"])["status"] == "COMPLETE"
    folders = {name.split("/")[2] for name in partial if name.endswith(".parquet")}
    assert folders == {"sales.orders", "sales.plain", "public.notes"}


def test_export_is_refused_or_fails_where_aws_does_so(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, StartExportTask; RDS User Guide, Failure messages for Amazon S3 export tasks."""
    rds, needs = aws.client("rds"), allowed(aws)
    database(aws)
    source = snapshot(aws)
    with refused("InvalidExportOnly"):
        rds.start_export_task(ExportTaskIdentifier="e", SourceArn=source, ExportOnly=["a b"], **needs)
    aws.timing(database_snapshot_seconds=30)
    rds.start_export_task(ExportTaskIdentifier="running", SourceArn=source, **needs)

    with refused("ExportTaskAlreadyExists"):
        rds.start_export_task(ExportTaskIdentifier="second", SourceArn=source, **needs)
    assert rds.cancel_export_task(ExportTaskIdentifier="running")["Status"] == "CANCELING"
    [task] = rds.describe_export_tasks(ExportTaskIdentifier="running")["ExportTasks"]
    assert task["Status"] == "CANCELED"
    aws.timing(database_snapshot_seconds=0)
    rds.start_export_task(ExportTaskIdentifier="late", SourceArn=source, **needs)
    aws.client("iam").delete_role(RoleName="exporter")
    [task] = rds.describe_export_tasks(ExportTaskIdentifier="late")["ExportTasks"]
    assert task["Status"] == "FAILED" and "can't assume the IAM role" in task["FailureCause"]


def test_live_instance_is_stopped_given_a_new_password_and_deleted(aws: SimulatedAws, refused) -> None:
    """AWS: RDS API Reference, ModifyDBInstance, MasterUserPassword, StopDBInstance, DeleteDBInstance."""
    rds = aws.client("rds")
    with live(aws) as link:
        link.execute("CREATE TABLE kept AS SELECT 1 AS id")
    with refused("InvalidParameterValue"):
        rds.modify_db_instance(DBInstanceIdentifier="shop", MasterUserPassword="short")

    rds.modify_db_instance(DBInstanceIdentifier="shop", MasterUserPassword="another-secret")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        aws.connect("shop", PASSWORD)
    rds.stop_db_instance(DBInstanceIdentifier="shop")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        aws.connect("shop", "another-secret")
    rds.start_db_instance(DBInstanceIdentifier="shop")
    with aws.connect("shop", "another-secret") as link:
        assert link.execute("SELECT id FROM kept").fetchone() == (1,)
        place = {"host": link.info.host, "port": link.info.port}
    rds.delete_db_instance(DBInstanceIdentifier="shop", SkipFinalSnapshot=True)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(user="owner", password="another-secret", dbname="app", **place)


def test_live_databases_survive_a_restart(tmp_path: Path) -> None:
    """Our own design."""
    first = simulated_aws.start(tmp_path)
    try:
        with live(first) as link:
            link.execute("CREATE TABLE kept AS SELECT 1 AS id")
        snapshot(first)
    finally:
        assert first.stop() == 0

    second = simulated_aws.start(tmp_path)
    try:
        with second.connect("shop", PASSWORD) as link:
            assert link.execute("SELECT id FROM kept").fetchone() == (1,)
        second.client("rds").restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier="new", DBSnapshotIdentifier="before"
        )
        with second.connect("new", PASSWORD) as link:
            assert link.execute("SELECT id FROM kept").fetchone() == (1,)
        second.reset()
        assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["template"]
    finally:
        assert second.stop() == 0
