"""Several planners at once over real connections, in orders that Hypothesis chooses.

Each planner runs in a thread and stops at a gate inside its transaction, after it has claimed policies and before it
writes. A drawn list says whose gate opens next, so claims overlap in every way that real timing could produce.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpm.lib.states import BackupStatus
from cpm.models import Backup, Job, Policy, PolicySchedule, Schedule, ServerSettings
from cpm.scheduler import planner
from cpm.services import backups, run_times
from tests import factories

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
NOW = NOON + timedelta(seconds=30)
PATIENCE = 20.0


class Gates:
    """Where planners stop: `arrive` is called by them, `open` by the test."""

    def __init__(self) -> None:
        self._waiting: dict[int, threading.Event] = {}
        self._change = threading.Condition()
        self._all_open = False

    def arrive(self, who: int) -> None:
        event = threading.Event()
        with self._change:
            if self._all_open:
                return
            self._waiting[who] = event
            self._change.notify_all()
        assert event.wait(PATIENCE)

    def open(self, who: int) -> None:
        with self._change:
            event = self._waiting.pop(who, None)
        if event:
            event.set()

    def open_all(self) -> None:
        with self._change:
            self._all_open = True
            events = list(self._waiting.values())
        for event in events:
            event.set()

    def settle(self, futures: dict[int, Future]) -> None:
        """Wait until every planner stands at its gate or is done."""
        with self._change:
            self._change.wait_for(
                lambda: all(who in self._waiting or future.done() for who, future in futures.items()),
                PATIENCE,
            )

    def wake(self) -> None:
        with self._change:
            self._change.notify_all()


def _planner(who: int, gates: Gates, limit: int) -> planner.PlannerResult:
    def start(*, runs, now):
        gates.arrive(who)
        return backups.start_many(runs=runs, now=now)

    try:
        return planner.run_due(now=NOW, limit=limit, start=start, clean=lambda **_: None)
    finally:
        connection.close()


@contextmanager
def _fresh() -> Iterator[None]:
    ServerSettings.objects.update_or_create(id=1, defaults={"last_cleanup_time": NOW})
    try:
        yield
    finally:
        for model in (Job, Backup, Policy, Schedule):
            model.objects.all().delete()


def _policies(lateness: list[list[int]]) -> list[Policy]:
    """A policy per list; each number is one schedule of it, so many hours late."""
    account = factories.account()
    made = []
    for hours in lateness:
        schedules = tuple(
            factories.schedule(account.user, start_date=NOON - timedelta(days=2), every_unit="H")
            for _ in hours
        )
        policy = factories.policy(account, schedules=schedules)
        factories.target(policy)
        for schedule, late in zip(schedules, hours, strict=True):
            policy.policy_schedules.filter(schedule=schedule).update(next_run_at=NOON - timedelta(hours=late))
        made.append(policy)
    return made


def _race(
    planners: int, limits: list[int], order: list[int], meanwhile=lambda: None
) -> list[planner.PlannerResult]:
    gates = Gates()
    with ThreadPoolExecutor(planners) as pool:
        futures = {who: pool.submit(_planner, who, gates, limits[who]) for who in range(planners)}
        for future in futures.values():
            future.add_done_callback(lambda _: gates.wake())
        try:
            for who in order:
                gates.settle(futures)
                gates.open(who % planners)
            gates.settle(futures)
            meanwhile()
        finally:
            gates.open_all()
        return [future.result(PATIENCE) for future in futures.values()]


LATENESS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=8)
RELAXED = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.django_db(transaction=True)
@RELAXED
@given(
    lateness=LATENESS,
    limits=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    order=st.lists(st.integers(0, 2), max_size=8),
)
def test_any_number_of_planners_starts_each_due_policy_exactly_once(lateness, limits, order):
    with _fresh():
        policies = _policies(lateness)

        results = _race(3, limits, order)

        late = planner.run_due(now=NOW, clean=lambda **_: None)
        started = list(Backup.objects.values_list("policy_id", "slot").order_by("policy_id"))
        assert started == [(policy.pk, NOON) for policy in policies]
        assert sum(result.started for result in [*results, late]) == len(policies)
        assert Job.objects.count() == len(policies)
        assert not PolicySchedule.objects.filter(next_run_at__lte=NOW).exists()
        missed = {policy.pk: max(hours) for policy, hours in zip(policies, lateness, strict=True)}
        assert dict(Policy.objects.values_list("id", "missed_runs")) == missed


@pytest.mark.django_db(transaction=True)
@RELAXED
@given(
    retries=st.integers(1, 6),
    limits=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    order=st.lists(st.integers(0, 2), max_size=6),
)
def test_any_number_of_planners_starts_each_due_retry_exactly_once(retries, limits, order):
    with _fresh():
        failed = []
        for policy in _policies([[0]] * retries):
            policy.policy_schedules.update(next_run_at=None)
            failed.append(factories.backup(policy, status=BackupStatus.FAILED, retry_at=NOON))

        results = _race(3, limits, order)

        late = planner.run_due(now=NOW, clean=lambda **_: None)
        retried = list(Backup.objects.filter(is_retry=True).values_list("retry_of_id", flat=True))
        assert sorted(retried) == sorted(backup.pk for backup in failed)
        assert sum(result.retries for result in [*results, late]) == retries


@pytest.mark.django_db(transaction=True)
def test_an_edit_in_progress_stalls_no_planner_and_its_policy_follows_later():
    with _fresh():
        policies = _policies([[0], [0], [0]])
        edited = policies[1]
        release, held = threading.Event(), threading.Event()

        def edit() -> None:
            try:
                with planner.transaction.atomic():
                    Policy.objects.select_for_update().get(pk=edited.pk)
                    held.set()
                    assert release.wait(PATIENCE)
                    run_times.refresh(Policy.objects.filter(pk=edited.pk), now=NOW)
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            editing = pool.submit(edit)
            assert held.wait(PATIENCE)
            during = planner.run_due(now=NOW, clean=lambda **_: None)
            release.set()
            editing.result(PATIENCE)
        after = planner.run_due(now=NOW, clean=lambda **_: None)

        assert (during.started, after.started) == (2, 1)
