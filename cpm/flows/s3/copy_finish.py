"""The end of a copy to S3: what is not complete is forgotten, and the record gets its status."""

from collections.abc import Sequence
from dataclasses import dataclass

from cpm.aws.errors import AwsError
from cpm.flows.cleanup import deletion
from cpm.flows.errors import classify
from cpm.flows.messages import alerting
from cpm.flows.s3 import copy_parts
from cpm.jobs import queue
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind
from cpm.lib.states import CopyStatus, SnapshotKind, SnapshotStatus
from cpm.models import Backup, Policy, S3Copy, Snapshot, Target
from cpm.repository.errors import ObjectMissing, RepositoryError

QUEUE = "s3"
FINISH = "s3_copy.finish"
WORKED = frozenset({CopyStatus.COMPLETED, CopyStatus.ALL_VALID})


@dataclass(frozen=True, slots=True)
class _Result:
    status: CopyStatus
    words: str


def finish(context: StepContext) -> Outcome:
    """Forget what is not complete, and give the record its status."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    if backup.s3_copy_status in (CopyStatus.EXPIRED, CopyStatus.DELETED):
        return Done("The copies of this backup have been deleted since.")
    for copy in _unfinished(backup):
        _forget(context, copy)
    return Done(write=lambda: _settle(context, backup))


def _unfinished(backup: Backup) -> list[S3Copy]:
    rows = S3Copy.objects.filter(backup=backup).exclude(succeeded=True)
    return list(rows.select_related(*copy_parts.RELATED).order_by("pk"))


def _forget(context: StepContext, copy: S3Copy) -> None:
    """Drop what is stored of an unfinished copy. One that is complete after all counts.

    Raises errors that may pass: whether there is a manifest has to be known, for nobody looks for it again.
    """
    if copy_parts.gone(copy):
        return
    try:
        repository = copy_parts.opened(context, copy)
        try:
            manifest = repository.copy(copy.copy_id)
        except ObjectMissing:
            repository.abort_copy(copy.copy_id)
            return
    except (AwsError, RepositoryError) as error:
        if classify(error).retry:
            raise
        context.warn(f"What is stored of {copy.snapshot.aws_id} in S3 goes with a later prune. {error}")
        return
    valid = copy_parts.valid_mib(context, copy)
    with context.fenced():
        copy_parts.completed(context, copy, manifest, valid)


def _settle(context: StepContext, backup: Backup) -> None:
    copies = S3Copy.objects.filter(backup=backup)
    why = "The copy was aborted." if context.aborted else "The copy was not made."
    copies.filter(succeeded=None).update(
        status=SnapshotStatus.ERROR, succeeded=False, end_time=context.now, error=why
    )
    result = _result(context, backup)
    context.log(result.words, "Info" if result.status in WORKED else "Warning")
    progress = {"s3_copy_progress": 100} if result.status in WORKED else {}
    Backup.objects.filter(pk=backup.pk).update(s3_copy_status=result.status, **progress)
    _release_forced(context, backup)
    if result.status in WORKED:
        if backup.policy is not None:
            alerting.clear_alert(user=backup.user, policy=backup.policy, category=alerting.S3_COPY_FAILED)
            _drop_originals(backup, backup.policy)
    elif result.status is not CopyStatus.ABORTED:
        error = copies.filter(succeeded=False).exclude(error="").values_list("error", flat=True).first()
        alert(backup, f"{result.words} {error or ''}".strip(), context)


def _result(context: StepContext, backup: Backup) -> _Result:
    copies = S3Copy.objects.filter(backup=backup)
    good = [copy.snapshot for copy in copies.filter(succeeded=True).select_related("snapshot")]
    failed = copies.exclude(succeeded=True).count()
    worked = count(good)
    if not failed:
        left_out = context.payload["left_out"]
        if left_out:
            return _Result(
                CopyStatus.ALL_VALID, f"{worked} copied to S3; {left_out} targets cannot be copied."
            )
        return _Result(CopyStatus.COMPLETED, f"{worked} copied to S3.")
    if context.aborted:
        return _Result(CopyStatus.ABORTED, f"The copy to S3 was aborted; {worked} had been copied.")
    if not good:
        return _Result(CopyStatus.FAILED, "Nothing could be copied to S3.")
    return _Result(CopyStatus.PARTIAL, f"{worked} copied to S3, {failed} failed.")


def count(rows: Sequence[Snapshot]) -> str:
    """So many volumes and databases, in words."""
    volumes = sum(row.kind == SnapshotKind.VOLUME for row in rows)
    databases = len(rows) - volumes
    return f"{volumes} volumes" + (f" and {databases} databases" if databases else "")


def _release_forced(context: StepContext, backup: Backup) -> None:
    """Targets that were to be copied in full once, and were."""
    failed = S3Copy.objects.filter(backup=backup).exclude(succeeded=True)
    done = Target.objects.filter(pk__in=context.payload["forced"]).exclude(
        pk__in=failed.values("snapshot__target_id")
    )
    done.update(force_full_s3_copy=False)


def _drop_originals(backup: Backup, policy: Policy) -> None:
    """Delete the snapshots that were copied, when only the copies are to be kept."""
    if not policy.s3_delete_originals or backup.is_freezer_item:
        return
    copied = backup.s3_copies.filter(succeeded=True).values("snapshot_id")
    rows = backup.snapshots.filter(pk__in=copied, status=SnapshotStatus.COMPLETED)
    pks = list(rows.order_by("pk").values_list("pk", flat=True))
    if pks:
        queues = {kind.name: kind.queue for kind in deletion.KINDS}
        queue.create_jobs([deletion.job(backup, pks)], engine_queues=queues)


def alert(backup: Backup, message: str, context: StepContext) -> None:
    if backup.policy is None:
        return
    alerting.raise_alert(
        user=backup.user,
        policy=backup.policy,
        category=alerting.S3_COPY_FAILED,
        title=f"Copy to S3 of policy {backup.policy.name} failed",
        message=message,
        now=context.now,
    )


def finish_failed(context: StepContext, message: str) -> None:
    """Taking stock itself went wrong; what is known to be complete stays so."""
    backup = Backup.objects.select_related("policy", "user").get(pk=context.subject_id)
    copies = S3Copy.objects.filter(backup=backup)
    copies.filter(succeeded=None).update(
        status=SnapshotStatus.ERROR, succeeded=False, end_time=context.now, error=message
    )
    if context.aborted:
        status = CopyStatus.ABORTED
    else:
        status = CopyStatus.PARTIAL if copies.filter(succeeded=True).exists() else CopyStatus.FAILED
    Backup.objects.filter(pk=backup.pk).update(s3_copy_status=status)
    alert(backup, message, context)


KINDS = (StepKind(FINISH, QUEUE, finish, failed=finish_failed),)
