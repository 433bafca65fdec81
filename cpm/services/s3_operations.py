"""Stopping what a policy does in S3: copying a backup, archiving, cleaning up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from django.db import models, transaction
from django.db.models import QuerySet

from cpm import permissions
from cpm.flows.cleanup.uses import COPY_JOB
from cpm.flows.recoveries import recover_base
from cpm.flows.s3 import archive, cleanup, copy, operation
from cpm.jobs import queue
from cpm.lib.errors import Conflict, NotFound
from cpm.models import Actor, Backup, Job, Policy
from cpm.services import audit

Row = TypeVar("Row", bound=models.Model)

RIGHT = "s3_operations.abort"
COPY, ARCHIVE, CLEANUP, RECOVERY = COPY_JOB, archive.KIND, cleanup.KIND, recover_base.KIND
NAMES: Mapping[str, str] = {COPY: "copy", ARCHIVE: "archive", CLEANUP: "cleanup", RECOVERY: "recovery"}


@dataclass(frozen=True, slots=True)
class Aborted:
    """What was asked to stop: its name in `NAMES`, and the backup whose copy it is."""

    name: str
    backup_id: int | None


@transaction.atomic
def abort_copy(*, actor: Actor, backup: Backup) -> None:
    """Stop the copy of a backup to S3. What it has written is removed; the copies before it stay whole.

    One that is stopping already is asked again without harm. Raises `Conflict` when nothing is copied.
    """
    row = _reached(actor, Backup.objects.all(), backup.pk, "backup")
    if not _open(COPY, row.pk).exists():
        raise Conflict("not_running", f"Backup {row.pk} is not being copied to S3.")
    copy.abort(row)
    text = f"Copy of backup {row.pk} of policy “{row.policy_name}” to S3 asked to stop."
    audit.record(actor, "backup.copy_aborted", row, text=text)


def abort_archive(*, actor: Actor, policy: Policy) -> bool:
    """Stop archiving for the policy; what is archived stays so. Returns whether anything was being archived."""
    return _abort_kind(actor, policy, ARCHIVE, "archiving")


def abort_cleanup(*, actor: Actor, policy: Policy) -> bool:
    """Stop the cleanup of the policy's copies; the next one goes on with it. Returns whether one was running."""
    return _abort_kind(actor, policy, CLEANUP, "cleanup in S3")


@transaction.atomic
def abort_running(*, actor: Actor, policy: Policy) -> Aborted:
    """Stop the copy, archiving or cleanup that has the policy now.

    Raises `Conflict` when none has it. A recovery is stopped as what it is, by who may recover.
    """
    row = _reached(actor, Policy.objects.select_related("s3_job"), policy.pk, "policy")
    job = operation.running(row)
    if job is None:
        raise Conflict("not_running", f"Nothing of policy {row.name} is running in S3.")
    if job.kind == RECOVERY:
        raise Conflict(
            "in_recovery", f"A recovery from S3 has policy {row.name}. Wait for it, or abort the recovery."
        )
    name = NAMES.get(job.kind, job.kind)
    copied = job.subject_id if job.kind == COPY else None
    backup = Backup.objects.filter(pk=copied).first() if copied is not None else None
    if backup is not None:
        copy.abort(backup)
    else:
        _stop(job)
    text = f"{name.capitalize()} of policy “{row.name}” in S3 asked to stop."
    audit.record(actor, "policy.operation_aborted", row, text=text)
    return Aborted(name, backup.pk if backup is not None else None)


@transaction.atomic
def _abort_kind(actor: Actor, policy: Policy, kind: str, words: str) -> bool:
    row = _reached(actor, Policy.objects.all(), policy.pk, "policy")
    jobs = list(_open(kind, row.pk))
    for job in jobs:
        _stop(job)
    if jobs:
        text = f"{words.capitalize()} of policy “{row.name}” asked to stop."
        audit.record(actor, f"policy.{NAMES[kind]}_aborted", row, text=text)
    return bool(jobs)


def _stop(job: Job) -> None:
    if job.kind == ARCHIVE:
        archive.abort(job)
    else:
        queue.request_abort(job.pk)


def _reached(actor: Actor, rows: QuerySet[Row], id: int, what: str) -> Row:
    """The row as it is now, not locked: who ends an operation locks in an order of its own."""
    permissions.require(actor, RIGHT)
    found = permissions.visible(actor.user, rows, RIGHT).filter(pk=id).first()
    if found is None:
        raise NotFound(what, id)
    return found


def _open(kind: str, subject_id: int) -> QuerySet[Job]:
    return Job.objects.filter(kind=kind, subject_id=subject_id, state__in=operation.OPEN).order_by("pk")
