"""AWS accounts: those that are backed up, and those that receive copies."""

from typing import Any, ClassVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q
from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Boolean, Choice, Fields, Integer, Items, Text
from api.filters import Exactly, Ids
from api.views import Operation, Records, Rows
from cpm.features import Feature
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import Authentication
from cpm.models import Account, Policy, S3Repository
from cpm.services import accounts, backup_deletion

RELATED_POLICIES = ArraySubquery(
    Policy.objects.filter(Q(account=OuterRef("pk")) | Q(dr_account=OuterRef("pk")))
    .order_by("pk")
    .values("pk")
)
RELATED_REPOSITORIES = ArraySubquery(
    S3Repository.objects.filter(account=OuterRef("pk")).order_by("pk").values("pk")
)
SHARED_FIELDS = Fields(
    account_number=Text("account_number"),
    associated_repositories=Items(RELATED_REPOSITORIES, of="integer"),
    assume_from_account=Integer("assume_from_account_id"),
    authentication=Choice("authentication", Authentication),
    aws_access_key=Text("access_key"),
    external_id=Text("external_id"),
    id=Integer("id"),
    is_dr_account=Boolean("is_dr_account"),
    name=Text("name"),
    related_policies=Items(RELATED_POLICIES, of="integer"),
    role_name=Text("role_name"),
    user=Integer("user_id"),
)
FIELDS = SHARED_FIELDS.extended(
    capture_vpcs=Boolean("capture_vpcs"),
    scan_regions=Items("scan_regions", of="integer"),
    scan_resource_types=Items("scan_resource_types", of="integer"),
    scan_tagged_resources=Boolean("scan_tagged_resources"),
)
DR_FIELDS = SHARED_FIELDS.extended(allow_deleting_snapshots=Boolean("allow_deleting_snapshots"))


class AccountBody(shapes.Body):
    """What backup and DR accounts share. What is left out keeps its value."""

    name = shapes.Name(help_text="Letters, digits, underscores and dashes.")
    authentication = shapes.Choice(Authentication, help_text="How CPM gets into the account.")
    account_number = shapes.Words(max_length=12, help_text="Number of the account, 12 digits.")
    assume_from_account = shapes.Id(
        required=False, allow_null=True, help_text="Account whose credentials assume the role."
    )
    aws_access_key = shapes.Words(max_length=128, help_text="Access key of an IAM user.")
    aws_secret_key = shapes.Words(
        max_length=1024, write_only=True, help_text="Its secret key. It is stored encrypted and never shown."
    )
    external_id = shapes.Words(
        max_length=1224, help_text="External id that the role's trust policy asks for."
    )
    is_dr_account = serializers.BooleanField(
        required=False, help_text="Fixed by the address; may be left out."
    )
    role_name = shapes.Words(max_length=128, help_text="Name of the role, not its ARN.")


class BackupAccountBody(AccountBody):
    capture_vpcs = serializers.BooleanField(required=False, help_text="Capture the account's VPCs.")
    scan_regions = serializers.ListField(
        child=shapes.Id(), required=False, max_length=200, help_text="Regions that tag scans look in."
    )
    scan_resource_types = serializers.ListField(
        child=shapes.Id(), required=False, max_length=200, help_text="Resource types that tag scans look for."
    )
    scan_tagged_resources = serializers.BooleanField(required=False, help_text="Take part in tag scans.")


class DrAccountBody(AccountBody):
    allow_deleting_snapshots = serializers.BooleanField(
        required=False, help_text="Delete outdated copies; otherwise they are only tagged as outdated."
    )


class NewBackupAccountBody(BackupAccountBody):
    user = shapes.Id(help_text="The user who shall own the account.")


class NewDrAccountBody(DrAccountBody):
    user = shapes.Id(help_text="The user who shall own the account.")


class Accounts(Records):
    """Accounts of both kinds."""

    model, fields, noun = Account, FIELDS, "account"
    filters = {"name": Exactly("name"), "user": Ids("user_id")}
    ordering = {"authentication": "authentication", "name": "name", "user": "user_id"}
    search = ("name", "access_key")
    operations = {
        "list": Operation("accounts.read", since="1.2.0", many=True, summary="List accounts"),
        "retrieve": Operation("accounts.read", since="1.2.0", summary="Show an account"),
        "destroy": Operation(
            "accounts.change", since="1.3.0", answers=204, content=False, summary="Delete an account"
        ),
        "delete_snapshots": Operation(
            "accounts.change", since="1.3.0", answers=204, content=False,
            summary="Delete all snapshots of an account",
        ),
    }  # fmt: skip

    def destroy(self, request: Request, id: int) -> Response:
        accounts.delete(actor=self.actor, account=self.find(id))
        return self.done()

    def delete_snapshots(self, request: Request, id: int) -> Response:
        backup_deletion.delete_account_snapshots(actor=self.actor, account=self.find(id))
        return self.done()


class OneKind(Accounts):
    """Accounts of one kind, which the address says."""

    is_dr_account: ClassVar[bool]

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(is_dr_account=self.is_dr_account)

    def create(self, request: Request) -> HttpResponseBase:
        body = self.checked_body()
        made = accounts.create(actor=self.actor, is_dr_account=self.is_dr_account, **body)
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        found = self.find(id)
        accounts.update(actor=self.actor, account=found, **self.checked_body())
        return self.show(id)

    def checked_body(self) -> dict[str, Any]:
        body = self.body()
        if body.pop("is_dr_account", self.is_dr_account) != self.is_dr_account:
            kind = "a DR account" if self.is_dr_account else "a backup account"
            raise ValidationFailed.one("is_dr_account", f"What has this address is {kind}.", "wrong_kind")
        return body


def _operations(
    new: type[shapes.Body], changed: type[shapes.Body], kind: str, needed_to_create: Feature | None
) -> dict[str, Operation]:
    def operation(right: str, summary: str, **more: Any) -> Operation:
        return Operation(right, since="1.0.0", summary=summary, **more)

    return {
        "list": operation("accounts.read", f"List {kind} accounts", many=True),
        "create": operation(
            "accounts.change", f"Add a {kind} account", body=new, answers=201, feature=needed_to_create
        ),
        "retrieve": operation("accounts.read", f"Show a {kind} account"),
        # The contract wants the feature for changing accounts of both kinds, for adding only those for DR.
        "update": operation(
            "accounts.change", f"Change a {kind} account", body=changed, feature=Feature.CROSS_ACCOUNT
        ),
        "destroy": operation("accounts.change", f"Delete a {kind} account", answers=204, content=False),
        "delete_snapshots": operation(
            "accounts.change", f"Delete all snapshots of a {kind} account", answers=204, content=False
        ),
    }


class BackupAccounts(OneKind):
    """Accounts whose resources are backed up."""

    is_dr_account = False
    operations = _operations(NewBackupAccountBody, BackupAccountBody, "backup", None)


class DrAccounts(OneKind):
    """Accounts that receive copies of snapshots."""

    is_dr_account = True
    fields = DR_FIELDS
    operations = _operations(NewDrAccountBody, DrAccountBody, "DR", Feature.CROSS_ACCOUNT)


ROW: dict[str, Any] = {"get": "retrieve", "put": "update", "delete": "destroy"}
ROWS: dict[str, Any] = {"get": "list", "post": "create"}

urlpatterns = [
    path("accounts/", Accounts.as_view({"get": "list"})),
    path("accounts/<id:id>/", Accounts.as_view({"get": "retrieve", "delete": "destroy"})),
    path("accounts/<id:id>/snapshots/", Accounts.as_view({"delete": "delete_snapshots"})),
    path("accounts/backup/", BackupAccounts.as_view(ROWS)),
    path("accounts/backup/<id:id>/", BackupAccounts.as_view(ROW)),
    path("accounts/backup/<id:id>/snapshots/", BackupAccounts.as_view({"delete": "delete_snapshots"})),
    path("accounts/dr/", DrAccounts.as_view(ROWS)),
    path("accounts/dr/<id:id>/", DrAccounts.as_view(ROW)),
    path("accounts/dr/<id:id>/snapshots/", DrAccounts.as_view({"delete": "delete_snapshots"})),
]
