"""How a backup, a recovery or a job stands, read from its rows for `--watch`."""

from cpm.commands.terminal import Bar, Picture
from cpm.flows.cleanup.uses import OPEN_COPIES
from cpm.jobs.states import FINAL_JOB_STATES, FINAL_STEP_STATES
from cpm.lib.states import (
    BACKUP_RUNNING,
    BackupStatus,
    CopyStatus,
    DrStatus,
    JobState,
    RecoveryStatus,
    SnapshotKind,
    SnapshotStatus,
    StepState,
)
from cpm.models import Backup, Job, Recovery, Snapshot, Step
from cpm.resources.registry import kind_label

_DR_RUNNING = {DrStatus.PENDING, DrStatus.IN_PROGRESS}
_RECOVERING = {
    "recover.plan_instance": "Plan the instance",
    "recover.plan_volume": "Plan the volume",
    "recover.plan_whole": "Plan the recovery",
    "recover.share": "Share with the account",
    "recover.copy": "Copy a snapshot",
    "recover.copy_image": "Copy the image",
    "recover.whole_copy": "Copy the snapshot",
    "recover.whole": "Restore",
    "recover.image": "Make an image",
    "recover.s3_retrieve": "Retrieve from the archive",
    "recover.s3_write": "Write a snapshot from S3",
    "recover.volume": "Make a volume",
    "recover.nic": "Make an interface",
    "recover.launch": "Launch the instance",
    "recover.stop": "Stop the instance",
    "recover.attach": "Attach the volume",
    "recover.start": "Start the instance",
    "recover.up": "Wait for the instance",
    "recover.clean": "Remove what is temporary",
    "recover.finish": "Finish",
}
_COPY_LACKS = {CopyStatus.FAILED, CopyStatus.PARTIAL, CopyStatus.ABORTED}


def of_backup(backup_id: int) -> Picture:
    """A bar per snapshot, and one for the copy to S3; over when the backup, its DR and its copy are."""
    backup = Backup.objects.get(pk=backup_id)
    copying = backup.s3_copy_status in OPEN_COPIES
    running = backup.status in BACKUP_RUNNING or backup.dr_status in _DR_RUNNING or copying
    status, dr = BackupStatus(backup.status).label, DrStatus(backup.dr_status).label
    words = status if backup.dr_status == DrStatus.NONE else f"{status}, DR: {dr}"
    if backup.s3_copy_status != CopyStatus.NOT_STARTED:
        words += f", S3: {s3_words(backup)[0]}"
    # A copy moves the backup where its snapshots are not kept.
    good = backup.status in (BackupStatus.SUCCESSFUL, BackupStatus.MOVED_TO_S3)
    ok = good and backup.dr_status != DrStatus.FAILED and backup.s3_copy_status not in _COPY_LACKS
    # An instance's own record is only the bracket round its volumes.
    snapshots = Snapshot.objects.filter(backup=backup).exclude(kind=SnapshotKind.INSTANCE).order_by("id")
    bars = [_of_snapshot(snapshot) for snapshot in snapshots]
    if copying or backup.s3_copy_progress:
        label = CopyStatus(backup.s3_copy_status).label
        bars.append(Bar(f"c{backup.pk}", "Copy to S3", backup.s3_copy_progress, label))
    outcome = " ".join(text for text in (backup.outcome, backup.dr_outcome) if text)
    return Picture(
        bars, not running, ok, f"Backup {backup.pk} of {backup.policy_name}: {words}. {outcome}".strip()
    )


def s3_words(backup: Backup) -> tuple[str, str]:
    """How the copy to S3 and the archive of a backup stand, with how far they are; empty for what was never started."""
    pairs = (
        (backup.s3_copy_status, backup.s3_copy_progress),
        (backup.archive_status, backup.archive_progress),
    )
    copy, archive = (
        f"{CopyStatus(status).label} {progress} %" if status in OPEN_COPIES
        else "" if status == CopyStatus.NOT_STARTED else CopyStatus(status).label
        for status, progress in pairs
    )  # fmt: skip
    return copy, archive


def _of_snapshot(snapshot: Snapshot) -> Bar:
    done = snapshot.status == SnapshotStatus.COMPLETED
    words = snapshot.error or SnapshotStatus(snapshot.status).label
    label = f"{kind_label(snapshot.kind)} {snapshot.source_id} ({snapshot.region})"
    return Bar(f"s{snapshot.pk}", label, 100 if done else snapshot.progress, words)


def of_recovery(recovery_id: int) -> Picture:
    """A bar per step of the recovery's job."""
    recovery = Recovery.objects.get(pk=recovery_id)
    jobs = Job.objects.filter(subject_type="recovery", subject_id=recovery.pk)
    steps = Step.objects.filter(job__in=jobs).order_by("id")
    bars = [_of_step(step, _RECOVERING.get(step.kind)) for step in steps]
    status = RecoveryStatus(recovery.status)
    made = f" {recovery.recovered_resource_ids}" if recovery.recovered_resource_ids else ""
    summary = f"Recovery {recovery.pk}: {status.label}.{made} {recovery.outcome}".strip()
    return Picture(bars, status != RecoveryStatus.IN_PROGRESS, status == RecoveryStatus.SUCCESSFUL, summary)


def of_job(job_id: int) -> Picture:
    """A bar per step."""
    job = Job.objects.get(pk=job_id)
    steps = list(Step.objects.filter(job=job).order_by("id"))
    over = job.state in FINAL_JOB_STATES
    return Picture(
        [_of_step(step) for step in steps],
        over,
        job.state == JobState.SUCCEEDED,
        f"Job {job.pk} {job.state}.",
    )


def _of_step(step: Step, label: str | None = None) -> Bar:
    over = step.state in FINAL_STEP_STATES
    percent = 100 if step.state == StepState.SUCCEEDED else step.progress
    words = step.state if over or not step.message else f"{step.state}: {step.message}"
    return Bar(f"t{step.pk}", label or step.kind, percent, words)
