"""The keys that open a S3 repository: this server's own, and those that operators keep elsewhere."""

import base64
import os
from collections.abc import Sequence

from django.db import transaction

from cpm import permissions
from cpm.flows.identities import encrypt_secret
from cpm.flows.s3 import repositories as flow
from cpm.lib.errors import NotAllowed, PreconditionFailed
from cpm.models import Actor, S3Repository
from cpm.repository.keys import RawKey, Secret, Slot
from cpm.repository.repository import Repository
from cpm.services import audit, repositories, scope

RIGHT = repositories.RIGHT


def slots(*, actor: Actor, repository: S3Repository) -> Sequence[tuple[Slot, bool]]:
    """Every key slot, and whether this server opens the repository with it. Raises `PreconditionFailed` when the
    repository cannot be read."""
    row = _row(actor, repository)
    with repositories.reading(row):
        opened = flow.opened(row)
        return [(slot, _is_ours(row, opened, slot)) for slot in opened.slots()]


def add(*, actor: Actor, repository: S3Repository, secret: Secret, name: str) -> Slot:
    """One more secret that opens the repository. Raises `PreconditionFailed`, also for a secret that is too short."""
    row = _row(actor, repository)
    with repositories.reading(row):
        made = flow.opened(row).add_key(secret, name)
    _record(actor, row, "key_added", f"Key slot {made.id} “{name}” added to S3 repository “{row.name}”.")
    return made


def rotate(*, actor: Actor, repository: S3Repository, slot_id: str, secret: Secret) -> Slot:
    """Replace the secret of a slot. Raises `NotAllowed` for this server's own, whose secret nobody may choose."""
    row = _row(actor, repository)
    with repositories.reading(row):
        opened = flow.opened(row)
        _refuse_ours(row, opened, slot_id)
        made = opened.rotate_key(slot_id, secret)
    _record(
        actor, row, "key_rotated", f"Key slot {slot_id} of S3 repository “{row.name}” replaced by {made.id}."
    )
    return made


def rotate_own(*, actor: Actor, repository: S3Repository) -> Slot:
    """Open the repository with a fresh key from now on.

    The new slot stands before the new key is stored, and the old one goes after that: whenever it breaks off, the
    stored key opens the repository.
    """
    row = _row(actor, repository)
    key = RawKey(os.urandom(repositories.KEY_BYTES))
    with repositories.reading(row):
        opened = flow.opened(row)
        old = [slot.id for slot in opened.slots() if _is_ours(row, opened, slot)]
        made = opened.add_key(key, repositories.SLOT)
    with transaction.atomic():
        current = scope.locked(actor, RIGHT, row, "S3 repository")
        if current.secret != row.secret:
            raise PreconditionFailed(
                "keys_changed", "The key was changed at the same moment. Look, and repeat."
            )
        current.secret = encrypt_secret(base64.b64encode(key.value).decode())
        current.save(update_fields=["secret"])
        text = f"The server's own key of S3 repository “{row.name}” replaced: slot {made.id}."
        audit.record(actor, "repository.key_rotated", current, text=text)
    with repositories.reading(row):
        for slot_id in old:
            opened.remove_key(slot_id)
    return made


def remove(*, actor: Actor, repository: S3Repository, slot_id: str) -> None:
    """Take a secret away. Raises `NotAllowed` for this server's own."""
    row = _row(actor, repository)
    with repositories.reading(row):
        opened = flow.opened(row)
        _refuse_ours(row, opened, slot_id)
        opened.remove_key(slot_id)
    _record(actor, row, "key_removed", f"Key slot {slot_id} of S3 repository “{row.name}” removed.")


def _row(actor: Actor, repository: S3Repository) -> S3Repository:
    permissions.require(actor, RIGHT)
    with transaction.atomic():
        return scope.locked(actor, RIGHT, repository, "S3 repository")


def _is_ours(row: S3Repository, opened: Repository, slot: Slot) -> bool:
    return slot.unwrap(flow.key_of(row), opened.id) is not None


def _refuse_ours(row: S3Repository, opened: Repository, slot_id: str) -> None:
    if any(slot.id == slot_id and _is_ours(row, opened, slot) for slot in opened.slots()):
        raise NotAllowed(
            "own_key",
            f"Slot {slot_id} is this server's own. `cpm repo key rotate {row.name}` gives it a new key.",
        )


@transaction.atomic
def _record(actor: Actor, row: S3Repository, what: str, text: str) -> None:
    audit.record(actor, f"repository.{what}", row, text=text)
