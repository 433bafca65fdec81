"""What this server is called, and the UUID that all it makes in AWS is tagged with."""

import uuid

from django.db import transaction

from cpm.lib.errors import Conflict, ValidationFailed
from cpm.lib.states import JobState, SnapshotStatus
from cpm.models import Actor, Job, ServerSettings, Snapshot
from cpm.services import audit, settings

GONE = (SnapshotStatus.DELETED, SnapshotStatus.ERROR)


def rename(*, actor: Actor, name: str) -> ServerSettings:
    """Another name; the UUID stays."""
    return settings.change(actor, "identifier", {"name": name})


@transaction.atomic
def renew(*, actor: Actor, name: str, confirmed: str = "") -> ServerSettings:
    """Another name and a new UUID: what the old one tagged is no longer recognised as this server's.

    While there are snapshots, `confirmed` must be the present UUID, else `ValidationFailed`. `Conflict` while jobs are
    going on: they find what they have started by the UUID.
    """
    row = settings.locked(actor, ServerSettings)
    if Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING)).exists():
        raise Conflict(
            "work_in_progress", "Jobs are going on that need the present identifier. Wait until they end."
        )
    orphans = Snapshot.objects.exclude(status__in=GONE).exclude(aws_id="").count()
    if orphans and confirmed.strip().lower() != str(row.server_id):
        raise ValidationFailed.one(
            "cpm_uuid",
            f"{orphans} snapshots carry the present identifier; with a new one this server could not find them again if "
            "it lost its database, and IAM policies bound to the identifier would refuse to delete them. To change the "
            "name alone use PUT. To go on, repeat the request with the header X-Confirm-Identifier and the present UUID.",
            "confirmation_required",
        )
    before = audit.state_of(row)
    row.name, row.server_id = name, uuid.uuid4()
    row.save(update_fields=["name", "server_id"])
    audit.record(actor, "identifier.renewed", row, before=before, after=audit.state_of(row))
    return row
