"""Settings of the server that are options: VPC capture, tag scan, cost explorer, log mode, file-level recovery."""

from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request

from api import serializers as shapes
from api.endpoints.settings import Singleton
from api.fields import Boolean, Choice, Fields, Integer, Moment, Text
from api.views import Operation
from cpm.features import Feature
from cpm.lib.states import LogMode
from cpm.models import FileLevelRecoverySettings, ServerSettings
from cpm.services import file_level_recovery, log_mode, settings

# The contract's name of a field in a body, and ours, where they differ.
FILE_LEVEL_RECOVERY_NAMES = {
    "enable_file_level_recovery": "enabled", "use_exisiting_account": "use_existing_account",
    "existing_account": "existing_account", "aws_access_key": "access_key", "aws_secret_key": "secret_key",
}  # fmt: skip


class CaptureBody(shapes.Body):
    capture_vpcs = serializers.BooleanField(required=False, help_text="Whether VPCs are captured at all.")
    capture_vpcs_interval = shapes.Whole(help_text="Hours between two captures.")


class TagScanBody(shapes.Body):
    scan_resources = serializers.BooleanField(
        required=False, help_text="Whether resources are scanned for tags."
    )
    tag_scan_excluded_volumes_enabled = serializers.BooleanField(
        required=False, help_text="Whether a tag on a volume leaves it out of its instance's backup."
    )
    tag_scan_interval = shapes.Whole(help_text="Hours between two scans.")


class CostExplorerBody(shapes.Body):
    enabled = serializers.BooleanField()


class LogModeBody(shapes.Body):
    cpm_log_mode = shapes.Choice(
        LogMode, required=False, help_text="DEBUG makes all processes log everything."
    )


class FileLevelRecoveryBody(shapes.Body):
    """Fields that are left out keep their value. The secret key is never shown."""

    aws_access_key = shapes.Words(max_length=128)
    aws_secret_key = shapes.Words(max_length=256)
    enable_file_level_recovery = serializers.BooleanField(required=False)
    existing_account = shapes.Words(
        max_length=128, help_text="Name of the account whose credentials are used."
    )
    use_exisiting_account = serializers.BooleanField(required=False)


class CaptureSettings(Singleton):
    """When VPCs are captured."""

    fields = Fields(
        capture_vpcs=Boolean("capture_vpcs"),
        capture_vpcs_interval=Integer("capture_vpcs_interval"),
        last_capture_vpcs_time=Moment("last_capture_vpcs_time"),
    )
    operations = {
        "retrieve": Operation(
            "settings.read", since="1.3.0", feature=Feature.VPC, summary="Show the VPC capture settings"
        ),
        "change": Operation(
            "settings.change", since="1.3.0", body=CaptureBody, answers=201, feature=Feature.VPC,
            summary="Change the VPC capture settings",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(settings.change_capture(actor=self.actor, **self.body()).pk)


class TagScanSettings(Singleton):
    """When resources are scanned for tags."""

    fields = Fields(
        last_resources_scan_time=Moment("last_resources_scan_time"),
        scan_resources=Boolean("scan_resources"),
        tag_scan_excluded_volumes_enabled=Boolean("tag_scan_excluded_volumes_enabled"),
        tag_scan_interval=Integer("tag_scan_interval"),
    )
    operations = {
        "retrieve": Operation("settings.read", since="1.1.0", summary="Show the tag scan settings"),
        "change": Operation(
            "settings.change", since="1.1.0", body=TagScanBody, answers=201,
            summary="Change the tag scan settings",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(settings.change_tag_scan(actor=self.actor, **self.body()).pk)


class CostExplorerSettings(Singleton):
    """Whether costs are shown."""

    fields = Fields(enabled=Boolean("cost_explorer_enabled"))
    operations = {
        "retrieve": Operation(
            "cost_explorer.read_settings", since="1.5.0", summary="Show the cost explorer settings"
        ),
        "change": Operation(
            "cost_explorer.change", since="1.5.0", body=CostExplorerBody, answers=201,
            summary="Change the cost explorer settings",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(settings.change_cost_explorer(actor=self.actor, **self.body()).pk)


class LogModeSettings(Singleton):
    """How much the server logs."""

    fields = Fields(cpm_log_mode=Choice("log_mode", LogMode))
    operations = {
        "retrieve": Operation("settings.read", since="1.3.0", summary="Show the log mode"),
        "change": Operation(
            "settings.change", since="1.3.0", body=LogModeBody, answers=201, summary="Change the log mode"
        ),
    }

    def change(self, request: Request) -> HttpResponseBase:
        mode = self.body().get("cpm_log_mode", ServerSettings.current().log_mode)
        return self.show(log_mode.change(actor=self.actor, mode=LogMode(mode)).pk)


class FileLevelRecovery(Singleton):
    """With whose credentials files are read out of snapshots."""

    model = FileLevelRecoverySettings
    fields = Fields(
        aws_access_key=Text("access_key"),
        enable_file_level_recovery=Boolean("enabled"),
        existing_account=Text("existing_account"),
        use_exisiting_account=Boolean("use_existing_account"),
    )
    operations = {
        "retrieve": Operation(
            "settings.read", since="1.2.0", deprecated="1.4.0", summary="Show the file-level recovery settings"
        ),
        "change": Operation(
            "settings.change", since="1.2.0", body=FileLevelRecoveryBody, answers=201,
            deprecated="1.4.0", summary="Change the file-level recovery settings",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        fields = {FILE_LEVEL_RECOVERY_NAMES[name]: value for name, value in self.body().items()}
        return self.show(file_level_recovery.change(actor=self.actor, **fields).pk)  # type: ignore[typeddict-item]


urlpatterns = [
    path("settings/capture_vpc/", CaptureSettings.as_view({"get": "retrieve", "post": "change"})),
    path("settings/cost_explorer/", CostExplorerSettings.as_view({"get": "retrieve", "post": "change"})),
    path("settings/cpm_log_mode/", LogModeSettings.as_view({"get": "retrieve", "post": "change"})),
    path("settings/file_level_recovery/", FileLevelRecovery.as_view({"get": "retrieve", "post": "change"})),
    path("settings/tagscan/", TagScanSettings.as_view({"get": "retrieve", "post": "change"})),
]
