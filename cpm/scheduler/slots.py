"""Which slots of a schedule have passed and which comes next, for many policies at once."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfoNotFoundError

import structlog

from cpm.models import Schedule
from cpm.scheduler.recurrence import Recurrence, between, latest_due, next_after, validate
from cpm.services.run_times import recurrence_of

log = structlog.get_logger(__name__)

# Slots that passed during downtime are counted one by one up to here; a count beyond it says nothing more.
MOST_COUNTED = 1000
# How long until a schedule that cannot be computed is looked at, and complained about, again.
UNUSABLE_FOR = timedelta(hours=1)

_MICROSECOND = timedelta(microseconds=1)


class Due(NamedTuple):
    """A schedule of a policy whose moment has come: a row of PolicySchedule."""

    id: int
    policy_id: int
    schedule_id: int
    next_run_at: datetime


class Timetable:
    """Answers for schedules at one moment. What was computed stays as long as the schedule is not changed."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._versions: dict[int, datetime] = {}
        self._recurrences: dict[int, Recurrence | None] = {}
        self._passed: dict[int, dict[datetime, tuple[datetime, ...]]] = {}
        self._following: dict[int, datetime | None] = {}

    def refresh(self, rows: Sequence[Due]) -> None:
        """Read the schedules of these rows as far as they are unknown or were changed; call it under their locks.

        Services touch a schedule whenever they change its disable times.
        """
        ids = {row.schedule_id for row in rows}
        current = dict(Schedule.objects.filter(pk__in=ids).values_list("pk", "last_modified"))
        stale = [key for key in ids if key not in self._versions or self._versions[key] != current.get(key)]
        if not stale:
            return
        for key, schedule in Schedule.objects.prefetch_related("disable_times").in_bulk(stale).items():
            self._versions[key] = schedule.last_modified
            self._recurrences[key] = _usable(schedule)
        for key in stale:
            self._passed.pop(key, None)
            self._following.pop(key, None)

    def passed(self, row: Due) -> tuple[datetime, ...]:
        """Slots from the row's moment up to now, in order; the newest is there even if not all can be."""
        known = self._passed.setdefault(row.schedule_id, {})
        if row.next_run_at not in known:
            known[row.next_run_at] = self._compute(row)
        return known[row.next_run_at]

    def following(self, row: Due) -> datetime | None:
        """The next slot after now; None when there is none."""
        if row.schedule_id not in self._following:
            recurrence = self._recurrences.get(row.schedule_id)
            self._following[row.schedule_id] = (
                next_after(recurrence, self.now) if recurrence else self.now + UNUSABLE_FOR
            )
        return self._following[row.schedule_id]

    def _compute(self, row: Due) -> tuple[datetime, ...]:
        recurrence = self._recurrences.get(row.schedule_id)
        if recurrence is None:
            return ()
        before = row.next_run_at - _MICROSECOND
        newest = latest_due(recurrence, before, self.now)
        if newest is None:
            return ()
        if newest == row.next_run_at:
            return (newest,)
        slots = tuple(between(recurrence, before, newest, MOST_COUNTED))
        return slots if slots[-1] == newest else (*slots, newest)


def _usable(schedule: Schedule) -> Recurrence | None:
    """The calendar rule of a row; None, with a complaint in the log, for one that no service would have saved."""
    try:
        recurrence = recurrence_of(schedule)
    except (ZoneInfoNotFoundError, ValueError):
        log.exception("schedule cannot be computed", schedule=schedule.pk)
        return None
    problems = validate(recurrence)
    if problems:
        log.error("schedule cannot be computed", schedule=schedule.pk, problems=problems)
        return None
    return recurrence
