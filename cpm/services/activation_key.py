"""The activation key of the documented API. This server has no licence: the key is kept, and unlocks nothing."""

import re

from django.db import transaction

from cpm.flows.identities import encrypt_secret
from cpm.lib.errors import ValidationFailed
from cpm.models import Actor, ServerSettings
from cpm.services import audit, settings

_KEY = re.compile(r"[A-Za-z0-9+/=._-]{8,1024}")


@transaction.atomic
def change(*, actor: Actor, activation_key: str) -> None:
    """Keeps the key, encrypted. Raises `ValidationFailed` for what cannot be one."""
    row = settings.locked(actor, ServerSettings)
    if not _KEY.fullmatch(activation_key):
        raise ValidationFailed.one(
            "activation_key", "A key has 8 to 1024 letters, digits and signs of + / = . _ - and no spaces."
        )
    before = audit.state_of(row)
    row.activation_key = encrypt_secret(activation_key)
    row.save(update_fields=["activation_key"])
    audit.record(actor, "activation_key.updated", row, before=before, after=audit.state_of(row))
