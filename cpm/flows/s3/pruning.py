"""The upkeep of repositories. Once a day, when the cleanups of a repository's policies are through, what no copy references
is collected; and locks are extended, which waits for nobody.

One round of a prune takes as long as it takes to read the index and the maps of all copies, so it is one step; whoever dies in it
is succeeded by somebody who starts it again, which is safe at any point (FORMAT.md, "Prune").
"""

from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from cpm.flows.cleanup import remains, uses
from cpm.flows.messages import alerting
from cpm.flows.s3 import deletion, repositories
from cpm.flows.s3.operation import OPEN
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec, Wait
from cpm.lib.states import DeletionStatus, JobState, SnapshotStatus, StepState, Tier
from cpm.models import Job, Policy, S3Copy, S3Repository, Step
from cpm.repository import locks, manifest
from cpm.repository.errors import StaleView
from cpm.repository.prune import prune
from cpm.repository.repository import Repository

KIND, LOCKS_KIND = "prune", "extend_locks"
SUBJECT = repositories.SUBJECT
STEP, LOCKS_STEP = "s3.prune", "s3.extend_locks"
QUEUE = "s3"
QUEUES = {STEP: QUEUE, LOCKS_STEP: QUEUE}
BEFORE = ("s3_cleanup", "archive")
"""Jobs after which it is worth pruning: those that delete copies."""
MIB = 1 << 20


def local_midnight(now: datetime) -> datetime:
    """When the date by the server's clock began; the first time, where clocks go back to midnight."""
    local = timezone.localtime(now, timezone.get_default_timezone())
    return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def request(row: S3Repository, *, now: datetime, but_for: int | None = None) -> Job | None:
    """Make the repository's job of today, unless it has had one or a cleanup of its policies is still open (which then
    asks again); `but_for` is the job that asks. Needs a transaction."""
    locked = S3Repository.objects.select_for_update(of=("self",)).get(pk=row.pk)
    if locked.deletion_status != DeletionStatus.NONE or _had_today(locked, now) or _others(locked, but_for):
        return None
    return _make(row, KIND, STEP)


def request_locks(row: S3Repository) -> Job | None:
    """Make the job that extends the locks of a repository, if it locks and has none open. Needs a transaction."""
    locked = S3Repository.objects.select_for_update(of=("self",)).get(pk=row.pk)
    jobs = Job.objects.filter(kind=LOCKS_KIND, subject_id=row.pk, state__in=OPEN)
    if not locked.lock_mode or locked.deletion_status != DeletionStatus.NONE or jobs.exists():
        return None
    return _make(row, LOCKS_KIND, LOCKS_STEP)


def _make(row: S3Repository, kind: str, step: str) -> Job:
    spec = queue.JobSpec(
        kind, SUBJECT, row.pk, [StepSpec(step, place=deletion.place_of(row))], user_id=row.user_id
    )
    return queue.create_jobs([spec], engine_queues=QUEUES)[0]


def request_for(policy: Policy, *, now: datetime, but_for: int) -> None:
    """Have the repositories pruned that hold or held copies of the policy. Needs a transaction."""
    rows = S3Repository.objects.filter(s3_copies__backup__policy=policy).distinct()
    for row in rows.select_related("account").order_by("pk"):
        request(row, now=now, but_for=but_for)


def _had_today(row: S3Repository, now: datetime) -> bool:
    """Whether a prune is going on or was made since midnight by the server's clock. One that failed does not count."""
    midnight = local_midnight(now)
    jobs = Job.objects.filter(kind=KIND, subject_type=SUBJECT, subject_id=row.pk)
    running = Q(state__in=OPEN)
    return jobs.filter(running | Q(state=JobState.SUCCEEDED, created_at__gte=midnight)).exists()


def _others(row: S3Repository, but_for: int | None) -> bool:
    policies = Policy.objects.filter(Q(s3_repository=row) | Q(backups__s3_copies__repository=row))
    jobs = Job.objects.filter(kind__in=BEFORE, subject_id__in=policies.values("pk"), state__in=OPEN)
    return jobs.exclude(pk__in=() if but_for is None else (but_for,)).exists()


def run(context: StepContext) -> Outcome:
    """Delete what deletions have left, prune, and take stock."""
    row = _row(context)
    if row is None:
        return Done("The repository is being deleted.")
    repository = repositories.opened(row, session=f"cpm-job-{context.job_id}")
    leftovers = _leftovers(row, repository)
    try:
        report = prune(repository)
    except StaleView as stale:
        return Wait(0.0, message=str(stale))
    repositories.take_stock(row, repository)
    words = (
        f"Repository {row.name}: {report.deleted} objects ({report.deleted_bytes // MIB} MiB) deleted,"
        f" {report.condemned} packs to be deleted in a day, {report.repacked} repacked, {report.locked} locked."
    )
    if leftovers:
        words += f" {leftovers} copies were deleted whose locks had ended or whose deletion had broken off."
    context.log(words)
    if report.lost_blocks:
        context.warn(f"{report.lost_blocks} referenced blocks are missing. Verify the repository.")
    return Done(words, write=lambda: _refresh_alert(context, ""))


def extend_locks(context: StepContext) -> Outcome:
    """Lock what the kept copies need for as long as the repository locks, from now on. Damage fails the step at the end,
    when all else is locked."""
    row = _row(context)
    if row is None or not row.lock_mode:
        return Done("The repository does not lock, or is being deleted.")
    # What waits for the end of its lock must not wait for ever.
    going = {copy.stored_id for copy in deletion.going().filter(repository=row)}
    repository = repositories.opened(row, session=f"cpm-job-{context.job_id}")
    extended = locks.extend(repository, without=_over(row) | going)
    words = f"Repository {row.name}: {extended} locks were extended."
    context.log(words)
    return Done(words, write=lambda: _refresh_alert(context, ""))


def _row(context: StepContext) -> S3Repository | None:
    """The repository, unless it is gone or about to go."""
    rows = S3Repository.objects.select_related("account", "user")
    return rows.filter(pk=context.subject_id, deletion_status=DeletionStatus.NONE).first()


def _refresh_alert(context: StepContext, failure: str) -> None:
    """One alert tells of all repositories of a user whose last upkeep failed. Needs a transaction, in which the step ends
    with this failure, or with none."""
    row = _row(context)
    if row is None:
        return
    names = dict(
        S3Repository.objects.select_for_update(of=("self",), no_key=True)
        .filter(user=row.user)
        .order_by("pk")
        .values_list("pk", "name")
    )
    ended = Step.objects.filter(
        kind__in=QUEUES, job__subject_type=SUBJECT, job__subject_id__in=names, finished_at__isnull=False
    )
    latest = ended.order_by("job__subject_id", "kind", "-pk").distinct("job__subject_id", "kind")
    failures = {
        (of, kind): message
        for of, kind, state, message in latest.values_list("job__subject_id", "kind", "state", "message")
        if state == StepState.FAILED and of is not None
    }
    failures.pop((row.pk, context.lease.kind), None)
    if failure:
        failures[row.pk, context.lease.kind] = failure
    if not failures:
        alerting.clear_alert(user=row.user, policy=None, category=alerting.REPOSITORY_UPKEEP)
        return
    alerting.raise_alert(
        user=row.user,
        policy=None,
        category=alerting.REPOSITORY_UPKEEP,
        title=f"Upkeep of S3 repository failed: {', '.join(sorted({names[of] for of, _ in failures}))}",
        message="\n\n".join(f"{names[of]}: {message}" for (of, _), message in sorted(failures.items())),
        now=context.now,
    )


def _leftovers(row: S3Repository, repository: Repository) -> int:
    """Delete what is stored of copies that are deleted or archived by our records: S3 had it locked then, or the worker
    died between its record and the deletion. What no record knows stays: the database may be a restored one."""
    doomed = _over(row) & set(manifest.ids(repository.store))
    return sum(deletion.locked_until(repository, one) is None for one in sorted(doomed))


def _over(row: S3Repository) -> set[str]:
    """Ids of copies that failed, are deleted or are archived by our records, and so no copies any more."""
    rows = S3Copy.objects.filter(repository=row)
    moved = rows.filter(tier=Tier.ARCHIVE).values_list("copy_id", flat=True)
    deleted = rows.filter(status=SnapshotStatus.DELETED).values_list("copy_id", "archive_id")
    # While its backup is being copied it may still turn out to be complete.
    failed = rows.filter(status=SnapshotStatus.ERROR).exclude(backup__s3_copy_status__in=uses.OPEN_COPIES)
    living = rows.filter(status__in=remains.LIVING).only("copy_id", "archive_id", "tier")
    over = {*moved, *failed.values_list("copy_id", flat=True), *(one for pair in deleted for one in pair)}
    return over - {copy.stored_id for copy in living}


KINDS = (
    StepKind(STEP, QUEUE, run, failed=_refresh_alert),
    StepKind(LOCKS_STEP, QUEUE, extend_locks, failed=_refresh_alert),
)
