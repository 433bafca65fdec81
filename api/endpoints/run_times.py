"""Future runs, as schedules and policies show them."""

from collections.abc import Iterable
from datetime import UTC, datetime

from django.db.models import TextField, Value

from api.fields import Fields, Text
from api.filters import Filter, Number
from cpm.services.run_times import RunTime, system_zone, zone_of

NOT_FROM_A_TABLE = Value("", output_field=TextField())
DAYS_AHEAD: dict[str, Filter] = {"days_ahead": Number("How many days ahead to look.")}
SHOWN = Text(NOT_FROM_A_TABLE)
RUN_TIME_FIELDS = Fields(
    schedule_name=SHOWN,
    schedule_time=SHOWN,
    schedule_timezone=SHOWN,
    system_time=SHOWN,
    system_timezone=SHOWN,
    time=SHOWN,
)


def as_rows(runs: Iterable[RunTime]) -> list[dict[str, str]]:
    """The runs as the API shows them: in UTC, and as clocks show them in the schedule's and the server's zone."""
    return [
        {
            "schedule_name": run.schedule.name,
            "schedule_time": _shown(run.local),
            "schedule_timezone": zone_of(run.schedule).key,
            "system_time": _shown(run.system),
            "system_timezone": system_zone().key,
            "time": _shown(run.time.astimezone(UTC)).replace("+00:00", "Z"),
        }
        for run in runs
    ]


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
