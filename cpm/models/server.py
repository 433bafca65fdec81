"""Settings of this server: one row of each kind, made on first use. Secrets are tokens of `cpm.lib.secrets`."""

import uuid
from typing import Self

from django.db import models

from cpm.lib.states import Authentication, CleanupType, KeyDetection, LogMode
from cpm.models.account import Account
from cpm.models.base import CpmModel

ONLY_ROW = 1


class OneRow(CpmModel):
    """Abstract base of what there is one of; a check constraint of each table sees to it."""

    class Meta(CpmModel.Meta):
        abstract = True

    @classmethod
    def current(cls) -> Self:
        """The row, made with its defaults on first use."""
        return cls._default_manager.get_or_create(pk=ONLY_ROW)[0]


class ServerSettings(OneRow):
    """What root may set for the whole server. `server_id` is in the tags of all that CPM makes in AWS."""

    server_id = models.UUIDField(default=uuid.uuid4)
    name = models.CharField(max_length=128, blank=True)
    activation_key = models.TextField(blank=True)
    cleanup_interval = models.PositiveIntegerField(default=6)
    cleanup_type = models.CharField(
        max_length=9, choices=CleanupType.choices(), default=CleanupType.SNAPSHOTS
    )
    keep_deleted_backup_records = models.PositiveIntegerField(default=90)
    keep_user_audit_logs_days = models.PositiveIntegerField(default=90)
    keep_resource_control_records = models.PositiveIntegerField(default=90)
    days_until_single_ami_rotation = models.PositiveIntegerField(default=90)
    last_cleanup_time = models.DateTimeField(null=True, blank=True)
    last_s3_cleanup_time = models.DateTimeField(null=True, blank=True)
    encryption_key_detection = models.CharField(
        max_length=1, choices=KeyDetection.choices(), default=KeyDetection.STRICT
    )
    log_mode = models.CharField(max_length=8, choices=LogMode.choices(), default=LogMode.STANDARD)
    cost_explorer_enabled = models.BooleanField(default=False)
    capture_vpcs = models.BooleanField(default=False)
    capture_vpcs_interval = models.PositiveIntegerField(default=24)
    last_capture_vpcs_time = models.DateTimeField(null=True, blank=True)
    scan_resources = models.BooleanField(default=False)
    tag_scan_interval = models.PositiveIntegerField(default=6)
    tag_scan_excluded_volumes_enabled = models.BooleanField(default=False)
    last_resources_scan_time = models.DateTimeField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "server settings"
        constraints = [models.CheckConstraint(name="server_settings_one_row", condition=models.Q(id=1))]


class ProxySettings(OneRow):
    """The web proxy through which this server reaches AWS."""

    enabled = models.BooleanField(default=False)
    address = models.CharField(max_length=255, blank=True)
    port = models.PositiveIntegerField(null=True, blank=True)
    username = models.CharField(max_length=255, blank=True)
    password = models.TextField(blank=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "proxy settings"
        constraints = [models.CheckConstraint(name="proxy_settings_one_row", condition=models.Q(id=1))]


class EmailIdentity(OneRow):
    """The address that this server sends mail from, through Amazon SES, and how it reaches SES."""

    enabled = models.BooleanField(default=False)
    email_address = models.EmailField(blank=True)
    authentication = models.CharField(max_length=1, choices=Authentication.choices(), blank=True)
    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    access_key = models.CharField(max_length=128, blank=True)
    secret_key = models.TextField(blank=True)
    region = models.CharField(max_length=32, blank=True)
    verify_source_address = models.BooleanField(default=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "email identity"
        constraints = [models.CheckConstraint(name="email_identity_one_row", condition=models.Q(id=1))]


class FileLevelRecoverySettings(OneRow):
    """With whose credentials files are read out of snapshots, unless the account of the backup can do it."""

    enabled = models.BooleanField(default=False)
    use_existing_account = models.BooleanField(default=False)
    existing_account = models.CharField(max_length=128, blank=True)
    access_key = models.CharField(max_length=128, blank=True)
    secret_key = models.TextField(blank=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "file level recovery settings"
        constraints = [models.CheckConstraint(name="file_level_recovery_one_row", condition=models.Q(id=1))]
