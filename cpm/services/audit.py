"""The audit log: every service records here what it has changed, in the transaction that changes it."""

from collections.abc import Mapping
from typing import Any

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from orjson import loads

from cpm.models import Actor, AuditRecord

log = structlog.get_logger(__name__)

# Columns that hold secrets, whatever the model. A change of one is shown as a change, without what it was.
SECRET_FIELDS = frozenset(
    {"password", "secret_key", "key_hash", "activation_key", "external_id"}
)
HIDDEN = "…"
State = Mapping[str, Any]


def state_of(row: models.Model) -> State:
    """The columns of a row as JSON values, secrets hidden. Take it before a change and compare it after."""
    values = {field.attname: field.value_from_object(row) for field in row._meta.concrete_fields}
    plain: dict[str, Any] = loads(DjangoJSONEncoder().encode(values))
    return {name: _shown(name, value) for name, value in plain.items()}


def record(
    actor: Actor,
    event_type: str,
    subject: models.Model,
    *,
    before: State | None = None,
    after: State | None = None,
    owner_id: int | None = None,
    text: str = "",
) -> None:
    """One change, e.g. `record(actor, "policy.updated", row, before=was, after=audit.state_of(row))`.

    Only the fields that differ are kept. Must run in the transaction of the change: either both last or neither.
    `text` says what happened where the fields do not.
    """
    old, new = before or {}, after or {}
    changed = [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]
    user = actor.user
    original = user.original_user
    noun = subject._meta.model_name or ""
    AuditRecord.objects.create(
        event_type=event_type,
        log=text or f"{noun} {subject} {event_type.rpartition('.')[2]}",
        user_id=user.pk,
        username=user.username,
        user_type=user.role,
        original_user_id=original.pk if original else None,
        original_username=original.username if original else "",
        owner_id=owner_id if owner_id is not None else getattr(subject, "user_id", None),
        source=actor.source,
        subject_type=noun,
        subject_id=subject.pk,
        before={name: old[name] for name in changed if name in old},
        after={name: new[name] for name in changed if name in new},
    )
    log.info(event_type, subject=subject.pk, by=user.pk, fields=changed)


def _shown(name: str, value: Any) -> Any:
    return HIDDEN if name in SECRET_FIELDS and value else value
