"""Cleanup on demand and at its interval."""

from datetime import datetime

from django.db import transaction

from cpm.flows import retention
from cpm.models import Actor, Job
from cpm.permissions import require
from cpm.services import audit


def run(*, actor: Actor | None, now: datetime) -> Job:
    """Start a cleanup of all policies. `actor` None is the server itself, at the interval."""
    if actor is not None:
        require(actor, "settings.change")
    with transaction.atomic():
        job = retention.request(now=now)
        if actor is not None:
            audit.record(actor, "cleanup.started", job, text="Cleanup of all policies started.")
        return job
