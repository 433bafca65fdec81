"""Snapshot records, and recovering from them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from cpm import permissions
from cpm.admin.base import BAD, BUSY, GOOD, IDLE, ScopedAdmin, actor_of
from cpm.flows.recoveries.recover_volume_attach import BEHAVIOURS
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import SnapshotKind, SnapshotStatus
from cpm.models import Account, Region, Snapshot
from cpm.services import recoveries

COLOURS = {
    SnapshotStatus.PENDING.label: BUSY,
    SnapshotStatus.COMPLETED.label: GOOD,
    SnapshotStatus.ERROR.label: BAD,
    SnapshotStatus.DELETED.label: IDLE,
}
VOLUMES = frozenset({SnapshotKind.VOLUME, SnapshotKind.DR_VOLUME})


class WhereForm(forms.Form):
    """What recoveries of all kinds may say; what is left empty is as it was."""

    to_account = forms.ModelChoiceField(Account.objects.none(), required=False)
    to_region = forms.ModelChoiceField(Region.objects.filter(enabled=True), required=False)
    zone = forms.CharField(required=False, label="Availability zone", help_text="Such as us-east-1a.")

    def request(self) -> dict[str, Any]:
        """The fields that were filled in, as the service takes them."""
        said = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        return {name: getattr(value, "pk", value) for name, value in said.items()}


class VolumeForm(WhereForm):
    capacity = forms.IntegerField(required=False, min_value=1, label="Size in GiB")
    aws_resource_type = forms.CharField(required=False, label="EBS type", help_text="Such as gp3.")
    iops = forms.IntegerField(required=False, min_value=1, label="IOPS")
    attach_to = forms.CharField(required=False, label="Attach to instance")
    device = forms.CharField(required=False, help_text="Such as /dev/sdf.")
    attach_behaviour = forms.ChoiceField(choices=[("", "-"), *((b, b) for b in BEHAVIOURS)], required=False)


class InstanceForm(WhereForm):
    restore_from = forms.ChoiceField(
        choices=[("", "Automatic"), ("S", "Snapshots"), ("I", "Image")], required=False
    )
    instance_type = forms.CharField(required=False, help_text="Such as m7i.large.")
    num_instances_to_recover = forms.IntegerField(required=False, min_value=1, label="How many instances")
    placement = forms.ChoiceField(
        choices=[("", "As it was"), ("Z", "By zone"), ("V", "In a VPC")], required=False
    )
    vpc = forms.CharField(required=False, label="VPC")
    vpc_subnet_id = forms.CharField(required=False, label="Subnet")
    key_pair = forms.CharField(required=False)


@admin.register(Snapshot)
class SnapshotAdmin(ScopedAdmin):
    read_right = "backups.list_snapshots"
    paginator = InfinitePaginator
    list_display = (
        "__str__",
        "kind",
        "source_id",
        "account_name",
        "region",
        "shown_status",
        "start_time",
        "end_time",
    )
    list_filter = ("kind", "status", "region")
    search_fields = ("=aws_id", "=source_id", "=instance_id")
    ordering = ("-id",)
    fields = (
        "backup", "kind", "resource_type", "aws_id", "source_id", "source_name", "instance_id", "instance_name",
        "account_name", "aws_account_number", "region", "shown_status", "progress", "error", "start_time", "end_time",
        "deletion_time", "capacity", "device", "encrypted", "original", "details",
    )  # fmt: skip
    readonly_fields = ("shown_status",)
    actions_detail = ("recover",)

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: Snapshot) -> str:
        return row.get_status_display()

    def has_recover_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "recoveries.start")

    @action(description="Recover", url_path="recover", permissions=["recover"])
    def recover(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """A volume or an instance, as the record is."""
        self.found(request, object_id)
        row = Snapshot.objects.select_related(
            "backup__user", "backup__account", "backup__policy", "account"
        ).get(pk=object_id)
        actor = actor_of(request)
        reachable = permissions.visible(actor.user, Account.objects.order_by("name"), "recoveries.start")
        is_volume = row.kind in VOLUMES
        base = VolumeForm if is_volume else InstanceForm
        service = recoveries.recover_volume if is_volume else recoveries.recover_instance

        class Form(base):  # type: ignore[valid-type, misc]
            to_account = forms.ModelChoiceField(reachable, required=False)

            def clean(self) -> dict[str, Any]:
                return {"request": self.request()}

        def start(data: dict[str, Any]) -> None:
            if not is_volume and row.kind != SnapshotKind.INSTANCE:
                raise PreconditionFailed(
                    "not_recoverable", "Recover a volume or an instance, not this record."
                )
            service(actor=actor, snapshot=row, request=data["request"], credentials=None, now=timezone.now())

        return self.act(
            request,
            row,
            title="Recover",
            text=f"Recover {row.source_id} as it was at {row.backup}. What is left empty is as it was.",
            done="The recovery has started; it is under Recoveries.",
            form=Form,
            do=start,
        )
