"""AWS accounts. The secret key can be entered and never be read."""

from typing import Any

from django import forms
from django.contrib import admin
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from cpm.admin.base import ServiceAdmin, ServiceForm, given
from cpm.lib.states import Authentication
from cpm.models import Account, Actor
from cpm.services import accounts

SIMPLE = (
    "account_number", "role_name", "external_id", "allow_deleting_snapshots", "scan_tagged_resources", "capture_vpcs",
)  # fmt: skip


class AccountForm(ServiceForm):
    aws_access_key = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, label="AWS access key"
    )
    aws_secret_key = forms.CharField(
        required=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        label="AWS secret key",
        help_text="Stored encrypted and never shown. Empty keeps the one that is stored.",
    )

    class Meta:
        model = Account
        fields = ("user", "name", "is_dr_account", "authentication", *SIMPLE, "assume_from_account")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("aws_access_key", self.instance.access_key)


@admin.register(Account)
class AccountAdmin(ServiceAdmin):
    form = AccountForm
    read_right = "accounts.read"
    change_right = "accounts.change"
    fixed = ("user", "is_dr_account")
    fields = (
        "user", "name", "is_dr_account", "authentication", "aws_access_key", "aws_secret_key", "account_number",
        "role_name", "external_id", "assume_from_account", "allow_deleting_snapshots", "scan_tagged_resources",
        "capture_vpcs", "last_error", "last_error_at",
    )  # fmt: skip
    readonly_fields = ("last_error", "last_error_at")
    list_display = ("name", "user", "authentication", "account_number", "is_dr_account", "last_error_at")
    list_filter = ("authentication", "is_dr_account")
    list_select_related = ("user",)
    search_fields = ("name", "account_number")
    ordering = ("name", "id")

    def get_fields(self, request: Any, obj: Any = None) -> Any:
        if self.has_change_permission(request, obj):
            return self.fields
        return [name for name in self.fields if not name.startswith("aws_")]

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> Account:
        source = data["assume_from_account"]
        fields = given(data, *SIMPLE) | {"assume_from_account": source.pk if source else None}
        if data["authentication"] == Authentication.KEYS:
            fields["aws_access_key"] = data["aws_access_key"]
            if data["aws_secret_key"]:
                fields["aws_secret_key"] = data["aws_secret_key"]
        common = {"name": data["name"], "authentication": Authentication(data["authentication"])}
        if change:
            return accounts.update(actor=actor, account=Account.objects.get(pk=row.pk), **common, **fields)  # type: ignore[arg-type]
        owner = {"user": data["user"].pk, "is_dr_account": data["is_dr_account"]}
        return accounts.create(actor=actor, **owner, **common, **fields)  # type: ignore[arg-type]

    def remove(self, actor: Actor, row: Any) -> None:
        accounts.delete(actor=actor, account=row)
