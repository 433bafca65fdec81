"""When a schedule runs: pure calendar arithmetic, no database, no clock.

The grid
    Run *k* of a schedule is its start plus *k* intervals. Minutes and hours count elapsed time, so an hourly
    schedule stays hourly through a change of daylight saving time. Days, weeks and months count on the wall
    clock of the schedule's zone, so that 10:00 stays 10:00. A wall time that the clocks skip is moved forward
    by the size of the gap; one that they show twice runs at its first occurrence. Run 0 is always the start
    itself, to the microsecond. Months keep the start's day of month, or take the last day of a month that is
    too short.

What removes a run
    A run is skipped, never postponed, when the wall clock *at the run itself* shows a weekday that is
    switched off (minutes, hours and days only) or a time inside a disable window (see
    `cpm.scheduler.windows`). The schedule's end is inclusive: a run exactly at the end still happens.

Every function but `validate` expects a recurrence in which `validate` finds no problem, and aware datetimes;
a naive one raises `ValueError`. Results are in UTC.
"""

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cpm.scheduler.windows import (
    DAYS_OF_LETTER,
    EVERY_DAY,
    DisableTime,
    WeekPattern,
    week_pattern,
    week_reading,
)

__all__ = ["DisableTime", "Recurrence", "between", "latest_due", "never_runs", "next_after", "validate"]

UNITS = "MHDWO"
# A start outside these years is a slip of the pen, and near the ends of the calendar conversions overflow.
FIRST_YEAR, LAST_YEAR = 1970, 9000
# A search that meets nothing but disabled runs ends after this long, but not before it has seen this many
# runs: long enough for every weekday to meet every phase of a monthly schedule and for a few years of clock
# changes.
SEARCH_HORIZON = timedelta(days=5 * 365 + 2)
SEARCH_RUNS = 60
# `never_runs` looks at no fewer slots than this, so that one disabled day does not condemn a quarterly
# schedule.
WARNING_SLOTS = 7

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Everything that decides when a schedule runs.

    `unit` is M (minutes), H (hours), D (days), W (weeks) or O (months). `weekdays` (0 is Monday) says on
    which days runs are allowed and is ignored for weeks and months, where the start decides the day.
    """

    start: datetime
    every: int
    unit: str
    timezone: ZoneInfo
    weekdays: frozenset[int] = EVERY_DAY
    end: datetime | None = None
    disable_times: tuple[DisableTime, ...] = ()


def next_after(recurrence: Recurrence, moment: datetime) -> datetime | None:
    """The first allowed run strictly after `moment`.

    None when the schedule has ended, or when every run of at least the next five years is disabled.
    """
    return _first_run(recurrence, _utc(moment), None)


def between(recurrence: Recurrence, after: datetime, until: datetime, limit: int) -> Iterator[datetime]:
    """Allowed runs with `after` < run <= `until` in order, at most `limit` of them."""
    moment, last = _utc(after), _utc(until)
    for _ in range(limit):
        run = _first_run(recurrence, moment, last)
        if run is None:
            return
        yield run
        moment = run


def latest_due(recurrence: Recurrence, after_exclusive: datetime, now: datetime) -> datetime | None:
    """The newest allowed run with `after_exclusive` < run <= `now`: what is owed after downtime."""
    after, latest = _utc(after_exclusive), min(_utc(now), _end(recurrence))
    if latest <= after:
        return None
    index = _index_after(recurrence, latest) - 1
    if index < 0:
        return None
    run = _run(recurrence, index)
    if run <= after:
        return None
    pattern = _pattern_of(recurrence)
    if pattern is None or pattern.allows(week_reading(run, recurrence.timezone)):
        return run
    return _search(recurrence, pattern, index, -1, max(after + _MICROSECOND, _utc(recurrence.start)))


def validate(recurrence: Recurrence) -> list[str]:
    """What makes the recurrence unusable, in words for its owner; empty when nothing does."""
    problems = []
    if recurrence.every < 1:
        problems.append("The interval must be at least 1.")
    if len(recurrence.unit) != 1 or recurrence.unit not in UNITS:
        problems.append("The unit must be M (minutes), H (hours), D (days), W (weeks) or O (months).")
    elif recurrence.unit in "MHD" and not recurrence.weekdays:
        problems.append("At least one weekday must be allowed.")
    if not recurrence.weekdays <= EVERY_DAY:
        problems.append("Weekdays are numbered from 0 (Monday) to 6 (Sunday).")
    problems += _date_problems(recurrence)
    for window in recurrence.disable_times:
        if window.day not in DAYS_OF_LETTER:
            problems.append("The day of a disable time must be A (all) or one of M, T, W, H, F, S, U.")
        if window.start.tzinfo is not None or window.end.tzinfo is not None:
            problems.append("Disable times are read in the schedule's own zone and take no zone themselves.")
    return problems


def _date_problems(recurrence: Recurrence) -> list[str]:
    start, end = recurrence.start, recurrence.end
    problems = []
    if start.tzinfo is None:
        problems.append("The start needs a time zone.")
    if end is not None and end.tzinfo is None:
        problems.append("The end needs a time zone.")
    if not FIRST_YEAR <= start.year <= LAST_YEAR:
        problems.append(f"The start must lie between the years {FIRST_YEAR} and {LAST_YEAR}.")
    if not problems and _end(recurrence) < _utc(start):
        problems.append("The end lies before the start.")
    return problems


def never_runs(recurrence: Recurrence, now: datetime, days: int = 60) -> bool:
    """Whether weekdays, disable windows and the end leave nothing: worth a warning, not an error.

    Looks at `days` days from the first slot after `now` that the plain interval offers, or further until it
    has seen `WARNING_SLOTS` slots, so a schedule that starts next year or runs twice a year is not reported.
    """
    moment = _utc(now)
    index = _index_after(recurrence, moment)
    try:
        slot = _run(recurrence, index)
    except OverflowError:
        return True
    try:
        until = max(slot + timedelta(days=days), _run(recurrence, index + WARNING_SLOTS - 1))
    except OverflowError:
        until = _LATEST
    return _first_run(recurrence, moment, until) is None


def _first_run(recurrence: Recurrence, moment: datetime, until: datetime | None) -> datetime | None:
    bound = _end(recurrence) if until is None else min(until, _end(recurrence))
    try:
        index = _index_after(recurrence, moment)
        run = _run(recurrence, index)
        if run > bound:
            return None
        pattern = _pattern_of(recurrence)
        if pattern is None or pattern.allows(week_reading(run, recurrence.timezone)):
            return run
        return _search(recurrence, pattern, index, 1, min(bound, _horizon(recurrence, index)))
    except OverflowError:
        # The next run lies beyond what the calendar can express.
        return None


def _utc(moment: datetime) -> datetime:
    # Arithmetic between two datetimes of one ZoneInfo ignores the offset, so everything is computed in UTC.
    # astimezone() alone would read a naive value in the zone of the machine.
    if moment.tzinfo is None:
        raise ValueError("a datetime with a time zone is needed")
    return moment.astimezone(UTC)


def _end(recurrence: Recurrence) -> datetime:
    if recurrence.end is None:
        return _LATEST
    try:
        return _utc(recurrence.end)
    except OverflowError:
        # The last day of the calendar in a zone west of Greenwich, a common way to write "never".
        return _LATEST


def _elapsed_interval(recurrence: Recurrence) -> timedelta | None:
    """The interval of minutes and hours; None for the units that count on the wall clock."""
    if recurrence.unit not in "MH":
        return None
    try:
        return timedelta(minutes=recurrence.every * (60 if recurrence.unit == "H" else 1))
    except OverflowError:
        # No second run fits into the calendar either way.
        return timedelta.max


def _days(recurrence: Recurrence) -> int:
    return recurrence.every * (7 if recurrence.unit == "W" else 1)


def _run(recurrence: Recurrence, index: int) -> datetime:
    """Run `index` whether allowed or not; raises OverflowError when it lies beyond the calendar."""
    start = _utc(recurrence.start)
    if index == 0:
        return start
    elapsed = _elapsed_interval(recurrence)
    if elapsed is not None:
        return start + index * elapsed
    wall = start.astimezone(recurrence.timezone)
    if recurrence.unit == "O":
        nominal = _plus_months(wall.replace(tzinfo=None), index * recurrence.every)
    else:
        nominal = wall.replace(tzinfo=None) + timedelta(days=index * _days(recurrence))
    # With fold=0 a skipped wall time is read with the offset before the gap, which moves it forward by the
    # gap, and a repeated one is read as its first occurrence.
    return nominal.replace(tzinfo=recurrence.timezone, fold=0).astimezone(UTC)


def _plus_months(wall: datetime, months: int) -> datetime:
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    if year > MAXYEAR:
        raise OverflowError("beyond the last year of the calendar")
    last_day = calendar.monthrange(year, month + 1)[1]
    return wall.replace(year=year, month=month + 1, day=min(wall.day, last_day))


def _index_after(recurrence: Recurrence, moment: datetime) -> int:
    """The smallest index whose run, allowed or not, lies after `moment`."""
    start = _utc(recurrence.start)
    if moment < start:
        return 0
    index = 1
    try:
        elapsed = _elapsed_interval(recurrence)
        if elapsed is not None:
            return (moment - start) // elapsed + 1
        # An estimate from dates alone is wrong by less than two runs, as no clock is off by more than a day.
        index = max(1, _intervals_between(recurrence, start, moment) - 1)
        while _run(recurrence, index) <= moment:
            index += 1
    except OverflowError:
        # A run beyond the calendar is after every moment.
        return index
    return index


def _intervals_between(recurrence: Recurrence, start: datetime, moment: datetime) -> int:
    if recurrence.unit == "O":
        wall = start.astimezone(recurrence.timezone)
        return ((moment.year - wall.year) * 12 + moment.month - wall.month) // recurrence.every
    return (moment - start).days // _days(recurrence)


def _pattern_of(recurrence: Recurrence) -> WeekPattern | None:
    """What restricts the runs; None when nothing does."""
    weekdays = recurrence.weekdays if recurrence.unit in "MHD" else EVERY_DAY
    if not recurrence.disable_times and weekdays == EVERY_DAY:
        return None
    return week_pattern(weekdays, recurrence.disable_times)


def _horizon(recurrence: Recurrence, index: int) -> datetime:
    try:
        return max(_run(recurrence, index) + SEARCH_HORIZON, _run(recurrence, index + SEARCH_RUNS))
    except OverflowError:
        return _LATEST


def _past(moment: datetime, bound: datetime, direction: int) -> bool:
    return moment > bound if direction > 0 else moment < bound


def _search(
    recurrence: Recurrence, pattern: WeekPattern, index: int, direction: int, bound: datetime
) -> datetime | None:
    """The nearest allowed run from `index` on, forward (1) or backward (-1), not past `bound`."""
    if not pattern.starts:
        return None
    elapsed = _elapsed_interval(recurrence)
    if elapsed is not None and elapsed < _DAY:
        return _leap(recurrence, pattern, index, elapsed * direction, bound)
    # Runs a day or more apart are few enough to look at one by one: at most 1,827 in five years.
    while index >= 0:
        run = _run(recurrence, index)
        if _past(run, bound, direction):
            return None
        if pattern.allows(week_reading(run, recurrence.timezone)):
            return run
        index += direction
    return None


def _leap(
    recurrence: Recurrence, pattern: WeekPattern, index: int, stride: timedelta, bound: datetime
) -> datetime | None:
    """As `_search`, by solving for the run instead of visiting those before it.

    While the zone's offset stays the same, runs move round the week by one fixed stride, so the first that
    meets an allowed span is arithmetic. Where the offset changes before that run, the search goes on from the
    change.
    """
    zone, direction = recurrence.timezone, 1 if stride > timedelta(0) else -1
    while index >= 0:
        run = _run(recurrence, index)
        if _past(run, bound, direction):
            return None
        steps = pattern.steps_to_allowed(week_reading(run, zone), stride // _MICROSECOND)
        target = None
        if steps is not None and (direction > 0 or steps <= index):
            target = run + steps * stride
        if target is not None and _past(target, bound, direction):
            target = None
        change = _offset_change(zone, run, target or bound)
        if change is None:
            return target
        if direction > 0:
            index = _index_after(recurrence, change - _MICROSECOND)
        else:
            index = _index_after(recurrence, change) - 1
    return None


def _offset_change(zone: ZoneInfo, origin: datetime, limit: datetime) -> datetime | None:
    """The nearest moment from `origin` to `limit` (inclusive, either direction) whose UTC offset is another.

    Looks once per day, as no zone changes its clocks and changes them back within one.
    """
    offset = origin.astimezone(zone).utcoffset()
    ahead = limit > origin
    near = origin
    while near != limit:
        far = min(near + _DAY, limit) if ahead else max(near - _DAY, limit)
        if far.astimezone(zone).utcoffset() != offset:
            while abs(far - near) > _MICROSECOND:
                middle = near + (far - near) // 2
                if middle.astimezone(zone).utcoffset() == offset:
                    near = middle
                else:
                    far = middle
            return far
        near = far
    return None
