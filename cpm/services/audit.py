"""The audit log: every service records here what it has changed, in the transaction that changes it.

How the records are sealed against later changes is in `cpm.services.audit_chain`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from orjson import loads

from cpm import permissions
from cpm.flows.cleanup.audit_retention import SERVER
from cpm.lib.secrets import is_secret_name, scrub_text
from cpm.lib.states import Role
from cpm.models import (
    Actor,
    AuditRecord,
    EmailIdentity,
    FileLevelRecoverySettings,
    ProxySettings,
    ServerSettings,
    User,
)

log = structlog.get_logger(__name__)

# Columns that hold secrets beside those whose names say so, whatever the model.
SECRET_FIELDS = frozenset({"key_hash", "activation_key", "external_id"})
HIDDEN = "…"
NOTHING: tuple[Any, ...] = (None, "", [], {})
State = Mapping[str, Any]

# Rows that there is one of, so that their sentences need no name.
SINGLE = (EmailIdentity, FileLevelRecoverySettings, ProxySettings, ServerSettings)
LONGEST_VALUE, MOST_CHANGES = 60, 12


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret that can be compared but not seen."""

    value: Any = field(repr=False)

    def __str__(self) -> str:
        return HIDDEN


def state_of(row: models.Model, **more: Any) -> State:
    """The columns of a row as JSON values, secrets as `Hidden`. Take it before a change and compare it after.

    `more` is what belongs to the row and stands elsewhere. Times that every save sets are left out.
    """
    values = {
        column.attname: column.value_from_object(row)
        for column in row._meta.concrete_fields
        if not (getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False))
    }
    plain: dict[str, Any] = loads(DjangoJSONEncoder().encode({**values, **more}))
    return {name: _guarded(name, value) for name, value in plain.items()}


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

    Only the fields that differ are kept. Must run in the transaction of the change: either both last or neither; and
    before a row is deleted, while it still has its id. `text` says what happened where the fields do not.
    """
    old, new = before or {}, after or {}
    names = {**old, **new}
    if before is None or after is None:
        changed = [name for name in names if names[name] not in NOTHING]
    else:
        changed = [name for name in names if old.get(name) != new.get(name)]
    shown_old = {name: _shown(name, old[name]) for name in changed if name in old}
    shown_new = {name: _shown(name, new[name]) for name in changed if name in new}
    user, original = actor.user, actor.user.original_user
    AuditRecord.objects.create(
        event_type=event_type,
        log=scrub_text(text) or _sentence(event_type, subject, shown_old, shown_new),
        user_id=user.pk,
        username=user.username,
        user_type=user.role,
        original_user_id=original.pk if original else None,
        original_username=original.username if original else "",
        owner_id=owner_id if owner_id is not None else owner_of(subject),
        source=actor.source[:64],
        request_id=request_id(),
        subject_type=subject._meta.model_name or "",
        subject_id=subject.pk,
        before=shown_old,
        after=shown_new,
    )
    log.info("change recorded", change=event_type, subject=subject.pk, by=user.pk, fields=changed)


def note(event_type: str, text: str, *, source: str = "") -> None:
    """Something that matters to an auditor and that no user of ours has done, such as guessing at passwords."""
    AuditRecord.objects.create(
        event_type=event_type,
        log=scrub_text(text),
        username=SERVER,
        user_type=Role.ROOT,
        source=source[:64],
        request_id=request_id(),
        subject_type="",
    )
    log.info("event noted", change=event_type)


def owner_of(subject: models.Model) -> int | None:
    """The user in whose environment the row is, a delegate's original user among them; None for the server's own."""
    if isinstance(subject, User):
        return subject.environment.pk
    found: Any = subject
    for name in permissions.OWNER.get(type(subject), "").split("__")[:-1]:
        found = getattr(found, name)
    return getattr(found, "user_id", None)


def request_id() -> str:
    """The id of the REST request that is being answered, or nothing."""
    found: str = structlog.contextvars.get_contextvars().get("request_id", "")
    return found


def _guarded(name: str, value: Any) -> Any:
    if (name in SECRET_FIELDS or is_secret_name(name)) and value not in NOTHING:
        return Hidden(value)
    if isinstance(value, dict):
        return {key: _guarded(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_guarded("", item) for item in value]
    return value


def _shown(name: str, value: Any) -> Any:
    """The value as it may be stored: no secret by name, none inside, and none that looks like one."""
    value = _guarded(name, value)
    if isinstance(value, Hidden):
        return HIDDEN
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, dict):
        return {key: _shown(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown("", item) for item in value]
    return value


def _sentence(event_type: str, subject: models.Model, old: State, new: State) -> str:
    noun, _, verb = event_type.partition(".")
    what = noun.replace("_", " ").capitalize()
    if not isinstance(subject, SINGLE):
        what += f" {_named(subject)}"
    if verb != "updated":
        # Of more words the first is a noun: “password reset”.
        return f"{what}: {verb.replace('_', ' ')}." if "_" in verb else f"{what} {verb}."
    changes = [_change(name, old.get(name), new.get(name)) for name in {**old, **new}]
    if not changes:
        return f"{what} saved without a change."
    left = len(changes) - MOST_CHANGES
    more = f", and {left} more" if left > 0 else ""
    return f"{what} changed: {', '.join(changes[:MOST_CHANGES])}{more}."


def _named(subject: models.Model) -> str:
    names = (getattr(subject, column, "") for column in ("aws_resource_id", "name", "username", "tag_name"))
    name = next(filter(None, names), "")
    return f"“{name}”" if name else str(subject.pk)


def _change(name: str, old: Any, new: Any) -> str:
    if HIDDEN in (old, new):
        return name
    return f"{name} {_brief(old)} → {_brief(new)}"


def _brief(value: Any) -> str:
    if value in NOTHING:
        return "none"
    text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
