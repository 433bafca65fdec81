"""Dashboards, support logs, time zones and versions."""

import bz2
import io
import json
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cpm.aws import gateway
from cpm.flows.identities import encrypt_secret
from cpm.jobs import fleet
from cpm.lib.states import Authentication, Role, SnapshotKind
from cpm.models import LogLine, ProxySettings, ServerSettings
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db
API_KEY = "cpm_" + "Zx9" * 15
LOOKS_LIKE_A_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PRIVATE_KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nplanted-body\n-----END RSA PRIVATE KEY-----\n"
)


@pytest.fixture
def data_dir(tmp_path: Path, settings) -> Path:
    settings.DATA_DIR = tmp_path
    (tmp_path / "logs").mkdir()
    return tmp_path


def _download(call: Caller, query: str = "") -> dict[str, str]:
    status, content = call("GET", f"system/support_logs/{query}")
    assert status == 200, content
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:bz2") as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
        return {name: file.read().decode() for name, file in found.items() if file}


def test_activity_counts_outcomes_of_the_last_day_by_kind():
    root, now = factories.root(), timezone.now()
    policy = factories.policy(factories.account(root))
    for fields in (
        {"status": "B", "dr_status": "C", "s3_copy_status": "S"},
        {"status": "B", "dr_status": "N", "s3_copy_status": "V"},
        {"status": "A", "dr_status": "F", "s3_copy_status": "R"},
        {"status": "S", "dr_status": "I"},
        {"status": "F", "s3_copy_status": "F"},
        {"status": "D", "status_before_deletion": "B"},
        {"status": "P"},
        {"status": "F", "start_time": now - timedelta(days=2)},
    ):
        factories.backup(policy, **{"start_time": now - timedelta(hours=1), **fields})
    failed = factories.backup(policy, start_time=now, dr_status="F")
    factories.snapshot(failed, SnapshotKind.DR_VOLUME)
    factories.snapshot(failed, SnapshotKind.DR_VOLUME, succeeded=False)

    _, lately = Caller(root)("GET", "system/dashboard/activity/")
    since = f"{now - timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    _, longer = Caller(root)("GET", f"system/dashboard/activity/?start_time={since}")

    facts.check("24.1", lately)
    assert lately == {
        "backup_success_num": 4, "backup_partial_num": 2, "backup_fail_num": 1,
        "backup_dr_success_num": 1, "backup_dr_partial_num": 1, "backup_dr_fail_num": 1,
        "backup_s3_success_num": 2, "backup_s3_partial_num": 1, "backup_s3_fail_num": 1,
    }  # fmt: skip
    assert longer == {**lately, "backup_fail_num": 2}


def test_a_start_time_that_is_no_time_is_refused():
    answer = Caller(factories.root())("GET", "system/dashboard/activity/?start_time=yesterday")

    assert (answer[0], codes(answer[1])) == (400, {"start_time": ["invalid"]})


def test_state_counts_distinct_resources_of_enabled_policies_and_completed_snapshots():
    root = factories.root()
    account = factories.account(root)
    first, second = factories.policy(account), factories.policy(account)
    off = factories.policy(account, enabled=False)
    for policy in (first, second):
        factories.target(policy, aws_resource_id="i-1")
    factories.target(second, aws_resource_id="i-1", aws_region="eu-west-1")
    factories.target(off, aws_resource_id="i-2")
    factories.target(first, aws_resource_id="vol-1", resource_type="volumes")
    factories.account(root, is_dr_account=True)
    backup = factories.backup(first)
    for kind in (SnapshotKind.VOLUME, SnapshotKind.VOLUME, SnapshotKind.DR_VOLUME, SnapshotKind.INITIAL_AMI):
        factories.snapshot(backup, kind)
    factories.snapshot(backup, status="deleted")
    factories.snapshot(backup, status="pending")

    _, shown = Caller(root)("GET", "system/dashboard/state/")

    facts.check("24.2", shown)
    assert {name: n for name, n in shown.items() if n} == {
        "accounts_num": 2, "policies_num": 3, "protected_instances_num": 2, "protected_volumes_num": 1,
        "snapshots_volume_num": 2, "snapshots_dr_volume_num": 1,
    }  # fmt: skip


def test_dashboards_count_what_the_caller_reaches_and_nothing_else():
    root, managed, other = factories.root(), factories.user(Role.MANAGED), factories.user()
    for user in (root, managed, other):
        factories.backup(factories.policy(factories.account(user)), start_time=timezone.now())
    delegate = factories.delegate(other)

    counted = {
        user: (
            Caller(user)("GET", "system/dashboard/activity/")[1]["backup_success_num"],
            Caller(user)("GET", "system/dashboard/state/")[1]["policies_num"],
        )
        for user in (root, managed, other, delegate)
    }

    assert counted == {root: (2, 2), managed: (1, 1), other: (1, 1), delegate: (1, 1)}


def test_a_dashboard_asks_the_database_once_for_all_figures():
    call = Caller(factories.user())
    call("GET", "system/dashboard/state/")

    for name in ("activity", "state"):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            call("GET", f"system/dashboard/{name}/")
        assert len([q for q in queries if "cpm_policy" in q["sql"] or "cpm_backup" in q["sql"]]) == 1


def test_support_logs_are_a_file_whatever_the_client_accepts(data_dir):
    ServerSettings.objects.update_or_create(pk=1, defaults={"name": "back up/1"})
    call = Caller(factories.root(), accept="application/json;")

    answer = call.client.get("/api/system/support_logs/")
    content = answer.getvalue()

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-bzip2")
    name = answer.headers["Content-Disposition"].partition("filename=")[2].strip('"')
    assert name.startswith("cpm-logs-back-up-1-") and name.endswith(".tar.bz2")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:bz2") as archive:
        assert {member.name.partition("/")[0] for member in archive} == {name.removesuffix(".tar.bz2")}
    assert Caller(factories.root(), accept="text/csv")("GET", "system/support_logs/")[0] == 406


def test_only_root_and_its_delegates_get_support_logs(data_dir):
    root, other = factories.root(), factories.user()
    users = (root, factories.delegate(root), other, factories.user(Role.MANAGED), factories.delegate(other))

    assert [Caller(user)("GET", "system/support_logs/")[0] for user in users] == [200, 200, 403, 403, 403]


def test_support_logs_hold_the_lines_of_the_period_and_the_chosen_logs(data_dir):
    now = timezone.now()
    for days in (0.5, 5, 20, 60):
        factories.log_line("backup", 7, f"{days} days old", time=now - timedelta(days=days))
    for name in ("api", "worker1", "postgres"):
        (data_dir / "logs" / f"{name}.log").write_text(f"hello of {name}\n")
    call = Caller(factories.root())

    usual, day, month = (
        _download(call, query)
        for query in ("", "?collect_backup_logs_period=day", "?collect_backup_logs_period=month")
    )
    everything = _download(call, "?collect_system_logs=true&collect_worker_logs=1")

    assert [
        text.count("days old") for text in (files["operations.log"] for files in (day, usual, month))
    ] == [1, 2, 3]
    assert [name for name in usual if name.startswith("logs/")] == ["logs/api.log"]
    assert usual["logs/api.log"] == "hello of api\n"
    assert {name for name in everything if name.startswith("logs/")} == {
        f"logs/{n}.log" for n in ("api", "worker1", "postgres")
    }
    assert json.loads(usual["summary.json"])["cpm"] == fleet.version()
    assert "ServerSettings" in json.loads(usual["settings.json"])
    assert usual["problems.txt"] == "none\n"


def test_nonsense_in_the_parameters_of_support_logs_is_refused(data_dir):
    call = Caller(factories.root())

    for query, field in (
        ("collect_backup_logs_period=year", "collect_backup_logs_period"),
        ("check_aws_permissions=x", "check_aws_permissions"),
    ):
        status, content = call("GET", f"system/support_logs/?{query}")
        assert (status, codes(content)) == (400, {field: ["invalid"]})


def test_no_secret_is_in_support_logs(data_dir, settings):
    root = factories.root()
    api_key = factories.api_key(root)
    account = factories.account(
        root, authentication=Authentication.KEYS, access_key="AKIAPLANTED000000001", external_id="planted-external-id",
        secret_key=encrypt_secret("planted secret, not of the usual form"),
    )  # fmt: skip
    ProxySettings.objects.create(
        pk=1, enabled=True, address="proxy", username="bob", password=encrypt_secret("pr0xy-pw")
    )
    ServerSettings.objects.update_or_create(pk=1, defaults={"activation_key": "planted-activation"})
    (data_dir / "secrets").mkdir()
    (data_dir / "secrets" / "admin-password").write_text("planted-admin-pw\n")
    database = settings.DATABASES["default"]["PASSWORD"]
    secrets = [
        api_key, API_KEY, LOOKS_LIKE_A_SECRET, "AKIAPLANTED000000001", "planted-external-id", "planted-activation",
        "planted secret, not of the usual form", "pr0xy-pw", "planted-admin-pw", settings.SECRET_KEY, database,
        "ASIAPLANTED000000002",
    ]  # fmt: skip
    text = "\n".join(f"line {n} with {secret} in it" for n, secret in enumerate(secrets))
    url = f"postgresql://cpm:{database}@db/cpm password=hunter2hunter2"
    (data_dir / "logs" / "api.log").write_text(
        f"{text}\n{url}\n{PRIVATE_KEY}after the key\n" + "x" * 70_000 + "hunter2hunter2\n"
    )
    factories.log_line("backup", account.pk, text, time=timezone.now())

    files = _download(Caller(root), "?collect_system_logs=true")

    for name, content in files.items():
        assert [text for text in (*secrets, "planted-body", "hunter2hunter2") if text in content] == [], name
    assert files["logs/api.log"].count("in it") == len(secrets)
    assert "after the key" in files["logs/api.log"]
    assert json.loads(files["settings.json"])["ProxySettings"][0]["password"] == "***"
    assert json.loads(files["settings.json"])["ProxySettings"][0]["username"] == "bob"


def test_the_check_of_aws_access_tells_the_result_for_every_account(data_dir):
    gateway.configure(gateway.GatewayConfig(endpoint_url="http://127.0.0.1:9", redis_url="", attempts=1))
    root = factories.root()
    keys = factories.account(
        root,
        authentication=Authentication.KEYS,
        access_key="AKIA0000000000000001",
        secret_key=encrypt_secret("s" * 40),
    )
    broken = factories.account(root, assume_from_account=None)

    lines = _download(Caller(root), "?check_aws_permissions=true")["aws-access.log"].splitlines()

    assert len(lines) == 2
    assert lines[0].startswith(f"{keys.pk} “{keys.name}”") and "failed: sts:GetCallerIdentity" in lines[0]
    assert lines[1].startswith(f"{broken.pk} “{broken.name}”") and "assumes a role" in lines[1]


def test_support_logs_are_packed_while_they_are_sent(data_dir):
    now = timezone.now()
    LogLine.objects.bulk_create(
        LogLine(subject_type="backup", subject_id=n, message=f"line {n * 7919} of backup", time=now)
        for n in range(20_000)
    )

    answer = Caller(factories.root()).client.get("/api/system/support_logs/")
    chunks = [len(chunk) for chunk in answer.streaming_content if chunk]

    # bzip2 hands out blocks of 900 kB of input: no piece may hold the whole file.
    assert len(chunks) > 1
    assert max(chunks) < 200_000


def test_time_zones_are_listed_with_their_offset_and_in_pages():
    call = Caller(factories.user())

    _, zones = call("GET", "system/timezones/")
    _, page = call("GET", "system/timezones/?page=2&page_size=10")

    facts.check("24.4", zones)
    shown = {zone["id"]: zone["display_name"] for zone in zones}
    assert shown["Asia/Kolkata"] == "(UTC+05:30) Asia/Kolkata"
    assert shown["UTC"] == "(UTC+00:00) UTC"
    assert len(zones) > 400 and not {"localtime", "Factory"} & set(shown)
    assert page["count"] == len(zones) and page["results"] == zones[10:20]


def test_versions_are_those_that_run():
    _, version = Caller(factories.user())("GET", "system/version/")

    facts.check("24.5", version)
    assert version == {"api_version": "1.5.0", "cpm_version": fleet.version()}


def test_bzip2_decompresses_to_a_tar_of_whole_blocks(data_dir):
    _, content = Caller(factories.root())("GET", "system/support_logs/")

    assert len(bz2.decompress(content)) % 512 == 0
