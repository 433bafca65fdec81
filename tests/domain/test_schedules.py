from datetime import UTC, datetime, time, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from structlog.testing import capture_logs

from cpm.lib import errors
from cpm.models import Actor, Policy, PolicySchedule, Schedule
from cpm.services import policies, run_times, schedules
from tests import factories
from tests.factories import NOW

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def hourly(owner, **fields):
    values = {
        "user": owner.pk,
        "name": "hourly",
        "every_how_many": 1,
        "every_unit": "H",
        "now": NOW,
        **fields,
    }
    return schedules.create(actor=Actor.of(owner), **values)


def refused(owner, **fields):
    with pytest.raises(errors.ValidationFailed) as error:
        hourly(owner, **fields)
    return {name: [code for _, code in pairs] for name, pairs in error.value.errors.items()}


def next_run(policy, schedule):
    return PolicySchedule.objects.get(policy=policy, schedule=schedule).next_run_at


def test_a_schedule_starts_now_and_never_ends_unless_told():
    schedule = hourly(factories.user())

    assert schedule.start_date == NOW
    assert schedule.end_date is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "no spaces"}, {"name": ["invalid_name"]}),
        ({"every_how_many": 0}, {"every_how_many": ["invalid"]}),
        ({"every_how_many": 10**7}, {"every_how_many": ["invalid"]}),
        ({"timezone": "Mars/Olympus"}, {"timezone": ["unknown_timezone"]}),
        ({"timezone": "Europe"}, {"timezone": ["unknown_timezone"]}),
        ({"timezone": "../../etc/passwd"}, {"timezone": ["unknown_timezone"]}),
        ({"end_date": NOW}, {"end_date": ["invalid"]}),
        ({"start_date": datetime(1900, 1, 1, tzinfo=UTC)}, {"start_date": ["invalid"]}),
        (
            {f"allow_on_{day}": False for day in run_times.WEEKDAYS},
            {"non_field_errors": ["no_weekday"]},
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields, expected):
    assert refused(factories.user(), **fields) == expected


def test_weekdays_do_not_matter_to_weekly_schedules():
    no_day = {f"allow_on_{day}": False for day in run_times.WEEKDAYS}

    schedule = hourly(factories.user(), every_unit="W", **no_day)

    runs = list(run_times.of_schedule(schedule, now=NOW, days_ahead=15))
    assert [run.time for run in runs] == [NOW + timedelta(weeks=1), NOW + timedelta(weeks=2)]


def test_names_are_unique_per_owner():
    owner = factories.user()
    hourly(owner)

    with pytest.raises(errors.Conflict) as error:
        hourly(owner)

    assert error.value.field == "name"


def test_disable_times_are_replaced_as_a_whole_when_given_and_kept_when_not():
    owner = factories.user()
    window = {"day": "M", "start_time": time(17), "end_time": time(8)}
    schedule = hourly(owner, disable_times=[window, {"start_time": time(1), "end_time": time(2)}])

    schedules.update(actor=Actor.of(owner), schedule=schedule, now=NOW, description="kept")
    kept = list(schedule.disable_times.order_by("id").values_list("day", "start_time", "end_time"))
    schedules.update(actor=Actor.of(owner), schedule=schedule, now=NOW, disable_times=[])

    assert kept == [("M", time(17), time(8)), ("A", time(1), time(2))]
    assert not schedule.disable_times.exists()


def test_a_schedule_that_never_runs_is_kept_with_a_warning():
    with capture_logs() as logs:
        schedule = hourly(
            factories.user(), disable_times=[{"day": "A", "start_time": time(0), "end_time": time(0)}]
        )

    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["schedule"]) for entry in warnings] == [
        ("schedule never runs", schedule.pk)
    ]


def test_a_changed_schedule_moves_the_next_run_of_all_its_policies_with_few_statements():
    owner = factories.user()
    account, schedule = factories.account(owner), hourly(owner)
    enabled = [factories.policy(account, (schedule,)) for _ in range(5)]
    disabled = factories.policy(account, (schedule,), enabled=False)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        schedules.update(actor=Actor.of(owner), schedule=schedule, now=NOW, every_how_many=3)

    assert {next_run(policy, schedule) for policy in enabled} == {NOW + 3 * HOUR}
    assert next_run(disabled, schedule) is None
    assert sum("UPDATE" in query["sql"] and "policyschedule" in query["sql"] for query in queries) <= 2


def test_a_run_that_is_due_is_not_lost_by_an_edit():
    owner = factories.user()
    schedule = hourly(owner)
    policy = factories.policy(factories.account(owner), (schedule,))
    run_times.refresh(Policy.objects.filter(pk=policy.pk), now=NOW)

    late = NOW + HOUR + timedelta(seconds=5)
    schedules.update(actor=Actor.of(owner), schedule=schedule, now=late, description="edited")

    assert next_run(policy, schedule) == NOW + HOUR


def test_disabling_a_policy_takes_its_next_run_away_and_enabling_brings_one_back():
    owner = factories.user()
    schedule = hourly(owner)
    policy = policies.create(
        actor=Actor.of(owner), account=factories.account(owner).pk, name="p", now=NOW, schedules=[schedule.pk]
    )
    planned = next_run(policy, schedule)

    policies.update(actor=Actor.of(owner), policy=policy, now=NOW, enabled=False)
    off = next_run(policy, schedule)
    policies.update(actor=Actor.of(owner), policy=policy, now=NOW + 5 * HOUR, enabled=True)

    assert (planned, off) == (NOW + HOUR, None)
    assert next_run(policy, schedule) == NOW + 6 * HOUR


def test_adding_and_deleting_a_disable_time_recomputes():
    owner = factories.user()
    actor, schedule = Actor.of(owner), hourly(owner)
    policy = factories.policy(factories.account(owner), (schedule,))

    added = schedules.add_disable_time(
        actor=actor, schedule=schedule, now=NOW, start_time=time(5, 30), end_time=time(7, 30)
    )
    during = next_run(policy, schedule)
    schedules.delete_disable_time(actor=actor, disable_time=added, now=NOW)

    assert during == NOW + 3 * HOUR
    assert next_run(policy, schedule) == NOW + HOUR


def test_deleting_a_schedule_takes_it_off_its_policies():
    owner = factories.user()
    schedule = hourly(owner)
    policy = factories.policy(factories.account(owner), (schedule,))

    schedules.delete(actor=Actor.of(owner), schedule=schedule)

    assert not Schedule.objects.filter(pk=schedule.pk).exists()
    assert not policy.policy_schedules.exists()


def test_changes_need_the_right_and_the_reach():
    owner = factories.user()
    schedule = hourly(owner)

    with pytest.raises(errors.PermissionDenied):
        schedules.delete(actor=Actor.of(factories.delegate(owner)), schedule=schedule)
    with pytest.raises(errors.NotFound):
        schedules.delete(actor=Actor.of(factories.user()), schedule=schedule)


def test_run_times_are_shown_in_three_zones(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    schedule = hourly(factories.user(), every_unit="D", timezone="Europe/Berlin")

    (run,) = run_times.of_schedule(schedule, now=NOW, days_ahead=1)

    assert run.time == datetime(2026, 11, 22, 5, tzinfo=UTC)
    assert run.local.isoformat() == "2026-11-22T06:00:00+01:00"
    assert run.system.isoformat() == "2026-11-22T14:00:00+09:00"


def test_run_times_of_a_policy_need_a_target_and_an_enabled_policy():
    owner = factories.user()
    account, schedule = factories.account(owner), hourly(owner)
    ready, empty, off = (factories.policy(account, (schedule,), enabled=on) for on in (True, True, False))
    for policy in (ready, off):
        factories.target(policy, resource_type="instances")

    counts = [len(run_times.of_policy(policy, now=NOW, days_ahead=1)) for policy in (ready, empty, off)]

    assert counts == [24, 0, 0]


@pytest.mark.parametrize("days", [0, -1, 367, 10**9])
def test_nonsense_days_ahead_are_refused(days):
    policy = factories.policy()

    with pytest.raises(errors.ValidationFailed) as error:
        run_times.of_policy(policy, now=NOW, days_ahead=days)

    assert list(error.value.errors) == ["days_ahead"]
