"""Backup records: one per run of a policy."""

from django.db import models

from cpm.lib.states import BackupStatus, CopyStatus, DrStatus
from cpm.models.account import Account
from cpm.models.base import CpmModel
from cpm.models.policy import Policy
from cpm.models.user import User


class Backup(CpmModel):
    """One run of a policy and what became of it.

    `slot` is the scheduled moment; with the policy it is unique, so that a moment is run once whatever
    the number of schedulers. `policy_name` and `account_name` keep their values when those rows go.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="backups")
    account = models.ForeignKey(Account, null=True, on_delete=models.SET_NULL, related_name="backups")
    policy = models.ForeignKey(Policy, null=True, on_delete=models.SET_NULL, related_name="backups")
    policy_name = models.CharField(max_length=128)
    account_name = models.CharField(max_length=128)
    tracker_id = models.BigIntegerField(null=True, unique=True)
    slot = models.DateTimeField(null=True)
    status = models.CharField(max_length=1, choices=BackupStatus.choices(), default=BackupStatus.INITIALIZING)
    status_before_deletion = models.CharField(max_length=1, blank=True)
    dr_status = models.CharField(max_length=1, choices=DrStatus.choices(), default=DrStatus.NONE)
    s3_copy_status = models.CharField(
        max_length=1, choices=CopyStatus.choices(), default=CopyStatus.NOT_STARTED
    )
    s3_copy_progress = models.PositiveSmallIntegerField(default=0)
    archive_status = models.CharField(
        max_length=1, choices=CopyStatus.choices(), default=CopyStatus.NOT_STARTED
    )
    archive_progress = models.PositiveSmallIntegerField(default=0)
    start_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True, blank=True)
    outcome = models.TextField(blank=True)
    dr_outcome = models.TextField(blank=True)
    dr_regions = models.CharField(max_length=1024, blank=True)
    dr_account_regions = models.CharField(max_length=1024, blank=True)
    is_retry = models.BooleanField(default=False)
    retry_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    attempt = models.PositiveSmallIntegerField(default=0)
    retry_scheduled = models.BooleanField(default=False)
    retry_at = models.DateTimeField(null=True, blank=True)
    performed_quiesce = models.BooleanField(default=False)
    marked_for_deletion = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)
    is_freezer_item = models.BooleanField(default=False)
    name = models.CharField(max_length=255, blank=True)
    description = models.TextField(blank=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="backup_once_per_slot", fields=["policy", "slot"])]
        indexes = [
            models.Index(name="backup_by_user_start", fields=["user", "-start_time", "-id"]),
            models.Index(name="backup_by_account_start", fields=["account", "-start_time", "-id"]),
            models.Index(name="backup_by_policy_start", fields=["policy", "-start_time", "-id"]),
            models.Index(name="backup_by_start", fields=["-start_time", "-id"]),
            models.Index(name="backup_frozen", fields=["user"], condition=models.Q(is_freezer_item=True)),
            models.Index(
                name="backup_running",
                fields=["policy"],
                condition=models.Q(status__in=["I", "P"]),
            ),
            models.Index(
                name="backup_retry_due", fields=["retry_at"], condition=models.Q(retry_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy_name} {self.start_time:%Y-%m-%d %H:%M}"


class ScriptLog(CpmModel):
    """What one backup script wrote to its error stream."""

    backup = models.ForeignKey(Backup, on_delete=models.CASCADE, related_name="script_logs")
    title = models.CharField(max_length=255)
    log = models.TextField(blank=True)
    exit_code = models.IntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
