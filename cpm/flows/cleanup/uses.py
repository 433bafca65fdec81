"""What is being done with backups now, so that nothing is deleted under it."""

from collections.abc import Collection

from cpm.lib.states import CopyStatus, ExploreStatus, JobState, RecoveryStatus
from cpm.models import Backup, ExploreSession, Job

COPY_JOB = "s3_copy"
"""Kind of the jobs that copy a backup to S3; their subject is the backup."""
OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)
OPEN_COPIES = (CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS, CopyStatus.ABORTING)
OPEN_SESSIONS = (ExploreStatus.UNDEFINED, ExploreStatus.OPEN, ExploreStatus.EXPIRING)


def recovered(backups: Collection[int]) -> set[int]:
    """Which of these backups a recovery is reading, from snapshots or from S3."""
    rows = Backup.objects.filter(pk__in=backups, recoveries__status=RecoveryStatus.IN_PROGRESS)
    return set(rows.values_list("pk", flat=True))


def read(backups: Collection[int]) -> set[int]:
    """Which of these backups a recovery or an explore session is reading."""
    sessions = ExploreSession.objects.filter(status__in=OPEN_SESSIONS, backup__in=backups)
    return recovered(backups) | {pk for pk in sessions.values_list("backup_id", flat=True) if pk is not None}


def copied(backups: Collection[int], *, but_for: int | None = None) -> set[int]:
    """Which of these backups are being copied to S3, also those whose copy waits for its turn; a job may leave itself
    out of the question."""
    jobs = Job.objects.filter(
        kind=COPY_JOB, subject_type="backup", subject_id__in=backups, state__in=OPEN_JOBS
    )
    found = {of for pk, of in jobs.values_list("pk", "subject_id") if of is not None and pk != but_for}
    if but_for is None:
        open_rows = Backup.objects.filter(pk__in=backups, s3_copy_status__in=OPEN_COPIES)
        found |= set(open_rows.values_list("pk", flat=True))
    return found


def archived(backups: Collection[int]) -> set[int]:
    """Which of these backups are being archived."""
    rows = Backup.objects.filter(pk__in=backups, archive_status__in=OPEN_COPIES)
    return set(rows.values_list("pk", flat=True))
