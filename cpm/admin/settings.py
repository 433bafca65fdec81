"""Settings of the server: one row of each kind, for root."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from cpm.admin.base import ServiceAdmin, ServiceForm, actor_of, given
from cpm.lib.states import KeyDetection, LogMode
from cpm.models import Actor, FileLevelRecoverySettings, ProxySettings, ServerSettings
from cpm.services import activation_key, cleanup, file_level_recovery, identifier, log_mode, proxy, settings

CLEANUP = (
    "cleanup_interval", "keep_deleted_backup_records", "keep_user_audit_logs_days", "keep_resource_control_records",
    "days_until_single_ami_rotation", "cleanup_type",
)  # fmt: skip
CAPTURE = ("capture_vpcs", "capture_vpcs_interval")
TAG_SCAN = ("scan_resources", "tag_scan_interval", "tag_scan_excluded_volumes_enabled")
PROXY = ("enabled", "address", "port", "username")
FILE_LEVEL_RECOVERY = ("enabled", "use_existing_account", "existing_account", "access_key")


def _hidden(label: str) -> forms.CharField:
    return forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        label=label,
        help_text="Stored encrypted and never shown. Empty keeps the one that is stored.",
    )


class SettingsForm(ServiceForm):
    class Meta:
        model = ServerSettings
        fields = (
            "name", *CLEANUP, "encryption_key_detection", "log_mode", "cost_explorer_enabled", *CAPTURE, *TAG_SCAN
        )  # fmt: skip


class ProxyForm(ServiceForm):
    new_password = _hidden("Password")
    no_password = forms.BooleanField(required=False, label="Forget the stored password")

    class Meta:
        model = ProxySettings
        fields = PROXY


class FileLevelRecoveryForm(ServiceForm):
    new_secret_key = _hidden("AWS secret key")

    class Meta:
        model = FileLevelRecoverySettings
        fields = FILE_LEVEL_RECOVERY


class ConfirmationForm(forms.Form):
    """Typing the UUID is what makes sure."""

    new_name = forms.CharField(max_length=128, label="Name")
    present_uuid = forms.CharField(label="The present UUID, to confirm", required=False)


class ActivationKeyForm(forms.Form):
    key = forms.CharField(max_length=1024, label="Activation key", widget=UnfoldAdminTextInputWidget)


class SingletonAdmin(ServiceAdmin):
    """A kind of settings, which has one row that is neither added nor deleted."""

    read_right = "settings.read"
    change_right = "settings.change"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        self.model.current()
        return self.model._default_manager.order_by("id")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, self.change_right)


@admin.register(ServerSettings)
class SettingsAdmin(SingletonAdmin):
    form = SettingsForm
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "server_id",
                    "name",
                    "log_mode",
                    "encryption_key_detection",
                    "cost_explorer_enabled",
                )
            },
        ),
        ("Cleanup", {"fields": (*CLEANUP, "last_cleanup_time", "last_s3_cleanup_time")}),
        ("VPC capture", {"fields": (*CAPTURE, "last_capture_vpcs_time")}),
        ("Tag scan", {"fields": (*TAG_SCAN, "last_resources_scan_time")}),
    )
    readonly_fields = (
        "server_id", "last_cleanup_time", "last_s3_cleanup_time", "last_capture_vpcs_time", "last_resources_scan_time",
    )  # fmt: skip
    list_display = ("server_id", "name", "cleanup_interval", "encryption_key_detection", "log_mode")
    actions_detail = ("clean_up", "clean_up_s3", "renew", "activate")

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> ServerSettings:
        settings.change_cleanup(actor=actor, **given(data, *CLEANUP))  # type: ignore[typeddict-item]
        settings.change_capture(actor=actor, **given(data, *CAPTURE))  # type: ignore[typeddict-item]
        settings.change_tag_scan(actor=actor, **given(data, *TAG_SCAN))  # type: ignore[typeddict-item]
        settings.change_cost_explorer(actor=actor, enabled=data["cost_explorer_enabled"])
        log_mode.change(actor=actor, mode=LogMode(data["log_mode"]))
        identifier.rename(actor=actor, name=data["name"])
        return settings.change_security(
            actor=actor, encryption_key_detection=KeyDetection(data["encryption_key_detection"])
        )

    @action(description="Clean up now", url_path="clean-up", permissions=["act"])
    def clean_up(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self.act(
            request,
            self.found(request, object_id),
            title="Clean up now",
            text="Snapshots that have outlived their policies are deleted, without waiting for the interval.",
            done="The cleanup has started.",
            do=lambda _: cleanup.run(actor=actor_of(request), now=timezone.now()),
        )

    @action(description="Clean up S3 now", url_path="clean-up-s3", permissions=["act"])
    def clean_up_s3(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self.act(
            request,
            self.found(request, object_id),
            title="Clean up S3 now",
            text="Copies in S3 and archives that have outlived their policies are deleted or archived, without waiting for "
            "midnight.",
            done="The cleanup in S3 has started.",
            do=lambda _: cleanup.run_s3(actor=actor_of(request), now=timezone.now()),
        )

    @action(description="New UUID", url_path="renew", permissions=["act"])
    def renew(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="New UUID",
            text="What the present UUID has tagged in AWS is no longer recognised as this server's. "
            "While there are snapshots, type the present UUID to confirm.",
            done="The server has a new UUID.",
            form=ConfirmationForm,
            do=lambda data: identifier.renew(
                actor=actor_of(request), name=data["new_name"], confirmed=data["present_uuid"]
            ),
        )

    @action(description="Activation key", url_path="activate", permissions=["act"])
    def activate(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Activation key",
            text="This server has no licence: the key is stored, encrypted, and unlocks nothing.",
            done="The key is stored.",
            form=ActivationKeyForm,
            do=lambda data: activation_key.change(actor=actor_of(request), activation_key=data["key"]),
        )


@admin.register(ProxySettings)
class ProxyAdmin(SingletonAdmin):
    form = ProxyForm
    fields = (*PROXY, "new_password", "no_password")
    list_display = ("address", "port", "username", "enabled")
    actions_detail = ("test",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if self.has_change_permission(request, obj) else PROXY

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> models.Model:
        fields = given(data, *PROXY)
        if data["new_password"] or data["no_password"]:
            fields["password"] = "" if data["no_password"] else data["new_password"]
        return proxy.change(actor=actor, **fields)  # type: ignore[arg-type]

    @action(description="Test", url_path="test", permissions=["act"])
    def test(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Test the proxy",
            text="Reach AWS through this proxy as it is stored, whether it is enabled or not.",
            done="AWS answers through this proxy.",
            do=lambda _: proxy.test_connection(actor=actor_of(request)),
        )


@admin.register(FileLevelRecoverySettings)
class FileLevelRecoveryAdmin(SingletonAdmin):
    form = FileLevelRecoveryForm
    fields = (*FILE_LEVEL_RECOVERY, "new_secret_key")
    list_display = ("enabled", "use_existing_account", "existing_account", "access_key")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if self.has_change_permission(request, obj) else FILE_LEVEL_RECOVERY

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> models.Model:
        fields = given(data, *FILE_LEVEL_RECOVERY)
        if data["new_secret_key"]:
            fields["secret_key"] = data["new_secret_key"]
        return file_level_recovery.change(actor=actor, **fields)  # type: ignore[arg-type]
