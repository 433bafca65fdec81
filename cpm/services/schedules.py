"""Schedules: when the policies that have them run."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, time
from typing import TypedDict, Unpack
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from django.db import transaction

from cpm.lib.errors import NON_FIELD, NotFound, ValidationFailed
from cpm.lib.names import Problem, name_problems
from cpm.lib.states import ScheduleUnit, Weekday
from cpm.models import Actor, DisableTime, Schedule
from cpm.scheduler import recurrence
from cpm.services import audit, run_times, scope

log = structlog.get_logger(__name__)

RIGHT = "schedules.change"
MOST_UNITS = 1_000_000
MOST_DISABLE_TIMES = 200


class Window(TypedDict, total=False):
    """A time without runs; without a day, every day. An end before the start lies on the next day."""

    day: Weekday
    start_time: time
    end_time: time


class ScheduleFields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. `disable_times` replaces all that there are."""

    description: str
    start_date: datetime
    end_date: datetime | None
    every_unit: ScheduleUnit
    timezone: str
    allow_on_monday: bool
    allow_on_tuesday: bool
    allow_on_wednesday: bool
    allow_on_thursday: bool
    allow_on_friday: bool
    allow_on_saturday: bool
    allow_on_sunday: bool
    disable_times: Sequence[Window]


@transaction.atomic
def create(
    *,
    actor: Actor,
    user: int,
    name: str,
    every_how_many: int,
    now: datetime,
    **fields: Unpack[ScheduleFields],
) -> Schedule:
    """A new schedule of that user; it starts now unless told otherwise.

    Raises `ValidationFailed`, `NotFound` for a user out of reach, `Conflict` for a name that is taken.
    """
    owner = scope.owner(actor, RIGHT, user)
    schedule = Schedule(user=owner, name=name, every_how_many=every_how_many, start_date=now)
    _save(schedule, fields, now)
    audit.record(actor, "schedule.created", schedule, after=_state(schedule))
    return schedule


@transaction.atomic
def update(
    *,
    actor: Actor,
    schedule: Schedule,
    now: datetime,
    name: str | None = None,
    every_how_many: int | None = None,
    **fields: Unpack[ScheduleFields],
) -> Schedule:
    """Changes what is given and recomputes the next runs of all policies that have the schedule."""
    row = scope.locked(actor, RIGHT, schedule, "schedule")
    was = _state(row)
    row.name = row.name if name is None else name
    row.every_how_many = row.every_how_many if every_how_many is None else every_how_many
    _save(row, fields, now)
    run_times.refresh_schedule(row, now=now)
    audit.record(actor, "schedule.updated", row, before=was, after=_state(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, schedule: Schedule) -> None:
    """Removes the schedule, also from the policies that have it; they lose these runs."""
    row = scope.locked(actor, RIGHT, schedule, "schedule")
    policies = list(row.policy_schedules.order_by("policy").values_list("policy", flat=True))
    audit.record(actor, "schedule.deleted", row, before={**_state(row), "policies": policies})
    row.delete()


@transaction.atomic
def add_disable_time(
    *, actor: Actor, schedule: Schedule, now: datetime, **window: Unpack[Window]
) -> DisableTime:
    """One more time without runs."""
    row = scope.locked(actor, RIGHT, schedule, "schedule")
    if row.disable_times.count() >= MOST_DISABLE_TIMES:
        raise ValidationFailed.one(NON_FIELD, f"A schedule has at most {MOST_DISABLE_TIMES} disable times.")
    added = DisableTime.objects.create(schedule=row, **window)
    text = f"Schedule “{row.name}” pauses {_span(added)}."
    audit.record(actor, "disable_time.created", added, after=audit.state_of(added), text=text)
    _changed(row, now)
    return added


@transaction.atomic
def delete_disable_time(*, actor: Actor, disable_time: DisableTime, now: datetime) -> None:
    """One time without runs less."""
    schedule = scope.locked(actor, RIGHT, disable_time.schedule, "schedule")
    row = schedule.disable_times.filter(pk=disable_time.pk).first()
    if row is None:
        raise NotFound("disable time", disable_time.pk)
    text = f"Schedule “{schedule.name}” no longer pauses {_span(row)}."
    audit.record(actor, "disable_time.deleted", row, before=audit.state_of(row), text=text)
    row.delete()
    _changed(schedule, now)


def _state(schedule: Schedule) -> audit.State:
    windows = schedule.disable_times.order_by("id").values("day", "start_time", "end_time")
    return audit.state_of(schedule, disable_times=list(windows))


def _span(window: DisableTime) -> str:
    return f"{window.start_time:%H:%M} to {window.end_time:%H:%M} ({Weekday(window.day).label})"


def _changed(schedule: Schedule, now: datetime) -> None:
    schedule.save(update_fields=["last_modified"])
    run_times.refresh_schedule(schedule, now=now)
    _warn_if_it_never_runs(schedule, now)


def _save(schedule: Schedule, fields: ScheduleFields, now: datetime) -> None:
    windows = fields.get("disable_times")
    for name, value in fields.items():
        if name != "disable_times":
            setattr(schedule, name, value)
    _check(schedule, windows)
    with scope.name_is_unique("schedule", "schedule_name_of_user"):
        schedule.save()
    if windows is not None:
        schedule.disable_times.all().delete()
        DisableTime.objects.bulk_create(_rows(schedule, windows))
    _warn_if_it_never_runs(schedule, now)


def _rows(schedule: Schedule, windows: Iterable[Window]) -> list[DisableTime]:
    return [DisableTime(schedule=schedule, **window) for window in windows]


def _check(schedule: Schedule, windows: Sequence[Window] | None) -> None:
    problems: dict[str, list[Problem]] = defaultdict(list)
    problems["name"] += name_problems(schedule.name)
    if not 1 <= schedule.every_how_many <= MOST_UNITS:
        problems["every_how_many"].append((f"This must be a number from 1 to {MOST_UNITS}.", "invalid"))
    if schedule.timezone and not _is_zone(schedule.timezone):
        problems["timezone"].append(
            ("This is not a time zone; use a name such as Europe/Berlin.", "unknown_timezone")
        )
    if schedule.end_date is not None and schedule.end_date <= schedule.start_date:
        problems["end_date"].append(("The end must lie after the start.", "invalid"))
    if not recurrence.FIRST_YEAR <= schedule.start_date.year <= recurrence.LAST_YEAR:
        years = f"{recurrence.FIRST_YEAR} and {recurrence.LAST_YEAR}"
        problems["start_date"].append((f"The start must lie between the years {years}.", "invalid"))
    if windows is not None and len(windows) > MOST_DISABLE_TIMES:
        problems["disable_times"].append((f"There can be at most {MOST_DISABLE_TIMES}.", "max_length"))
    allowed = any(getattr(schedule, f"allow_on_{day}") for day in run_times.WEEKDAYS)
    if not allowed and schedule.every_unit not in {ScheduleUnit.WEEKS, ScheduleUnit.MONTHS}:
        problems[NON_FIELD].append(("At least one weekday must be allowed.", "no_weekday"))
    if any(problems.values()):
        raise ValidationFailed(problems)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # The name of a folder of the zone database raises an OSError, a path out of it a ValueError.
        return False
    return True


def _warn_if_it_never_runs(schedule: Schedule, now: datetime) -> None:
    if recurrence.never_runs(run_times.recurrence_of(schedule), now):
        log.warning("schedule never runs", schedule=schedule.pk, name=schedule.name)
