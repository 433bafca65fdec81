"""When a daily summary is due: once on every local date, whatever the clocks do."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def next_moment(at: time, zone: ZoneInfo, after: datetime) -> datetime:
    """The first moment after `after` at which it is `at` in the zone, in UTC.

    A time that the clocks skip comes as much later as they skip; of a time that comes twice the first counts.
    """
    # One day earlier, since the offset of today may differ from that of the moment itself.
    day = after.astimezone(zone).date() - timedelta(days=1)
    while True:
        moment = datetime.combine(day, at, zone).astimezone(UTC)
        if moment > after:
            return moment
        day += timedelta(days=1)
