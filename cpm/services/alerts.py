"""Alerts: raised and cleared by the flows; people may only dismiss them."""

from django.db import transaction

from cpm import permissions
from cpm.models import Actor, Alert
from cpm.services import audit, scope

RIGHT = "alerts.delete"


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
