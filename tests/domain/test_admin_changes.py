"""What operators change in the admin goes through the services, and refusals come back into the form."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from cpm.lib.states import BackupStatus, JobState, StepState
from cpm.models import (
    Account,
    Alert,
    ApiKey,
    Backup,
    Job,
    Policy,
    Recovery,
    Schedule,
    ServerSettings,
    Step,
    User,
)
from tests import factories
from tests.domain.test_admin import _quiet, client_of, page_of, populate

pytestmark = pytest.mark.django_db

__all__ = ["_quiet"]
ACCOUNT = {
    "name": "production",
    "authentication": "C",
    "aws_access_key": "AKIAIOSFODNN7EXAMPLE",
    "aws_secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "account_number": "",
    "allow_deleting_snapshots": "on",
}
POLICY = {
    "name": "nightly", "enabled": "on", "generations": 5, "auto_remove_resource": "N", "agent_script_timeout": 30,
    "considered_successful": "B", "number_of_retries": 3, "minutes_between_retries": 3, "num_failures_for_alert": 1,
    "dr_frequency": 1, "dr_timeout_hours": 24, "dr_keep_original_snapshots": "on",
    "s3_copy_interval": 1, "s3_storage_class": "STANDARD", "s3_keep_by_generations": "on", "s3_generations": 30,
    "s3_keep_time": 1, "s3_keep_time_unit": "Y", "archive_storage_class": "GLACIER", "archive_every": 1,
    "archive_every_unit": "O", "archive_keep": 7, "archive_keep_unit": "Y",
}  # fmt: skip


def _schedule(**changes) -> dict:
    now = timezone.now() + timedelta(hours=1)
    return {
        "name": "hourly", "every_how_many": 1, "every_unit": "H", "start_date_0": f"{now:%Y-%m-%d}",
        "start_date_1": f"{now:%H:%M:%S}", "timezone": "Europe/Berlin", "allow_on_monday": "on",
        "disable_times-TOTAL_FORMS": 0, "disable_times-INITIAL_FORMS": 0,
    } | changes  # fmt: skip


def _add(client, noun, data):
    return client.post(reverse(f"admin:cpm_{noun}_add"), data)


def _act(client, row, name, data=None):
    address = reverse(f"admin:cpm_{row._meta.model_name}_{name}", args=[row.pk])
    return client.post(address, data or {})


def test_an_account_is_made_and_its_secret_never_shown():
    root = factories.root()
    client = client_of(root)

    answer = _add(client, "account", {**ACCOUNT, "user": root.pk})

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    account = Account.objects.get(name="production")
    assert ACCOUNT["aws_secret_key"] not in account.secret_key
    body = client.get(page_of(account)).content.decode()
    assert ACCOUNT["aws_access_key"] in body
    assert ACCOUNT["aws_secret_key"] not in body and account.secret_key not in body


def test_an_account_keeps_its_secret_when_none_is_entered():
    root = factories.root()
    client = client_of(root)
    _add(client, "account", {**ACCOUNT, "user": root.pk})
    before = Account.objects.get(name="production")

    answer = client.post(page_of(before), {**ACCOUNT, "name": "renamed", "aws_secret_key": ""})

    after = Account.objects.get(pk=before.pk)
    assert answer.status_code == 302
    assert (after.name, after.secret_key) == ("renamed", before.secret_key)


def test_a_refusal_of_the_service_stands_at_its_field_and_nothing_is_saved():
    root = factories.root()

    answer = _add(client_of(root), "account", {**ACCOUNT, "user": root.pk, "name": "no\ttabs"})

    assert answer.status_code == 200
    assert "name" in answer.context["adminform"].form.errors
    assert not Account.objects.exists()


def test_an_account_in_use_is_not_deleted():
    root = factories.root()
    policy = factories.policy(factories.account(root))

    answer = client_of(root).post(
        reverse("admin:cpm_account_delete", args=[policy.account_id]), {"post": "yes"}, follow=True
    )

    assert Account.objects.filter(pk=policy.account_id).exists()
    assert policy.name in answer.content.decode()


def test_a_schedule_is_made_with_its_disable_times():
    root = factories.root()
    window = {
        "disable_times-TOTAL_FORMS": 1, "disable_times-0-day": "M", "disable_times-0-start_time": "17:00",
        "disable_times-0-end_time": "08:00",
    }  # fmt: skip

    answer = _add(client_of(root), "schedule", _schedule(user=root.pk, **window))

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    schedule = Schedule.objects.get(name="hourly")
    assert schedule.timezone == "Europe/Berlin" and schedule.disable_times.get().day == "M"


def test_a_disable_time_is_changed_and_removed():
    root = factories.root()
    schedule = factories.schedule(root)
    windows = [factories.disable_time(schedule), factories.disable_time(schedule)]
    data = _schedule(name=schedule.name)
    data |= {"disable_times-TOTAL_FORMS": 2, "disable_times-INITIAL_FORMS": 2}
    for number, window in enumerate(windows):
        data |= {
            f"disable_times-{number}-id": window.pk, f"disable_times-{number}-schedule": schedule.pk,
            f"disable_times-{number}-day": "A", f"disable_times-{number}-start_time": "01:00",
            f"disable_times-{number}-end_time": "02:00",
        }  # fmt: skip
    data["disable_times-1-DELETE"] = "on"

    answer = client_of(root).post(page_of(schedule), data)

    assert answer.status_code == 302
    assert [f"{w.start_time:%H:%M}" for w in schedule.disable_times.all()] == ["01:00"]


def test_a_time_zone_that_does_not_exist_is_refused_in_the_form():
    root = factories.root()

    answer = _add(client_of(root), "schedule", _schedule(user=root.pk, timezone="Mars/Olympus"))

    assert answer.status_code == 200
    assert "timezone" in answer.context["adminform"].form.errors and not Schedule.objects.exists()


def test_a_policy_is_made_with_schedules_and_knows_its_next_run():
    root = factories.root()
    account, schedule = factories.account(root), factories.schedule(root)

    answer = _add(
        client_of(root), "policy", {**POLICY, "account": account.pk, "schedule_list": [schedule.pk]}
    )

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    policy = Policy.objects.get(name="nightly")
    assert (policy.generations, policy.user) == (5, root)
    assert policy.policy_schedules.get().next_run_at is not None


def test_a_policys_options_for_s3_are_changed_with_a_hint_at_what_they_cost():
    root = factories.root()
    account = factories.account(root)
    policy, repository = factories.policy(account), factories.s3_repository(account)
    sent = {
        **POLICY, "s3_enabled": "on", "s3_repository": repository.pk, "s3_generations": 12, "s3_copy_interval": 2,
        "archive_enabled": "on", "archive_keep": 60, "archive_keep_unit": "D",
    }  # fmt: skip

    answer = client_of(root).post(page_of(policy), sent, follow=True)

    policy.refresh_from_db()
    assert (policy.s3_enabled, policy.s3_repository) == (True, repository)
    assert (policy.s3_generations, policy.s3_copy_interval, policy.archive_keep) == (12, 2, 60)
    assert any("bills at least 90 days" in str(message) for message in answer.context["messages"])


def test_refused_options_for_s3_stand_at_their_fields_and_nothing_is_saved():
    root = factories.root()
    policy = factories.policy(factories.account(root))
    sent = {**POLICY, "generations": 9, "s3_enabled": "on", "s3_keep_by_time": "on", "s3_keep_time_unit": "D"}

    answer = client_of(root).post(page_of(policy), sent)

    policy.refresh_from_db()
    errors = answer.context["adminform"].form.errors
    assert set(errors) == {"s3_repository", "s3_keep_time"}
    assert (policy.generations, policy.s3_enabled) == (30, False)


def test_what_runs_in_s3_is_stopped_from_the_pages_of_policy_and_backup():
    root = factories.root()
    policy = factories.policy(factories.account(root))
    backup = factories.backup(policy, s3_copy_status="P", s3_copy_progress=40)
    archive = factories.s3_operation(policy, "archive")
    client = client_of(root)

    shown = client.get(page_of(policy)).content.decode()
    stopped = _act(client, policy, "abort_in_s3")
    copy = factories.s3_operation(backup)
    also = _act(client, backup, "abort_copy")

    backup.refresh_from_db()
    assert page_of(archive) in shown
    assert (stopped.status_code, also.status_code, backup.s3_copy_status) == (302, 302, "G")
    assert Job.objects.filter(abort_requested_at__isnull=False).count() == 2
    assert copy.pk in Job.objects.filter(abort_requested_at__isnull=False).values_list("pk", flat=True)


def test_another_users_account_cannot_be_chosen():
    root, theirs = factories.root(), factories.account()

    answer = _add(client_of(root), "policy", {**POLICY, "account": theirs.pk})

    assert answer.status_code == 200 and not Policy.objects.exists()


def test_running_a_policy_asks_first_and_starts_it_then():
    root = factories.root()
    policy = factories.policy(factories.account(root))
    client = client_of(root)

    asked = client.get(reverse("admin:cpm_policy_run", args=[policy.pk]))
    before = Backup.objects.count()
    done = _act(client, policy, "run")

    assert (asked.status_code, before) == (200, 0)
    assert done.status_code == 302 and Backup.objects.filter(policy=policy).count() == 1


def test_policies_are_run_from_the_list_and_a_refusal_stops_no_other():
    root = factories.root()
    account = factories.account(root)
    good, disabled = factories.policy(account), factories.policy(account, enabled=False)

    answer = client_of(root).post(
        reverse("admin:cpm_policy_changelist"),
        {"action": "run_now", "_selected_action": [good.pk, disabled.pk]},
        follow=True,
    )

    assert list(Backup.objects.values_list("policy_id", flat=True)) == [good.pk]
    assert "disabled" in answer.content.decode()


def test_actions_do_not_reach_other_users_rows():
    theirs = factories.policy()

    answer = _act(client_of(factories.user()), theirs, "run")

    assert answer.status_code == 403 and not Backup.objects.exists()


def test_a_volume_is_recovered_from_its_snapshot_page():
    root = factories.root()
    backup = factories.backup(factories.policy(factories.account(root)))
    snapshot = factories.snapshot(backup, capacity=1, details={"aws_resource_type": "gp3"})
    client = client_of(root)

    wrong = _act(client, snapshot, "recover", {"zone": "eu-west-1a"})
    right = _act(client, snapshot, "recover", {"zone": "us-east-1a"})

    assert wrong.status_code == 200 and "zone" in wrong.content.decode()
    assert right.status_code == 302
    assert Recovery.objects.get(snapshot=snapshot).request["zone"] == "us-east-1a"


def test_jobs_are_aborted_and_failed_ones_tried_again():
    root = factories.root()
    populate(root, count=2)
    running, failed = Job.objects.filter(kind="backup").order_by("id")[:2]
    Step.objects.filter(job=failed).update(state=StepState.FAILED)
    Job.objects.filter(pk=failed.pk).update(state=JobState.FAILED, open_steps=0)
    client = client_of(root)

    _act(client, running, "abort")
    _act(client, failed, "retry")
    refused = _act(client, running, "retry")

    running.refresh_from_db()
    failed.refresh_from_db()
    assert running.abort_requested_at is not None
    assert failed.state == JobState.RUNNING and refused.status_code == 200


def test_a_failed_backup_is_run_again_as_a_new_one():
    root = factories.root()
    failed = factories.backup(factories.policy(factories.account(root)), status=BackupStatus.FAILED)

    _act(client_of(root), failed, "retry")

    assert Backup.objects.filter(policy=failed.policy, status=BackupStatus.INITIALIZING).count() == 1


def test_a_backup_is_moved_to_the_freezer():
    root = factories.root()
    backup = factories.backup(factories.policy(factories.account(root)))

    _act(client_of(root), backup, "freeze", {"name": "before the migration", "description": ""})

    backup.refresh_from_db()
    assert backup.is_freezer_item and backup.name == "before the migration"


def test_alerts_are_dismissed_and_keys_revoked():
    root = factories.root()
    alert = factories.alert(root)
    factories.api_key(root)
    client = client_of(root)

    client.post(reverse("admin:cpm_alert_changelist"), {"action": "dismiss", "_selected_action": [alert.pk]})
    client.post(
        reverse("admin:cpm_apikey_changelist"),
        {"action": "revoke", "_selected_action": [ApiKey.objects.get().pk]},
    )

    assert not Alert.objects.exists()
    assert ApiKey.objects.get().revoked_at is not None


def test_a_user_is_made_with_a_password_that_works():
    root = factories.root()
    data = {"username": "operator", "password": "correct horse battery", "role": "managed"}

    answer = _add(client_of(root), "user", data)

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    assert User.objects.get(username="operator").check_password(data["password"])


def test_a_password_is_changed():
    root, user = factories.root(), factories.user()

    _act(client_of(root), user, "set_password", {"password": "correct horse battery"})

    user.refresh_from_db()
    assert user.check_password("correct horse battery")


def test_the_rules_of_cleanup_are_changed_within_limits():
    root = factories.root()
    row = ServerSettings.objects.get_or_create(id=1)[0]
    rules = {
        "cleanup_interval": 12, "cleanup_type": "s3", "keep_deleted_backup_records": 30, "keep_user_audit_logs_days": 30,
        "keep_resource_control_records": 30, "days_until_single_ami_rotation": 30, "encryption_key_detection": "D",
        "capture_vpcs_interval": 24, "tag_scan_interval": 6, "log_mode": "STANDARD",
    }  # fmt: skip
    client = client_of(root)

    changed = client.post(page_of(row), rules)
    refused = client.post(page_of(row), {**rules, "cleanup_interval": 100_000})

    row.refresh_from_db()
    assert (changed.status_code, refused.status_code) == (302, 200)
    assert (row.cleanup_interval, row.encryption_key_detection) == (12, "D")
