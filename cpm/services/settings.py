"""Settings of this server, which root may change."""

from collections import defaultdict
from typing import TypedDict, Unpack

import structlog
from django.db import transaction

from cpm import permissions
from cpm.lib.errors import ValidationFailed
from cpm.lib.names import Problem
from cpm.lib.states import KeyDetection
from cpm.models import Actor, ServerSettings

log = structlog.get_logger(__name__)

RIGHT = "settings.change"
ONLY_ROW = 1


class CleanupFields(TypedDict):
    """Hours between cleanups, and for how many days things are kept."""

    cleanup_interval: int
    keep_deleted_backup_records: int
    keep_user_audit_logs_days: int
    keep_resource_control_records: int
    days_until_single_ami_rotation: int


# Least and most. A record must outlive its deletion by a day at least, or nobody could see that it was deleted.
LIMITS = {
    "cleanup_interval": (1, 24 * 31),
    "keep_deleted_backup_records": (1, 36_500),
    "keep_user_audit_logs_days": (1, 36_500),
    "keep_resource_control_records": (1, 36_500),
    "days_until_single_ami_rotation": (1, 36_500),
}


def current() -> ServerSettings:
    """The settings, made with their defaults on first use."""
    return ServerSettings.objects.get_or_create(pk=ONLY_ROW)[0]


@transaction.atomic
def change_cleanup(*, actor: Actor, **fields: Unpack[CleanupFields]) -> ServerSettings:
    """New rules for cleanup. Raises `ValidationFailed` for numbers out of range."""
    row = _locked(actor)
    problems: dict[str, list[Problem]] = defaultdict(list)
    for name, value in fields.items():
        least, most = LIMITS[name]
        if not least <= int(str(value)) <= most:
            problems[name].append((f"This must be a number from {least} to {most}.", "invalid"))
        setattr(row, name, value)
    if problems:
        raise ValidationFailed(problems)
    row.save(update_fields=list(fields))
    log.info("cleanup settings changed", by=actor.user.pk, **fields)
    return row


@transaction.atomic
def change_security(*, actor: Actor, encryption_key_detection: KeyDetection) -> ServerSettings:
    """How DR copies of encrypted snapshots find their key."""
    row = _locked(actor)
    row.encryption_key_detection = encryption_key_detection
    row.save(update_fields=["encryption_key_detection"])
    log.info("security settings changed", by=actor.user.pk, encryption_key_detection=encryption_key_detection)
    return row


def _locked(actor: Actor) -> ServerSettings:
    permissions.require(actor, RIGHT)
    current()
    return ServerSettings.objects.select_for_update().get(pk=ONLY_ROW)
