"""Places: where work is best done near its data, in one AWS account and region.

A place is written `123456789012:eu-west-1`. A worker of that place serves the queue `s3@123456789012:eu-west-1`. A step
that names the place goes there while such a worker lives, and to the plain queue `s3` otherwise; `cpm.jobs.sweeper`
moves waiting steps when workers come and go. So a place is a wish, never a condition.
"""

import re
from collections.abc import Set

# The queues that places have: those whose steps move blocks.
QUEUES = ("s3",)
_PLACE = re.compile(r"[0-9]{12}:[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")


def at(account_number: str, region: str) -> str:
    """The place of that account and region for `StepSpec.place`; empty, so no place, while the number is not known."""
    return f"{account_number}:{region}" if account_number else ""


def checked(place: str) -> str:
    """The place as it was given. Raises ValueError for what is none."""
    if not _PLACE.fullmatch(place):
        raise ValueError(f"“{place}” is no place; write ACCOUNT_NUMBER:REGION, as in 123456789012:eu-west-1.")
    return place


def queue_at(queue: str, place: str) -> str:
    """The name of a queue at a place; the queue itself without a place."""
    return f"{queue}@{place}" if place else queue


def queues_at(place: str) -> list[str]:
    """The queues that a worker of the place serves; none without a place."""
    return [queue_at(queue, place) for queue in QUEUES] if place else []


def route(queue: str, place: str, served: Set[str]) -> str:
    """The queue of a step: that of its place if it is among those that are served, else the plain one."""
    there = queue_at(queue, place)
    return there if there in served else queue
