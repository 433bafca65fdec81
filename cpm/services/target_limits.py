"""How much a user may protect. A resource counts once, in however many of the user's policies it is."""

from collections.abc import Mapping

from django.db.models import IntegerField, Max
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from cpm.lib.errors import LimitExceeded
from cpm.models import Target, User
from cpm.resources.base import Limit
from cpm.resources.registry import WHOLE

# The limit of each type of target. A type without one is not limited.
LIMITS: Mapping[str, Limit] = {
    "instances": Limit("max_instances", "instances"),
    "volumes": Limit("max_independent_ebs_gib", "GiB of independent volumes", summed="capacity"),
    **{kind.key: kind.limit for kind in WHOLE if kind.limit is not None},
}


def check(user_id: int, target: Target) -> None:
    """Raises `LimitExceeded` when the target, which is not saved yet, would pass a limit of the user.

    Locks the user until the end of the transaction, so that two that are added at once count each other.
    """
    user = User.objects.select_for_update().get(pk=user_id)
    limit = LIMITS.get(target.resource_type)
    most: int | None = getattr(user, limit.field) if limit else None
    if limit is None or most is None:
        return
    protected = Target.objects.filter(policy__user=user_id, resource_type=target.resource_type)
    identity = {"aws_region": target.aws_region, "aws_resource_id": target.aws_resource_id}
    if protected.filter(**identity).exists():
        return
    resources = protected.values("aws_region", "aws_resource_id")
    if not limit.summed:
        used, added = resources.distinct().count(), 1
    else:
        sizes = resources.annotate(size=Max(Cast(KT(f"details__{limit.summed}"), IntegerField())))
        used, added = sum(row["size"] or 0 for row in sizes), target.details.get(limit.summed) or 0
    if used + added > most:
        raise LimitExceeded(limit.what, most)
