"""What this server is, and the time zones that it knows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

# Not places: aliases of the machine's own settings, and copies of the whole list.
NO_ZONES = frozenset({"Factory", "localtime", "posixrules"})


@cache
def _names() -> tuple[str, ...]:
    found = {name for name in available_timezones() if not name.startswith(("posix/", "right/"))}
    return tuple(sorted(found - NO_ZONES))


def time_zones(*, now: datetime) -> Mapping[str, str]:
    """What each zone is shown as, by its name in the IANA database: “(UTC+01:00) Europe/Berlin” in winter."""
    return {name: f"(UTC{offset(name, now)}) {name}" for name in _names()}


def offset(name: str, now: datetime) -> str:
    """How far the zone is from UTC at that moment: +05:30."""
    shift = now.astimezone(ZoneInfo(name)).utcoffset() or timedelta()
    minutes = round(shift.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
