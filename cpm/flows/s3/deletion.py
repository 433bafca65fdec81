"""Deleting copies in S3 and in the archive: which are to go, and the slices that delete them.

A copy is to go when its backup says X, expired, of the tier that it lies in; whoever decides that writes the X first. The
manifest is deleted here, which ends the copy; its blocks are what `pruning` collects. A copy that S3 keeps locked stays
a copy, and is tried again at every cleanup.
"""

import time
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from cpm.aws.errors import AwsError
from cpm.flows.cleanup import remains, uses
from cpm.flows.errors import classify
from cpm.flows.s3 import repositories
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib.errors import DomainError
from cpm.lib.places import at
from cpm.lib.secrets import SecretUnreadable
from cpm.lib.states import CopyStatus, DeletionStatus, SnapshotStatus, Tier
from cpm.models import Backup, S3Copy, S3Repository
from cpm.repository import manifest
from cpm.repository.errors import ObjectLocked, RepositoryError
from cpm.repository.repository import Repository

KIND = "s3_delete"
STEP = "s3.delete"
QUEUE = "s3"
SLICE_SECONDS = 60.0
BATCH = 200
REFUSED = (RepositoryError, AwsError, DomainError, SecretUnreadable)


def step(backup: Backup, *, key: str = "") -> StepSpec:
    """A step that deletes the copies of a backup that are to go. It waits while something reads or writes them."""
    return StepSpec(STEP, {"backup": backup.pk}, key=key)


def job(backup: Backup) -> JobSpec:
    """A job of one such step, logged with the backup."""
    return JobSpec(KIND, "backup", backup.pk, [step(backup)], user_id=backup.user_id)


def place_of(row: S3Repository) -> str:
    """Where work on a repository is best done."""
    return at(row.account.account_number, row.aws_region)


def mark(backups: Collection[int]) -> set[int]:
    """From now on all copies of these backups are to go. Returns which of them have any. Needs a transaction."""
    found: set[int] = set()
    for tier, column in ((Tier.S3, "s3_copy_status"), (Tier.ARCHIVE, "archive_status")):
        living = S3Copy.objects.filter(backup__in=backups, tier=tier, status__in=remains.LIVING)
        ids = set(living.values_list("backup_id", flat=True))
        Backup.objects.filter(pk__in=ids).update(**{column: CopyStatus.EXPIRED})
        found |= ids
    return found


def going() -> QuerySet[S3Copy]:
    """The copies that are to go. Frozen backups keep theirs."""
    expired = Q(tier=Tier.S3, backup__s3_copy_status=CopyStatus.EXPIRED) | Q(
        tier=Tier.ARCHIVE, backup__archive_status=CopyStatus.EXPIRED
    )
    return S3Copy.objects.filter(expired, status__in=remains.LIVING, backup__is_freezer_item=False)


def locked_until(repository: Repository, copy_id: str) -> datetime | None:
    """Delete a copy or archive by its id. Returns until when S3 keeps it, or None when it is gone."""
    try:
        repository.delete_copy(copy_id)
    except ObjectLocked:
        until = repository.store.head(manifest.COPIES + copy_id).retain_until
        if until is None:
            raise
        return until
    return None


def delete(context: StepContext) -> Outcome:
    backup = Backup.objects.get(pk=context.payload["backup"])
    if uses.read([backup.pk]):
        return Wait(30.0, message="A recovery or an explore session is using this backup.")
    if uses.copied([backup.pk], but_for=context.job_id) or uses.archived([backup.pk]):
        return Wait(30.0, message="This backup is being copied to S3 or archived.")
    return work_off(context, going().filter(backup=backup))


def work_off(context: StepContext, rows: QuerySet[S3Copy]) -> Outcome:
    """Delete these copies, a slice at a time; the cursor counts. Whoever runs it again goes on.

    What S3 refuses is remembered on the copy and fails the step in the end; raises what may pass.
    """
    slice_ = _Slice(context)
    while True:
        batch = rows.filter(pk__gt=slice_.state["after"]).order_by("pk")
        found = list(batch.select_related("backup", "repository__account")[:BATCH])
        if not found:
            return slice_.outcome()
        for copy in found:
            if slice_.over():
                return Wait(0.0, message=f"{slice_.state['deleted']} copies deleted.")
            slice_.delete(copy)
        context.save_cursor(slice_.state)


class _Slice:
    """One slice of deleting, with what it knows of the repositories that it has opened."""

    def __init__(self, context: StepContext) -> None:
        self.context = context
        fresh = {"after": 0, "deleted": 0, "locked": 0, "used": 0, "refused": 0, "why": ""}
        self.state: dict[str, Any] = {**fresh, **(context.cursor or {})}
        self._ends = time.monotonic() + SLICE_SECONDS
        self._opened: dict[int, Repository] = {}

    def over(self) -> bool:
        """Whether the slice ends here: its time is up, or the job is to stop."""
        if time.monotonic() <= self._ends and not self.context.refresh_aborted():
            return False
        self.context.save_cursor(self.state)
        return True

    def delete(self, copy: S3Copy) -> None:
        """Raises what may pass."""
        try:
            self._delete(copy)
        except REFUSED as error:
            verdict = classify(error)
            if verdict.retry:
                self.context.save_cursor(self.state)
                raise
            with self.context.fenced():
                S3Copy.objects.filter(pk=copy.pk).update(error=verdict.message)
            self.state["refused"] += 1
            self.state["why"] = self.state["why"] or verdict.message
        self.state["after"] = copy.pk

    def _delete(self, copy: S3Copy) -> None:
        row = copy.repository
        if row is None or row.deletion_status == DeletionStatus.IN_PROGRESS:
            # The data goes with the repository, and the records when that is done.
            return
        if uses.read([copy.backup_id]):
            self.state["used"] += 1
            return
        if row.pk not in self._opened:
            self._opened[row.pk] = repositories.opened(row, session=f"cpm-job-{self.context.job_id}")
        repository = self._opened[row.pk]
        # What counts goes last: while anything of the copy is kept by S3, its record says that it is there.
        for stored in (*{copy.copy_id, copy.archive_id} - {"", copy.stored_id}, copy.stored_id):
            until = locked_until(repository, stored)
            if until is not None:
                self.state["locked"] += 1
                self.context.log(
                    f"Copy {stored} of {_words(copy)} is locked until {until:%Y-%m-%d %H:%M} UTC."
                )
                return
        with self.context.fenced():
            S3Copy.objects.filter(pk=copy.pk).update(
                status=SnapshotStatus.DELETED, deletion_time=self.context.now, error=""
            )
            remains.settle(copy.backup, now=self.context.now)
        self.state["deleted"] += 1

    def outcome(self) -> Outcome:
        state = self.state
        if state["used"]:
            self.context.log(f"{state['used']} copies are being read; they are deleted at the next cleanup.")
        if state["refused"]:
            # Who tries the step again begins anew.
            self.context.save_cursor(None)
            return Failed(f"{state['refused']} copies could not be deleted. {state['why']}")
        words = (
            f"{state['deleted']} copies deleted, {state['locked']} are locked." if state["deleted"] else ""
        )
        if words:
            self.context.log(words)
        return Done(words)


def _words(copy: S3Copy) -> str:
    return f"backup {copy.backup_id} from {copy.backup.start_time:%Y-%m-%d %H:%M}"


KINDS = (StepKind(STEP, QUEUE, delete),)
