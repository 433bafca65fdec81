"""Which slots of a schedule have passed and which comes next, for many policies at once."""

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
    """Answers for the schedules of one batch at one moment; policies that share a schedule share the work."""

    def __init__(self, schedules: dict[int, Schedule], now: datetime) -> None:
        self.now = now
        self._recurrences = {key: _usable(schedule) for key, schedule in schedules.items()}
        self._passed: dict[tuple[int, datetime], tuple[datetime, ...]] = {}
        self._following: dict[int, datetime | None] = {}

    def passed(self, row: Due) -> tuple[datetime, ...]:
        """Slots from the row's moment up to now, in order; the newest is there even if not all can be."""
        key = (row.schedule_id, row.next_run_at)
        if key not in self._passed:
            self._passed[key] = self._compute(row)
        return self._passed[key]

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
