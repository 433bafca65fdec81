"""Snapshot records, and recovering from them."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from cpm import permissions
from cpm.admin import takes
from cpm.admin.base import BAD, BUSY, GOOD, IDLE, ScopedAdmin, actor_of
from cpm.flows.recoveries.recover_volume_attach import BEHAVIOURS
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import SnapshotKind, SnapshotStatus
from cpm.models import Account, Recovery, Region, Snapshot
from cpm.resources.registry import WHOLE_BY_KIND, kind_label
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


class KindFilter(admin.SimpleListFilter):
    """By the list in which the API shows them. The kinds are known, so no row is read for them."""

    title, parameter_name = "kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind_label(kind)) for kind in (*SnapshotKind, *WHOLE_BY_KIND)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Snapshot]) -> QuerySet[Snapshot]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Snapshot)
class SnapshotAdmin(ScopedAdmin):
    read_right = "backups.list_snapshots"
    paginator = InfinitePaginator
    list_display = (
        "__str__",
        "shown_kind",
        "source_id",
        "account_name",
        "region",
        "shown_status",
        "start_time",
        "end_time",
    )
    list_filter = (KindFilter, "status", "region")
    search_fields = ("=aws_id", "=source_id", "=instance_id")
    ordering = ("-id",)
    fields = (
        "backup", "shown_kind", "resource_type", "aws_id", "source_id", "source_name", "instance_id", "instance_name",
        "account_name", "aws_account_number", "region", "shown_status", "progress", "error", "start_time", "end_time",
        "deletion_time", "capacity", "device", "encrypted", "original", "details",
    )  # fmt: skip
    readonly_fields = ("shown_kind", "shown_status")
    actions_detail = ("recover",)

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: Snapshot) -> str:
        return row.get_status_display()

    @admin.display(description="Kind", ordering="kind")
    def shown_kind(self, row: Snapshot) -> str:
        return kind_label(row.kind)

    def has_recover_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "recoveries.start")

    @action(description="Recover", url_path="recover", permissions=["recover"])
    def recover(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        """Whatever the record is of, with a form for its type."""
        self.found(request, object_id)
        row = Snapshot.objects.select_related(
            "backup__user", "backup__account", "backup__policy", "account"
        ).get(pk=object_id)
        actor = actor_of(request)
        reachable = permissions.visible(actor.user, Account.objects.order_by("name"), "recoveries.start")
        form, service = _recovery_of(row, reachable)

        def start(data: dict[str, Any]) -> None:
            if service is None:
                raise PreconditionFailed("not_recoverable", "This record is not recovered by itself.")
            service(actor=actor, snapshot=row, request=data["request"], credentials=None, now=timezone.now())

        return self.act(
            request,
            row,
            title="Recover",
            text=f"Recover {row.source_id} as it was at {row.backup}. What is left empty is as it was.",
            done="The recovery has started; it is under Recoveries.",
            form=form,
            do=start,
        )


def _recovery_of(row: Snapshot, accounts: Any) -> tuple[type[forms.Form], Callable[..., Recovery] | None]:
    """The form and the service that recover from this record; no service for what is part of something else."""
    if row.kind in WHOLE_BY_KIND:
        return takes.recovery_form(WHOLE_BY_KIND[row.kind].recover_takes, accounts), recoveries.recover_whole
    if row.kind in VOLUMES:
        return _form(VolumeForm, accounts), recoveries.recover_volume
    if row.kind == SnapshotKind.INSTANCE:
        return _form(InstanceForm, accounts), recoveries.recover_instance
    return forms.Form, None


def _form(base: type[WhereForm], accounts: Any) -> type[forms.Form]:
    class Form(base):  # type: ignore[valid-type, misc]
        to_account = forms.ModelChoiceField(accounts, required=False)

        def clean(self) -> dict[str, Any]:
            return {"request": self.request()}

    return Form
