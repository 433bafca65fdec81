"""The policy cpmdata: the server's own database in a snapshot and in a file, and back into an empty database."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from django.utils import timezone

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.flows.server import server_dump
from cpm.lib.errors import PreconditionFailed
from cpm.models import Backup, Policy, PolicySchedule, Snapshot, Step
from cpm.scheduler import planner
from cpm.services import backups, server_restore
from tests import factories
from tests.domain import recovering
from tests.domain.world import World
from tests.simulated_aws import REGION

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.CPM_SERVER_BACKUP_DIR = tmp_path / "dumps"
    return tmp_path / "dumps"


@pytest.fixture
def second() -> Iterator[str]:
    """Another database of the same server, migrated and empty; restores in this process go there."""
    name = f"{connection.settings_dict['NAME']}_second"
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
        cursor.execute(f'CREATE DATABASE "{name}"')
    parts = connection.settings_dict
    server = f"postgresql://{parts['USER']}:{parts['PASSWORD']}@{parts['HOST'] if not parts['HOST'].startswith('/') else ''}"
    query = f"?host={parts['HOST']}" if parts["HOST"].startswith("/") else ""
    port = f":{parts['PORT']}" if parts["PORT"] and not query else ""
    url = f"{server}{port}/{name}{query}" + (f"&port={parts['PORT']}" if query and parts["PORT"] else "")
    environment = {**os.environ, "CPM_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "cpm.settings"}
    environment.pop("CPM_DATABASE_URL_FILE", None)
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True, timeout=100)
    yield name
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def restore_into(name: str, stream: Any, monkeypatch: pytest.MonkeyPatch) -> server_dump.Dump:
    """What `cpm server restore` does in a process that is set up with that database."""
    original = connections["default"].settings_dict["NAME"]
    with monkeypatch.context() as patch:
        patch.setitem(connections["default"].settings_dict, "NAME", name)
        dump = server_restore.restore(stream=stream, tick=lambda: None)
    assert connections["default"].settings_dict["NAME"] == original
    return dump


def connected(name: str) -> psycopg.Connection[Any]:
    parts = connection.settings_dict
    return psycopg.connect(
        dbname=name, user=parts["USER"], password=parts["PASSWORD"], host=parts["HOST"], port=parts["PORT"] or None
    )


def content(name: str, table: str, columns: str = "*") -> list[Any]:
    with connected(name) as raw:
        return raw.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()


def back_up(world: World, **expect: Any) -> Backup:
    policy = Policy.objects.filter(name="cpmdata").first() or world.policy(name="cpmdata", generations=2)
    return world.back_up(policy, **expect)


def test_database_survives_in_a_snapshot(world: World, second: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    volume = world.aws.volume()
    world.back_up(world.policy(volume, name="quote'd-\"x\"", description="two\nlines\t\\N über"), status="B")
    made = back_up(world, status="B")
    row = recovering.volume_row(made, "cpmdata")
    assert (row.resource_type, row.region, row.status, row.succeeded) == ("server", REGION, "completed", True)
    access, secret = world.aws.credentials()
    stream = io.BytesIO()

    server_restore.download(
        identity=Keys(access, secret), region=REGION, snapshot=row.aws_id, file=stream, tick=lambda _: None
    )
    [kept] = folder.glob("*.cpmdump")
    stream.seek(0)
    dump = restore_into(second, stream, monkeypatch)

    assert kept.read_bytes() == stream.getvalue() and kept.stat().st_mode & 0o077 == 0
    names = "id, name, description"
    assert content(second, "cpm_policy", names) == content(connection.settings_dict["NAME"], "cpm_policy", names)
    for table in ("cpm_user", "cpm_account", "cpm_target", "cpm_region", "django_content_type", "cpm_backuptally"):
        here = content(connection.settings_dict["NAME"], table)
        assert content(second, table) == here, table
        assert dump.rows[table] == len(here)
    assert len(content(second, "cpm_backup")) == 2
    with connected(second) as raw:
        assert raw.execute("SELECT count(*) FROM cpm_step WHERE state IN ('ready', 'running', 'waiting')").fetchone() == (0,)
        assert raw.execute("SELECT status FROM cpm_backup WHERE id = %s", [made.pk]).fetchone() == ("F",)
        assert raw.execute("SELECT nextval(pg_get_serial_sequence('cpm_step', 'id'))").fetchone()[0] > 1_000_000
        # The tally's triggers are at work again.
        before = raw.execute("SELECT sum(n) FROM cpm_backuptally").fetchone()
        raw.execute("DELETE FROM cpm_snapshot")
        raw.execute("DELETE FROM cpm_backup")
        after = raw.execute("SELECT sum(n) FROM cpm_backuptally").fetchone()
        assert before is not None and before[0] > 0 and after == (0,)


def test_database_in_use_takes_no_dump(world: World, folder: Path) -> None:
    back_up(world, status="B")
    [kept] = folder.glob("*.cpmdump")

    with pytest.raises(PreconditionFailed, match="not empty"):
        server_restore.restore(stream=io.BytesIO(kept.read_bytes()), tick=lambda: None)

    assert Backup.objects.count() == 1


@pytest.mark.parametrize("damage", [lambda d: d[:-50], lambda d: b"x" + d, lambda d: d[: len(d) // 2]])
def test_damaged_dump_is_refused(world: World, folder: Path, damage: Any) -> None:
    back_up(world, status="B")
    [kept] = folder.glob("*.cpmdump")

    with pytest.raises(server_dump.BadDump):
        server_dump.verify(io.BytesIO(damage(kept.read_bytes())), tick=lambda: None)


def test_changed_row_is_noticed(world: World, folder: Path) -> None:
    back_up(world, status="B")
    [kept] = folder.glob("*.cpmdump")
    plain = gzip.decompress(kept.read_bytes()[len(server_dump.MAGIC) :])
    changed = server_dump.MAGIC + gzip.compress(plain.replace(b"cpmdata", b"cpmdatA", 1))

    with pytest.raises(server_dump.BadDump, match="damaged"):
        server_dump.verify(io.BytesIO(changed), tick=lambda: None)


def test_no_secret_stands_in_the_dump(world: World, folder: Path) -> None:
    user = factories.user(username="somebody")
    user.set_password("a-password-of-somebody")
    user.save()
    key = factories.api_key(user)

    back_up(world, status="B")

    [kept] = folder.glob("*.cpmdump")
    plain = gzip.decompress(kept.read_bytes()[len(server_dump.MAGIC) :])
    assert b"somebody" in plain and world.account.access_key.encode() in plain
    for secret in (world.aws.credentials()[1], "a-password-of-somebody", key):
        assert secret.encode() not in plain


@pytest.mark.parametrize("share", [0.15, 0.4, 0.6, 0.8, 0.95])
def test_worker_killed_in_the_middle_leaves_one_snapshot(world: World, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    events = recovering.Deaths(None)
    policy = world.policy(name="cpmdata")
    with monkeypatch.context() as patch:
        patch.setattr(recovering.AwsClient, "call", events.around(recovering.AwsClient.call))
        patch.setattr(recovering.leases, "guarded", events.around(recovering.leases.guarded))
        world.back_up(policy, status="B")

    second = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    recovering.run_and_die(world, monkeypatch, int(events.seen * share))

    second.refresh_from_db()
    assert second.status == "B", world.log(second)
    assert world.snapshots_in_aws() == set(Snapshot.objects.values_list("aws_id", flat=True))
    assert Snapshot.objects.filter(succeeded=True).count() == 2


def test_abort_leaves_nothing_in_aws(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = world.policy(name="cpmdata")
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    while not Step.objects.filter(kind="backup.watch_snapshots", state="waiting").exists():
        world.aws.timing(snapshot_seconds=60)
        world.work()

    backups.abort(actor=world.actor, backup=backup)
    Step.objects.filter(state="waiting").update(not_before=timezone.now())
    world.run()

    assert Backup.objects.get().status == "F"
    assert world.snapshots_in_aws() == set()


def test_policy_keeps_its_generations_of_files_and_snapshots(world: World, folder: Path) -> None:
    for _ in range(3):
        Backup.objects.update(start_time=timezone.now() - timedelta(hours=1))
        back_up(world, status="B")

    assert len(list(folder.glob("*.cpmdump"))) == 2
    assert len(world.snapshots_in_aws()) == 2


def test_server_data_is_copied_to_dr(world: World) -> None:
    policy = world.policy(name="cpmdata", dr_enabled=True, dr_regions=[world.region_id("us-west-2")])

    backup = world.back_up(policy, status="B", dr_status="C")

    [copy] = Snapshot.objects.filter(backup=backup, kind="dr_volumes")
    native = recovering.volume_row(backup, "cpmdata")
    ebs = gateway.client(Keys(*world.aws.credentials()), "ebs", "us-west-2")
    first = ebs.call("ListSnapshotBlocks", SnapshotId=copy.aws_id)["Blocks"][0]
    data = ebs.call("GetSnapshotBlock", SnapshotId=copy.aws_id, **{k: first[k] for k in ("BlockIndex", "BlockToken")})
    assert hashlib.sha256(data["BlockData"]).digest() == hashlib.sha256(world.aws.read(native.aws_id, 0, 512 * 1024)).digest()


def test_server_data_runs_on_schedule_without_targets(world: World) -> None:
    start = timezone.now() - timedelta(hours=1)
    policy = factories.policy(world.account, (factories.schedule(world.user, start_date=start),), name="cpmdata")
    PolicySchedule.objects.filter(policy=policy).update(next_run_at=start)

    planner.run_due(now=timezone.now())

    assert Backup.objects.filter(policy=policy).exists()


def test_only_roots_policy_of_that_name_sees_the_database(world: World, folder: Path) -> None:
    account = factories.account(factories.user(), account_number="123456789012")
    policy = factories.policy(account, name="cpmdata")

    backup = world.back_up(policy)

    assert backup.status == "F" and not folder.exists()
