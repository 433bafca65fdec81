"""Which part of a week a schedule may run in: weekday switches and disable windows, on the wall clock.

A window is half-open, ``[start, end)``. One whose end is not later than its start ends on the following day,
so Monday 17:00-08:00 lasts until Tuesday 08:00; equal times therefore disable 24 hours from the start on, and
00:00-00:00 is the whole day. What is said of a wall time holds for both of its occurrences when clocks go
back.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

EVERY_DAY = frozenset(range(7))
DAYS_OF_LETTER = {"A": tuple(range(7))} | {letter: (day,) for day, letter in enumerate("MTWHFSU")}

_DAY_US = 86_400_000_000
_WEEK_US = 7 * _DAY_US


@dataclass(frozen=True, slots=True)
class DisableTime:
    """A weekly window without runs; `day` is A (every day) or M T W H F S U, the day on which it starts."""

    day: str
    start: time
    end: time


@dataclass(frozen=True, slots=True)
class WeekPattern:
    """The allowed part of a week: half-open spans in microseconds since Monday 00:00, in order."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def allows(self, reading: int) -> bool:
        span = bisect_right(self.starts, reading) - 1
        return span >= 0 and reading < self.ends[span]

    def steps_to_allowed(self, reading: int, stride: int) -> int | None:
        """How many strides round the week it takes to reach an allowed reading; None when no number does."""
        fewest = None
        for start, end in zip(self.starts, self.ends, strict=True):
            low, high = (start - reading) % _WEEK_US, (end - 1 - reading) % _WEEK_US
            # The span contains the reading itself when it wraps round it.
            steps = 0 if low > high else _first_multiple(stride, _WEEK_US, low, high)
            if steps is not None and (fewest is None or steps < fewest):
                fewest = steps
        return fewest


@lru_cache(maxsize=4096)
def week_pattern(weekdays: frozenset[int], disable_times: tuple[DisableTime, ...]) -> WeekPattern:
    """The week that is left when only `weekdays` (0 is Monday) are allowed and the windows are taken out."""
    starts, ends, allowed_from = [], [], 0
    for first, last in sorted(_blocked_spans(weekdays, disable_times)):
        if first > allowed_from:
            starts.append(allowed_from)
            ends.append(first)
        allowed_from = max(allowed_from, last)
    if allowed_from < _WEEK_US:
        starts.append(allowed_from)
        ends.append(_WEEK_US)
    return WeekPattern(tuple(starts), tuple(ends))


def week_reading(moment: datetime, zone: ZoneInfo) -> int:
    """What the zone's clocks and calendar show, as microseconds since Monday 00:00."""
    local = moment.astimezone(zone)
    return local.weekday() * _DAY_US + _time_us(local)


def _blocked_spans(weekdays: frozenset[int], disable_times: tuple[DisableTime, ...]) -> list[tuple[int, int]]:
    spans = [(day * _DAY_US, (day + 1) * _DAY_US) for day in EVERY_DAY - weekdays]
    for window in disable_times:
        start, end = _time_us(window.start), _time_us(window.end)
        if end <= start:
            end += _DAY_US
        for day in DAYS_OF_LETTER[window.day]:
            first, last = day * _DAY_US + start, day * _DAY_US + end
            spans.append((first, min(last, _WEEK_US)))
            if last > _WEEK_US:
                spans.append((0, last - _WEEK_US))
    return spans


def _time_us(value: time | datetime) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _first_multiple(factor: int, modulus: int, low: int, high: int) -> int | None:
    """The smallest k >= 0 with low <= k * factor mod modulus <= high, for 0 <= low <= high < modulus.

    When no multiple falls into the range before the first wrap, the wraps themselves form the same problem
    with `factor` as the modulus; halving it each time keeps the depth logarithmic, as in Euclid's algorithm.
    """
    if low == 0:
        return 0
    factor %= modulus
    if factor == 0:
        return None
    if 2 * factor > modulus:
        factor, low, high = modulus - factor, modulus - high, modulus - low
    steps = -(-low // factor)
    if steps * factor <= high:
        return steps
    wraps = _first_multiple(modulus, factor, -high % factor, -low % factor)
    return None if wraps is None else -(-(low + modulus * wraps) // factor)
