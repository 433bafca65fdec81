"""When to ask AWS again, and which steps ask together."""

from datetime import datetime

from django.conf import settings

from cpm.jobs.kinds import Wait
from cpm.models import Account


def group(account: Account | int, region: str, kind: str) -> str:
    """The poll group of one account, region and type of thing."""
    account_id = account if isinstance(account, int) else account.pk
    return f"{account_id}:{region}:{kind}"


def again(now: datetime, *, group: str = "", progress: int | None = None, message: str = "") -> Wait:
    """Look again at the next multiple of the poll interval, so that the steps of a group fall due together."""
    interval = settings.CPM_POLL_SECONDS
    since = now.timestamp() % interval
    return Wait(interval - since, group=group, progress=progress, message=message)
