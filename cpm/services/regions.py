"""Regions and resource types: lookups with stable ids that other objects name."""

from collections.abc import Iterable

from cpm.lib.errors import ValidationFailed
from cpm.models import Region, ResourceType
from cpm.services import scope


def enabled_ids(ids: Iterable[int], *, field: str) -> list[int]:
    """The ids of enabled regions, each once, in order. Raises `NotFound` for the field at the first unknown one."""
    rows = scope.all_referred(Region.objects.filter(enabled=True), ids, what="enabled region", field=field)
    return [row.pk for row in rows]


def resource_type_ids(ids: Iterable[int], *, field: str) -> list[int]:
    """The ids of known resource types, each once, in order. Raises `NotFound` for the first unknown one."""
    return [
        row.pk
        for row in scope.all_referred(ResourceType.objects.all(), ids, what="resource type", field=field)
    ]


def require_enabled(name: str, *, field: str) -> str:
    """The name itself if it is that of an enabled region. Raises `ValidationFailed` for the field if not."""
    if not Region.objects.filter(aws_region=name, enabled=True).exists():
        raise ValidationFailed.one(
            field, f"“{name}” is not an AWS region that is enabled here.", "unknown_region"
        )
    return name
