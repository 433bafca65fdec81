"""Cleanup of a policy's copies in S3: finds what has outlived the rules, deletes it or has it archived, and has the
repositories pruned.

It runs at midnight by the server's clock and on demand, and waits while another operation in S3 has the policy.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from cpm.flows import polling
from cpm.flows.cleanup import remains, uses
from cpm.flows.messages import alerting
from cpm.flows.s3 import archive, deletion, operation, pruning
from cpm.flows.s3.retention_rules import (
    ArchiveRules,
    Candidate,
    Fate,
    Rules,
    Span,
    archive_over,
    expired,
    expires_at_once,
    fate,
)
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib.states import CopyStatus, RetentionUnit, RunIf, Severity, StepState, Tier
from cpm.models import Backup, Job, Policy, S3Copy, S3Repository, Step

KIND = SUBJECT = "s3_cleanup"
PLAN, DELETE, FINISH = "s3_cleanup.plan", "s3_cleanup.delete", "s3_cleanup.finish"
QUEUE = "s3"
QUEUES = {PLAN: QUEUE}
GOOD = (CopyStatus.COMPLETED, CopyStatus.ALL_VALID)


def request(policies: Iterable[Policy]) -> list[Job]:
    """Make the job of each of these policies, but for those that have one open. Needs a transaction."""
    rows = list(policies)
    ids = [policy.pk for policy in rows]
    opened = Job.objects.filter(kind=KIND, subject_id__in=ids, state__in=operation.OPEN)
    busy = set(opened.values_list("subject_id", flat=True))
    specs = [
        JobSpec(KIND, SUBJECT, policy.pk, [StepSpec(PLAN)], user_id=policy.user_id)
        for policy in rows
        if policy.pk not in busy
    ]
    return queue.create_jobs(specs, engine_queues=QUEUES)


def rules_of(policy: Policy) -> Rules:
    """How long the policy keeps copies in S3."""
    time = Span(policy.s3_keep_time, RetentionUnit(policy.s3_keep_time_unit))
    return Rules(
        generations=max(policy.s3_generations, 1) if policy.s3_keep_by_generations else None,
        time=time if policy.s3_keep_by_time else None,
    )


def archive_rules_of(policy: Policy) -> ArchiveRules:
    """What the policy archives and for how long; archives that are there have their time also when it archives no more."""
    return ArchiveRules(
        every=Span(max(policy.archive_every, 1), RetentionUnit(policy.archive_every_unit)),
        keep=Span(policy.archive_keep, RetentionUnit(policy.archive_keep_unit)),
    )


def plan(context: StepContext) -> Outcome:
    """Take the policy, judge its copies, and mark what is to go."""
    policy = Policy.objects.select_related("user").filter(pk=context.subject_id).first()
    if policy is None:
        return Done("The policy was deleted.")
    holder = operation.take(context, policy)
    if holder is not None:
        words = f"Job {holder.pk} ({holder.kind}) is working in S3 for this policy."
        return polling.again(context.now, message=words)
    if policy.archive_enabled and expires_at_once(rules_of(policy), archive_rules_of(policy)):
        with context.fenced():
            _stop(context, policy)
            # Others may have copies in the same repositories.
            pruning.request_for(policy, now=context.now, but_for=context.job_id)
        return Done("Nothing was cleaned up: the time in the archive is too short.")
    with context.fenced():
        alerting.clear_alert(user=policy.user, policy=policy, category=alerting.ARCHIVE_TOO_SHORT)
        found = judge(policy, context.now)
        over = _archives_over(policy, context.now)
        _expire(found.delete, "s3_copy_status")
        _expire(over, "archive_status")
        for backup in Backup.objects.filter(pk__in={*found.delete, *over}).order_by("pk"):
            remains.settle(backup, now=context.now)
        _tell(context, policy, found, over)
    repositories = S3Repository.objects.filter(
        pk__in=deletion.going().filter(backup__policy=policy).values("repository")
    )
    specs = [
        StepSpec(DELETE, {"repository": row.pk}, key=f"delete-{row.pk}", place=deletion.place_of(row))
        for row in repositories.select_related("account").order_by("pk")
    ]
    after = tuple(spec.key for spec in specs)
    finish = StepSpec(FINISH, {"archive": list(found.archive)}, after=after, run_if=RunIf.ALWAYS)
    return Done(then=[*specs, finish])


def judge(policy: Policy, now: datetime) -> Fate:
    """What becomes of the copies of a policy by its rules."""
    due = expired(candidates(policy), rules_of(policy), now)
    archived = (
        Backup.objects.filter(policy=policy, s3_copies__tier=Tier.ARCHIVE).order_by("-start_time").first()
    )
    return fate(
        due,
        archive_rules_of(policy) if policy.archive_enabled else None,
        archived.start_time if archived is not None else None,
        now,
    )


def candidates(policy: Policy) -> list[Candidate]:
    """The backups of a policy that have copies in S3, as the rules see them. Frozen ones and those whose copies are to go
    already are left out."""
    living = S3Copy.objects.filter(backup__policy=policy, status__in=remains.LIVING)
    in_s3 = living.filter(tier=Tier.S3)
    rows = list(
        Backup.objects.filter(pk__in=in_s3.values("backup_id"), is_freezer_item=False)
        .exclude(s3_copy_status=CopyStatus.EXPIRED)
        .only("id", "start_time", "s3_copy_status")
    )
    ids = [row.pk for row in rows]
    used = uses.read(ids) | uses.copied(ids) | uses.archived(ids)
    damaged = set(in_s3.filter(damaged=True).values_list("backup_id", flat=True))
    archived = set(living.filter(tier=Tier.ARCHIVE).values_list("backup_id", flat=True))
    return [
        Candidate(
            id=row.pk,
            start=row.start_time,
            good=row.s3_copy_status in GOOD and row.pk not in damaged,
            held=row.pk in used,
            part_archived=row.pk in archived,
        )
        for row in rows
    ]


def _archives_over(policy: Policy, now: datetime) -> list[int]:
    living = S3Copy.objects.filter(backup__policy=policy, tier=Tier.ARCHIVE, status__in=remains.LIVING)
    rows = (
        Backup.objects.filter(pk__in=living.values("backup_id"), is_freezer_item=False)
        .exclude(archive_status=CopyStatus.EXPIRED)
        .only("id", "start_time")
    )
    rules = archive_rules_of(policy)
    over = [row.pk for row in rows if archive_over(row.start_time, rules, now)]
    used = uses.read(over) | uses.archived(over)
    return [pk for pk in over if pk not in used]


def _expire(backups: Collection[int], column: str) -> None:
    Backup.objects.filter(pk__in=backups, is_freezer_item=False).update(**{column: CopyStatus.EXPIRED})


def _stop(context: StepContext, policy: Policy) -> None:
    message = (
        "The time in the archive counts from the backup. It must be at least a month longer than the time in S3, or"
        " backups would be deleted as soon as they are archived. Until that is mended nothing of this policy is archived"
        " or deleted in S3."
    )
    context.warn(f"Policy {policy.name}: {message}")
    alerting.raise_alert(
        user=policy.user,
        policy=policy,
        category=alerting.ARCHIVE_TOO_SHORT,
        title=f"The archive of policy {policy.name} would expire at once",
        message=message,
        now=context.now,
    )


def _tell(context: StepContext, policy: Policy, found: Fate, over: Collection[int]) -> None:
    if found.delete:
        context.log(f"Policy {policy.name}: the copies of {len(found.delete)} backups in S3 have expired.")
    if found.archive:
        context.log(f"Policy {policy.name}: the copies of {len(found.archive)} backups are to be archived.")
    if over:
        context.log(f"Policy {policy.name}: the archives of {len(over)} backups have expired.")
    if found.late:
        context.warn(
            f"Policy {policy.name}: the copies of {len(found.late)} backups leave S3 too late for the archive; they stay in"
            " S3 until their time in the archive would be over."
        )
    if found.waiting:
        context.log(
            f"Policy {policy.name}: the copies of {len(found.waiting)} backups have expired and stay in S3 until another"
            " backup of their period is archived."
        )


def delete(context: StepContext) -> Outcome:
    """Delete the policy's copies in one repository that are to go, those of earlier cleanups included."""
    rows = deletion.going().filter(
        backup__policy=context.subject_id, repository=context.payload["repository"]
    )
    return deletion.work_off(context, rows)


def finish(context: StepContext) -> Outcome:
    """Say what failed, have the archive made, and the repositories pruned."""
    policy = Policy.objects.select_related("user").filter(pk=context.subject_id).first()
    if policy is None:
        return Done("The policy was deleted.")
    failed = Step.objects.filter(job_id=context.job_id, kind=DELETE, state=StepState.FAILED)
    words = " ".join(failed.order_by("pk").values_list("message", flat=True))

    def write() -> None:
        if words:
            _alert(context, policy, words)
        elif not context.aborted:
            alerting.clear_alert(user=policy.user, policy=policy, category=alerting.S3_CLEANUP_FAILED)
        if context.payload["archive"] and not context.aborted:
            archive.request(policy, context.payload["archive"])
        pruning.request_for(policy, now=context.now, but_for=context.job_id)

    return Done("Aborted." if context.aborted else "", write=write)


def _plan_failed(context: StepContext, message: str) -> None:
    policy = Policy.objects.select_related("user").filter(pk=context.subject_id).first()
    if policy is not None:
        _alert(context, policy, message)


def _alert(context: StepContext, policy: Policy, message: str) -> None:
    alerting.raise_alert(
        user=policy.user,
        policy=policy,
        category=alerting.S3_CLEANUP_FAILED,
        severity=Severity.WARNING,
        title=f"Copies of policy {policy.name} in S3 could not be cleaned up",
        message=message,
        now=context.now,
    )


KINDS = (
    StepKind(PLAN, QUEUE, plan, failed=_plan_failed),
    StepKind(DELETE, QUEUE, delete),
    StepKind(FINISH, QUEUE, finish),
)
