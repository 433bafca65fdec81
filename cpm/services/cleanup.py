"""Cleanup on demand and at its interval."""

from datetime import datetime

from django.db import transaction

from cpm.flows import retention
from cpm.models import Actor, Job
from cpm.permissions import require


def run(*, actor: Actor | None, now: datetime) -> Job:
    """Start a cleanup of all policies. `actor` None is the server itself, at the interval."""
    if actor is not None:
        require(actor, "settings.change")
    with transaction.atomic():
        return retention.request(now=now)
