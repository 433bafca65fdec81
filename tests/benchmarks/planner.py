"""The planner with 100,000 policies: everything due at once, nothing due, and right after an edit.

    python -m tests.benchmarks planner [--policies 100000]

For comparison, django-celery-beat with as many entries: 88 ms for an idle tick, 2.7 s after an edit.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from cpm.lib.states import Authentication, Role
from cpm.models import (
    Account,
    Backup,
    Job,
    Policy,
    PolicySchedule,
    Schedule,
    ServerSettings,
    Step,
    Target,
    User,
)
from cpm.scheduler import planner
from cpm.services import run_times

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
NOON = NOW.replace(second=0)
REPEATS = 200
SCHEDULES = 1000


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="planner")
    parser.add_argument("--policies", type=int, default=100_000)
    count = parser.parse_args(arguments).policies
    # The database and the planner are measured; a wake-up message goes to Redis only for the first few steps.
    settings.CPM_JOBS_WAKE = "cpm.jobs.queue.no_wake"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    call_command("migrate", verbosity=0)
    account = _account()
    _policies(account, 1000)
    small = _idle()
    _policies(account, count - 1000)
    large = _idle()
    edited = _after_edit()
    in_database = _database_ms()
    seconds, processor, started = _all_due()
    print(f"idle tick, 1,000 policies      {small[0]:8.3f} ms median {small[1]:8.3f} ms p95")
    print(f"idle tick, {count:,} policies    {large[0]:8.3f} ms median {large[1]:8.3f} ms p95")
    print(f"  of that in the database      {in_database:8.3f} ms")
    print(f"first tick after an edit       {edited[0]:8.3f} ms median {edited[1]:8.3f} ms p95")
    print(f"{started:,} due at once: {seconds:.1f} s, {seconds / started * 10_000:.2f} s per 10,000")
    print(
        f"  of that in this process      {processor / started * 10_000:8.2f} s of processor time per 10,000"
    )
    for model in (Backup, Job, Step):
        print(f"  {model.__name__.lower():7} rows {model.objects.count():9,}")


def _account() -> Account:
    user = User.objects.create(username="bench", password="!", role=Role.INDEPENDENT)
    ServerSettings.objects.update_or_create(id=1, defaults={"last_cleanup_time": NOW})
    return Account.objects.create(user=user, name="bench", authentication=Authentication.ASSUME_ROLE)


def _policies(account: Account, count: int) -> None:
    """Policies with one volume each, sharing 1,000 schedules; nothing is due."""
    first = Policy.objects.count()
    if not first:
        Schedule.objects.bulk_create(
            Schedule(user=account.user, name=f"s{n}", start_date=NOON - timedelta(days=30), every_unit="H")
            for n in range(SCHEDULES)
        )
    schedules = list(Schedule.objects.values_list("id", flat=True))
    made = Policy.objects.bulk_create(
        (Policy(user=account.user, account=account, name=f"p{first + n}") for n in range(count)),
        batch_size=5000,
    )
    PolicySchedule.objects.bulk_create(
        (
            PolicySchedule(
                policy=policy, schedule_id=schedules[n % SCHEDULES], next_run_at=NOON + timedelta(hours=1)
            )
            for n, policy in enumerate(made)
        ),
        batch_size=5000,
    )
    Target.objects.bulk_create(
        (
            Target(
                policy=policy, resource_type="volume", aws_region="us-east-1", aws_resource_id=f"vol-{n:017x}"
            )
            for n, policy in enumerate(made)
        ),
        batch_size=5000,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _summary(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), sorted(times)[int(len(times) * 0.95)]


def _idle() -> tuple[float, float]:
    planner.run_due(now=NOW)
    return _summary([_timed(lambda: planner.run_due(now=NOW)) for _ in range(REPEATS)])


def _after_edit() -> tuple[float, float]:
    """A tick right after one policy was changed and its next moments were computed again."""
    times = []
    for policy in Policy.objects.all()[:REPEATS]:
        Policy.objects.filter(pk=policy.pk).update(generations=policy.generations + 1)
        run_times.refresh(Policy.objects.filter(pk=policy.pk), now=NOW)
        times.append(_timed(lambda: planner.run_due(now=NOW)))
    return _summary(times)


def _database_ms() -> float:
    """Execution time of the idle tick's statement, as PostgreSQL reports it."""
    with connection.cursor() as cursor:
        times = []
        for _ in range(REPEATS):
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {planner.ANYTHING_DUE}", {"now": NOW})
            plan = cursor.fetchone()[0][0]
            times.append(plan["Planning Time"] + plan["Execution Time"])
    return statistics.median(times)


def _all_due() -> tuple[float, float, int]:
    PolicySchedule.objects.update(next_run_at=NOON)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE cpm_policyschedule")
    started = 0
    began, processor = time.perf_counter(), time.process_time()
    while batch := planner.run_due(now=NOW).started:
        started += batch
    return time.perf_counter() - began, time.process_time() - processor, started
