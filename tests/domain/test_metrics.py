"""/metrics and /healthz answer from the database."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from cpm.jobs import fleet
from cpm.lib.states import BackupStatus, DrStatus, FleetKind, JobState, StepState
from cpm.models import FleetMember, Job, S3Copy, ServerSettings, Step
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nobody_seen(monkeypatch):
    monkeypatch.setattr(fleet, "_last", {})


def _scrape() -> dict[tuple, float]:
    text = Client().get("/metrics").content.decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _of(samples: dict[tuple, float], name: str, **labels: str) -> float | None:
    return samples.get((name, *sorted(labels.items())))


def test_a_policy_shows_the_age_of_its_last_success_and_what_went_wrong_since():
    now = timezone.now()
    policy = factories.policy(
        last_success_at=now - timedelta(hours=2),
        missed_runs=3,
        consecutive_failures=1,
        retention_stuck_since=now,
    )
    never = factories.policy()

    samples = _scrape()

    labels = {"policy_id": str(policy.pk), "policy": policy.name, "user": policy.user.username}
    assert _of(samples, "cpm_policy_last_success_age_seconds", **labels) == pytest.approx(7200, abs=60)
    assert _of(samples, "cpm_policy_missed_runs", **labels) == 3
    assert _of(samples, "cpm_policy_consecutive_failures", **labels) == 1
    assert _of(samples, "cpm_policy_retention_stuck_since_seconds", **labels) == pytest.approx(
        now.timestamp()
    )
    labels = {"policy_id": str(never.pk), "policy": never.name, "user": never.user.username}
    assert _of(samples, "cpm_policy_last_success_age_seconds", **labels) is None


def test_the_backlog_of_a_queue_tells_due_from_blocked_steps():
    job = Job.objects.create(kind="backup", subject_type="backup", state=JobState.RUNNING)
    due = timezone.now() - timedelta(minutes=10)
    Step.objects.create(job=job, kind="a", queue="dr", not_before=due)
    Step.objects.create(job=job, kind="b", queue="dr", pending_after=1)
    Step.objects.create(job=job, kind="c", queue="dr", state=StepState.RUNNING)
    Step.objects.create(job=job, kind="d", queue="dr", state=StepState.SUCCEEDED)

    samples = _scrape()

    assert _of(samples, "cpm_queue_steps", queue="dr", state="ready") == 1
    assert _of(samples, "cpm_queue_steps", queue="dr", state="blocked") == 1
    assert _of(samples, "cpm_queue_steps", queue="dr", state="running") == 1
    assert _of(samples, "cpm_queue_oldest_due_age_seconds", queue="dr") == pytest.approx(600, abs=60)
    assert _of(samples, "cpm_jobs_open", kind="backup", state="running") == 1


def test_the_workers_of_each_queue_are_counted_those_of_places_too():
    fleet.seen("far", FleetKind.WORKER, ["backup", "s3"], 4)
    fleet.seen("near", FleetKind.WORKER, ["s3", "s3@123456789012:eu-west-1"], 2)
    fleet.seen("gone", FleetKind.WORKER, ["s3"], 8)
    FleetMember.objects.filter(name="gone").update(last_seen_at=timezone.now() - timedelta(minutes=2))

    values = _scrape()

    found = {name: values["cpm_queue_workers", ("queue", name)] for name in ("backup", "s3", "s3@123456789012:eu-west-1")}
    assert found == {"backup": 1, "s3": 2, "s3@123456789012:eu-west-1": 1}
    assert values["cpm_queue_slots", ("queue", "s3")] == 6


def test_outcomes_alerts_and_cleanup_are_counted():
    now = timezone.now()
    Job.objects.create(kind="recovery", subject_type="recovery", state=JobState.FAILED, finished_at=now)
    factories.backup(status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.FAILED, start_time=now)
    factories.backup(status=BackupStatus.FAILED, start_time=now - timedelta(days=3))
    factories.alert(severity="C")
    ServerSettings.objects.update_or_create(id=1, defaults={"last_cleanup_time": now})

    samples = _scrape()

    assert _of(samples, "cpm_jobs_finished_24h", kind="recovery", state="failed") == 1
    assert _of(samples, "cpm_backups_24h", status="B") == 1
    assert _of(samples, "cpm_backups_24h", status="F") is None
    assert _of(samples, "cpm_dr_24h", status="failed") == 1
    assert _of(samples, "cpm_alerts", severity="critical") == 1
    assert _of(samples, "cpm_alerts", severity="info") == 0
    assert _of(samples, "cpm_last_cleanup_time_seconds") == pytest.approx(now.timestamp())


def test_the_figures_of_the_dashboards_are_metrics_of_each_user():
    idle, busy = factories.user(), factories.user()
    backup = factories.backup(
        factories.policy(factories.account(busy)), start_time=timezone.now(), dr_status="C"
    )
    factories.snapshot(backup)
    factories.target(backup.policy)

    samples = _scrape()

    for user, n in ((idle.username, 0), (busy.username, 1)):
        for figure in (
            "activity_backup_success_num", "activity_backup_dr_success_num", "state_accounts_num", "state_policies_num",
            "state_protected_instances_num", "state_snapshots_volume_num",
        ):  # fmt: skip
            assert _of(samples, f"cpm_dashboard_{figure}", user=user) == n
        assert _of(samples, "cpm_dashboard_activity_backup_fail_num", user=user) == 0


def test_a_scrape_costs_the_same_number_of_queries_however_many_policies(django_assert_max_num_queries):
    for _ in range(20):
        factories.backup()

    with django_assert_max_num_queries(14):
        _scrape()


def test_a_server_is_healthy_when_it_ticks_and_a_worker_was_heard():
    fleet.seen("tick", FleetKind.BEAT)
    fleet.seen("w1", FleetKind.WORKER, ["backup", "dr"], 2)

    answer = Client().get("/healthz?fleet=1")

    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["database"], body["redis"], body["workers"]) == ("ok", True, True, 1)
    assert body["last_tick_age"] < 30


def test_a_silent_scheduler_or_a_missing_fleet_is_a_degraded_server():
    fleet.seen("tick", FleetKind.BEAT)
    fleet.seen("w1", FleetKind.WORKER)
    FleetMember.objects.update(last_seen_at=timezone.now() - timedelta(minutes=5))

    monitoring = Client().get("/healthz?fleet=1")
    probe = Client().get("/healthz")

    assert (monitoring.status_code, monitoring.json()["status"]) == (503, "degraded")
    assert (probe.status_code, probe.json()["status"], probe.json()["workers"]) == (200, "degraded", 0)


def test_redis_that_is_away_is_reported(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    answer = Client().get("/healthz")

    assert (answer.status_code, answer.json()["redis"], answer.json()["database"]) == (503, False, True)


def test_a_process_writes_its_row_only_every_few_seconds(django_assert_num_queries):
    first = fleet.seen("w1", FleetKind.WORKER, ["backup"], 4)

    with django_assert_num_queries(0):
        second = fleet.seen("w1", FleetKind.WORKER, ["backup"], 4)

    member = FleetMember.objects.get(name="w1")
    assert (first, second) == (True, False)
    assert (member.kind, member.queues, member.concurrency) == ("worker", ["backup"], 4)


def test_members_that_were_silent_for_a_day_are_forgotten():
    fleet.seen("old", FleetKind.WORKER)
    FleetMember.objects.update(last_seen_at=timezone.now() - timedelta(days=2))

    fleet.seen("new", FleetKind.WORKER)

    assert list(FleetMember.objects.values_list("name", flat=True)) == ["new"]


def test_a_repository_shows_how_it_was_when_it_was_last_verified():
    now = timezone.now()
    row = factories.s3_repository(
        name="main", last_verified_at=now - timedelta(days=8), last_verify_result="damaged", bytes_stored=7, copies_stored=2
    )
    new = factories.s3_repository(verify_every_days=0)
    backup = factories.backup()
    for number, status in enumerate(("completed", "deleted")):
        S3Copy.objects.create(
            backup=backup, snapshot=factories.snapshot(backup), repository=row, copy_id=f"{number:032x}",
            start_time=now, damaged=True, status=status,
        )  # fmt: skip

    found = _scrape()

    labels = {"repository_id": str(row.pk), "repository": "main", "user": row.user.username}
    assert _of(found, "cpm_repository_bytes", **labels) == 7 and _of(found, "cpm_repository_copies", **labels) == 2
    assert _of(found, "cpm_repository_damaged_copies", **labels) == 1
    assert _of(found, "cpm_repository_last_verify_result", **labels, result="damaged") == 1
    assert _of(found, "cpm_repository_last_verify_result", **labels, result="sound") == 0
    assert 0 < _of(found, "cpm_repository_verification_overdue_seconds", **labels) - 86_400 < 60
    assert abs(_of(found, "cpm_repository_last_verified_time_seconds", **labels) - row.last_verified_at.timestamp()) < 1
    others = {"repository_id": str(new.pk), "repository": new.name, "user": new.user.username}
    assert _of(found, "cpm_repository_last_verified_time_seconds", **others) is None
    assert _of(found, "cpm_repository_verification_overdue_seconds", **others) is None
