"""What is left of a backup in AWS, in S3 and in the archive, and the statuses that follow from it.

Whoever deletes something of a backup marks the rows of what is gone and then calls `settle`; nobody else decides that
a backup was moved or is deleted.
"""

from datetime import datetime

from django.db.models import QuerySet

from cpm.lib.states import (
    BACKUP_WITH_SNAPSHOTS,
    WITHOUT_SNAPSHOT,
    BackupStatus,
    CopyStatus,
    SnapshotKind,
    SnapshotStatus,
    Tier,
)
from cpm.models import Backup, S3Copy, S3Repository, Snapshot

INITIAL = frozenset({SnapshotKind.INITIAL_AMI, SnapshotKind.DR_INITIAL_AMI})
MOVED = frozenset({BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER})
# Copies whose data may be in a repository.
LIVING = (SnapshotStatus.PENDING, SnapshotStatus.COMPLETED)
# Copying or archiving that left something behind, which may go.
HAD_COPIES = (CopyStatus.COMPLETED, CopyStatus.ALL_VALID, CopyStatus.PARTIAL, CopyStatus.EXPIRED)


def natives(backup: Backup) -> QuerySet[Snapshot]:
    """What AWS still holds. Initial AMIs do not count, since backups of other days may need them."""
    rows = backup.snapshots.exclude(status=SnapshotStatus.DELETED).exclude(aws_id="")
    return rows.exclude(kind__in=WITHOUT_SNAPSHOT | INITIAL)


def copies(backup: Backup) -> QuerySet[S3Copy]:
    """Its copies in S3 and archives that are not known to be gone."""
    return backup.s3_copies.filter(status__in=LIVING)


def only_synced(backup: Backup) -> bool:
    """Whether the backup has done nothing but S3 syncs, so that there is nothing of it to keep or recover."""
    kinds = set(backup.snapshots.values_list("kind", flat=True))
    return kinds == {SnapshotKind.S3_SYNC}


def copied_instances() -> QuerySet[S3Copy]:
    """Ids of the instance records whose volumes can be recovered from S3, as a subquery."""
    rows = S3Copy.objects.filter(status__in=LIVING, snapshot__parent__isnull=False)
    return rows.values("snapshot__parent_id")  # type: ignore[return-value]


def forget(repository: S3Repository, *, now: datetime) -> int:
    """The repository is gone or out of reach: so are its copies, and their backups follow. Needs a transaction.

    Returns how many copies there were.
    """
    living = S3Copy.objects.filter(repository=repository, status__in=LIVING)
    backups = list(Backup.objects.filter(pk__in=living.values("backup_id")).order_by("pk"))
    count = living.update(status=SnapshotStatus.DELETED, deletion_time=now)
    for backup in backups:
        settle(backup, now=now)
    return count


def settle(backup: Backup, *, now: datetime) -> None:
    """Bring the statuses of a backup in line with what is left of it. Needs a transaction; may be repeated.

    Without native snapshots it is "moved" as long as copies live, and keeps the instance records that a recovery of
    them needs; when nothing is left it is deleted. `status_before_deletion` keeps how it had ended.
    """
    # Deletions of native snapshots and of copies may end at once: the second waits here and sees the first.
    row = Backup.objects.select_for_update(of=("self",)).get(pk=backup.pk)
    tiers = set(copies(row).values_list("tier", flat=True))
    if row.s3_copies.exists():
        if Tier.S3 not in tiers and row.s3_copy_status in HAD_COPIES:
            row.s3_copy_status = CopyStatus.DELETED
        if Tier.ARCHIVE not in tiers and row.archive_status in HAD_COPIES:
            row.archive_status = CopyStatus.DELETED
    if not natives(row).exists():
        unneeded = row.snapshots.filter(kind__in=WITHOUT_SNAPSHOT).exclude(status=SnapshotStatus.DELETED)
        unneeded.exclude(pk__in=copied_instances()).update(status=SnapshotStatus.DELETED, deletion_time=now)
        _without_natives(row, tiers, now)
    row.save(
        update_fields=[
            "status", "status_before_deletion", "s3_copy_status", "archive_status", "marked_for_deletion", "deleted_at"
        ]
    )  # fmt: skip


def _without_natives(row: Backup, tiers: set[str], now: datetime) -> None:
    if row.deleted_at is not None:
        return
    if row.status in BACKUP_WITH_SNAPSHOTS:
        row.status_before_deletion = row.status
    known = row.status in BACKUP_WITH_SNAPSHOTS | MOVED
    if not tiers:
        row.status = BackupStatus.DELETED if known else row.status
        row.marked_for_deletion, row.deleted_at = True, now
        return
    if known:
        row.status = BackupStatus.MOVED_TO_S3 if Tier.S3 in tiers else BackupStatus.MOVED_TO_GLACIER
    # What was to go is gone. The copies have a retention of their own; as long as one is kept, the backup is.
    going = {Tier.S3: row.s3_copy_status, Tier.ARCHIVE: row.archive_status}
    row.marked_for_deletion = all(going[Tier(tier)] == CopyStatus.EXPIRED for tier in tiers)
