"""Alerts: what is wrong now."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from cpm import permissions
from cpm.admin.base import BAD, BUSY, POOR, ScopedAdmin, actor_of
from cpm.lib.states import Severity
from cpm.models import Alert
from cpm.services import alerts

COLOURS = {
    Severity.INFO.label: BUSY,
    Severity.WARNING.label: POOR,
    Severity.ERROR.label: BAD,
    Severity.CRITICAL.label: BAD,
}


@admin.register(Alert)
class AlertAdmin(ScopedAdmin):
    read_right = "alerts.read"
    list_display = ("title", "shown_severity", "category", "policy", "user", "alert_time")
    list_filter = ("severity", "category")
    list_select_related = ("policy", "user")
    search_fields = ("title", "policy__name")
    ordering = ("-alert_time", "-id")
    fields = ("title", "shown_severity", "category", "policy", "user", "alert_time", "message_body")
    readonly_fields = ("shown_severity",)
    actions = ("dismiss",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        return permissions.owned_by(alerts.shown_owners(actor_of(request).user), Alert.objects.all())

    @display(description="Severity", ordering="severity", label=COLOURS)
    def shown_severity(self, row: Alert) -> str:
        return row.get_severity_display()

    def has_dismiss_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, alerts.RIGHT)

    @admin.action(description="Dismiss", permissions=["dismiss"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        actor = actor_of(request)
        self.each(
            request, queryset, lambda alert: alerts.delete(actor=actor, alert=alert), "Alerts dismissed"
        )
