"""Settings of the server: one row, for root."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from cpm.admin.base import ServiceAdmin, ServiceForm, given
from cpm.lib.states import KeyDetection
from cpm.models import Actor, ServerSettings
from cpm.services import settings

CLEANUP = (
    "cleanup_interval", "keep_deleted_backup_records", "keep_user_audit_logs_days", "keep_resource_control_records",
    "days_until_single_ami_rotation",
)  # fmt: skip


class SettingsForm(ServiceForm):
    class Meta:
        model = ServerSettings
        fields = (*CLEANUP, "encryption_key_detection")


@admin.register(ServerSettings)
class SettingsAdmin(ServiceAdmin):
    form = SettingsForm
    read_right = "settings.read"
    change_right = "settings.change"
    fields = ("server_id", "name", *CLEANUP, "encryption_key_detection", "last_cleanup_time")
    readonly_fields = ("server_id", "name", "last_cleanup_time")
    list_display = ("server_id", "cleanup_interval", "encryption_key_detection", "last_cleanup_time")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        settings.current()
        return ServerSettings.objects.order_by("id")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> ServerSettings:
        settings.change_cleanup(actor=actor, **given(data, *CLEANUP))  # type: ignore[typeddict-item]
        return settings.change_security(
            actor=actor, encryption_key_detection=KeyDetection(data["encryption_key_detection"])
        )
