"""API keys: shown once, stored as a hash, revoked but not forgotten."""

from datetime import datetime, timedelta

import structlog
from django.db import transaction

from cpm import permissions
from cpm.lib.errors import AuthenticationFailed, NotFound, ValidationFailed
from cpm.lib.secrets import hash_api_key, new_api_key
from cpm.models import Actor, ApiKey, User
from cpm.services import audit

log = structlog.get_logger(__name__)

# How exact `last_used_at` is. Without it every request would write a row.
USE_RESOLUTION = timedelta(minutes=1)
SHOWN_CHARACTERS = 12


@transaction.atomic
def mint(*, actor: Actor, user: User, name: str) -> str:
    """A new key for the actor itself, or for anybody by root. The answer is the only time the key can be seen."""
    _require(actor, user)
    if not 0 < len(name) <= 100:
        raise ValidationFailed.one("name", "The name of a key has 1 to 100 characters.", "invalid_name")
    key = new_api_key()
    row = ApiKey.objects.create(
        user=user, name=name, prefix=key[:SHOWN_CHARACTERS], key_hash=hash_api_key(key)
    )
    audit.record(actor, "api_key.created", row, after=_shown(row), owner_id=user.pk)
    return key


@transaction.atomic
def mint_replacing(*, actor: Actor, user: User, name: str, now: datetime) -> str:
    """A new key instead of all others of that user with the same name, which stop working."""
    _require(actor, user)
    # Two that replace at once take turns, so that one key is left.
    User.objects.select_for_update().get(pk=user.pk)
    for row in ApiKey.objects.filter(user=user, name=name, revoked_at=None):
        _revoke(actor, row, now)
    return mint(actor=actor, user=user, name=name)


@transaction.atomic
def revoke(*, actor: Actor, key: ApiKey, now: datetime) -> None:
    """The key stops working now, and so do its tokens. Revoking it again changes nothing."""
    row = ApiKey.objects.select_related("user").filter(pk=key.pk).first()
    if row is None:
        raise NotFound("API key", key.pk)
    _require(actor, row.user)
    _revoke(actor, row, now)


def authenticate(*, key: str, now: datetime) -> ApiKey:
    """The key's row with its user and that user's environment; notes the use.

    Raises `AuthenticationFailed`, which says the same whatever is wrong with the key.
    """
    row = (
        ApiKey.objects.select_related("user__original_user")
        .filter(key_hash=hash_api_key(key), revoked_at=None, user__is_active=True)
        .first()
    )
    if row is None or not row.user.environment.is_active:
        raise AuthenticationFailed("The API key is wrong or was revoked, or its user is not active.")
    if row.last_used_at is None or row.last_used_at < now - USE_RESOLUTION:
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)
    return row


def _revoke(actor: Actor, row: ApiKey, now: datetime) -> None:
    if ApiKey.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=now):
        before = _shown(row)
        row.revoked_at = now
        audit.record(actor, "api_key.revoked", row, before=before, after=_shown(row), owner_id=row.user_id)


def _shown(row: ApiKey) -> audit.State:
    """What tells keys apart; neither the key nor its hash."""
    revoked = row.revoked_at.isoformat() if row.revoked_at else None
    return {"user_id": row.user_id, "name": row.name, "prefix": row.prefix, "revoked_at": revoked}


def _require(actor: Actor, user: User) -> None:
    if actor.user.pk != user.pk:
        permissions.require(actor, "users.change")
