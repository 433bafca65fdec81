"""Alerts: what is wrong now."""

from collections.abc import Sequence
from functools import cached_property

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Choice, Fields, Integer, Moment, Text
from api.views import Operation, Records
from cpm import permissions
from cpm.lib.states import Severity
from cpm.models import Alert
from cpm.services import alerts


class Alerts(Records):
    """Alerts stand until their cause is gone or somebody dismisses them."""

    model, noun = Alert, "alert"
    fields = Fields(
        alert_time=Moment("alert_time"),
        category=Text("category"),
        id=Integer("id"),
        message_body=Text("message_body"),
        policy=Integer("policy_id"),
        severity=Choice("severity", Severity),
        title=Text("title"),
        user=Integer("user_id"),
    )
    default_ordering = ("-alert_time", "-id")
    operations = {
        "list": Operation("alerts.read", since="1.2.0", many=True, summary="List alerts"),
        "destroy_all": Operation(
            "alerts.delete", since="1.2.0", answers=204, content=False, summary="Dismiss all alerts"
        ),
        "retrieve": Operation("alerts.read", since="1.2.0", summary="Show an alert"),
        "destroy": Operation(
            "alerts.delete", since="1.2.0", answers=204, content=False, summary="Dismiss an alert"
        ),
    }

    @cached_property
    def owners(self) -> Sequence[int]:
        # Reading may reach further than dismissing: notification settings can include managed users.
        if self.operation.right == alerts.READ:
            return alerts.shown_owners(self.actor.user)
        return permissions.owners(self.actor.user, alerts.RIGHT)

    def destroy_all(self, request: Request) -> HttpResponseBase:
        alerts.delete_all(actor=self.actor)
        return self.done()

    def destroy(self, request: Request, id: int) -> Response:
        alerts.delete(actor=self.actor, alert=self.find(id))
        return self.done()


urlpatterns = [
    path("alerts/", Alerts.as_view({"get": "list", "delete": "destroy_all"})),
    path("alerts/<id:id>/", Alerts.as_view({"get": "retrieve", "delete": "destroy"})),
]
