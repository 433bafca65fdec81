"""Worker configurations with their tests, and worker tags."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget

from cpm.admin.base import BAD, BUSY, GOOD, IDLE, ServiceAdmin, ServiceForm, actor_of, given, table
from cpm.lib.states import WorkerTestStatus
from cpm.models import Actor, Region, WorkerConfiguration, WorkerTag, WorkerTest
from cpm.services import worker_configurations, worker_tags

NEVER = "Never"
_FIELDS = (
    "aws_vpc", "aws_security_group", "aws_subnet", "aws_key_pair", "requires_http_proxy", "http_proxy_address",
    "http_proxy_port", "http_proxy_user_name",
)  # fmt: skip


_PASSWORD = ("http_proxy_password_encrypted", "no_password")


class WorkerForm(ServiceForm):
    http_proxy_password_encrypted = forms.CharField(
        required=False,
        label="Password of the proxy",
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text="Stored encrypted and never shown. Empty keeps the one that is stored.",
    )
    no_password = forms.BooleanField(required=False, label="Forget the stored password")

    class Meta:
        model = WorkerConfiguration
        fields = ("account", "region", *_FIELDS)


@admin.register(WorkerConfiguration)
class WorkerAdmin(ServiceAdmin):
    form = WorkerForm
    read_right, change_right = "workers.read", worker_configurations.RIGHT
    list_display = ("account", "region", "user", "aws_vpc", "aws_subnet", "requires_http_proxy", "last_test")
    list_filter = ("region", "account")
    list_select_related = ("user", "account", "region")
    ordering = ("account__name", "region__aws_region")
    fields = (
        "account", "region", *_FIELDS, *_PASSWORD, "last_modified", "tests",
    )  # fmt: skip
    readonly_fields = ("last_modified", "tests")
    actions_detail = ("try_out",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if self.has_change_permission(request, obj):
            return self.fields
        return [name for name in self.fields if name not in _PASSWORD]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        newest = WorkerTest.objects.filter(configuration=OuterRef("pk")).order_by("-pk").values("status")[:1]
        return super().get_queryset(request).annotate(newest_test=Subquery(newest))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.remote_field.model is Region:
            kwargs["queryset"] = Region.objects.filter(enabled=True).order_by("aws_region")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @display(
        description="Last test",
        label={
            WorkerTestStatus.SUCCEEDED.label: GOOD,
            WorkerTestStatus.FAILED.label: BAD,
            WorkerTestStatus.IN_PROGRESS.label: BUSY,
            NEVER: IDLE,
        },
    )
    def last_test(self, row: Any) -> str:
        return WorkerTestStatus(row.newest_test).label if row.newest_test else NEVER

    @admin.display(description="Tests")
    def tests(self, row: WorkerConfiguration) -> SafeString | str:
        if not row.pk:
            return NEVER
        lines = row.tests.order_by("-pk")
        cells = [
            (one.start_time, one.end_time, one.get_status_display(), one.worker_id, one.details)
            for one in lines
        ]
        return table(["Started", "Ended", "Result", "Worker", "Details"], cells)

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> models.Model:
        fields = given(data, *_FIELDS)
        if data.get("http_proxy_password_encrypted") or data.get("no_password"):
            fields["http_proxy_password_encrypted"] = data.get("http_proxy_password_encrypted", "")
        account, region = data["account"].pk, data["region"].pk
        if not change:
            return worker_configurations.create(actor=actor, account=account, region=region, **fields)
        return worker_configurations.update(
            actor=actor, configuration=row, account=account, region=region, **fields
        )

    def remove(self, actor: Actor, row: Any) -> None:
        worker_configurations.delete(actor=actor, configuration=row)

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, worker_configurations.TEST_RIGHT)

    @action(description="Test", url_path="test", permissions=["act"])
    def try_out(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Test",
            text=f"A worker of {row.account} in {row.region}, or else any worker, tries out this network.",
            done="A worker tries it out; the result appears here.",
            do=lambda data: worker_configurations.start_test(
                actor=actor_of(request), configuration=row, now=timezone.now()
            ),
        )


@admin.register(WorkerTag)
class WorkerTagAdmin(ServiceAdmin):
    read_right, change_right = "worker_tags.read", worker_tags.RIGHT
    list_display = ("account", "key", "value")
    list_filter = ("account",)
    list_select_related = ("account",)
    search_fields = ("key", "value")
    ordering = ("account__name", "key")
    fields = ("account", "key", "value")

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> models.Model:
        fields = {"account": data["account"].pk, **given(data, "key", "value")}
        if not change:
            return worker_tags.create(actor=actor, **fields)
        return worker_tags.update(actor=actor, tag=row, **fields)

    def remove(self, actor: Actor, row: Any) -> None:
        worker_tags.delete(actor=actor, tag=row)
