"""The keys of encrypted columns: a new key, and every stored secret under it."""

from dataclasses import dataclass
from pathlib import Path

from django.db import models, transaction

from cpm import permissions
from cpm.lib.secrets import SecretBox, add_key_to_file, load_keys
from cpm.models import (
    Account,
    Actor,
    EmailIdentity,
    FileLevelRecoverySettings,
    Job,
    Notification,
    ProxySettings,
    S3Repository,
    ServerSettings,
)
from cpm.services import audit, audit_chain

RIGHT = "settings.change"
BATCH = 500
# Every column that holds encrypted values. The key of the audit log stands under keys of its own.
HELD: tuple[tuple[type[models.Model], str], ...] = (
    (Account, "secret_key"),
    (EmailIdentity, "secret_key"),
    (FileLevelRecoverySettings, "secret_key"),
    (Job, "secret"),
    (Notification, "secret_key"),
    (ProxySettings, "password"),
    (S3Repository, "secret"),
    (ServerSettings, "activation_key"),
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The id of the new key, and how many secrets are now under it."""

    key_id: str
    secrets: int


def rotate(*, actor: Actor, path: Path) -> Rotation:
    """Add a key to the key file and encrypt all stored secrets with it, some rows at a time.

    May be interrupted and repeated: old keys stay in the file, so every secret can be read at any moment. Raises
    `KeyFileError` for an unusable key file, `SecretUnreadable` for a secret whose key is gone.
    """
    permissions.require(actor, RIGHT)
    key_id = add_key_to_file(path)
    keys = load_keys(path)
    changed = sum(_rotate(model, column, SecretBox(keys)) for model, column in HELD)
    changed += audit_chain.rewrap_key(keys)
    text = f"Encryption key {key_id} added; {changed} secrets encrypted again."
    audit.record(
        actor, "field_keys.rotated", ServerSettings.current(), after={"key": key_id, "secrets": changed}, text=text
    )
    return Rotation(key_id, changed)


def _rotate(model: type[models.Model], column: str, box: SecretBox) -> int:
    changed, last = 0, 0
    while True:
        with transaction.atomic():
            held = model._default_manager.filter(pk__gt=last).exclude(**{column: ""}).order_by("pk")
            rows = list(held.select_for_update(of=("self",))[:BATCH])
            if not rows:
                return changed
            stale = [row for row in rows if box.needs_rotation(getattr(row, column))]
            for row in stale:
                setattr(row, column, box.rotate(getattr(row, column)))
            model._default_manager.bulk_update(stale, [column])
        changed += len(stale)
        last = rows[-1].pk
