"""S3 repositories: where copies of backups go, a folder of a bucket each."""

from django.db import models

from cpm.lib.states import DeletionStatus, Encryption, LockMode, VerifyDepth, VerifyResult
from cpm.models.account import Account
from cpm.models.base import CpmModel
from cpm.models.user import User


class S3Repository(CpmModel):
    """One repository. `secret` is a token of `cpm.lib.secrets` with the raw key of one of its key slots.

    `prefix` is the folder and ends in a slash; `versioned` says that the bucket keeps versions. New objects are put with
    `encryption`, `kms_key` and, with a `lock_mode`, locked for `lock_days`. Every `verify_every_days` (0: never) it is
    verified to `verify_depth`. Snapshots of databases are exported by RDS with the role `export_role_arn`, encrypted with
    `export_kms_key_id` or else `kms_key`. The figures of its use are those of `usage_updated_at`.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="s3_repositories")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="s3_repositories")
    name = models.CharField(max_length=128)
    description = models.TextField(blank=True)
    aws_bucket_name = models.CharField(max_length=63)
    aws_region = models.CharField(max_length=32)
    prefix = models.CharField(max_length=160)
    versioned = models.BooleanField(default=False)
    secret = models.TextField()
    encryption = models.CharField(
        max_length=8, choices=Encryption.choices(), default=Encryption.BUCKET, blank=True
    )
    kms_key = models.CharField(max_length=2048, blank=True)
    lock_mode = models.CharField(
        max_length=10, choices=LockMode.choices(), default=LockMode.NONE, blank=True
    )
    lock_days = models.PositiveIntegerField(default=0)
    verify_every_days = models.PositiveIntegerField(default=7)
    verify_depth = models.CharField(
        max_length=6, choices=VerifyDepth.choices(), default=VerifyDepth.SAMPLE
    )
    export_role_arn = models.CharField(max_length=2048, blank=True)
    export_kms_key_id = models.CharField(max_length=2048, blank=True)
    deletion_status = models.CharField(
        max_length=1, choices=DeletionStatus.choices(), default=DeletionStatus.NONE
    )
    deletion_forced = models.BooleanField(default=False)
    deletion_error = models.TextField(blank=True)
    bytes_stored = models.BigIntegerField(default=0)
    blocks_stored = models.BigIntegerField(default=0)
    copies_stored = models.PositiveIntegerField(default=0)
    usage_updated_at = models.DateTimeField(null=True, blank=True)
    last_verified_at = models.DateTimeField(null=True, blank=True)
    last_verify_depth = models.CharField(max_length=6, choices=VerifyDepth.choices(), blank=True)
    last_verify_result = models.CharField(max_length=7, choices=VerifyResult.choices(), blank=True)
    last_verify_details = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(CpmModel.Meta):
        verbose_name = "S3 repository"
        verbose_name_plural = "S3 repositories"
        constraints = [
            models.UniqueConstraint(name="s3_repository_name_of_user", fields=["user", "name"]),
            models.UniqueConstraint(name="s3_repository_place", fields=["aws_bucket_name", "prefix"]),
        ]

    def __str__(self) -> str:
        return self.name
