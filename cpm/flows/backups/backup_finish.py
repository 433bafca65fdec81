"""Taking stock of a backup run: its status, the policy's counters, alerts, the retry and what comes next."""

from datetime import datetime, timedelta

from django.db.models import F

from cpm.flows.backups.backup_rules import good_enough, status_of
from cpm.flows.backups.script_results import SCRIPT_KINDS
from cpm.flows.cleanup import retention
from cpm.flows.dr import dr_copy
from cpm.flows.messages import alerting
from cpm.flows.s3 import copy
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind
from cpm.lib.states import (
    BackupStatus,
    DrStatus,
    SnapshotKind,
    SnapshotStatus,
    StepState,
)
from cpm.models import Backup, Policy, PolicySchedule, Snapshot, Step

QUEUE = "backup"
_WHAT = {False: "snapshots", True: "S3 syncs"}


def finish(context: StepContext) -> Outcome:
    """Give the record its final status. Snapshots that nobody could account for count as failed."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    scripts_failed = (
        Step.objects.filter(job_id=context.job_id, kind__in=SCRIPT_KINDS)
        .exclude(state__in=[StepState.SUCCEEDED])
        .exclude(pk=context.step_id)
        .exists()
    )

    def write() -> None:
        open_rows = Snapshot.objects.filter(backup=backup, succeeded=None).exclude(kind=SnapshotKind.INSTANCE)
        open_rows.update(
            status=SnapshotStatus.ERROR, succeeded=False, end_time=context.now, error="It was not started."
        )
        _settle_instances(backup, context.now)
        leaves = Snapshot.objects.filter(backup=backup, children=None)
        worked = leaves.filter(succeeded=True).count()
        failed = leaves.exclude(succeeded=True).count()
        kinds = {kind == SnapshotKind.S3_SYNC for kind in leaves.values_list("kind", flat=True)}
        what = " and ".join(_WHAT[syncs] for syncs in sorted(kinds)) or _WHAT[False]
        status, words = status_of(worked, failed, scripts_failed, what)
        if context.aborted:
            words = f"Aborted. {words}"
        context.log(words, "Info" if status == BackupStatus.SUCCESSFUL else "Warning")
        settle(backup, status, words, now=context.now, context=context, aborted=context.aborted)

    return Done(write=write)


def fail(context: StepContext, why: str) -> None:
    """End a run that never got to its snapshots."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    settle(backup, BackupStatus.FAILED, why, now=context.now, context=context, aborted=context.aborted)


def settle(
    backup: Backup, status: BackupStatus, words: str, *, now: datetime, context: StepContext, aborted: bool
) -> None:
    """Write the outcome everywhere it shows. Needs a transaction; runs once per record."""
    policy = backup.policy
    good = policy is not None and good_enough(status, policy)
    dr_status = DrStatus(backup.dr_status)
    if dr_status is DrStatus.PENDING and status in {BackupStatus.FAILED}:
        dr_status = DrStatus.SKIPPED
    retry_at = None if good or aborted or policy is None else _retry_at(backup, policy, now)
    Backup.objects.filter(pk=backup.pk).update(
        status=status,
        end_time=now,
        outcome=words,
        dr_status=dr_status,
        retry_scheduled=retry_at is not None,
        retry_at=retry_at,
    )
    if policy is None:
        return
    if good:
        Policy.objects.filter(pk=policy.pk).update(consecutive_failures=0, last_success_at=now)
        alerting.clear_alert(user=backup.user, policy=policy, category=alerting.BACKUP_FAILED)
    elif not aborted:
        _count_failure(backup, policy, words, now)
    if retry_at is not None:
        context.warn(f"The policy runs again at {retry_at:%Y-%m-%d %H:%M:%S} UTC.")
    if dr_status is DrStatus.PENDING:
        # Older backups are needed until its copies are complete; the end of DR asks for the cleanup.
        dr_copy.request(backup, now=now)
        return
    copy.request(context, backup.pk, aborted=aborted)
    if backup.slot is None and not backup.is_retry:
        retention.request(now=now, policy_id=policy.pk)


def _count_failure(backup: Backup, policy: Policy, words: str, now: datetime) -> None:
    Policy.objects.filter(pk=policy.pk).update(consecutive_failures=F("consecutive_failures") + 1)
    failures = Policy.objects.values_list("consecutive_failures", flat=True).get(pk=policy.pk)
    if failures >= max(policy.num_failures_for_alert, 1):
        alerting.raise_alert(
            user=backup.user,
            policy=policy,
            category=alerting.BACKUP_FAILED,
            title=f"Backup of policy {policy.name} failed",
            message=f"{failures} runs in a row did not succeed. The last one: {words}",
            now=now,
        )


def _retry_at(backup: Backup, policy: Policy, now: datetime) -> datetime | None:
    """When to try again: not after the last retry, and not when the next scheduled run comes first."""
    if backup.attempt >= policy.number_of_retries:
        return None
    retry_at = now + timedelta(minutes=policy.minutes_between_retries)
    scheduled = (
        PolicySchedule.objects.filter(policy=policy, next_run_at__isnull=False)
        .order_by("next_run_at")
        .values_list("next_run_at", flat=True)
        .first()
    )
    return None if policy.enabled and scheduled is not None and scheduled <= retry_at else retry_at


def _settle_instances(backup: Backup, now: datetime) -> None:
    """An instance record succeeded when all its snapshots and images did."""
    for row in Snapshot.objects.filter(backup=backup, kind=SnapshotKind.INSTANCE, succeeded=None):
        states = list(row.children.values_list("succeeded", flat=True))
        worked = bool(states) and all(states)
        Snapshot.objects.filter(pk=row.pk).update(
            succeeded=worked,
            status=SnapshotStatus.COMPLETED if worked else SnapshotStatus.ERROR,
            start_time=backup.start_time,
            end_time=now,
            progress=100 if worked else row.progress,
        )


KINDS = (StepKind("backup.finish", QUEUE, finish),)
