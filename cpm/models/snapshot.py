"""Snapshot records: everything that a backup made in AWS. One table for all resource types."""

from django.db import models

from cpm.lib.states import SnapshotStatus
from cpm.models.account import Account
from cpm.models.backup import Backup
from cpm.models.base import CpmModel
from cpm.models.target import Target


class Snapshot(CpmModel):
    """One native snapshot, AMI or DR copy, or the configuration of one backed-up instance.

    `kind` is the list in which the API shows it: one of `SnapshotKind`, or of a type in the resource registry.
    `account` holds it in AWS (for a cross-account copy the DR account). `aws_id` is empty until AWS has
    named it. `parent` is the instance record that it belongs to; `original` what it was copied from.
    `details` is what the resource type keeps for recovery. `succeeded` is null while nobody knows.
    """

    backup = models.ForeignKey(Backup, on_delete=models.CASCADE, related_name="snapshots")
    target = models.ForeignKey(Target, null=True, on_delete=models.SET_NULL, related_name="+")
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    original = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="copies")
    kind = models.CharField(max_length=24)
    resource_type = models.CharField(max_length=32)
    account = models.ForeignKey(Account, null=True, on_delete=models.SET_NULL, related_name="+")
    account_name = models.CharField(max_length=128)
    aws_account_number = models.CharField(max_length=12, blank=True)
    region = models.CharField(max_length=32)
    aws_id = models.CharField(max_length=255, blank=True)
    source_id = models.CharField(max_length=255)
    source_name = models.CharField(max_length=255, blank=True)
    instance_id = models.CharField(max_length=64, blank=True)
    instance_name = models.CharField(max_length=255, blank=True)
    status = models.CharField(max_length=12, choices=SnapshotStatus.choices(), default=SnapshotStatus.PENDING)
    succeeded = models.BooleanField(null=True)
    error = models.TextField(blank=True)
    progress = models.PositiveSmallIntegerField(default=0)
    start_time = models.DateTimeField(null=True)
    end_time = models.DateTimeField(null=True)
    deletion_time = models.DateTimeField(null=True)
    capacity = models.PositiveIntegerField(null=True)
    device = models.CharField(max_length=64, blank=True)
    encrypted = models.BooleanField(default=False)
    cbt_valid_size_mb = models.PositiveIntegerField(null=True)
    cbt_changed_size_mb = models.PositiveIntegerField(null=True)
    details = models.JSONField(default=dict, blank=True)

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(name="snapshot_by_backup_kind", fields=["backup", "kind"]),
            models.Index(name="snapshot_by_source", fields=["source_id"]),
            # Counted for dashboards at every scrape; records of deleted snapshots stay for months.
            models.Index(
                name="snapshot_living",
                fields=["backup", "kind"],
                condition=models.Q(status="completed"),
            ),
            models.Index(name="snapshot_by_aws_id", fields=["aws_id"]),
        ]

    def __str__(self) -> str:
        return self.aws_id or f"{self.kind} of {self.source_id}"
