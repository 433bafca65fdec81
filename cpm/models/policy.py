"""Policies: what is protected, how often, for how long, and where copies go."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from cpm.lib.states import ArchiveClass, AutoRemove, ConsideredSuccessful, RetentionUnit, StorageClass
from cpm.models.account import Account
from cpm.models.base import CpmModel
from cpm.models.job import Job
from cpm.models.repository import S3Repository
from cpm.models.schedule import Schedule
from cpm.models.user import User


class Policy(CpmModel):
    """A bundle of targets, schedules, and rules for retention, scripts, retries, DR and copies in S3, for one account.

    `s3_job` is the last operation in S3 that took the policy for itself; while it is open no other may (`cpm.flows.s3`).
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="policies")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="policies")
    name = models.CharField(max_length=128)
    description = models.TextField(blank=True)
    enabled = models.BooleanField(default=True)
    generations = models.PositiveIntegerField(default=30)
    auto_remove_resource = models.CharField(max_length=1, choices=AutoRemove.choices(), default=AutoRemove.NO)
    created_by_tag = models.BooleanField(default=False)
    schedules = models.ManyToManyField(
        Schedule, through="PolicySchedule", related_name="policies", blank=True
    )

    enable_agent_scripts = models.BooleanField(default=False)
    agent_script_timeout = models.PositiveIntegerField(default=30)
    collect_script_output = models.BooleanField(default=False)
    considered_successful = models.CharField(
        max_length=1, choices=ConsideredSuccessful.choices(), default=ConsideredSuccessful.NO_ISSUES
    )
    number_of_retries = models.PositiveIntegerField(default=3)
    minutes_between_retries = models.PositiveIntegerField(default=3)
    num_failures_for_alert = models.PositiveIntegerField(default=1)

    dr_enabled = models.BooleanField(default=False)
    dr_frequency = models.PositiveIntegerField(default=1)
    dr_regions = ArrayField(models.BigIntegerField(), default=list, blank=True)
    dr_timeout_hours = models.PositiveIntegerField(default=24)
    dr_account = models.ForeignKey(
        Account, null=True, blank=True, on_delete=models.PROTECT, related_name="dr_policies"
    )
    dr_account_regions = ArrayField(models.BigIntegerField(), default=list, blank=True)
    copy_to_snapshot_original_region = models.BooleanField(default=False)
    dr_keep_original_snapshots = models.BooleanField(default=True)

    s3_repository = models.ForeignKey(
        S3Repository, null=True, blank=True, on_delete=models.PROTECT, related_name="policies"
    )
    s3_enabled = models.BooleanField(default=False)
    s3_copy_interval = models.PositiveIntegerField(default=1)
    s3_delete_originals = models.BooleanField(default=False)
    s3_storage_class = models.CharField(
        max_length=20, choices=StorageClass.choices(), default=StorageClass.STANDARD
    )
    s3_keep_by_generations = models.BooleanField(default=True)
    s3_generations = models.PositiveIntegerField(default=30)
    s3_keep_by_time = models.BooleanField(default=False)
    s3_keep_time = models.PositiveIntegerField(default=1)
    s3_keep_time_unit = models.CharField(
        max_length=1, choices=RetentionUnit.choices(), default=RetentionUnit.YEARS
    )
    archive_enabled = models.BooleanField(default=False)
    archive_storage_class = models.CharField(
        max_length=20, choices=ArchiveClass.choices(), default=ArchiveClass.GLACIER
    )
    archive_every = models.PositiveIntegerField(default=1)
    archive_every_unit = models.CharField(
        max_length=1, choices=RetentionUnit.choices(), default=RetentionUnit.MONTHS
    )
    archive_keep = models.PositiveIntegerField(default=7)
    archive_keep_unit = models.CharField(
        max_length=1, choices=RetentionUnit.choices(), default=RetentionUnit.YEARS
    )
    s3_job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    backups_started = models.PositiveIntegerField(default=0)
    consecutive_failures = models.PositiveIntegerField(default=0)
    missed_runs = models.PositiveIntegerField(default=0)
    last_success_at = models.DateTimeField(null=True, blank=True)
    retention_stuck_since = models.DateTimeField(null=True, blank=True)
    last_recovery_time = models.DateTimeField(null=True, blank=True)
    last_dr_recovery_time = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta(CpmModel.Meta):
        verbose_name_plural = "policies"
        constraints = [models.UniqueConstraint(name="policy_name_of_user", fields=["user", "name"])]

    def __str__(self) -> str:
        return self.name


class PolicySchedule(CpmModel):
    """A schedule on a policy. `next_run_at` is what the planner claims; null means that it never fires."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="policy_schedules")
    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="policy_schedules")
    next_run_at = models.DateTimeField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="policy_schedule_once", fields=["policy", "schedule"])]
        indexes = [
            models.Index(
                name="policy_schedule_due",
                fields=["next_run_at"],
                condition=models.Q(next_run_at__isnull=False),
            )
        ]


class CustomTag(CpmModel):
    """A tag that puts every resource carrying it under the policy at the next tag scan."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="custom_tags")
    tag_name = models.CharField(max_length=128)
    tag_value = models.CharField(max_length=256, blank=True)
    name_is_prefix = models.BooleanField(default=False)
    value_is_prefix = models.BooleanField(default=False)
