"""Alerts: raised and cleared by the flows; people may only dismiss them."""

from django.db import transaction
from django.db.models import Exists

from cpm import permissions
from cpm.lib.states import Role
from cpm.models import Actor, Alert, Notification, User
from cpm.services import audit, scope

RIGHT = "alerts.delete"
READ = "alerts.read"


def shown_owners(user: User) -> list[int]:
    """Ids of the users whose alerts this user reads, its own environment first. One query at most.

    Those of managed users are there where the notification settings of the environment say so: for root of all of
    them, for an independent user of those applied to it.
    """
    environment = user.environment
    managed = User.objects.filter(role=Role.MANAGED).order_by("pk")
    if environment.role == Role.INDEPENDENT:
        managed = managed.filter(managing_users=environment)
    elif environment.role != Role.ROOT:
        return [environment.pk]
    asked_for = Notification.objects.filter(user=environment, include_managed_user_alerts=True)
    return [environment.pk, *managed.filter(Exists(asked_for)).values_list("pk", flat=True)]


@transaction.atomic
def delete(*, actor: Actor, alert: Alert) -> None:
    """Dismisses one alert. It comes back if its cause is still there at the next run."""
    row = scope.locked(actor, RIGHT, alert, "alert")
    audit.record(actor, "alert.deleted", row, before=audit.state_of(row), text=f"Alert “{row.title}” dismissed.")
    row.delete()


@transaction.atomic
def delete_all(*, actor: Actor) -> int:
    """Dismisses every alert within the actor's reach, and says how many there were."""
    permissions.require(actor, RIGHT)
    dismissed, _ = permissions.visible(actor.user, Alert.objects.all(), RIGHT).delete()
    owner = actor.on_behalf_of
    text = f"All alerts of user “{owner.username}” dismissed: {dismissed}."
    audit.record(actor, "alert.all_deleted", owner, before={"alerts": dismissed}, text=text)
    return dismissed
