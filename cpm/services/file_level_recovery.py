"""The server-wide settings of file-level recovery, which the API has kept from its older versions."""

from typing import TypedDict, Unpack

from django.db import transaction

from cpm.flows.identities import encrypt_secret
from cpm.lib.errors import ValidationFailed
from cpm.models import Actor, FileLevelRecoverySettings
from cpm.services import audit, settings


class FileLevelRecoveryFields(TypedDict, total=False):
    """`existing_account` is the name of an account; `secret_key` is never shown again."""

    enabled: bool
    use_existing_account: bool
    existing_account: str
    access_key: str
    secret_key: str


@transaction.atomic
def change(*, actor: Actor, **fields: Unpack[FileLevelRecoveryFields]) -> FileLevelRecoverySettings:
    """Changes what is given. Raises `ValidationFailed` for another access key without its secret."""
    row = settings.locked(actor, FileLevelRecoverySettings)
    before = audit.state_of(row)
    changed_key = fields.get("access_key", row.access_key) != row.access_key
    if changed_key and row.secret_key and "secret_key" not in fields:
        raise ValidationFailed.one("aws_secret_key", "Send the secret of the new access key too.", "required")
    row.enabled = fields.get("enabled", row.enabled)
    row.use_existing_account = fields.get("use_existing_account", row.use_existing_account)
    row.existing_account = fields.get("existing_account", row.existing_account)
    row.access_key = fields.get("access_key", row.access_key)
    if "secret_key" in fields:
        row.secret_key = encrypt_secret(fields["secret_key"]) if fields["secret_key"] else ""
    row.save()
    audit.record(actor, "file_level_recovery.updated", row, before=before, after=audit.state_of(row))
    return row
