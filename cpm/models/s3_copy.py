"""Copies of snapshots in S3 repositories, and their archives."""

from django.db import models

from cpm.lib.states import ArchiveClass, CopyStatus, RetrievalStatus, SnapshotStatus, StorageClass, Tier
from cpm.models.backup import Backup
from cpm.models.base import CpmModel
from cpm.models.repository import S3Repository
from cpm.models.snapshot import Snapshot


class S3Copy(CpmModel):
    """What became of one snapshot in S3. `snapshot` is the native record that was copied.

    `copy_id` names the copy in the repository and `archive_id` its self-contained archive; `tier` says which of the two
    holds the data now. `succeeded` is null while nobody knows. `base` is the copy whose unchanged blocks were taken
    over. Bytes: `bytes_read` from AWS, of these `bytes_new` to the repository, and `bytes_stored` for them.
    `damaged`: the last verification could not read all of it. `image_bytes` is the size of an image of exported files, null
    for volumes, which are as large as their snapshot says.
    """

    backup = models.ForeignKey(Backup, on_delete=models.CASCADE, related_name="s3_copies")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="s3_copies")
    repository = models.ForeignKey(
        S3Repository, null=True, on_delete=models.SET_NULL, related_name="s3_copies"
    )
    base = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="+")
    copy_id = models.CharField(max_length=32, unique=True)
    archive_id = models.CharField(max_length=32, blank=True)
    tier = models.CharField(max_length=1, choices=Tier.choices(), default=Tier.S3)
    status = models.CharField(max_length=12, choices=SnapshotStatus.choices(), default=SnapshotStatus.PENDING)
    succeeded = models.BooleanField(null=True)
    damaged = models.BooleanField(default=False)
    error = models.TextField(blank=True)
    start_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True)
    deletion_time = models.DateTimeField(null=True)
    storage_class = models.CharField(
        max_length=20, choices=StorageClass.choices(), default=StorageClass.STANDARD
    )
    image_bytes = models.BigIntegerField(null=True)
    bytes_read = models.BigIntegerField(default=0)
    bytes_new = models.BigIntegerField(default=0)
    bytes_stored = models.BigIntegerField(default=0)
    archive_status = models.CharField(
        max_length=1, choices=CopyStatus.choices(), default=CopyStatus.NOT_STARTED
    )
    archive_class = models.CharField(max_length=20, choices=ArchiveClass.choices(), blank=True)
    archived_at = models.DateTimeField(null=True)
    retrieve_status = models.CharField(
        max_length=12, choices=RetrievalStatus.choices(), default=RetrievalStatus.NONE, blank=True
    )
    retrieve_expiration = models.DateTimeField(null=True)

    class Meta(CpmModel.Meta):
        verbose_name = "S3 copy"
        verbose_name_plural = "S3 copies"
        indexes = [
            models.Index(name="s3_copy_by_backup", fields=["backup"]),
            models.Index(
                name="s3_copy_living", fields=["repository"], condition=models.Q(status="completed")
            ),
        ]

    def __str__(self) -> str:
        return self.stored_id

    @property
    def stored_id(self) -> str:
        """The id under which the repository has the data now."""
        return self.archive_id if self.tier == Tier.ARCHIVE else self.copy_id
