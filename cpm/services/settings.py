"""Settings of this server, which root may change. Every kind has one row, made with its defaults on first use."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, TypeVar, Unpack

from django.db import transaction

from cpm import permissions
from cpm.lib.errors import ValidationFailed
from cpm.lib.names import Problem
from cpm.lib.states import CleanupType, KeyDetection
from cpm.models import Actor, ServerSettings
from cpm.models.server import ONLY_ROW, OneRow
from cpm.services import audit

Row = TypeVar("Row", bound=OneRow)

RIGHT = "settings.change"
COST_EXPLORER_RIGHT = "cost_explorer.change"
A_MONTH = 24 * 31


class CleanupFields(TypedDict):
    """Hours between cleanups, for how many days things are kept, and which cleanup `cleanup.run_chosen` starts."""

    cleanup_type: NotRequired[CleanupType]
    cleanup_interval: int
    keep_deleted_backup_records: int
    keep_user_audit_logs_days: int
    keep_resource_control_records: int
    days_until_single_ami_rotation: int


class CaptureFields(TypedDict, total=False):
    """Whether VPCs are captured, and every how many hours."""

    capture_vpcs: bool
    capture_vpcs_interval: int


class TagScanFields(TypedDict, total=False):
    """Whether resources are scanned for tags, every how many hours, and whether volumes may be tagged out."""

    scan_resources: bool
    tag_scan_interval: int
    tag_scan_excluded_volumes_enabled: bool


# Least and most. A record must outlive its deletion by a day at least, or nobody could see that it was deleted.
LIMITS = {
    "cleanup_interval": (1, A_MONTH),
    "keep_deleted_backup_records": (1, 36_500),
    "keep_user_audit_logs_days": (1, 36_500),
    "keep_resource_control_records": (1, 36_500),
    "days_until_single_ami_rotation": (1, 36_500),
    "capture_vpcs_interval": (1, A_MONTH),
    "tag_scan_interval": (1, A_MONTH),
}


def locked(actor: Actor, model: type[Row], right: str = RIGHT) -> Row:
    """The row for a change in this transaction. Raises `PermissionDenied` without the right."""
    permissions.require(actor, right)
    model.current()
    return model._default_manager.select_for_update().get(pk=ONLY_ROW)


def change_cleanup(*, actor: Actor, **fields: Unpack[CleanupFields]) -> ServerSettings:
    """New rules for cleanup. Raises `ValidationFailed` for numbers out of range."""
    return change(actor, "cleanup_settings", fields)


def change_security(*, actor: Actor, encryption_key_detection: KeyDetection) -> ServerSettings:
    """How DR copies of encrypted snapshots find their key."""
    return change(actor, "security_settings", {"encryption_key_detection": encryption_key_detection})


def change_capture(*, actor: Actor, **fields: Unpack[CaptureFields]) -> ServerSettings:
    """When VPCs are captured. Raises `ValidationFailed` for an interval out of range."""
    return change(actor, "capture_vpc_settings", fields)


def change_tag_scan(*, actor: Actor, **fields: Unpack[TagScanFields]) -> ServerSettings:
    """When resources are scanned for tags. Raises `ValidationFailed` for an interval out of range."""
    return change(actor, "tag_scan_settings", fields)


def change_cost_explorer(*, actor: Actor, enabled: bool) -> ServerSettings:
    """Whether costs are asked of AWS; root's delegates may change this one."""
    return change(actor, "cost_explorer_settings", {"cost_explorer_enabled": enabled}, COST_EXPLORER_RIGHT)


@transaction.atomic
def change(actor: Actor, noun: str, fields: Mapping[str, Any], right: str = RIGHT) -> ServerSettings:
    """Changes the named columns and records it under the noun; others keep their value.

    What is as it was already is not recorded.
    """
    found = locked(actor, ServerSettings, right)
    before = audit.state_of(found)
    problems: dict[str, list[Problem]] = {}
    for name, value in fields.items():
        least, most = LIMITS.get(name, (value, value))
        if not least <= value <= most:
            problems[name] = [(f"This must be a number from {least} to {most}.", "invalid")]
        setattr(found, name, value)
    if problems:
        raise ValidationFailed(problems)
    after = audit.state_of(found)
    if after != before:
        found.save(update_fields=list(fields))
        audit.record(actor, f"{noun}.updated", found, before=before, after=after)
    return found
