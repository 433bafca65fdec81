"""How a backup, a recovery or a job stands, read from its rows for `--watch`."""

from cpm.commands.terminal import Bar, Picture
from cpm.jobs.states import FINAL_JOB_STATES, FINAL_STEP_STATES
from cpm.lib.states import (
    BACKUP_RUNNING,
    BackupStatus,
    DrStatus,
    JobState,
    RecoveryStatus,
    SnapshotKind,
    SnapshotStatus,
    StepState,
)
from cpm.models import Backup, Job, Recovery, Snapshot, Step

_DR_RUNNING = {DrStatus.PENDING, DrStatus.IN_PROGRESS}


def of_backup(backup_id: int) -> Picture:
    """A bar per snapshot; over when the backup and its DR copies are."""
    backup = Backup.objects.get(pk=backup_id)
    running = backup.status in BACKUP_RUNNING or backup.dr_status in _DR_RUNNING
    status, dr = BackupStatus(backup.status).label, DrStatus(backup.dr_status).label
    words = status if backup.dr_status == DrStatus.NONE else f"{status}, DR: {dr}"
    ok = backup.status == BackupStatus.SUCCESSFUL and backup.dr_status != DrStatus.FAILED
    # An instance's own record is only the bracket round its volumes.
    snapshots = Snapshot.objects.filter(backup=backup).exclude(kind=SnapshotKind.INSTANCE).order_by("id")
    bars = [_of_snapshot(snapshot) for snapshot in snapshots]
    outcome = " ".join(text for text in (backup.outcome, backup.dr_outcome) if text)
    return Picture(
        bars, not running, ok, f"Backup {backup.pk} of {backup.policy_name}: {words}. {outcome}".strip()
    )


def _of_snapshot(snapshot: Snapshot) -> Bar:
    done = snapshot.status == SnapshotStatus.COMPLETED
    words = snapshot.error or SnapshotStatus(snapshot.status).label
    label = f"{SnapshotKind(snapshot.kind).label} {snapshot.source_id} ({snapshot.region})"
    return Bar(f"s{snapshot.pk}", label, 100 if done else snapshot.progress, words)


def of_recovery(recovery_id: int) -> Picture:
    """A bar per step of the recovery's job."""
    recovery = Recovery.objects.get(pk=recovery_id)
    jobs = Job.objects.filter(subject_type="recovery", subject_id=recovery.pk)
    bars = [_of_step(step) for step in Step.objects.filter(job__in=jobs).order_by("id")]
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


def _of_step(step: Step) -> Bar:
    over = step.state in FINAL_STEP_STATES
    percent = 100 if step.state == StepState.SUCCEEDED else step.progress
    words = step.state if over or not step.message else f"{step.state}: {step.message}"
    return Bar(f"t{step.pk}", step.kind, percent, words)
