"""Copying a backup to S3: when it is its turn, what is copied, and what became of it.

plan -> parts of each volume -> seal of each volume -> finish; for databases export -> pack -> seal, and what was staged goes
(`export`). Volumes and databases are independent: one that fails leaves the others alone. A job that is asked to stop keeps what is complete and forgets the rest.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.conf import settings
from django.db import transaction

from cpm.flows import polling
from cpm.flows.cleanup.uses import COPY_JOB
from cpm.flows.s3 import copy_finish, copy_parts, export, export_pack, operation, repositories
from cpm.flows.s3.copy_finish import WORKED
from cpm.flows.s3.operation import OPEN
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.lib import places
from cpm.lib.states import (
    BACKUP_WITH_SNAPSHOTS,
    BackupStatus,
    CopyStatus,
    RunIf,
    SnapshotKind,
    SnapshotStatus,
    Tier,
)
from cpm.models import Backup, Job, Policy, S3Copy, S3Repository, Snapshot
from cpm.models.base import new_ids
from cpm.repository.blocks import SEGMENT_BLOCKS

QUEUE = "s3"
SUBJECT = "backup"
GIB_SEGMENTS = 2
"""Segments of the map of a volume in a GiB."""
BASED_PARTS = 8
"""How much larger parts are where only changes are read: looking at a part costs more than copying it then."""
# After these the next copy is due when its interval has passed; after others the next backup is copied.
COUNTED = frozenset(WORKED | {CopyStatus.PARTIAL, CopyStatus.EXPIRED, CopyStatus.DELETED})
GOING_ON = (CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS)
_EVER_WITH_SNAPSHOTS = BACKUP_WITH_SNAPSHOTS | {
    BackupStatus.DELETED, BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER
}  # fmt: skip


# -- beginning and stopping -------------------------------------------------------------------------------


def request(context: StepContext, backup_id: int, *, aborted: bool = False) -> None:
    """Make the copy job of a backup if its policy wants one. Call it in the transaction that ends the backup or its DR.

    A backup without snapshots, or one that was asked to stop, is skipped. Asking twice changes nothing.
    """
    backup = Backup.objects.select_related("policy").get(pk=backup_id)
    policy = backup.policy
    if policy is None or not policy.s3_enabled or policy.s3_repository_id is None:
        return
    why = ""
    if backup.status not in BACKUP_WITH_SNAPSHOTS:
        why = "the backup has no snapshots."
    elif aborted:
        why = "the backup was aborted."
    status = CopyStatus.SKIPPED if why else CopyStatus.INITIALIZING
    if not Backup.objects.filter(pk=backup.pk, s3_copy_status=CopyStatus.NOT_STARTED).update(
        s3_copy_status=status
    ):
        return
    if why:
        context.log(f"Not copied to S3: {why}")
        return
    spec = queue.JobSpec(COPY_JOB, SUBJECT, backup.pk, [StepSpec("s3_copy.plan")], user_id=backup.user_id)
    queue.create_jobs([spec], engine_queues=QUEUES)


def abort(backup: Backup) -> bool:
    """Ask the copy of the backup to stop. Returns whether one was going on that had not been asked before."""
    with transaction.atomic():
        # The backup's row first, as the steps do that end the copy.
        row = Backup.objects.select_for_update(of=("self",)).get(pk=backup.pk)
        jobs = Job.objects.filter(kind=COPY_JOB, subject_type=SUBJECT, subject_id=row.pk, state__in=OPEN)
        asked = [queue.request_abort(pk) for pk in jobs.values_list("pk", flat=True)]
        if any(asked):
            Backup.objects.filter(pk=row.pk, s3_copy_status__in=GOING_ON).update(
                s3_copy_status=CopyStatus.ABORTING
            )
    return any(asked)


# -- plan -------------------------------------------------------------------------------------------------


def plan(context: StepContext) -> Outcome:
    """Take the policy, decide whether it is this backup's turn, and plan the parts of every volume."""
    backup = Backup.objects.select_related("policy__s3_repository__account", "account").get(
        pk=context.subject_id
    )
    policy = backup.policy
    if policy is None or not policy.s3_enabled or policy.s3_repository is None:
        return _skipped(context, "its policy does not want copies any more.")
    if why := _not_its_turn(backup, policy):
        return _skipped(context, why)
    holder = operation.take(context, policy)
    if holder is not None:
        repeated = {attempt.pk for attempt in _attempts_before(backup)}
        if holder.kind == COPY_JOB and holder.subject_id not in repeated:
            return _skipped(context, "another backup of the policy is being copied.")
        return polling.again(context.now, message="Another operation of the policy in S3 is running.")
    sources, left_out = _sources(context, backup, policy.s3_repository)
    if not sources:
        return _skipped(context, "none of its snapshots can be copied.")
    # Says at once, and for all volumes, what is wrong with the repository.
    repositories.opened(policy.s3_repository, session=f"cpm-job-{context.job_id}")
    copies = _copies(backup, policy, policy.s3_repository, sources, context.now)
    specs = _steps(copies, left_out, _forced(sources))
    context.log(f"Copying {copy_finish.count(sources)} to S3 repository {policy.s3_repository.name}.")

    def write() -> None:
        S3Copy.objects.bulk_create(copies)
        # An abort that came in the meantime is not forgotten.
        row = Backup.objects.filter(pk=backup.pk).exclude(s3_copy_status=CopyStatus.ABORTING)
        row.update(s3_copy_status=CopyStatus.IN_PROGRESS)

    return Done(then=specs, write=write)


def _not_its_turn(backup: Backup, policy: Policy) -> str:
    """Why the backup is not to be copied; empty if it is its turn."""
    if (
        backup.status not in BACKUP_WITH_SNAPSHOTS
        or backup.marked_for_deletion
        or backup.deleted_at is not None
    ):
        return "its snapshots are gone, or about to go."
    attempts = _attempts_before(backup)
    copied = [attempt for attempt in attempts if attempt.s3_copy_status in COUNTED]
    if any(_is_whole(attempt) for attempt in copied):
        return "an earlier attempt of the same backup has been copied with all its snapshots."
    if copied:
        # That attempt lacked snapshots which this one has.
        return ""
    before = Backup.objects.filter(policy=policy, start_time__lt=backup.start_time)
    last = before.filter(s3_copy_status__in=COUNTED).order_by("-start_time").first()
    if last is None:
        return ""
    since = before.filter(start_time__gt=last.start_time, status__in=_EVER_WITH_SNAPSHOTS)
    rows = dict(since.exclude(pk__in=[attempt.pk for attempt in attempts]).values_list("pk", "retry_of_id"))
    # A run and the runs that repeat it are one backup.
    distance = 1 + sum(repeated not in rows for repeated in rows.values())
    if distance < policy.s3_copy_interval:
        return f"it is backup {distance} of {policy.s3_copy_interval} since the last copy."
    return ""


def _attempts_before(backup: Backup) -> list[Backup]:
    """The runs that this one repeats."""
    found: list[Backup] = []
    while backup.retry_of is not None:
        backup = backup.retry_of
        found.append(backup)
    return found


def _is_whole(backup: Backup) -> bool:
    """Whether all snapshots of the backup succeeded and were copied."""
    ended = backup.status_before_deletion or backup.status
    return ended in (BackupStatus.SUCCESSFUL, BackupStatus.PARTIAL) and backup.s3_copy_status in WORKED


def _sources(context: StepContext, backup: Backup, repository: S3Repository) -> tuple[list[Snapshot], int]:
    """The snapshots that can be copied, and how many cannot be by their nature."""
    rows = backup.snapshots.filter(succeeded=True, original=None, status=SnapshotStatus.COMPLETED).exclude(
        aws_id=""
    )
    rows = rows.exclude(kind__in=[SnapshotKind.INSTANCE, SnapshotKind.INITIAL_AMI])
    found = list(rows.select_related("target", "account", "parent").order_by("pk"))
    sources = [row for row in found if row.kind == SnapshotKind.VOLUME and row.capacity and not _is_sold(row)]
    for row in filter(export.is_database, found):
        if why := export.why_not(row, repository):
            context.log(f"The database {row.source_id} is not copied to S3: {why}")
        else:
            sources.append(row)
    return sources, len(found) - len(sources)


def _is_sold(row: Snapshot) -> bool:
    """Whether it is the root volume of an instance from the AWS Marketplace, which must not leave AWS's hands."""
    parent, target = row.parent, row.target
    if parent is None or target is None or not target.details.get("has_product_code"):
        return False
    return row.device == parent.details.get("aws_root_device")


def _forced(sources: Iterable[Snapshot]) -> set[int]:
    """Targets that are to be copied in full this time."""
    return {row.target.pk for row in sources if row.target is not None and row.target.force_full_s3_copy}


def _copies(
    backup: Backup, policy: Policy, repository: S3Repository, sources: Sequence[Snapshot], now: datetime
) -> list[S3Copy]:
    forced = _forced(sources)
    volumes = [row for row in sources if row.kind == SnapshotKind.VOLUME]
    bases = _bases(repository, [row for row in volumes if row.target_id not in forced])
    ids = new_ids(S3Copy, len(sources))
    return [
        S3Copy(
            id=pk,
            backup=backup,
            snapshot=row,
            repository=repository,
            base=bases.get(row.pk),
            copy_id=uuid.uuid4().hex,
            tier=Tier.S3,
            storage_class=policy.s3_storage_class,
            start_time=now,
        )
        for pk, row in zip(ids, sources, strict=True)
    ]


def _bases(repository: S3Repository, sources: Sequence[Snapshot]) -> dict[int, S3Copy]:
    """For each snapshot the newest sound copy of the same volume whose own snapshot is still there."""
    copies = S3Copy.objects.filter(
        repository=repository,
        tier=Tier.S3,
        status=SnapshotStatus.COMPLETED,
        succeeded=True,
        damaged=False,
        snapshot__source_id__in={row.source_id for row in sources},
        snapshot__status=SnapshotStatus.COMPLETED,
    ).select_related("snapshot")
    newest = {
        (copy.snapshot.account_id, copy.snapshot.region, copy.snapshot.source_id): copy
        for copy in copies.order_by("snapshot__start_time", "pk")
    }
    found = {row.pk: newest.get((row.account_id, row.region, row.source_id)) for row in sources}
    return {pk: copy for pk, copy in found.items() if copy is not None}


def _steps(copies: Sequence[S3Copy], left_out: int, forced: set[int]) -> list[StepSpec]:
    specs: list[StepSpec] = []
    for copy in copies:
        row = copy.snapshot
        if row.kind != SnapshotKind.VOLUME:
            specs += export.steps(copy)
            continue
        assert row.capacity
        place = places.at(row.aws_account_number, row.region)
        length = part_segments() * (BASED_PARTS if copy.base_id else 1)
        segments = row.capacity * GIB_SEGMENTS
        keys = []
        for first in range(0, segments, length):
            end = min(first + length, segments)
            payload = {"copy": copy.pk, "first": first, "end": end, "blocks": (end - first) * SEGMENT_BLOCKS}
            keys.append(f"part-{copy.pk}-{first}")
            specs.append(StepSpec(copy_parts.PART, payload, key=keys[-1], place=place))
        seal = StepSpec(
            copy_parts.SEAL, {"copy": copy.pk}, key=f"seal-{copy.pk}", after=tuple(keys), place=place
        )
        specs.append(seal)
    everything = tuple(spec.key for spec in specs)
    told = {"left_out": left_out, "forced": sorted(forced)}
    return [*specs, StepSpec(copy_finish.FINISH, told, key="finish", after=everything, run_if=RunIf.ALWAYS)]


def part_segments() -> int:
    """Segments of a part, at least one."""
    return max(1, round(settings.CPM_S3_PART_GIB * GIB_SEGMENTS))


def _skipped(context: StepContext, why: str) -> Outcome:
    def write() -> None:
        context.log(f"Not copied to S3: {why}")
        Backup.objects.filter(pk=context.subject_id).update(s3_copy_status=CopyStatus.SKIPPED)

    return Done(f"Skipped: {why}", write=write)


def plan_failed(context: StepContext, message: str) -> None:
    """The copy could not even be planned."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    Backup.objects.filter(pk=backup.pk).update(s3_copy_status=CopyStatus.FAILED)
    copy_finish.alert(backup, message, context)


def plan_cancelled(context: StepContext) -> None:
    context.log("Not copied to S3: it was aborted before it began.")
    Backup.objects.filter(pk=context.subject_id).update(s3_copy_status=CopyStatus.ABORTED)


KINDS: tuple[StepKind, ...] = (
    StepKind("s3_copy.plan", QUEUE, plan, failed=plan_failed, cancelled=plan_cancelled),
    *copy_parts.KINDS,
    *export.KINDS,
    *export_pack.KINDS,
    *copy_finish.KINDS,
)
QUEUES = {kind.name: kind.queue for kind in KINDS}
