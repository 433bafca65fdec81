"""How much a user may protect. A resource counts once, in however many of the user's policies it is."""

from django.db.models import IntegerField
from django.db.models.fields.json import KT
from django.db.models.functions import Cast

from cpm.lib.errors import LimitExceeded
from cpm.models import Target, User


def check(user_id: int, target: Target) -> None:
    """Raises `LimitExceeded` when the target, which is not saved yet, would pass a limit of the user.

    Locks the user until the end of the transaction, so that two that are added at once count each other.
    """
    user = User.objects.select_for_update().get(pk=user_id)
    protected = Target.objects.filter(policy__user=user_id, resource_type=target.resource_type)
    identity = {"aws_region": target.aws_region, "aws_resource_id": target.aws_resource_id}
    if protected.filter(**identity).exists():
        return
    if target.resource_type == "instances" and user.max_instances is not None:
        count = protected.values("aws_region", "aws_resource_id").distinct().count()
        if count >= user.max_instances:
            raise LimitExceeded("instances", user.max_instances)
    if target.resource_type == "volumes" and user.max_independent_ebs_gib is not None:
        sizes = protected.values("aws_region", "aws_resource_id").annotate(
            gib=Cast(KT("details__capacity"), IntegerField())
        )
        gib = sum(row["gib"] or 0 for row in sizes.distinct())
        if gib + (target.details.get("capacity") or 0) > user.max_independent_ebs_gib:
            raise LimitExceeded("GiB of independent volumes", user.max_independent_ebs_gib)
