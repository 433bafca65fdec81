"""Databases that come back from S3: their files into a bucket, or their rows into a new PostgreSQL database."""

from typing import Any

import pytest
from django.utils import timezone
from typer.testing import CliRunner

from cpm import cli
from cpm.flows.s3 import restore_files, restore_rows
from cpm.jobs.context import StepContext
from cpm.models import Job, Recovery, S3Copy, Snapshot
from cpm.services import database_recovery_checks, recoveries
from cpm.services.recovery_checks import Problems
from tests import factories
from tests.domain import copying, exporting, recovering, restoring
from tests.domain.exporting import CONTENT, copy_of, database, files, objects, policy_over
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

PASSWORD = "not-a-secret-either"


def copied(world: World, name: str = "shop", engine: str = "postgres") -> S3Copy:
    """A database whose copy is in S3; its snapshot is gone."""
    repository = exporting.repository(world)
    policy = policy_over(world, repository, database(world, name, engine), s3_delete_originals=True)
    copy = copy_of(copying.copied(world, policy), name)
    assert world.aws.client("rds").describe_db_snapshots()["DBSnapshots"] == [] and copy.backup.status == "M"
    return copy


def start(world: World, copy: S3Copy, **request: Any) -> Recovery:
    return recoveries.recover_database_from_s3(
        actor=world.actor, snapshot=copy.snapshot, request=request, credentials=None, now=timezone.now()
    )


def recover(world: World, copy: S3Copy, *, expect: str = "R", **request: Any) -> Recovery:
    recovery = start(world, copy, **request)
    world.run()
    recovery.refresh_from_db()
    assert recovery.status == expect, (recovery.outcome, recovering.log(recovery))
    return recovery


def test_files_come_back_byte_by_byte_from_an_archive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_files, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(exporting, "CONTENT", CONTENT * 7)
    copy = copied(world, engine="mysql")
    packed = files(copy)
    factories.bucket(world.aws, "files-of-ours", "us-east-1")

    restoring.archive(world, copy)
    options = {"retrieval_tier": "S", "days_to_keep": 3}

    recovery = recover(
        world, copy, export_bucket="files-of-ours", export_prefix="back/", retrieve_options=options
    )

    found = objects(world, "files-of-ours")
    assert found == {f"back/{name}": data for name, data in packed.items()}
    assert recovery.recovered_resource_ids == "s3://files-of-ours/back/ (original: shop)"
    assert (recovery.s3_status, recovery.s3_progress, recovery.retrieve_status) == ("S", [100], "S")


def test_files_of_an_aborted_recovery_are_removed_and_those_of_others_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(world)
    factories.bucket(world.aws, "files-of-ours", "us-east-1")
    put = restore_files._Slice._put

    def put_and_abort(slice_: Any, member: Any) -> None:
        put(slice_, member)
        world.aws.client("s3").put_object(Bucket="files-of-ours", Key="back/of-others", Body=b"1")
        Job.objects.filter(kind="recovery").update(abort_requested_at=timezone.now())

    monkeypatch.setattr(restore_files._Slice, "_put", put_and_abort)
    recovery = recover(world, copy, expect="F", export_bucket="files-of-ours", export_prefix="back/")

    assert list(objects(world, "files-of-ours")) == ["back/of-others"]
    assert recovery.s3_status == "A"


def test_what_is_in_the_place_of_files_already_is_not_written_over(world: World) -> None:
    copy = copied(world)
    factories.bucket(world.aws, "files-of-ours", "us-east-1")
    world.aws.client("s3").put_object(Bucket="files-of-ours", Key="back/file", Body=b"1")

    recovery = recover(world, copy, expect="F", export_bucket="files-of-ours", export_prefix="back/")

    assert "already" in recovery.outcome and list(objects(world, "files-of-ours")) == ["back/file"]


SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE SCHEMA sales;
CREATE TABLE sales.orders (
    id bigint PRIMARY KEY, code varchar(12), price numeric(10, 2), made timestamp(3), paid boolean, note text,
    data jsonb, raw bytea, weight double precision, tags text[], how mood
);
INSERT INTO sales.orders SELECT n, 'c' || n, n * 1.25, '2026-01-02 03:04:05.678'::timestamp + n * interval '1 hour', n % 2 = 0,
    E'tab\\t, \\\\ and \\n line ' || n, jsonb_build_object('n', n), decode('00ff', 'hex'), n / 3.0, ARRAY['a', 'b "c"'], 'glad'
    FROM generate_series(1, 2500) n;
INSERT INTO sales.orders (id) VALUES (0);
CREATE TABLE public.empty (id uuid, day date);
CREATE TABLE public.plain AS SELECT 1 AS id;
"""
ROWS = "SELECT id, code, price, made, paid, note, data, raw, weight, tags::text, how::text FROM sales.orders ORDER BY id"


def live(world: World) -> S3Copy:
    """A database with tables in PostgreSQL whose copy is in S3; the database itself and its snapshot are gone."""
    world.aws.live_databases()
    repository = exporting.repository(world)
    rds = world.aws.client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="shop", DBInstanceClass="db.t3.micro", Engine="postgres", AllocatedStorage=20, DBName="app",
        MasterUsername="shop", MasterUserPassword=PASSWORD,
    )  # fmt: skip
    with world.aws.connect("shop", PASSWORD) as link:
        link.execute(SCHEMA)
    copy = copy_of(copying.copied(world, policy_over(world, repository, "shop")))
    rds.delete_db_snapshot(DBSnapshotIdentifier=copy.snapshot.aws_id)
    return copy


def rows(world: World, name: str) -> tuple[list[Any], list[Any]]:
    with world.aws.connect(name, PASSWORD, dbname="app") as link:
        types = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position"
        return link.execute(ROWS).fetchall(), link.execute(types).fetchall()


NEW = {"aws_resource_id": "new", "master_username": "shop", "master_password": PASSWORD}


def test_rows_come_back_into_a_new_database_though_a_worker_dies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = live(world)
    before, types = rows(world, "shop")
    save = StepContext.save_cursor
    died: list[Any] = []

    def dying(context: StepContext, cursor: Any) -> None:
        """The second table is loaded, but nobody is told."""
        if cursor and cursor.get("done") == ["app.public.empty", "app.public.plain"] and not died:
            died.append(cursor)
            raise SystemExit
        save(context, cursor)

    monkeypatch.setattr(StepContext, "save_cursor", dying)
    recovery = start(world, copy, **NEW)
    with pytest.raises(SystemExit):
        world.run()
    world.expire_leases()
    world.run()

    recovery.refresh_from_db()
    assert recovery.status == "R", recovering.log(recovery)

    after, new_types = rows(world, "new")
    assert after == before and len(after) == 2501
    assert dict(new_types) == {**dict(types), "tags": "text", "how": "text"}
    with world.aws.connect("new", PASSWORD, dbname="app") as link:
        assert link.execute("SELECT * FROM empty").fetchall() == []
        assert link.execute("SELECT * FROM plain").fetchall() == [(1,)]
    assert recovery.recovered_resource_ids == "new (original: shop)" and recovery.s3_status == "S"
    log = recovering.log(recovery)
    assert any("indexes, keys" in line for line in log) and any("type how had" in line for line in log)
    assert PASSWORD not in str([recovery.request, *log])


def test_an_aborted_recovery_leaves_no_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = live(world)
    pause = restore_rows._Loading._pause

    def abort_and_pause(loading: Any, table: Any, rows: int) -> None:
        Job.objects.filter(kind="recovery").update(abort_requested_at=timezone.now())
        pause(loading, table, rows)

    monkeypatch.setattr(restore_rows._Loading, "_pause", abort_and_pause)
    recovery = recover(world, copy, expect="F", **NEW)

    names = {one["DBInstanceIdentifier"] for one in world.aws.client("rds").describe_db_instances()["DBInstances"]}
    assert names == {"shop"} and recovery.s3_status == "A"


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({}, {"aws_resource_id", "master_username", "master_password"}),
        ({"export_bucket": "files-of-ours"}, {"export_prefix"}),
        ({"export_bucket": "B", "export_prefix": "back", "master_username": "u"}, {"export_bucket", "export_prefix", "master_username"}),
        ({"aws_resource_id": "new", "master_username": "1", "master_password": "short"}, {"master_username", "master_password"}),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense_are_refused(wanted: dict[str, Any], fields: set[str]) -> None:
    details = {"engine": "postgres", "storage_type": "gp3"}
    snapshot = Snapshot(kind="rds_databases", resource_type="rds_databases", details=details)
    problems = Problems()

    database_recovery_checks.check(snapshot, wanted, problems)

    assert set(problems.found) == fields


def test_only_files_of_other_engines_come_back() -> None:
    problems = Problems()

    database_recovery_checks.check(Snapshot(details={"engine": "mysql"}), {"aws_resource_id": "new"}, problems)

    assert set(problems.found) == {"export_bucket"}


def test_recovery_is_asked_for_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    backup = factories.backup(factories.policy(factories.account(factories.root())))
    row = factories.snapshot(backup, kind="rds_databases", source_id="shop", details={"engine": "mysql"})
    factories.s3_copy(row)
    where = ["--bucket", "files-of-ours", "--prefix", "back/"]

    said = CliRunner().invoke(cli.app, ["recover", "database", str(backup.pk), "shop", *where])

    assert said.exit_code == 0, said.output
    assert Recovery.objects.get().request["export_prefix"] == "back/"
