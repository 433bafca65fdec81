"""Recovery records and their logs."""

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from api.endpoints.logs import LOG_FIELDS, Logs
from api.fields import Boolean, Choice, Fields, Integer, Items, Moment, Nothing, Object, Text, TextOrNull
from api.filters import Choices, Ids, Matching
from api.views import Operation, Records
from cpm.lib.states import CopyStatus, RecoveryStatus, RecoveryType
from cpm.models import Recovery
from cpm.services import recoveries

FIELDS = Fields(
    account=Integer("account_id"),
    backup_marked_for_deletion=Boolean("backup__marked_for_deletion"),
    backup_record=Integer("backup_id"),
    backup_time=Moment("backup_time"),
    frozen_item_name=TextOrNull("frozen_item_name"),
    glacier_retrieve_status=Object(
        progress_percent=Items("retrieve_progress", "integer"), status=Choice("retrieve_status", CopyStatus)
    ),
    id=Integer("id"),
    policy=Integer("policy_id"),
    recovered_resource_ids=Text("recovered_resource_ids"),
    recovery_scenario_id=Nothing("string"),
    recovery_scenario_name=Nothing("string"),
    recovery_scenario_record=Nothing("integer"),
    recovery_scenario_record_dry_run_only=Nothing("boolean"),
    recovery_scenario_record_start_time=Nothing("string"),
    recovery_time=Moment("recovery_time"),
    recovery_type=Choice("recovery_type", RecoveryType),
    s3_recover_status=Object(
        progress_percent=Items("s3_progress", "integer"), status=Choice("s3_status", CopyStatus)
    ),
    status=Choice("status", RecoveryStatus),
    user=Integer("user_id"),
)


class Recoveries(Records):
    """What was recovered, or is being recovered."""

    model, fields, noun = Recovery, FIELDS, "recovery"
    default_ordering = ("-recovery_time", "-id")
    filters = {
        "account": Ids("account_id"),
        "id": Ids("id"),
        "policy": Ids("policy_id"),
        "recovery_scenario_record": Matching(
            lambda rows, text: rows.filter(pk__in=Ids.read(text)).none(), "No recovery has a scenario yet."
        ),
        "status": Choices("status", RecoveryStatus),
        "user": Ids("user_id"),
    }
    ordering = {
        "account": "account_id",
        "backup_time": "backup_time",
        "policy": "policy_id",
        # All recoveries are equal in this until scenarios exist.
        "recovery_scenario_record": "id",
        "recovery_time": "recovery_time",
        "recovery_type": "recovery_type",
        "status": "status",
        "user": "user_id",
    }
    operations = {
        "list": Operation("recoveries.read", since="1.0.0", many=True, summary="List recoveries"),
        "retrieve": Operation("recoveries.read", since="1.0.0", summary="Show a recovery"),
        "destroy": Operation(
            "recoveries.delete", since="1.0.0", answers=204, summary="Delete the record of a recovery"
        ),
    }

    def destroy(self, request: Request, id: int) -> Response:
        recoveries.delete(actor=self.actor, recovery=self.find(id))
        return self.done()


class RecoveryLogs(Logs):
    """The log of one recovery."""

    subject_type, filename = "recovery", "recovery-log"
    operations = {
        "list": Operation(
            "recoveries.read", since="1.0.0", many=True, paged=False, fields=LOG_FIELDS,
            summary="Show or download a recovery's log",
        ),
    }  # fmt: skip

    def subject(self) -> int:
        found: Recovery = self.found(Recovery.objects.all(), self.kwargs["id"], "recovery")
        return found.pk


urlpatterns = [
    path("recoveries/", Recoveries.as_view({"get": "list"})),
    path("recoveries/<id:id>/", Recoveries.as_view({"get": "retrieve", "delete": "destroy"})),
    path("recoveries/<id:id>/logs/", RecoveryLogs.as_view({"get": "list"})),
]
