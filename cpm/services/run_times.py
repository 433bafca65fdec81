"""From schedule rows to moments: when policies run next, and a preview of what is to come."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Q, QuerySet

from cpm.lib.errors import ValidationFailed
from cpm.lib.names import SERVER_DATA
from cpm.models import Policy, PolicySchedule, Schedule
from cpm.scheduler import recurrence
from cpm.scheduler.recurrence import DisableTime, Recurrence

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MOST_DAYS_AHEAD = 366
# A schedule of every minute has 1440 runs a day; nobody reads more than this, and no answer may grow without bound.
MOST_RUNS = 50_000


@dataclass(frozen=True, slots=True)
class RunTime:
    """One future run. `local` is in the schedule's zone, `system` in the server's."""

    schedule: Schedule
    time: datetime

    @property
    def local(self) -> datetime:
        return self.time.astimezone(zone_of(self.schedule))

    @property
    def system(self) -> datetime:
        return self.time.astimezone(system_zone())


def system_zone() -> ZoneInfo:
    return ZoneInfo(settings.TIME_ZONE)


def zone_of(schedule: Schedule) -> ZoneInfo:
    """The schedule's own zone, else the server's."""
    return ZoneInfo(schedule.timezone) if schedule.timezone else system_zone()


def recurrence_of(schedule: Schedule) -> Recurrence:
    """What the row means. One query for the disable times unless they are prefetched."""
    return Recurrence(
        start=schedule.start_date,
        every=schedule.every_how_many,
        unit=schedule.every_unit,
        timezone=zone_of(schedule),
        weekdays=frozenset(
            number for number, day in enumerate(WEEKDAYS) if getattr(schedule, f"allow_on_{day}")
        ),
        end=schedule.end_date,
        disable_times=tuple(
            DisableTime(window.day, window.start_time, window.end_time)
            for window in schedule.disable_times.all()
        ),
    )


def refresh(policies: QuerySet[Policy], *, now: datetime) -> None:
    """Recompute when these policies run next, with one UPDATE per schedule however many policies share it.

    A run that is due already and waits for the planner is left alone, so that an edit never loses it. Disabled
    policies have no next run.
    """
    _refresh(PolicySchedule.objects.filter(policy__in=policies), now)


def refresh_schedule(schedule: Schedule, *, now: datetime) -> None:
    """As `refresh`, for all policies that have this schedule."""
    _refresh(PolicySchedule.objects.filter(schedule=schedule), now)


def _refresh(links: QuerySet[PolicySchedule], now: datetime) -> None:
    links.filter(policy__enabled=False, next_run_at__isnull=False).update(next_run_at=None)
    waiting = Q(next_run_at__isnull=True) | Q(next_run_at__gt=now)
    schedules = Schedule.objects.filter(pk__in=links.values("schedule")).prefetch_related("disable_times")
    for schedule in schedules:
        moment = recurrence.next_after(recurrence_of(schedule), now)
        links.filter(waiting, schedule=schedule, policy__enabled=True).update(next_run_at=moment)


def of_schedule(schedule: Schedule, *, now: datetime, days_ahead: int) -> Iterator[RunTime]:
    """Runs of the schedule in the days ahead, in order, up to `MOST_RUNS`. Raises `ValidationFailed`."""
    until = _until(now, days_ahead)
    for moment in recurrence.between(recurrence_of(schedule), now, until, MOST_RUNS):
        yield RunTime(schedule, moment)


def of_policy(policy: Policy, *, now: datetime, days_ahead: int) -> list[RunTime]:
    """Runs of all schedules of the policy in order; none while it is disabled or has nothing to protect.

    Raises `ValidationFailed` for a number of days that makes no sense.
    """
    _until(now, days_ahead)
    if not policy.enabled or not (policy.name == SERVER_DATA or policy.targets.exists()):
        return []
    runs = [
        run
        for schedule in policy.schedules.prefetch_related("disable_times")
        for run in of_schedule(schedule, now=now, days_ahead=days_ahead)
    ]
    runs.sort(key=lambda run: (run.time, run.schedule.pk))
    return runs[:MOST_RUNS]


def _until(now: datetime, days_ahead: int) -> datetime:
    if not 1 <= days_ahead <= MOST_DAYS_AHEAD:
        raise ValidationFailed.one(
            "days_ahead", f"This must be a number of days from 1 to {MOST_DAYS_AHEAD}."
        )
    return now + timedelta(days=days_ahead)
