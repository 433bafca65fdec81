"""Alerts: raised and cleared by the flows; people may only dismiss them."""

import structlog
from django.db import transaction

from cpm import permissions
from cpm.models import Actor, Alert
from cpm.services import scope

log = structlog.get_logger(__name__)

RIGHT = "alerts.delete"


@transaction.atomic
def delete(*, actor: Actor, alert: Alert) -> None:
    """Dismisses one alert. It comes back if its cause is still there at the next run."""
    row = scope.locked(actor, RIGHT, alert, "alert")
    row.delete()
    log.info("alert dismissed", alert=alert.pk, by=actor.user.pk)


@transaction.atomic
def delete_all(*, actor: Actor) -> int:
    """Dismisses every alert within the actor's reach, and says how many there were."""
    permissions.require(actor, RIGHT)
    dismissed, _ = permissions.visible(actor.user, Alert.objects.all(), RIGHT).delete()
    log.info("alerts dismissed", count=dismissed, by=actor.user.pk)
    return dismissed
