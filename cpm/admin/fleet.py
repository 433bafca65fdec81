"""The worker fleet, as it reports itself. Only root sees it."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from cpm.admin.base import BAD, GOOD, ScopedAdmin
from cpm.jobs import fleet
from cpm.models import FleetMember

SILENT_AFTER = timedelta(seconds=fleet.GONE_AFTER_SECONDS)


@admin.register(FleetMember)
class FleetAdmin(ScopedAdmin):
    read_right = "settings.read"
    list_display = (
        "name",
        "kind",
        "state",
        "queues",
        "concurrency",
        "host",
        "pid",
        "version",
        "last_seen_at",
    )
    list_filter = ("kind",)
    ordering = ("kind", "name")
    fields = (
        "name", "kind", "state", "queues", "concurrency", "host", "pid", "version", "started_at", "last_seen_at",
    )  # fmt: skip
    readonly_fields = ("state",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return FleetMember.objects.all()

    @display(description="State", label={"Alive": GOOD, "Silent": BAD})
    def state(self, row: FleetMember) -> str:
        return "Alive" if timezone.now() - row.last_seen_at < SILENT_AFTER else "Silent"
