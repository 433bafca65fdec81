"""Copies of backups in S3 over REST: lists, what runs, and stopping it."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings

from cpm.lib.states import CopyStatus, JobState, SnapshotStatus
from cpm.models import AuditRecord, Region
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes
from tests.factories import NOW

pytestmark = pytest.mark.django_db
FLAGS = ("is_archive_active", "is_s3_cleanup_active", "s3_operation_in_progress")


@pytest.fixture
def policy(owner):
    return factories.policy(factories.account(owner))


@pytest.fixture
def backup(policy):
    return factories.backup(policy)


def flags(row: dict) -> tuple[bool, ...]:
    return tuple(row[name] for name in FLAGS)


# -- what runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("s3_copy", (False, False, True)),
        ("archive", (True, False, True)),
        ("s3_cleanup", (False, True, True)),
        ("recovery", (False, False, True)),
    ],
)
def test_a_policy_shows_what_has_it_in_s3(call, policy, kind, expected):
    job = factories.s3_operation(policy, kind)

    _, during = call("GET", f"policies/{policy.pk}/")
    type(job).objects.update(state=JobState.FAILED)
    _, after = call("GET", f"policies/{policy.pk}/")

    assert flags(during) == expected
    assert flags(after) == (False, False, False)


def test_the_list_of_policies_costs_the_same_whatever_runs(call, policy):
    def queries() -> int:
        with CaptureQueriesContext(connection) as taken:
            rows = call("GET", "policies/?page=1")[1]["results"]
        assert len(rows) == policy.account.policies.count()
        return len(taken)

    few = queries()
    for kind in ("archive", "s3_cleanup", "s3_copy"):
        factories.s3_operation(factories.policy(policy.account), kind)

    assert queries() == few


# -- stopping it ------------------------------------------------------------------------------------------


def test_a_copy_is_stopped_and_shows_it(call, policy, backup):
    type(backup).objects.update(s3_copy_status=CopyStatus.IN_PROGRESS)
    job = factories.s3_operation(backup)
    other = factories.s3_operation(factories.backup(factories.policy(policy.account)))

    status, content = call("POST", f"backups/{backup.pk}/copy_to_s3/abort/")

    job.refresh_from_db()
    other.refresh_from_db()
    assert (status, content) == (201, b"")
    assert job.abort_requested_at and not other.abort_requested_at
    shown = call("GET", f"backups/{backup.pk}/")[1]["s3_copy_status"]
    assert shown["status"] == CopyStatus.ABORTING
    assert AuditRecord.objects.get(event_type="backup.copy_aborted").subject_id == backup.pk


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_copy_that_is_over_is_not_stopped(call, backup, state):
    factories.s3_operation(backup, state=state)

    status, content = call("POST", f"backups/{backup.pk}/copy_to_s3/abort/")

    assert (status, codes(content)) == (400, {"non_field_errors": ["not_running"]})
    assert not AuditRecord.objects.filter(event_type="backup.copy_aborted").exists()


@pytest.mark.parametrize(("kind", "path"), [("archive", "archive"), ("s3_cleanup", "cleanup_s3")])
def test_archiving_and_cleanup_are_stopped_and_nothing_else(call, policy, kind, path):
    other = {"archive": "s3_cleanup", "s3_cleanup": "archive"}[kind]
    wrong = factories.s3_operation(policy, other)
    job = factories.s3_operation(policy, kind)

    answers = [call("POST", f"policies/{policy.pk}/{path}/abort/") for _ in range(2)]

    job.refresh_from_db()
    wrong.refresh_from_db()
    assert answers == [(200, b"")] * 2
    assert job.abort_requested_at and not wrong.abort_requested_at


@pytest.mark.parametrize("path", ["archive", "cleanup_s3"])
def test_what_does_not_run_is_stopped_already(call, policy, path):
    assert call("POST", f"policies/{policy.pk}/{path}/abort/") == (200, b"")
    assert not AuditRecord.objects.exists()


@pytest.mark.parametrize(("kind", "name"), [("archive", "archive"), ("s3_cleanup", "cleanup")])
def test_whatever_runs_is_stopped_by_one_address(call, policy, kind, name):
    job = factories.s3_operation(policy, kind)

    status, content = call("POST", f"policies/{policy.pk}/s3_operations/abort/")

    job.refresh_from_db()
    assert (status, content) == (201, {"backup": None, "operation": name})
    assert job.abort_requested_at


def test_the_copy_that_has_the_policy_is_named(call, policy, backup):
    type(backup).objects.update(s3_copy_status=CopyStatus.INITIALIZING)
    factories.s3_operation(backup)

    status, content = call("POST", f"policies/{policy.pk}/s3_operations/abort/")

    backup.refresh_from_db()
    assert (status, content) == (201, {"backup": backup.pk, "operation": "copy"})
    assert backup.s3_copy_status == CopyStatus.ABORTING


def test_nothing_and_recoveries_are_not_stopped(call, policy):
    nothing = call("POST", f"policies/{policy.pk}/s3_operations/abort/")
    job = factories.s3_operation(policy, "recovery")
    recovery = call("POST", f"policies/{policy.pk}/s3_operations/abort/")

    job.refresh_from_db()
    assert (nothing[0], codes(nothing[1])) == (400, {"non_field_errors": ["not_running"]})
    assert (recovery[0], codes(recovery[1])) == (400, {"non_field_errors": ["in_recovery"]})
    assert job.abort_requested_at is None


def test_aborts_ask_for_the_flag_the_feature_and_an_own_object(owner, policy, backup):
    factories.s3_operation(backup)
    stranger, without = Caller(factories.user()), Caller(factories.delegate(owner))
    allowed = Caller(factories.delegate(owner, allow_backup_changes=True))
    addresses = [f"backups/{backup.pk}/copy_to_s3/abort/"]
    addresses += [
        f"policies/{policy.pk}/{path}/abort/" for path in ("archive", "cleanup_s3", "s3_operations")
    ]

    for address in addresses:
        assert stranger("POST", address)[0] == 404
        assert without("POST", address)[0] == 403
        with override_settings(CPM_FEATURES_OFF=frozenset({"copy_to_s3"})):
            assert allowed("POST", address)[0] == 403
        assert allowed("POST", address)[0] in (200, 201)


def test_a_policy_is_not_deleted_while_something_of_it_runs_in_s3(call, policy):
    job = factories.s3_operation(policy, "archive")

    status, content = call("DELETE", f"policies/{policy.pk}/")
    type(job).objects.update(state=JobState.SUCCEEDED)

    assert (status, codes(content)) == (412, {"non_field_errors": ["s3_operation_running"]})
    assert call("DELETE", f"policies/{policy.pk}/") == (204, b"")


# -- copies -----------------------------------------------------------------------------------------------


def test_copies_are_shown_with_their_archive(call, backup):
    volume = factories.snapshot(
        backup, source_id="vol-1", source_name="data", capacity=8, device="/dev/sdf", encrypted=True,
        instance_id="i-1", instance_name="web",
        details={"type": "gp3", "iops": 3000, "zone": "us-east-1a", "kms_key_id": "arn:aws:kms:key/1"},
    )  # fmt: skip
    copy = factories.s3_copy(
        volume, tier="A", archive_status="S", retrieve_status="available",
        retrieve_expiration=NOW.replace(year=2126), end_time=NOW + timedelta(hours=1),
    )  # fmt: skip

    _, rows = call("GET", f"backups/{backup.pk}/snapshots/copy_to_s3/")
    status, row = call("GET", f"backups/{backup.pk}/snapshots/copy_to_s3/{copy.pk}/")

    facts.check("7.7", rows)
    facts.check("7.8", row)
    assert (status, rows) == (200, [row])
    account = backup.account
    assert row == {
        "account_id": account.pk, "account_name": account.name, "archive_status": "S",
        "aws_account_number": account.account_number, "backed_up_resource_id": "vol-1",
        "backed_up_resource_name": "data", "backup_id": str(backup.pk), "capacity": 8, "deletion_time": None,
        "device": "/dev/sdf", "encrypted": True, "encryption_key_alias": "arn:aws:kms:key/1",
        "end_time": "2026-11-21T06:00:00Z", "id": copy.pk, "instance_id": "i-1", "instance_name": "web",
        "iops": 3000, "policy_name": backup.policy_name, "region": "us-east-1",
        "repository_id": str(copy.repository_id), "retrieve_expiration": "2126-11-21T05:00:00Z",
        "retrieve_status": "available", "snapshot_account_id": str(account.pk), "snapshot_account_name": account.name,
        "snapshot_aws_account_number": account.account_number, "snapshot_type": "ebs",
        "start_time": "2026-11-21T05:00:00Z", "status": "completed", "succeeded": "true", "tier": "A",
        "type": "gp3", "username": backup.user.username, "zone": "us-east-1a",
    }  # fmt: skip


def test_what_was_retrieved_shows_as_expired_when_its_time_is_over(call, backup):
    copy = factories.s3_copy(
        factories.snapshot(backup),
        tier="A",
        retrieve_status="available",
        retrieve_expiration=NOW - timedelta(days=9),
    )

    _, row = call("GET", f"backups/{backup.pk}/snapshots/copy_to_s3/{copy.pk}/")

    assert row["retrieve_status"] == "expired"


def test_a_copy_of_which_nobody_knows_yet_has_not_succeeded(call, backup):
    unfinished = factories.s3_copy(
        factories.snapshot(backup),
        status=SnapshotStatus.PENDING,
        succeeded=None,
        end_time=None,
        repository=None,
    )

    _, row = call("GET", f"backups/{backup.pk}/snapshots/copy_to_s3/{unfinished.pk}/")

    assert (row["status"], row["succeeded"], row["end_time"]) == ("pending", "false", None)
    assert (row["tier"], row["archive_status"], row["retrieve_status"]) == ("S", "Z", None)
    assert (row["repository_id"], row["instance_id"], row["encryption_key_alias"]) == (None, None, None)


def test_copies_are_filtered_and_belong_to_their_backup(call, owner, backup):
    region = Region.objects.get(aws_region="us-west-2")
    east, west = (
        factories.s3_copy(factories.snapshot(backup, region=name, source_id=f"vol-{name}"))
        for name in ("us-east-1", "us-west-2")
    )
    elsewhere = factories.s3_copy(factories.snapshot(factories.backup(backup.policy)))

    def found(query: str) -> list[int]:
        return [row["id"] for row in call("GET", f"backups/{backup.pk}/snapshots/copy_to_s3/?{query}")[1]]

    assert found("") == [east.pk, west.pk]
    assert found("aws_region=us-west-2") == found(f"region={region.pk}") == [west.pk]
    assert found("aws_resource_id=vol-us-east-1") == [east.pk]
    assert found(f"account={backup.account_id}&account_name={backup.account_name}") == [east.pk, west.pk]
    assert (
        found(f"account={factories.account(owner).pk}")
        == found("from_time=2026-11-22")
        == found("to_time=2026-11-20")
        == []
    )
    address = f"backups/{backup.pk}/snapshots/copy_to_s3/"
    assert call("GET", f"{address}?page=1&page_size=1")[1]["count"] == 2
    assert call("GET", f"{address}{elsewhere.pk}/")[0] == 404
    assert Caller(factories.user())("GET", address)[0] == 404


# -- the log of cleanups ----------------------------------------------------------------------------------


def test_the_log_of_cleanups_shows_what_is_about_own_policies(call, policy):
    factories.log_line("s3_cleanup", policy.pk, "Mine.")
    factories.log_line("s3_cleanup", factories.policy().pk, "Theirs.")
    factories.log_line("cleanup", policy.user_id, "Of snapshots.")

    status, rows = call("GET", "settings/cleanup/s3_logs/")
    _, table = call("GET", "settings/cleanup/s3_logs/", Accept="text/csv")

    facts.check("23.10", rows)
    assert (status, [row["log"] for row in rows]) == (200, ["Mine."])
    assert table.decode().splitlines() == ["log,log_time,log_type", "Mine.,2026-11-21T05:00:00Z,Info"]
