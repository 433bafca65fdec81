"""Archiving: copies that have reached the end of their time in S3 move to Glacier or Deep Archive.

Each is written anew as a self-contained copy (FORMAT.md, `archives/`), so that it needs nothing that expires. Its record
changes the tier when the archive is whole; then the copy in S3 is deleted. Until that moment the copy in S3 counts, so an
abort or a failure loses nothing. `S3Copy.archive_status` is I while the archive is written, P when it is whole and the copy
in S3 still counts, S when it has replaced that.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db.models import Avg, Q, QuerySet

from cpm.flows import polling
from cpm.flows.cleanup import remains, uses
from cpm.flows.messages import alerting
from cpm.flows.s3 import deletion, operation, pruning, repositories
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib.states import CopyStatus, DeletionStatus, RunIf, SnapshotStatus, StepState, Tier
from cpm.models import Backup, Job, Policy, S3Copy, Step
from cpm.repository.blocks import SEGMENT_BLOCKS
from cpm.repository.errors import Damaged, ObjectMissing
from cpm.repository.manifest import Draft
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository
from cpm.repository.writer import CopyWriter

KIND = SUBJECT = "archive"
BEGIN, COPY, FINISH = "archive.begin", "archive.copy", "archive.finish"
QUEUE = "s3"
QUEUES = {BEGIN: QUEUE}
SLICE_SECONDS = 90.0
CHUNK = 4
"""Segments between two checkpoints: 2 GiB of volume."""
READERS = 4
OF_THE_SOURCE = ("copies/", "packs/")
"""Where damage is the copy's own; that of an index can be mended, and that of the archive is none of the copy."""
OPEN = (CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS)
GOING = (CopyStatus.EXPIRED, CopyStatus.DELETED)


def request(policy: Policy, backups: Sequence[int]) -> Job:
    """Make the job that archives the copies of these backups. Needs a transaction; from now on they are held."""
    # Since they were judged somebody may have asked for their deletion.
    chosen = Backup.objects.filter(pk__in=backups, is_freezer_item=False)
    chosen.exclude(s3_copy_status__in=GOING).exclude(archive_status=CopyStatus.EXPIRED).update(
        archive_status=CopyStatus.INITIALIZING, archive_progress=0
    )
    step = StepSpec(BEGIN, {"backups": list(backups)})
    spec = JobSpec(KIND, SUBJECT, policy.pk, [step], user_id=policy.user_id)
    return queue.create_jobs([spec], engine_queues=QUEUES)[0]


def abort(job: Job) -> None:
    """Ask the job to stop; the backups whose copies are not archived yet show it. Needs a transaction."""
    # The backups first and in order, as the step does that ends the job.
    for payload in Step.objects.filter(job=job, kind=BEGIN).values_list("payload", flat=True):
        rows = Backup.objects.filter(pk__in=payload["backups"], archive_status__in=OPEN)
        ids = list(rows.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
        Backup.objects.filter(pk__in=ids).update(archive_status=CopyStatus.ABORTING)
    queue.request_abort(job.pk)


def begin(context: StepContext) -> Outcome:
    """Take the policy and give every copy that is to be archived the id of its archive."""
    policy = Policy.objects.filter(pk=context.subject_id).first()
    ids = context.payload["backups"]
    if policy is None:
        return Done("The policy was deleted.", write=lambda: _settle(ids, context.now))
    holder = operation.take(context, policy)
    if holder is not None:
        words = f"Job {holder.pk} ({holder.kind}) is working in S3 for this policy."
        return polling.again(context.now, message=words)
    chosen = Backup.objects.filter(pk__in=ids, archive_status=CopyStatus.INITIALIZING, is_freezer_item=False)
    chosen = chosen.exclude(s3_copy_status=CopyStatus.EXPIRED).exclude(pk__in=uses.read(ids))
    copies = list(
        S3Copy.objects.filter(
            backup__in=chosen, tier=Tier.S3, status=SnapshotStatus.COMPLETED, repository__isnull=False
        )
        .exclude(repository__deletion_status=DeletionStatus.IN_PROGRESS)
        .select_related("repository__account")
        .order_by("pk")
    )
    specs = [_copy_spec(copy, _assign(copy, policy)) for copy in copies]
    after = tuple(spec.key for spec in specs)

    def write() -> None:
        S3Copy.objects.bulk_update(copies, ["archive_id", "archive_class", "archive_status"])
        Backup.objects.filter(
            pk__in=[copy.backup_id for copy in copies], archive_status=CopyStatus.INITIALIZING
        ).update(archive_status=CopyStatus.IN_PROGRESS)
        context.log(f"Archiving {len(copies)} copies of {len({copy.backup_id for copy in copies})} backups.")

    finish = StepSpec(FINISH, {"backups": ids}, after=after, run_if=RunIf.ALWAYS)
    return Done(then=[*specs, finish], write=write)


def _assign(copy: S3Copy, policy: Policy) -> str:
    """Give the copy an archive to be written. Returns the id of an earlier one that was not finished for all that is known.

    Ids are never used again, since prune may be deleting what is left of the earlier one.
    """
    if copy.archive_id and copy.archive_status == CopyStatus.IN_PROGRESS:
        return ""
    earlier = copy.archive_id
    copy.archive_id = os.urandom(16).hex()
    copy.archive_class = policy.archive_storage_class
    copy.archive_status = CopyStatus.INITIALIZING
    return earlier


def _copy_spec(copy: S3Copy, earlier: str) -> StepSpec:
    assert copy.repository is not None
    payload = {"copy": copy.pk, "backup": copy.backup_id, "archive": copy.archive_id, "earlier": earlier}
    return StepSpec(COPY, payload, key=f"copy-{copy.pk}", place=deletion.place_of(copy.repository))


def _begin_over(context: StepContext, message: str = "") -> None:
    _settle(context.payload["backups"], context.now)


# -- one copy ---------------------------------------------------------------------------------------------


def archive(context: StepContext) -> Outcome:
    """Write one archive, a slice at a time, and delete the copy that it replaces."""
    copy = _copy(context)
    if (
        copy is None
        or copy.repository is None
        or copy.repository.deletion_status == DeletionStatus.IN_PROGRESS
    ):
        return Done("The copy was deleted.")
    repository = _opened(context, copy)
    if copy.tier == Tier.S3:
        if copy.status != SnapshotStatus.COMPLETED:
            _discard(repository, copy.archive_id)
            return Done("The copy was deleted.")
        if copy.archive_status != CopyStatus.IN_PROGRESS:
            unfinished = _written(context, copy, repository)
            if unfinished is not None:
                return unfinished
        if uses.read([copy.backup_id]):
            # Not waited for: a recovery from S3 waits for this job, since one operation at a time has the policy.
            return Done("The copy in S3 is being read. The next cleanup puts its archive in its place.")
        _moved(context, copy)
    return _replaced(context, copy, repository)


def _replaced(context: StepContext, copy: S3Copy, repository: Repository) -> Outcome:
    """Delete the copy in S3 whose archive counts now."""
    until = deletion.locked_until(repository, copy.copy_id)
    words = (
        f"Snapshot {copy.snapshot.aws_id} of {copy.snapshot.source_id} is archived ({copy.archive_class})."
    )
    if until is not None:
        words += f" Its copy in S3 is locked until {until:%Y-%m-%d %H:%M} UTC and deleted then."
    context.log(words)
    return Done(words)


def _copy(context: StepContext) -> S3Copy | None:
    """The copy that the step archives; None when it is gone or is archived under another id."""
    rows = S3Copy.objects.select_related("backup", "snapshot", "repository__account")
    return rows.filter(pk=context.payload["copy"], archive_id=context.payload["archive"]).first()


def _opened(context: StepContext, copy: S3Copy) -> Repository:
    assert copy.repository is not None
    session = f"cpm-job-{context.job_id}"
    return repositories.opened(copy.repository, session=session, archive_class=copy.archive_class)


def _written(context: StepContext, copy: S3Copy, repository: Repository) -> Outcome | None:
    """Go on with the archive. None when it is whole, and its record says so."""
    if context.cursor is None and context.payload["earlier"]:
        _discard(repository, context.payload["earlier"])
    try:
        unfinished = _write(context, copy, repository)
    except Damaged as damage:
        if damage.key.startswith(OF_THE_SOURCE):
            return Failed(str(damage), write=lambda: _mark_damaged(copy))
        raise
    if unfinished is None:
        with context.fenced():
            S3Copy.objects.filter(pk=copy.pk, tier=Tier.S3).update(archive_status=CopyStatus.IN_PROGRESS)
    return unfinished


def _mark_damaged(copy: S3Copy) -> None:
    """The next cleanup archives another backup of the period instead."""
    S3Copy.objects.filter(pk=copy.pk).update(damaged=True)


def _write(context: StepContext, copy: S3Copy, repository: Repository) -> Outcome | None:
    """Write segments until the slice is over, and the manifest behind the last one."""
    try:
        source = Reader(repository, repository.copy(copy.copy_id))
    except ObjectMissing as missing:
        raise Damaged(missing.key, "the copy that was to be archived is missing") from None
    draft = replace(source.manifest.draft, copy_id=copy.archive_id, parent=copy.copy_id, archive=True)
    at = int((context.cursor or {}).get("next", 0))
    ends = time.monotonic() + SLICE_SECONDS
    while at < draft.segment_count:
        if at and (time.monotonic() > ends or context.refresh_aborted()):
            return Wait(0.0, progress=_percent(at, draft))
        at = _chunk(repository, draft, source, at)
        context.save_cursor({"next": at})
        context.progress(_percent(at, draft), f"Archiving {copy.snapshot.source_id}.")
        with context.fenced():
            _show_progress(context, copy.backup_id)
    with context.fenced():
        pass
    repository.finish_copy(draft)
    return None


def _chunk(repository: Repository, draft: Draft, source: Reader, first: int) -> int:
    """Archive some segments and make them durable; returns the number of the next one."""
    end = min(first + CHUNK, draft.segment_count)
    start, stop = first * SEGMENT_BLOCKS, min(end * SEGMENT_BLOCKS, draft.blocks)
    with CopyWriter(repository, draft, first=first, end=end) as writer:
        # Packs that a dead worker has stored without an index cannot be read any more to be adopted: prune deletes them.
        wanted = set(writer.plan(start, stop, list(source.allocated(start, stop))))
        with source.gather(start, stop, threads=READERS) as blocks:
            for block, data in blocks:
                if block in wanted:
                    writer.write(block, data)
        writer.checkpoint(stop)
    return end


def _percent(segments: int, draft: Draft) -> int:
    return 100 * segments // max(draft.segment_count, 1)


def _show_progress(context: StepContext, backup_id: int) -> None:
    steps = Step.objects.filter(job_id=context.job_id, kind=COPY, payload__backup=backup_id)
    mean = steps.aggregate(mean=Avg("progress"))["mean"]
    Backup.objects.filter(pk=backup_id).update(archive_progress=int(mean or 0))


def _moved(context: StepContext, copy: S3Copy) -> None:
    """The archive is what counts from now on."""
    with context.fenced():
        S3Copy.objects.filter(pk=copy.pk, tier=Tier.S3).update(
            tier=Tier.ARCHIVE,
            archive_status=CopyStatus.COMPLETED,
            archived_at=context.now,
            error="",
            damaged=False,
        )


def _discard(repository: Repository, archive_id: str) -> None:
    """Forget an archive that does not count; prune collects its packs."""
    deletion.locked_until(repository, archive_id)


def cancel(context: StepContext) -> None:
    copy = _copy(context)
    if copy is not None and copy.tier == Tier.S3 and copy.repository is not None:
        _discard(_opened(context, copy), copy.archive_id)


def overtaken(context: StepContext) -> None:
    """What was written after the step was cancelled or begun anew belongs to nobody."""
    copy = S3Copy.objects.select_related("repository__account").filter(pk=context.payload["copy"]).first()
    if copy is not None and copy.repository is not None and copy.archive_id != context.payload["archive"]:
        _discard(_opened(context, copy), context.payload["archive"])


def _own(context: StepContext) -> QuerySet[S3Copy]:
    """The step's copy, while it counts and the archive does not."""
    payload = context.payload
    return S3Copy.objects.filter(pk=payload["copy"], archive_id=payload["archive"], tier=Tier.S3)


def _copy_failed(context: StepContext, message: str) -> None:
    # The id stays: under it a manifest may be stored whose writer was not told. A whole archive stays P, and is used.
    written = Q(archive_status=CopyStatus.IN_PROGRESS)
    _own(context).exclude(written).update(archive_status=CopyStatus.FAILED)
    _own(context).update(error=message)


def _copy_cancelled(context: StepContext) -> None:
    _own(context).update(archive_status=CopyStatus.ABORTED, archive_id="", archive_class="", error="")


# -- the end ----------------------------------------------------------------------------------------------


def finish(context: StepContext) -> Outcome:
    """Bring the backups' statuses in line with what was archived, say what failed, and have the repositories pruned."""
    policy = Policy.objects.select_related("user").filter(pk=context.subject_id).first()
    failed = Step.objects.filter(job_id=context.job_id, kind=COPY, state=StepState.FAILED)
    words = " ".join(dict.fromkeys(failed.order_by("pk").values_list("message", flat=True)[:5]))

    def write() -> None:
        _settle(context.payload["backups"], context.now)
        if policy is None:
            return
        if words:
            alerting.raise_alert(
                user=policy.user,
                policy=policy,
                category=alerting.ARCHIVE_FAILED,
                title=f"Copies of policy {policy.name} could not be archived",
                message=words,
                now=context.now,
            )
        elif not context.aborted:
            alerting.clear_alert(user=policy.user, policy=policy, category=alerting.ARCHIVE_FAILED)
        pruning.request_for(policy, now=context.now, but_for=context.job_id)

    return Done("Aborted." if context.aborted else "", write=write)


def _settle(backups: Sequence[int], now: datetime) -> None:
    """Give backups that were being archived the status of what became of their copies."""
    for backup in Backup.objects.filter(pk__in=backups).order_by("pk"):
        statuses = set(remains.copies(backup).values_list("archive_status", flat=True))
        if backup.archive_status in (*OPEN, CopyStatus.ABORTING):
            _show(backup, _outcome(statuses, stopping=backup.archive_status == CopyStatus.ABORTING))
        remains.settle(backup, now=now)


def _show(backup: Backup, status: CopyStatus) -> None:
    values: dict[str, Any] = {"archive_status": status}
    if status == CopyStatus.COMPLETED:
        values["archive_progress"] = 100
    Backup.objects.filter(pk=backup.pk).update(**values)


def _outcome(statuses: set[str], *, stopping: bool) -> CopyStatus:
    if statuses == {CopyStatus.COMPLETED}:
        return CopyStatus.COMPLETED
    if CopyStatus.COMPLETED in statuses:
        return CopyStatus.PARTIAL
    for seen in (CopyStatus.FAILED, CopyStatus.ABORTED):
        if seen in statuses:
            return seen
    return CopyStatus.ABORTED if stopping else CopyStatus.NOT_STARTED


def _finish_failed(context: StepContext, message: str) -> None:
    _settle(context.payload["backups"], context.now)


KINDS = (
    StepKind(BEGIN, QUEUE, begin, failed=_begin_over, cancelled=_begin_over),
    StepKind(
        COPY,
        QUEUE,
        archive,
        cancel=cancel,
        failed=_copy_failed,
        cancelled=_copy_cancelled,
        overtaken=overtaken,
    ),
    StepKind(FINISH, QUEUE, finish, failed=_finish_failed),
)
