"""Backup records, their script logs and logs, and the freezer."""

from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q, Subquery, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast
from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.logs import LOG_FIELDS, Logs
from api.fields import Boolean, Choice, Fields, Integer, Moment, NumberAsText, Object, Text
from api.filters import Choices, Filter, Flag, Ids, Matching, Moments
from api.pagination import Window
from api.views import Operation, Records, Rows
from cpm.lib.states import BACKUP_WITH_SNAPSHOTS, BackupStatus, CopyStatus, DrStatus, SnapshotKind
from cpm.models import Backup, ScriptLog, Snapshot
from cpm.services import backup_tally, freezer

# From its snapshots, or from its copies in S3 once the snapshots are gone.
RECOVERABLE = Q(
    status__in=sorted(BACKUP_WITH_SNAPSHOTS | {BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER}),
    marked_for_deletion=False,
)


# A backup of S3 syncs alone holds nothing.
_OF_BACKUP = Snapshot.objects.filter(backup=OuterRef("pk"))
ONLY_SYNCED = Q(Exists(_OF_BACKUP.filter(kind=SnapshotKind.S3_SYNC))) & ~Q(
    Exists(_OF_BACKUP.exclude(kind=SnapshotKind.S3_SYNC))
)
RECOVERABLE &= ~ONLY_SYNCED


def _flag(condition: Q) -> ExpressionWrapper:
    return ExpressionWrapper(condition, output_field=BooleanField())


FIELDS = Fields(
    account=Integer("account_id"),
    description=Text("description"),
    dr_account_regions=Text("dr_account_regions"),
    dr_regions=Text("dr_regions"),
    dr_status=Choice("dr_status", DrStatus),
    end_time=Moment("end_time"),
    glacier_archive_status=Object(
        progress_percent=NumberAsText("archive_progress"), status=Choice("archive_status", CopyStatus)
    ),
    id=Integer("id"),
    is_freezer_item=Boolean("is_freezer_item"),
    is_recoverable=Boolean(_flag(RECOVERABLE)),
    is_retry=Boolean("is_retry"),
    marked_for_deletion=Boolean("marked_for_deletion"),
    move_to_freezer_enabled=Boolean(_flag(RECOVERABLE & Q(is_freezer_item=False))),
    name=Text("name"),
    # Spelled like this in the API.
    performed_quiecse=Boolean("performed_quiesce"),
    policy=Integer("policy_id"),
    retry_scheduled=Boolean("retry_scheduled"),
    s3_copy_status=Object(
        progress_percent=Integer("s3_copy_progress"), status=Choice("s3_copy_status", CopyStatus)
    ),
    start_time=Moment("start_time"),
    status=Choice("status", BackupStatus),
    user=Integer("user_id"),
)
FREEZER_FIELDS = FIELDS.without(
    "glacier_archive_status", "is_freezer_item", "is_recoverable", "move_to_freezer_enabled", "s3_copy_status"
)


def of_resource(**which: str) -> Filter:
    """Backups that have such snapshot records of a resource whose AWS id, name or tags contain the text."""

    def narrow(rows: Rows, text: str) -> Rows:
        snapshots = Snapshot.objects.annotate(tags=Cast("details__tags", TextField())).filter(
            Q(source_id__icontains=text) | Q(source_name__icontains=text) | Q(tags__icontains=text),
            backup=OuterRef("pk"),
            **which,
        )
        return rows.filter(Exists(snapshots))

    return Matching(narrow, "A part of the resource's AWS id, name or tags.")


class FreezerBody(shapes.Body):
    """The name under which a backup is frozen."""

    name = shapes.Name(max_length=255, help_text="Name of the frozen backup.")
    description = serializers.CharField(allow_blank=True, max_length=4096, help_text="Why it is kept.")


class Backups(Records):
    """Backup records. Only frozen ones can be changed or deleted here."""

    model, fields, noun = Backup, FIELDS, "backup"
    default_ordering = ("-start_time", "-id")
    filters = {
        "account": Ids("account_id"),
        "dr_status": Choices("dr_status", DrStatus),
        "id": Ids("id"),
        "is_freezer_item": Flag("is_freezer_item"),
        "policy": Ids("policy_id"),
        "s3_copy_status": Choices("s3_copy_status", CopyStatus),
        "search_by_aurora": of_resource(resource_type="rds_clusters"),
        "search_by_dynamo_db": of_resource(resource_type="dynamodb_tables"),
        "search_by_efs": of_resource(resource_type="efs"),
        "search_by_instance": of_resource(kind=SnapshotKind.INSTANCE),
        "search_by_rds": of_resource(resource_type="rds_databases"),
        "search_by_redshift": of_resource(resource_type="redshift_clusters"),
        "search_by_s3_sync": of_resource(kind=SnapshotKind.S3_SYNC),
        "search_by_volume": of_resource(kind=SnapshotKind.VOLUME),
        "start_time": Moments("start_time"),
        "status": Choices("status", BackupStatus),
        "tracker_id": Ids("tracker_id"),
        "user": Ids("user_id"),
    }
    ordering = {
        "account": "account_id",
        "dr_status": "dr_status",
        "end_time": "end_time",
        "is_freezer_item": "is_freezer_item",
        "policy": "policy_id",
        "s3_copy_status": "s3_copy_status",
        "start_time": "start_time",
        "status": "status",
        "user": "user_id",
    }
    search = ("name", "description")
    operations = {
        "list": Operation("backups.read", since="1.1.0", many=True, summary="List backups"),
        "retrieve": Operation("backups.read", since="1.1.0", summary="Show a backup"),
        "update": Operation(
            "backups.change", since="1.1.0", body=FreezerBody, summary="Rename a frozen backup"
        ),
        "destroy": Operation(
            "backups.change", since="1.1.0", answers=204, summary="Delete a frozen backup"
        ),
        "to_freezer": Operation(
            "backups.change", since="1.0.0", body=FreezerBody, answers=201, fields=FREEZER_FIELDS,
            summary="Move a backup to the freezer",
        ),
    }  # fmt: skip

    def position(self, found: Rows, window: Window) -> tuple[int | RawSQL | Subquery, Rows, int]:
        """Counts and deep pages come from the tally where it knows the answer; see `cpm.models.tally`."""
        scope = self._tallied()
        if scope is None:
            return super().position(found, window)
        ordered = found.order_by(*self.asked.ordering)
        by_time = self.asked.ordering[0].lstrip("-") == "start_time" and len(self.asked.ordering) == 2
        if window.number == 1:
            return backup_tally.count_sql(**scope), ordered, 0
        if not by_time:
            total = backup_tally.count(**scope)
            window.check(total)
            return total, ordered, window.offset
        newest_first = self.asked.ordering[0] == "-start_time"
        place = backup_tally.locate(**scope, offset=window.offset, newest_first=newest_first)
        if place is None:
            window.check(backup_tally.count(**scope))
            return 0, ordered, window.offset
        bound = {"start_time__lt": place.end} if newest_first else {"start_time__gte": place.start}
        return place.total, ordered.filter(**bound), place.skip

    def _tallied(self) -> dict[str, Any] | None:
        """What the client asks for in the tally's terms; None if it knows no answer."""
        asked = self.asked
        if asked.search or not set(asked.filters) <= {"account", "user"}:
            return None
        users, accounts = list(self.owners), None
        if text := asked.filters.get("user"):
            users = [pk for pk in users if pk in set(Ids.read(text))]
        if text := asked.filters.get("account"):
            accounts = Ids.read(text)
        return {"users": users, "accounts": accounts}

    def update(self, request: Request, id: int) -> HttpResponseBase:
        freezer.update(actor=self.actor, backup=self.find(id), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        freezer.delete(actor=self.actor, backup=self.find(id))
        return self.done()

    def to_freezer(self, request: Request, backup_id: int) -> HttpResponseBase:
        freezer.freeze(actor=self.actor, backup=self.find(backup_id), **self.body())
        return self.show(backup_id)


class Freezer(Backups):
    """Frozen backups. `GET /backups/?is_freezer_item=true` has replaced this."""

    fields = FREEZER_FIELDS
    filters = {name: Backups.filters[name] for name in ("account", "user")}
    ordering = {
        "name": "name",
        **{
            name: Backups.ordering[name]
            for name in ("account", "dr_status", "policy", "start_time", "status", "user")
        },
    }
    operations = {
        "list": Operation(
            "backups.read", since="1.0.0", many=True, deprecated="1.1.0", summary="List frozen backups"
        ),
    }

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(is_freezer_item=True)

    def _tallied(self) -> None:
        return None


class ScriptLogs(Records):
    """What the scripts of one backup wrote to their error stream."""

    model, noun = ScriptLog, "script log"
    fields = Fields(log=Text("log"), title=Text("title"))
    operations = {
        "list": Operation("backups.read", since="1.4.0", many=True, summary="List a backup's script logs"),
        "retrieve": Operation("backups.read", since="1.4.0", summary="Show a script log"),
    }

    def narrow(self, queryset: Rows) -> Rows:
        parent = self.found(Backup.objects.all(), self.kwargs["backup_id"], "backup")
        return queryset.filter(backup=parent)


class BackupLogs(Logs):
    """The log of one backup."""

    subject_type, filename = "backup", "backup-log"
    operations = {
        "list": Operation(
            "backups.read", since="1.1.0", many=True, paged=False, fields=LOG_FIELDS,
            summary="Show or download a backup's log",
        ),
    }  # fmt: skip

    def subject(self) -> int:
        found: Backup = self.found(Backup.objects.all(), self.kwargs["id"], "backup")
        return found.pk


urlpatterns = [
    path("backups/", Backups.as_view({"get": "list"})),
    path("backups/<id:id>/", Backups.as_view({"get": "retrieve", "put": "update", "delete": "destroy"})),
    path("backups/<id:id>/logs/", BackupLogs.as_view({"get": "list"})),
    path("backups/<id:backup_id>/to_freezer/", Backups.as_view({"post": "to_freezer"})),
    path("backups/<id:backup_id>/script_logs/", ScriptLogs.as_view({"get": "list"})),
    path("backups/<id:backup_id>/script_logs/<id:id>/", ScriptLogs.as_view({"get": "retrieve"})),
    path("freezer/", Freezer.as_view({"get": "list"})),
]
