"""What the planner starts, and what it leaves alone."""

from datetime import UTC, datetime, timedelta

import pytest

from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import BackupStatus
from cpm.models import Backup, Job, Policy, PolicySchedule, ServerSettings, Step
from cpm.scheduler import planner
from cpm.services import backups
from tests import factories

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.django_db


def _hourly(**fields):
    return factories.schedule(
        start_date=NOON - timedelta(days=30), every_how_many=1, every_unit="H", **fields
    )


def _due_policy(*schedules, since=NOON, **fields) -> Policy:
    policy = factories.policy(schedules=schedules or (_hourly(),), **fields)
    factories.target(policy)
    policy.policy_schedules.update(next_run_at=since)
    return policy


def _tick(**options):
    return planner.run_due(now=NOW, clean=lambda **_: None, **options)


def test_a_due_policy_gets_one_backup_with_its_job_and_its_next_moment():
    policy = _due_policy()

    result = _tick()

    backup = Backup.objects.get(policy=policy)
    assert (backup.slot, backup.start_time, backup.status) == (NOON, NOW, BackupStatus.INITIALIZING)
    assert Step.objects.filter(job=Job.objects.get(subject_type="backup", subject_id=backup.pk)).exists()
    assert policy.policy_schedules.get().next_run_at == NOON + timedelta(hours=1)
    assert (result.started, result.missed) == (1, 0)


def test_a_second_tick_starts_nothing():
    _due_policy()
    _tick()

    result = _tick()

    assert result == planner.PlannerResult()
    assert Backup.objects.count() == 1


def test_two_schedules_that_meet_make_one_backup_and_no_missed_run():
    daily = factories.schedule(start_date=NOON - timedelta(days=3), every_how_many=1, every_unit="D")
    policy = _due_policy(_hourly(), daily)

    result = _tick()

    assert Backup.objects.get(policy=policy).slot == NOON
    assert (result.started, result.missed) == (1, 0)
    assert not PolicySchedule.objects.filter(next_run_at__lte=NOW).exists()


def test_after_downtime_only_the_newest_slot_runs_and_the_others_are_counted():
    policy = _due_policy(since=NOON - timedelta(hours=5))

    result = _tick()

    policy.refresh_from_db()
    assert Backup.objects.get(policy=policy).slot == NOON
    assert (result.started, result.missed, policy.missed_runs) == (1, 5, 5)


def test_a_policy_that_still_backs_up_drops_the_run_and_counts_it():
    policy = _due_policy()
    running = factories.backup(policy, status=BackupStatus.IN_PROGRESS)

    result = _tick()

    policy.refresh_from_db()
    assert list(Backup.objects.filter(policy=policy)) == [running]
    assert (result.dropped, policy.missed_runs) == (1, 1)
    assert policy.policy_schedules.get().next_run_at > NOW


def test_disabled_and_empty_policies_do_not_run_and_miss_nothing():
    disabled = _due_policy(enabled=False)
    empty = _due_policy()
    empty.targets.all().delete()

    result = _tick()

    assert not Backup.objects.exists()
    assert (result.skipped, result.missed) == (2, 0)
    assert not PolicySchedule.objects.filter(policy__in=[disabled, empty], next_run_at__lte=NOW).exists()


def test_a_schedule_that_has_ended_fires_for_the_last_time():
    policy = _due_policy(_hourly(end_date=NOON))

    _tick()

    assert Backup.objects.filter(policy=policy).count() == 1
    assert policy.policy_schedules.get().next_run_at is None


def test_a_schedule_that_cannot_be_computed_does_not_stop_the_others():
    broken = _due_policy(_hourly(timezone="Mars/Olympus"))
    sound = _due_policy()

    _tick()

    assert list(Backup.objects.values_list("policy_id", flat=True)) == [sound.pk]
    assert broken.policy_schedules.get().next_run_at > NOW


def test_one_policy_that_cannot_be_started_keeps_its_slot_and_stops_nobody(monkeypatch):
    policies = [_due_policy() for _ in range(4)]
    monkeypatch.setattr(planner, "_set_back_until", {})

    def start(*, runs, now):
        if any(run.policy == policies[1] for run in runs):
            raise PreconditionFailed("spoiled", "This one never starts.")
        return backups.start_many(runs=runs, now=now)

    result = _tick(start=start)
    again = _tick(start=start)

    started = set(Backup.objects.values_list("policy_id", flat=True))
    assert started == {policies[0].pk, policies[2].pk, policies[3].pk}
    assert (result.started, result.failed, again.failed) == (3, 1, 0)
    assert policies[1].policy_schedules.get().next_run_at == NOON


def test_batches_are_repeated_until_nothing_is_due():
    for _ in range(5):
        _due_policy()

    result = _tick(limit=2)

    assert result.started == 5


def test_a_due_retry_is_a_new_record_of_the_same_policy():
    policy = _due_policy(since=None)
    failed = factories.backup(
        policy, status=BackupStatus.FAILED, retry_scheduled=True, retry_at=NOW - timedelta(seconds=1)
    )

    result = _tick()

    retry = Backup.objects.get(retry_of=failed)
    failed.refresh_from_db()
    assert (retry.is_retry, retry.attempt, retry.slot) == (True, 1, None)
    assert (failed.retry_at, failed.retry_scheduled) == (None, False)
    assert result.retries == 1


@pytest.mark.parametrize("reason", ["later run", "disabled", "used up", "policy deleted"])
def test_a_retry_that_is_not_wanted_any_more_is_forgotten(reason):
    policy = _due_policy(since=None, enabled=reason != "disabled", number_of_retries=3)
    failed = factories.backup(
        policy,
        status=BackupStatus.FAILED,
        start_time=NOW - timedelta(hours=1),
        retry_scheduled=True,
        retry_at=NOW,
        attempt=3 if reason == "used up" else 0,
    )
    if reason == "later run":
        factories.backup(policy, start_time=NOW - timedelta(minutes=5))
    if reason == "policy deleted":
        Backup.objects.update(policy=None)

    _tick()

    failed.refresh_from_db()
    assert (failed.retry_at, failed.retry_scheduled) == (None, False)
    assert not Backup.objects.filter(is_retry=True).exists()


def test_a_scheduled_run_replaces_the_retry_that_is_due_with_it():
    policy = _due_policy()
    failed = factories.backup(
        policy, status=BackupStatus.FAILED, start_time=NOW - timedelta(hours=1), retry_at=NOW
    )

    result = _tick()

    assert (result.started, result.retries) == (1, 0)
    assert not Backup.objects.filter(retry_of=failed).exists()


def test_a_retry_waits_while_its_policy_is_backing_up():
    policy = _due_policy(since=None)
    factories.backup(policy, status=BackupStatus.IN_PROGRESS, start_time=NOW - timedelta(hours=2))
    failed = factories.backup(
        policy, status=BackupStatus.FAILED, start_time=NOW - timedelta(hours=1), retry_at=NOW
    )

    result = _tick()

    failed.refresh_from_db()
    assert (result.retries, failed.retry_at) == (0, NOW)


def test_cleanup_starts_at_its_interval_and_once():
    calls = []
    ServerSettings.objects.update_or_create(
        id=1, defaults={"cleanup_interval": 6, "last_cleanup_time": NOW - timedelta(hours=6)}
    )

    first = planner.run_due(now=NOW, clean=lambda **arguments: calls.append(arguments))
    second = planner.run_due(now=NOW + timedelta(hours=5), clean=lambda **arguments: calls.append(arguments))

    assert (first.cleanup, second.cleanup) == (True, False)
    assert calls == [{"actor": None, "now": NOW}]


def test_a_new_server_cleans_up_for_the_first_time_without_settings():
    ServerSettings.objects.all().delete()

    result = planner.run_due(now=NOW)

    assert result.cleanup
    assert ServerSettings.objects.get().last_cleanup_time == NOW


def test_an_idle_tick_is_one_statement(django_assert_num_queries):
    _due_policy(since=NOW + timedelta(hours=1))
    ServerSettings.objects.update_or_create(id=1, defaults={"last_cleanup_time": NOW})

    with django_assert_num_queries(1):
        _tick()


def test_the_cost_of_a_batch_does_not_grow_with_its_policies(django_assert_max_num_queries):
    for _ in range(60):
        _due_policy(since=NOON - timedelta(hours=3))

    with django_assert_max_num_queries(40):
        result = _tick()

    assert result.started == 60


def test_a_schedule_that_is_edited_between_two_batches_is_read_again():
    schedule = _hourly()
    first, second = _due_policy(schedule), _due_policy(schedule)

    def start(*, runs, now):
        schedule.every_how_many = 2
        schedule.save()
        return backups.start_many(runs=runs, now=now)

    _tick(limit=1, start=start)

    moments = PolicySchedule.objects.filter(policy__in=[first, second]).values_list("next_run_at", flat=True)
    assert sorted(moments) == [NOON + timedelta(hours=1), NOON + timedelta(hours=2)]
