"""The end of records: what was deleted long ago, its logs, old jobs, and the beginning of the audit log."""

from datetime import timedelta

from django.db.models import Q

from cpm.flows.cleanup import audit_retention, remains, retention
from cpm.flows.messages import notify
from cpm.flows.s3 import archive, repositories
from cpm.flows.s3 import cleanup as s3_cleanup
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind
from cpm.jobs.states import FINAL_JOB_STATES
from cpm.lib.states import SnapshotStatus
from cpm.models import Backup, Job, LogLine, S3Copy, ServerSettings, Snapshot

BATCH = 500


def purge(context: StepContext) -> Outcome:
    """Drop records, logs and jobs that are older than the settings keep them. Nothing in AWS is touched."""
    server = ServerSettings.current()
    before = context.now - timedelta(days=server.keep_deleted_backup_records)
    with context.fenced():
        live = Snapshot.objects.exclude(status=SnapshotStatus.DELETED).exclude(aws_id="")
        copied = S3Copy.objects.filter(status__in=remains.LIVING)
        gone = Backup.objects.filter(deleted_at__lt=before, is_freezer_item=False).exclude(
            Q(pk__in=live.values("backup_id")) | Q(pk__in=copied.values("backup_id"))
        )
        ids = list(gone.values_list("pk", flat=True)[:BATCH])
        Backup.objects.filter(pk__in=ids).delete()
        LogLine.objects.filter(subject_type="backup", subject_id__in=ids).delete()
        old_jobs = Job.objects.filter(finished_at__lt=before, state__in=FINAL_JOB_STATES)
        jobs = list(old_jobs.values_list("pk", flat=True)[:BATCH])
        Job.objects.filter(pk__in=jobs).delete()
        # What goes on for ever; other lines go with what they are about.
        logs = (retention.SUBJECT, s3_cleanup.SUBJECT, archive.SUBJECT, repositories.SUBJECT, notify.SUBJECT)
        LogLine.objects.filter(subject_type__in=logs, time__lt=before).delete()
        oldest = context.now - timedelta(days=server.keep_user_audit_logs_days)
        audited = audit_retention.purge(before=oldest, now=context.now)
    if ids:
        context.log(f"Removed {len(ids)} records of backups that were deleted before {before:%Y-%m-%d}.")
    if audited:
        context.log(f"Removed {audited} audit records from before {oldest:%Y-%m-%d}.")
    return Done()


KINDS = (StepKind("cleanup.purge", retention.QUEUE, purge),)
