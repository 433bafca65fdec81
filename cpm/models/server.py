"""Settings of this server: one row, made on first use."""

import uuid

from django.db import models

from cpm.lib.states import KeyDetection
from cpm.models.base import CpmModel


class ServerSettings(CpmModel):
    """What root may set for the whole server. `server_id` is in the tags of all that CPM makes in AWS."""

    server_id = models.UUIDField(default=uuid.uuid4)
    name = models.CharField(max_length=128, blank=True)
    cleanup_interval = models.PositiveIntegerField(default=6)
    keep_deleted_backup_records = models.PositiveIntegerField(default=90)
    keep_user_audit_logs_days = models.PositiveIntegerField(default=90)
    keep_resource_control_records = models.PositiveIntegerField(default=90)
    days_until_single_ami_rotation = models.PositiveIntegerField(default=90)
    last_cleanup_time = models.DateTimeField(null=True, blank=True)
    last_s3_cleanup_time = models.DateTimeField(null=True, blank=True)
    encryption_key_detection = models.CharField(
        max_length=1, choices=KeyDetection.choices(), default=KeyDetection.STRICT
    )

    class Meta(CpmModel.Meta):
        verbose_name_plural = "server settings"
        constraints = [models.CheckConstraint(name="server_settings_one_row", condition=models.Q(id=1))]
