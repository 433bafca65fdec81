"""The fleet: which processes have been heard from."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from cpm.lib.states import FleetKind
from cpm.models.base import CpmModel


class FleetMember(CpmModel):
    """A process that works for this server, written by itself (`cpm.jobs.fleet`); long silence means it is gone."""

    name = models.CharField(max_length=128, unique=True)
    kind = models.CharField(max_length=8, choices=FleetKind.choices())
    queues = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    version = models.CharField(max_length=32, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name
