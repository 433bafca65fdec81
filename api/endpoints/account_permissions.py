"""What CPM may do in an account, by groups of permissions: as JSON, and as a file for whoever has to mend it."""

from collections.abc import Iterator
from typing import ClassVar

from django.db.models import TextField, Value
from django.http import HttpResponse
from django.urls import path
from rest_framework.request import Request

from api.fields import Fields, Items, Text
from api.renderers import CsvRenderer, JsonRenderer
from api.views import Endpoint, Operation
from cpm.models import Account
from cpm.reports.stream import table
from cpm.services import permission_check
from cpm.services.permission_check import ConnectionCheck

WORDS = Value("", output_field=TextField())
FIELDS = Fields(
    account_name=Text(WORDS), account_number=Text(WORDS), connection=Text(WORDS), groups=Items(WORDS, of="string")
)
HEADINGS = (
    "Account", "Account number", "Connection", "Group", "Optional", "Result", "Missing actions", "Denied actions",
    "Statement to add",
)  # fmt: skip


class Checks(Endpoint):
    """The check of one account. AWS is asked each time."""

    is_dr_account: ClassVar[bool]

    def checks(self, id: int) -> list[ConnectionCheck]:
        rows = Account.objects.filter(is_dr_account=self.is_dr_account).select_related("assume_from_account")
        return permission_check.check(self.found(rows, id, "account"))


class JsonChecks(Checks):
    """One row for each connection; its groups are sentences for people."""

    fields = FIELDS
    operations = {
        "list": Operation(
            "accounts.read", since="1.4.0", many=True, paged=False, summary="Check AWS permissions of an account"
        ),
    }  # fmt: skip

    def list(self, request: Request, id: int) -> HttpResponse:
        return self.listed(
            [
                {
                    "account_name": one.account_name,
                    "account_number": one.account_number,
                    "connection": one.connection,
                    "groups": [str(group) for group in one.groups],
                }
                for one in self.checks(id)
            ]
        )


class CsvChecks(Checks):
    """A download with one line for each connection and group, also for clients that ask for JSON."""

    renderer_classes = [CsvRenderer, JsonRenderer]
    operations = {
        "retrieve": Operation(
            "accounts.read", since="1.4.0", downloads=CsvRenderer.media_type,
            summary="Download the check of AWS permissions of an account",
        ),
    }  # fmt: skip

    def retrieve(self, request: Request, id: int) -> HttpResponse:
        response = HttpResponse(table(HEADINGS, _lines(self.checks(id))), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="aws-permissions-{id}.csv"'
        return response


def _lines(checks: list[ConnectionCheck]) -> Iterator[tuple[str, ...]]:
    for one in checks:
        for group in one.groups:
            yield (
                one.account_name, one.account_number, one.connection, group.name, "Yes" if group.optional else "No",
                group.outcome.value, ", ".join(group.missing_names), ", ".join(group.denials), group.statement,
            )  # fmt: skip


class BackupJsonChecks(JsonChecks):
    is_dr_account = False


class BackupCsvChecks(CsvChecks):
    is_dr_account = False


class DrJsonChecks(JsonChecks):
    is_dr_account = True


class DrCsvChecks(CsvChecks):
    is_dr_account = True


urlpatterns = [
    path("accounts/backup/<id:id>/check_aws_permissions/", BackupJsonChecks.as_view({"get": "list"})),
    path("accounts/backup/<id:id>/check_aws_permissions/download/", BackupCsvChecks.as_view({"get": "retrieve"})),
    path("accounts/dr/<id:id>/check_aws_permissions/", DrJsonChecks.as_view({"get": "list"})),
    path("accounts/dr/<id:id>/check_aws_permissions/download/", DrCsvChecks.as_view({"get": "retrieve"})),
]
