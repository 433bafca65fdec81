"""Explore sessions: looking at the files of backed-up volumes without restoring them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from cpm.lib.states import ExploreStatus, ExploreType
from cpm.models.account import Account
from cpm.models.backup import Backup
from cpm.models.base import CpmModel
from cpm.models.user import User


class ExploreSession(CpmModel):
    """One session. `snapshots` and `s3_copies` are ids of the records whose blocks it reads, one of them for each volume.

    It ends by itself at `expires_at`, which every use moves on.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="explore_sessions")
    backup = models.ForeignKey(Backup, null=True, on_delete=models.SET_NULL, related_name="explore_sessions")
    account = models.ForeignKey(Account, null=True, on_delete=models.SET_NULL, related_name="+")
    name = models.CharField(max_length=255, blank=True)
    explore_type = models.CharField(max_length=1, choices=ExploreType.choices())
    status = models.CharField(max_length=1, choices=ExploreStatus.choices(), default=ExploreStatus.UNDEFINED)
    failure = models.TextField(blank=True)
    volume_ids = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    snapshots = ArrayField(models.BigIntegerField(), default=list, blank=True)
    s3_copies = ArrayField(models.BigIntegerField(), default=list, blank=True)
    start_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(
                name="explore_session_open",
                fields=["expires_at"],
                condition=models.Q(status__in=["U", "N", "P"]),
            )
        ]

    def __str__(self) -> str:
        return self.name or f"session {self.pk}"
