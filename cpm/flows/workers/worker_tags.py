"""Tags of workers: put on what a worker makes in AWS for an account for as long as its work takes."""

from collections.abc import Mapping

from cpm.flows.tags import MOST_TAGS
from cpm.models import Account, WorkerTag


def of(account: Account | int) -> dict[str, str]:
    """The worker tags of the account, or of that with this id, those that were made first in front."""
    return dict(WorkerTag.objects.filter(account=account).order_by("pk").values_list("key", "value"))


def beside(ours: Mapping[str, str], account: Account | int) -> dict[str, str]:
    """Our tags with the account's worker tags beside them, as many as AWS takes; ours win."""
    merged = dict(ours)
    for key, value in of(account).items():
        if len(merged) < MOST_TAGS:
            merged.setdefault(key, value)
    return merged
