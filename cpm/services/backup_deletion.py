"""Deleting on request what backups have made in AWS. The deletion itself runs as jobs; the records show it at once."""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import QuerySet

from cpm.flows.cleanup import deletion, remains, uses
from cpm.flows.s3 import deletion as s3_deletion
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import BACKUP_RUNNING, DrStatus, SnapshotKind, SnapshotStatus
from cpm.models import Account, Actor, Backup, Policy, Snapshot
from cpm.permissions import require
from cpm.services import audit


def delete_snapshots(*, actor: Actor, backup: Backup) -> None:
    """Delete everything that a backup holds, DR copies and copies in S3 and in the archive included.

    Raises PreconditionFailed while the backup runs, is copied or archived, or is used by a recovery.
    """
    require(actor, "backups.change")
    refuse_busy([backup])
    with transaction.atomic():
        _request([backup])
        text = f"Deletion of the snapshots of backup {backup.pk} of policy “{backup.policy_name}” requested."
        audit.record(actor, "backup.snapshots_deleted", backup, text=text)


def delete_snapshot(*, actor: Actor, snapshot: Snapshot) -> None:
    """Delete one snapshot, image or DR copy of a backup.

    Raises PreconditionFailed while it is needed: by a running backup, copy or recovery, or, for an initial AMI, by
    instances of kept backups.
    """
    require(actor, "backups.change")
    refuse_busy([snapshot.backup], native_only=True)
    initial = snapshot.kind in remains.INITIAL
    if initial and snapshot.pk in deletion.needed_initial_amis():
        raise PreconditionFailed(
            "snapshot_needed",
            "Instances of kept backups are recovered from this initial AMI. Delete those first.",
        )
    rows = [snapshot.pk]
    if snapshot.kind == SnapshotKind.INSTANCE:
        rows = list(snapshot.children.values_list("pk", flat=True))
    with transaction.atomic():
        queue.create_jobs(
            [deletion.job(snapshot.backup, rows, keep_needed=not initial)], engine_queues=QUEUES
        )
        text = f"Deletion of snapshot {snapshot.aws_id or snapshot.pk} of {snapshot.source_id} requested."
        audit.record(actor, "snapshot.deleted", snapshot, text=text)


def delete_policy_snapshots(*, actor: Actor, policy: Policy, native_only: bool = True) -> None:
    """Delete the snapshots of all backups of a policy, but for frozen ones.

    `native_only` leaves copies in S3 and in the archive alone. Raises PreconditionFailed while something of the policy
    is in use.
    """
    require(actor, "policies.change")
    with transaction.atomic():
        backups = Backup.objects.filter(policy=policy, is_freezer_item=False, deleted_at=None)
        count = _delete_all(
            backups.exclude(status__in=remains.MOVED) if native_only else backups, native_only
        )
        what = "native snapshots" if native_only else "snapshots and copies"
        text = f"Deletion of all {what} of policy “{policy.name}” requested: {count} backups."
        audit.record(actor, "policy.snapshots_deleted", policy, before={"backups": count}, text=text)


def delete_account_snapshots(*, actor: Actor, account: Account) -> None:
    """Delete every snapshot that CPM keeps for an account: as source of backups, with their copies in S3, or as holder of
    DR copies."""
    require(actor, "accounts.change")
    with transaction.atomic():
        if account.is_dr_account:
            count = _delete_copies(account)
        else:
            count = _delete_all(
                Backup.objects.filter(account=account, is_freezer_item=False, deleted_at=None)
            )
        text = f"Deletion of all snapshots of account “{account.name}” requested: {count} backups."
        audit.record(actor, "account.snapshots_deleted", account, before={"backups": count}, text=text)


def _delete_copies(account: Account) -> int:
    """Delete what a DR account holds; says of how many backups."""
    rows = Snapshot.objects.filter(account=account).exclude(status=SnapshotStatus.DELETED)
    by_backup: dict[int, list[int]] = {}
    for row, backup_id in rows.values_list("pk", "backup_id"):
        by_backup.setdefault(backup_id, []).append(row)
    backups = list(Backup.objects.filter(pk__in=by_backup, is_freezer_item=False))
    refuse_busy(backups, native_only=True)
    queue.create_jobs([deletion.job(b, by_backup[b.pk]) for b in backups], engine_queues=QUEUES)
    return len(backups)


def _delete_all(backups: QuerySet[Backup], native_only: bool = False) -> int:
    chosen = list(backups)
    refuse_busy(chosen, native_only)
    _request(chosen, native_only)
    return len(chosen)


def _request(backups: Sequence[Backup], native_only: bool = False) -> None:
    ids = [backup.pk for backup in backups]
    with transaction.atomic():
        Backup.objects.filter(pk__in=ids).update(
            marked_for_deletion=True, retry_at=None, retry_scheduled=False
        )
        copied = set() if native_only else s3_deletion.mark(ids)
        jobs = [deletion.job(backup, copies=backup.pk in copied) for backup in backups]
        queue.create_jobs(jobs, engine_queues=QUEUES)


def refuse_busy(backups: Sequence[Backup], native_only: bool = False) -> None:
    """Raise PreconditionFailed if one of these backups runs, is copied, recovered, or, unless only its native snapshots are
    to go, archived."""
    for backup in backups:
        if backup.status in BACKUP_RUNNING:
            raise PreconditionFailed("backup_running", "The backup is running. Wait for it, or abort it.")
        if backup.dr_status in {DrStatus.PENDING, DrStatus.IN_PROGRESS}:
            raise PreconditionFailed(
                "dr_running", "The backup is being copied. Wait for its DR, or abort it."
            )
    ids = [backup.pk for backup in backups]
    if uses.recovered(ids):
        raise PreconditionFailed("in_recovery", "A recovery is using the backup. Wait for it.")
    if uses.copied(ids):
        raise PreconditionFailed(
            "copy_running", "The backup is being copied to S3. Wait for the copy, or abort it."
        )
    if not native_only and uses.archived(ids):
        raise PreconditionFailed(
            "archive_running", "Copies of the backup are being archived. Wait for that, or abort it."
        )
