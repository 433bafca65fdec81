"""Runs of a schedule by visiting every slot, written from the rules alone.

Slow and obvious on purpose: it shares no arithmetic with the code that it checks.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import count

from cpm.scheduler.recurrence import Recurrence

LETTERS = "MTWHFSU"


def naive_runs(recurrence: Recurrence, until: datetime) -> list[datetime]:
    """Every allowed run from the start to `until` inclusive, in order and once each."""
    runs: list[datetime] = []
    for slot in naive_slots(recurrence, until):
        wall = slot.astimezone(recurrence.timezone).replace(tzinfo=None, fold=0)
        ended = recurrence.end is not None and slot > recurrence.end.astimezone(UTC)
        if not ended and naive_allows(recurrence, wall) and slot not in runs[-1:]:
            runs.append(slot)
    return runs


def naive_slots(recurrence: Recurrence, until: datetime) -> list[datetime]:
    start = recurrence.start.astimezone(UTC)
    wall = start.astimezone(recurrence.timezone).replace(tzinfo=None, fold=0)
    slots: list[datetime] = []
    for index in count():
        amount = index * recurrence.every
        if recurrence.unit in "MH":
            slot = start + timedelta(**{"M": {"minutes": amount}, "H": {"hours": amount}}[recurrence.unit])
        elif index == 0:
            slot = start
        elif recurrence.unit == "O":
            slot = naive_instant(recurrence, months_later(wall, amount))
        else:
            slot = naive_instant(
                recurrence, wall + timedelta(days=amount * {"D": 1, "W": 7}[recurrence.unit])
            )
        if slot > until:
            break
        slots.append(slot)
    return slots


def months_later(wall: datetime, months: int) -> datetime:
    year, month = wall.year, wall.month
    for _ in range(months):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return wall.replace(year=year, month=month, day=min(wall.day, monthrange(year, month)[1]))


def naive_instant(recurrence: Recurrence, wall: datetime) -> datetime:
    """The first moment at which the zone's clocks show `wall`, or show it moved by the gap they skipped."""
    zone = recurrence.timezone
    around = [(wall + timedelta(days=days)).replace(tzinfo=UTC) for days in (-2, 2)]
    before, after = (moment.astimezone(zone).utcoffset() or timedelta(0) for moment in around)
    for showing in (wall, wall + (after - before)):
        moments = [showing.replace(tzinfo=UTC) - offset for offset in (before, after)]
        found = [
            moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None, fold=0) == showing
        ]
        if found:
            return min(found)
    raise AssertionError(f"{wall} is shown by no clock in {zone}")


def naive_allows(recurrence: Recurrence, wall: datetime) -> bool:
    if recurrence.unit in "MHD" and wall.weekday() not in recurrence.weekdays:
        return False
    return not any(
        naive_within(window.day, window.start, window.end, wall, wall.date() - timedelta(days=back))
        for window in recurrence.disable_times
        for back in (0, 1)
    )


def naive_within(day, start, end, wall: datetime, opens: date) -> bool:
    if day not in ("A", LETTERS[opens.weekday()]):
        return False
    closes = opens if end > start else opens + timedelta(days=1)
    return datetime.combine(opens, start) <= wall < datetime.combine(closes, end)
