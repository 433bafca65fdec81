"""The freezer: backups that leave the rotation and are kept until somebody deletes them."""

from django.db import transaction

from cpm.flows.cleanup import deletion, remains
from cpm.flows.s3 import deletion as s3_deletion
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.lib.errors import NotFound, PreconditionFailed, ValidationFailed
from cpm.lib.states import BACKUP_WITH_SNAPSHOTS
from cpm.models import Actor, Backup
from cpm.permissions import require
from cpm.services import audit, backup_deletion

LONGEST_NAME = 255


def can_freeze(backup: Backup) -> bool:
    """Whether the backup may be moved to the freezer now."""
    return (
        not backup.is_freezer_item
        and not backup.marked_for_deletion
        and backup.status in BACKUP_WITH_SNAPSHOTS | remains.MOVED
        and not remains.only_synced(backup)
    )


@transaction.atomic
def freeze(*, actor: Actor, backup: Backup, name: str, description: str) -> Backup:
    """Move a backup to the freezer under a new name. Cleanup ignores it from now on.

    Raises PreconditionFailed for a backup that is not over, has no snapshots, or is being deleted.
    """
    require(actor, "backups.change")
    _check(name)
    if not can_freeze(backup):
        raise PreconditionFailed(
            "cannot_freeze", "Only a finished backup whose snapshots are kept can be frozen."
        )
    changed = Backup.objects.filter(pk=backup.pk, marked_for_deletion=False, is_freezer_item=False).update(
        is_freezer_item=True, name=name, description=description
    )
    if not changed:
        raise PreconditionFailed("cannot_freeze", "The backup is being deleted.")
    backup.refresh_from_db()
    text = f"Backup {backup.pk} of policy “{backup.policy_name}” moved to the freezer as “{name}”."
    audit.record(actor, "backup.frozen", backup, after={"name": name, "description": description}, text=text)
    return backup


@transaction.atomic
def update(*, actor: Actor, backup: Backup, name: str, description: str) -> Backup:
    """Rename a frozen backup. Raises NotFound for one that is not frozen."""
    require(actor, "backups.change")
    _frozen(backup)
    _check(name)
    was = audit.state_of(backup)
    Backup.objects.filter(pk=backup.pk).update(name=name, description=description)
    backup.refresh_from_db()
    audit.record(actor, "frozen_backup.updated", backup, before=was, after=audit.state_of(backup))
    return backup


def delete(*, actor: Actor, backup: Backup) -> None:
    """Delete a frozen backup with its snapshots and its copies in S3. Its record stays as long as the cleanup settings say.

    Raises PreconditionFailed while it is copied, archived or recovered from.
    """
    require(actor, "backups.change")
    _frozen(backup)
    backup_deletion.refuse_busy([backup])
    with transaction.atomic():
        Backup.objects.filter(pk=backup.pk).update(is_freezer_item=False, marked_for_deletion=True)
        copied = s3_deletion.mark([backup.pk])
        queue.create_jobs([deletion.job(backup, copies=bool(copied))], engine_queues=QUEUES)
        audit.record(actor, "frozen_backup.deleted", backup, before={"name": backup.name})


def _frozen(backup: Backup) -> None:
    if not backup.is_freezer_item:
        raise NotFound("frozen backup", backup.pk)


def _check(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME:
        raise ValidationFailed({"name": [(f"Give a name of 1 to {LONGEST_NAME} characters.", "invalid")]})
