"""Cleanup: finds backups that have outlived their policy and has them deleted.

Runs at the server's interval, after a "run now" (for that policy) and on demand.
"""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Q, QuerySet

from cpm.flows.backups.backup_rules import good_enough
from cpm.flows.cleanup import deletion, remains, uses
from cpm.flows.cleanup.retention_rules import Candidate, judge
from cpm.flows.messages import alerting
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib.states import (
    BACKUP_RUNNING,
    BACKUP_WITH_SNAPSHOTS,
    DrStatus,
    RunIf,
    Severity,
    SnapshotStatus,
    StepState,
)
from cpm.models import Backup, Job, Policy, ServerSettings, Snapshot, Step

KIND = "cleanup"
SUBJECT = "cleanup"
QUEUE = "control"
DR_OPEN = (DrStatus.PENDING, DrStatus.IN_PROGRESS)
DR_CLEAN = (DrStatus.NONE, DrStatus.SKIPPED, DrStatus.COMPLETED)


def request(*, now: datetime, policy_id: int | None = None) -> Job:
    """Make a cleanup job for one policy or all. Call it in the transaction that gives the reason for it."""
    if policy_id is None:
        ServerSettings.objects.filter(pk=1).update(last_cleanup_time=now)
    steps = [
        StepSpec("cleanup.plan", {"policy": policy_id}, key="plan"),
        StepSpec("cleanup.purge", key="purge", after=("plan",), run_if=RunIf.ENDED),
    ]
    return queue.create_jobs([queue.JobSpec(KIND, SUBJECT, None, steps)], engine_queues=QUEUES)[0]


def plan(context: StepContext) -> Outcome:
    """Judge every policy, mark what has expired, and plan its deletion."""
    policies = Policy.objects.select_related("user")
    if context.payload["policy"] is not None:
        policies = policies.filter(pk=context.payload["policy"])
    with context.fenced():
        for policy in policies.iterator(chunk_size=500):
            _judge(context, policy)
    specs = [deletion.step(backup, outlived=True) for backup in _undeleted(context.payload["policy"])]
    specs += [deletion.step(row.backup, [row.pk]) for row in _unneeded_initial_amis()]
    if specs:
        context.log(f"{len(specs)} backups have outlived their policies; their snapshots are being deleted.")
    return Done(then=specs)


def candidates(policy: Policy) -> list[Candidate]:
    """The backups of a policy as retention sees them: all that hold native snapshots or ran, but the frozen. Those that
    were moved to S3 have a retention of their own (`cpm.flows.s3.retention_rules`)."""
    rows = list(
        Backup.objects.filter(policy=policy, is_freezer_item=False, marked_for_deletion=False)
        .exclude(status__in=remains.MOVED)
        .only("id", "start_time", "status", "dr_status")
        .order_by("start_time")
    )
    ids = [row.pk for row in rows]
    used = uses.read(ids) | uses.copied(ids)
    return [
        Candidate(
            id=row.pk,
            start=row.start_time,
            clean=good_enough(row.status, policy) and row.dr_status in DR_CLEAN,
            live=row.status in BACKUP_WITH_SNAPSHOTS,
            held=row.status in BACKUP_RUNNING or row.dr_status in DR_OPEN or row.pk in used,
        )
        for row in rows
    ]


def _judge(context: StepContext, policy: Policy) -> None:
    verdict = judge(candidates(policy), max(policy.generations, 1))
    if verdict.expired:
        Backup.objects.filter(pk__in=verdict.expired, marked_for_deletion=False).update(
            marked_for_deletion=True
        )
        context.log(
            f"Policy {policy.name}: {len(verdict.expired)} backups are beyond {policy.generations} generations."
        )
    if verdict.stuck_since != policy.retention_stuck_since:
        Policy.objects.filter(pk=policy.pk).update(retention_stuck_since=verdict.stuck_since)
    if verdict.stuck_since is None:
        alerting.clear_alert(user=policy.user, policy=policy, category=alerting.RETENTION_STUCK)
        return
    since = f"{verdict.stuck_since:%Y-%m-%d %H:%M} UTC"
    context.warn(
        f"Policy {policy.name}: retention is stuck since {since}, no backup has been clean since then."
    )
    alerting.raise_alert(
        user=policy.user,
        policy=policy,
        category=alerting.RETENTION_STUCK,
        severity=Severity.WARNING,
        title=f"Retention of policy {policy.name} is stuck since {since}",
        message="Since then no backup (with its DR copies) has finished without an issue, so nothing is deleted"
        " and snapshots pile up. Mend or remove the targets that fail.",
        now=context.now,
    )


def _undeleted(policy_id: int | None) -> Iterable[Backup]:
    """Marked backups that nobody is deleting: new ones, and those whose deletion failed last time."""
    marked = Backup.objects.filter(marked_for_deletion=True, deleted_at=None, is_freezer_item=False)
    # What is left of these is in S3, whose cleanup deletes it.
    marked = marked.exclude(status__in=remains.MOVED)
    if policy_id is not None:
        marked = marked.filter(policy_id=policy_id)
    return marked.exclude(pk__in=_being_deleted()).order_by("start_time", "pk")


def _being_deleted() -> list[int]:
    open_steps = Step.objects.filter(kind="cleanup.delete", payload__rows=None).exclude(
        state__in=[StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED]
    )
    return list(open_steps.values_list("payload__backup", flat=True))


def _unneeded_initial_amis() -> QuerySet[Snapshot]:
    """Initial AMIs of deleted backups that no live backup's instance starts from any more."""
    return (
        Snapshot.objects.filter(kind__in=remains.INITIAL, backup__deleted_at__isnull=False)
        .exclude(Q(status=SnapshotStatus.DELETED) | Q(pk__in=deletion.needed_initial_amis()) | Q(aws_id=""))
        .select_related("backup")
    )


KINDS = (
    StepKind("cleanup.plan", QUEUE, plan),
    *deletion.KINDS,
)
# Old records go after every cleanup (`cpm.flows.cleanup.old_records`).
QUEUES = {kind.name: kind.queue for kind in KINDS} | {"cleanup.purge": QUEUE}
