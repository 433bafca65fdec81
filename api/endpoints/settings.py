"""Settings of the server: cleanup and security, and what all settings share.

`POST` changes settings and answers with the new state. Other kinds are in `settings_*.py` beside this file.
"""

from typing import ClassVar

from django.db.models import Q
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from api import pagination
from api import serializers as shapes
from api.endpoints.logs import LOG_FIELDS, Logs
from api.fields import Choice, Fields, Integer, Moment
from api.views import Operation, Records, Rows
from cpm.lib.states import CleanupType, KeyDetection, Role
from cpm.models import Policy, ServerSettings
from cpm.models.server import OneRow
from cpm.services import cleanup, settings

CLEANUP_FIELDS = Fields(
    cleanup_interval=Integer("cleanup_interval"),
    cleanup_type=Choice("cleanup_type", CleanupType),
    days_until_single_ami_rotation=Integer("days_until_single_ami_rotation"),
    keep_deleted_backup_records=Integer("keep_deleted_backup_records"),
    keep_resource_control_records=Integer("keep_resource_control_records"),
    keep_user_audit_logs_days=Integer("keep_user_audit_logs_days"),
    last_cleanup_time=Moment("last_cleanup_time"),
    last_s3_cleanup_time=Moment("last_s3_cleanup_time"),
)


class CleanupBody(shapes.Body):
    """How often to clean up and what to keep how long."""

    cleanup_interval = shapes.Whole(help_text="Hours between two cleanups.")
    cleanup_type = shapes.Choice(
        CleanupType, required=False, help_text="Which cleanup is started on demand; both run by themselves."
    )
    days_until_single_ami_rotation = shapes.Whole(help_text="Days until an initial AMI is replaced.")
    keep_deleted_backup_records = shapes.Whole(help_text="Days to keep records of deleted backups.")
    keep_resource_control_records = shapes.Whole(help_text="Days to keep resource control records.")
    keep_user_audit_logs_days = shapes.Whole(help_text="Days to keep audit logs.")


class SecurityBody(shapes.Body):
    encryption_key_detection = shapes.Choice(
        KeyDetection, help_text="What DR does when the target region has no matching key."
    )


class Singleton(Records):
    """The one row of a kind of settings, which is made on first use."""

    model: ClassVar[type[OneRow]] = ServerSettings
    noun = "settings"

    def scoped(self, queryset: Rows) -> Rows:
        return queryset

    def retrieve(self, request: Request) -> HttpResponseBase:  # type: ignore[override]  # there is one row
        # The contract gives these the parameters of lists; they change nothing, but nonsense in them is a 400.
        if window := pagination.window_of(request):
            window.check(1)
        return self.show(self.model.current().pk)


class CleanupSettings(Singleton):
    """How cleanup works."""

    fields = CLEANUP_FIELDS
    operations = {
        "retrieve": Operation("settings.read", since="1.1.0", summary="Show the cleanup settings"),
        "change": Operation(
            "settings.change", since="1.1.0", body=CleanupBody, answers=201, summary="Change the cleanup settings"
        ),
        "run": Operation(
            "settings.change", since="1.1.0", answers=202, content=False, starts_work=True,
            summary="Start a cleanup now",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(settings.change_cleanup(actor=self.actor, **self.body()).pk)

    def run(self, request: Request) -> HttpResponseBase:
        return self.once(self._run)

    def _run(self) -> Response:
        cleanup.run_chosen(actor=self.actor, now=timezone.now())
        return self.done()


class SecuritySettings(Singleton):
    """How DR treats encryption keys."""

    fields = Fields(encryption_key_detection=Choice("encryption_key_detection", KeyDetection))
    operations = {
        "retrieve": Operation("settings.read", since="1.3.0", summary="Show the security settings"),
        "change": Operation(
            "settings.change", since="1.3.0", body=SecurityBody, answers=201,
            summary="Change the security settings",
        ),
    }  # fmt: skip

    def change(self, request: Request) -> HttpResponseBase:
        return self.show(settings.change_security(actor=self.actor, **self.body()).pk)


class CleanupLogs(Logs):
    """The log of cleanups: lines about a user's policies for that user, lines about no user for root."""

    subject_type, filename = "cleanup", "cleanup-log"
    operations = {
        "list": Operation(
            "cleanup.read_log", since="1.1.0", many=True, paged=False, fields=LOG_FIELDS,
            summary="Show or download the cleanup log",
        ),
    }  # fmt: skip

    def narrow(self, queryset: Rows) -> Rows:
        lines = Q(subject_id__in=self.owners)
        if self.actor.on_behalf_of.role == Role.ROOT:
            lines |= Q(subject_id=None)
        return queryset.filter(lines, subject_type=self.subject_type)


class S3CleanupLogs(Logs):
    """The log of cleanups in S3: lines about the policies that the caller reaches."""

    subject_type, filename = "s3_cleanup", "s3-cleanup-log"
    operations = {
        "list": Operation(
            "cleanup.read_log", since="1.4.0", many=True, paged=False, fields=LOG_FIELDS,
            summary="Show or download the log of cleanups in S3",
        ),
    }  # fmt: skip

    def narrow(self, queryset: Rows) -> Rows:
        reached = self.scoped(Policy.objects.all()).values("pk")
        return queryset.filter(subject_type=self.subject_type, subject_id__in=reached)


urlpatterns = [
    path("settings/cleanup/", CleanupSettings.as_view({"get": "retrieve", "post": "change"})),
    path("settings/cleanup/logs/", CleanupLogs.as_view({"get": "list"})),
    path("settings/cleanup/s3_logs/", S3CleanupLogs.as_view({"get": "list"})),
    path("settings/cleanup/run/", CleanupSettings.as_view({"post": "run"})),
    path("settings/security/", SecuritySettings.as_view({"get": "retrieve", "post": "change"})),
]
