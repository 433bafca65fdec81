"""The steps by which a snapshot of a database becomes files in the repository's bucket, and those go again.

RDS writes an export by itself, with the repository's export role, below `exports/` in the repository's folder. What packs
the files into the repository is `export_pack`. The task is named for its step, so AWS never starts two for one.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from cpm.aws.errors import AlreadyExists, InvalidState, LimitReached, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import polling
from cpm.flows.identities import identity_of
from cpm.flows.recoveries.recover_base import lists_lag, server_id, until_listed
from cpm.flows.s3 import copy_parts
from cpm.flows.s3.copy_parts import EXPORT, PACK, QUEUE, SEAL
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.lib import places
from cpm.lib.errors import Conflict
from cpm.lib.states import RunIf
from cpm.models import S3Copy, S3Repository, Snapshot, Step
from cpm.repository.errors import ObjectLocked
from cpm.repository.store import Info, Store
from cpm.resources.rds_snapshots import batches

UNSTAGE = "s3_copy.unstage"
STAGING = "exports/"
"""The folder of exported files in a repository's, which readers of the repository pass over."""
KIND = "rds_databases"
ENGINES = frozenset({"mysql", "postgres"})
MAGNETIC = "standard"
GIB_BLOCKS = 2048
SLICE_SECONDS = 60.0
BATCH = 1000
"""Objects that are deleted at once."""
ENDED = frozenset({"COMPLETE", "FAILED", "CANCELED"})


# -- what can be exported ---------------------------------------------------------------------------------


def is_database(row: Snapshot) -> bool:
    """Whether it is a database of an engine that can be copied to S3."""
    return row.kind == KIND and row.details.get("engine") in ENGINES


def why_not(row: Snapshot, repository: S3Repository) -> str:
    """What keeps the snapshot of a database from being exported, and what can be done; empty if nothing does."""
    role = repository.export_role_arn
    if row.details.get("storage_type") == MAGNETIC:
        return "RDS exports no snapshots of magnetic storage."
    if not role:
        return (
            f"repository {repository.name} has no export role: set one, with its key, by"
            f" `cpm repo set {repository.name} --export-role ARN --export-key KEY`."
        )
    if not _key(repository):
        return f"repository {repository.name} has no key for exports: set one by `cpm repo set --export-key`."
    if row.region != repository.aws_region:
        return (
            f"RDS exports within a region only; the database is in {row.region}, the bucket in {repository.aws_region}."
        )
    if role.split(":")[4] != row.aws_account_number:
        return f"the export role {role} is not one of its account {row.aws_account_number}."
    return ""


def steps(copy: S3Copy) -> list[StepSpec]:
    """The chain of a database's copy. What was staged goes however the rest ends."""
    row = copy.snapshot
    place = places.at(row.aws_account_number, row.region)
    export, pack = f"export-{copy.pk}", f"pack-{copy.pk}"
    # Until the files are there, each half is as much work as half of the database.
    payload = {"copy": copy.pk, "blocks": max(1, (row.capacity or 1) * GIB_BLOCKS // 2)}
    return [
        StepSpec(EXPORT, payload, key=export, place=place),
        StepSpec(PACK, payload, key=pack, after=(export,), place=place),
        StepSpec(SEAL, {"copy": copy.pk}, key=f"seal-{copy.pk}", after=(pack,), place=place),
        StepSpec(
            UNSTAGE, {"copy": copy.pk}, key=f"unstage-{copy.pk}", after=(export, pack), run_if=RunIf.ALWAYS, place=place
        ),
    ]


def _key(repository: S3Repository) -> str:
    return repository.export_kms_key_id or repository.kms_key


# -- export -----------------------------------------------------------------------------------------------


def task_of(step_id: int) -> str:
    """The name of the export task of a step; also that of its folder."""
    return f"cpm-{server_id().hex[:8]}-{step_id}"


def export(context: StepContext) -> Outcome:
    """Start the export task, and wait until its files are there. Payload: copy."""
    copy = copy_parts.of_payload(context)
    if over := copy_parts.ended(copy):
        return over
    rds, task = _rds(context, copy), task_of(context.step_id)

    def find() -> list[str]:
        return [task] if _is_ours(copy, described(rds, [task]).get(task)) else []

    def create() -> str:
        try:
            _start(rds, copy, task)
        except AlreadyExists:
            if not find():
                raise _busy(context, rds, copy, task) from None
        return task

    try:
        context.once(create=create, find=find, discard=lambda name: _cancel(rds, name))
    except LimitReached as error:
        if not error.transient:
            raise
        context.forget_intent()
        return polling.again(context.now, message="Waiting: RDS exports as many snapshots as it allows.")
    return _state(context, copy, described(rds, [task]).get(task))


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all tasks of one account and region together."""
    copies = {context.step_id: copy_parts.of_payload(context) for context in contexts}
    if copy_parts.gone(copies[contexts[0].step_id]):
        # Each is told by itself what has gone.
        return {context.step_id: export(context) for context in contexts}
    shown = described(_rds(contexts[0], copies[contexts[0].step_id]), [context.token for context in contexts])
    found = {one.step_id: _state(one, copies[one.step_id], shown.get(one.token)) for one in contexts}
    for context in {one.job_id: one for one in contexts}.values():
        copy_parts.show(context)
    return found


def _busy(context: StepContext, rds: AwsClient, copy: S3Copy, task: str) -> Exception:
    """What to raise when AWS has a task already that is not ours: it exports a snapshot once at a time."""
    if task in described(rds, [task]):
        return Conflict("export_exists", f"There is an export task {task} already, of something else.")
    context.forget_intent()
    words = f"Waiting: somebody else exports {copy.snapshot.aws_id} just now."
    return NotYet(polling.again(context.now, message=words))


def _rds(context: StepContext, copy: S3Copy) -> AwsClient:
    row = copy.snapshot
    assert row.account is not None
    return client(identity_of(row.account, session=f"cpm-job-{context.job_id}"), "rds", row.region)


def _start(rds: AwsClient, copy: S3Copy, task: str) -> None:
    repository = copy.repository
    assert repository is not None
    rds.call(
        "StartExportTask",
        ExportTaskIdentifier=task,
        SourceArn=copy.snapshot.details["snapshot_arn"],
        S3BucketName=repository.aws_bucket_name,
        S3Prefix=_folder(repository),
        IamRoleArn=repository.export_role_arn,
        KmsKeyId=_key(repository),
    )


def _folder(repository: S3Repository) -> str:
    return (repository.prefix + STAGING).rstrip("/")


def described(rds: AwsClient, tasks: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What AWS shows of these export tasks, by name; one that it does not know is missing."""
    return {
        one["ExportTaskIdentifier"]: one
        for batch in batches(tasks)
        for one in rds.paginate(
            "DescribeExportTasks",
            "ExportTasks",
            Filters=[{"Name": "export-task-identifier", "Values": batch}],
        )
    }


def _is_ours(copy: S3Copy, shown: Mapping[str, Any] | None) -> bool:
    """Whether it exports that snapshot to where this copy wants it."""
    repository = copy.repository
    if shown is None or repository is None:
        return False
    place = (shown["SourceArn"], shown["S3Bucket"], shown.get("S3Prefix", "").strip("/"))
    return place == (copy.snapshot.details["snapshot_arn"], repository.aws_bucket_name, _folder(repository))


def _state(context: StepContext, copy: S3Copy, shown: Mapping[str, Any] | None) -> Outcome:
    row = copy.snapshot
    if shown is None:
        began = context.lease.intent_at or context.now
        if lists_lag(context, began):
            return polling.again(context.now, message=f"Waiting for the export {context.token} to appear.")
        return Failed(f"The export {context.token} of {row.source_id} is gone.")
    status = shown["Status"]
    if status == "COMPLETE":
        if warning := shown.get("WarningMessage"):
            context.warn(f"RDS says of the export of {row.source_id}: {warning}")
        context.log(f"RDS exported {row.aws_id} of {row.source_id} (task {context.token}).")
        return Done()
    if status == "FAILED":
        return Failed(f"RDS could not export {row.aws_id} of {row.source_id}: {shown.get('FailureCause') or 'no cause given'}")
    if status in ("CANCELING", "CANCELED"):
        return Failed(f"The export {context.token} of {row.source_id} was cancelled by somebody else.")
    group = polling.group(row.account_id or 0, row.region, "s3-exports")
    percent = int(shown.get("PercentProgress") or 0)
    return polling.again(context.now, group=group, progress=percent, message=f"RDS exports {row.source_id}.")


# -- what was staged --------------------------------------------------------------------------------------


def export_step(context: StepContext) -> Step:
    """The step of this job that exports for the copy of the payload."""
    return Step.objects.get(job_id=context.job_id, kind=EXPORT, payload__copy=context.payload["copy"])


def staged(store: Store, task: str) -> Iterator[Info]:
    return store.list(f"{STAGING}{task}/")


def unstage(context: StepContext) -> Outcome:
    """Stop the export if it still goes on, and delete its files. Payload: copy."""
    copy, step = copy_parts.of_payload(context), export_step(context)
    if copy_parts.gone(copy) or (step.token is None and step.intent_at is None):
        return Done()
    if step.token is None:
        until_listed(context, step)
    rds, task = _rds(context, copy), task_of(step.pk)
    shown = described(rds, [task]).get(task)
    if _is_ours(copy, shown) and shown is not None and shown["Status"] not in ENDED:
        _cancel(rds, task)
        return polling.again(context.now, message=f"Waiting for the export {task} to stop.")
    return _delete(context, copy_parts.opened(context, copy).store, task)


def _cancel(rds: AwsClient, task: str) -> None:
    # One that has just ended, or is being cancelled, needs no more.
    with suppress(NotFound, InvalidState):
        rds.call("CancelExportTask", ExportTaskIdentifier=task)


def _delete(context: StepContext, store: Store, task: str) -> Outcome:
    ends, locked = time.monotonic() + SLICE_SECONDS, 0
    keys = (info.key for info in staged(store, task))
    while batch := list(islice(keys, BATCH)):
        try:
            store.delete(batch)
        except ObjectLocked:
            locked += 1
        if time.monotonic() > ends:
            return Wait(0.0, message=f"Deleting the files of the export {task}.")
    if locked:
        context.warn(
            f"S3 keeps files of the export {task} under a lock by the bucket's default retention; delete them when it has ended."
        )
    return Done()


KINDS = (StepKind(EXPORT, QUEUE, export, poll=poll, failed=copy_parts.failed), StepKind(UNSTAGE, QUEUE, unstage))
