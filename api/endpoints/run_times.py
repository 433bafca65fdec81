"""Future runs, as schedules and policies show them."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from django.db.models import TextField, Value
from rest_framework.request import Request

from api.fields import Fields, Text
from cpm.lib.errors import ValidationFailed
from cpm.services.run_times import RunTime, system_zone, zone_of

NOT_FROM_A_TABLE = Value("", output_field=TextField())
SHOWN = Text(NOT_FROM_A_TABLE)
RUN_TIME_FIELDS = Fields(
    schedule_name=SHOWN,
    schedule_time=SHOWN,
    schedule_timezone=SHOWN,
    system_time=SHOWN,
    system_timezone=SHOWN,
    time=SHOWN,
)


def days_ahead(request: Request) -> int:
    """The required parameter `days_ahead`. Raises `ValidationFailed` when it is absent or no whole number."""
    text = request.query_params.get("days_ahead", "").strip()
    if not text:
        raise ValidationFailed.one("days_ahead", "Say how many days ahead to look.", "required")
    if not re.fullmatch(r"[0-9]{1,9}(\.0+)?", text, re.ASCII):
        raise ValidationFailed.one("days_ahead", "This must be a whole number of days.")
    return int(text.partition(".")[0])


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
