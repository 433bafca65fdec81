"""Recovery records."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from cpm.lib.states import CopyStatus, RecoveryStatus, RecoveryType
from cpm.models.account import Account
from cpm.models.backup import Backup
from cpm.models.base import CpmModel
from cpm.models.policy import Policy
from cpm.models.snapshot import Snapshot
from cpm.models.user import User


class Recovery(CpmModel):
    """One request to bring a resource back. `request` is the validated body without its credentials.

    With `from_s3` the volumes come from copies; `s3_progress` has the percentage of each of them, and `retrieve_progress`
    that of each copy that lies in an archive.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recoveries")
    account = models.ForeignKey(Account, null=True, on_delete=models.SET_NULL, related_name="recoveries")
    policy = models.ForeignKey(Policy, null=True, on_delete=models.SET_NULL, related_name="recoveries")
    backup = models.ForeignKey(Backup, null=True, on_delete=models.SET_NULL, related_name="recoveries")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="recoveries")
    recovery_type = models.CharField(max_length=1, choices=RecoveryType.choices())
    from_dr = models.BooleanField(default=False)
    from_s3 = models.BooleanField(default=False)
    s3_status = models.CharField(max_length=1, choices=CopyStatus.choices(), default=CopyStatus.NOT_STARTED)
    s3_progress = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    retrieve_status = models.CharField(
        max_length=1, choices=CopyStatus.choices(), default=CopyStatus.NOT_STARTED
    )
    retrieve_progress = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    status = models.CharField(
        max_length=1, choices=RecoveryStatus.choices(), default=RecoveryStatus.IN_PROGRESS
    )
    request = models.JSONField(default=dict)
    recovery_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True, blank=True)
    backup_time = models.DateTimeField(null=True)
    frozen_item_name = models.CharField(max_length=255, blank=True)
    recovered_resource_ids = models.TextField(blank=True)
    outcome = models.TextField(blank=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "recoveries"
        indexes = [models.Index(name="recovery_by_user_time", fields=["user", "-recovery_time"])]
