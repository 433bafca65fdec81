"""Backup records: what each run did, its snapshots and its log."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from cpm.admin.base import (
    BAD,
    BUSY,
    GOOD,
    IDLE,
    POOR,
    ROWS_SHOWN,
    ScopedAdmin,
    actor_of,
    link,
    log_table,
    table,
)
from cpm.admin.s3_copies import COPY_COLOURS
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import BackupStatus, DrStatus
from cpm.models import Actor, Backup
from cpm.resources.registry import kind_label
from cpm.services import backup_deletion, backups, explore_sessions, freezer, s3_operations

COLOURS = {
    BackupStatus.SUCCESSFUL.label: GOOD,
    BackupStatus.INITIALIZING.label: BUSY,
    BackupStatus.IN_PROGRESS.label: BUSY,
    BackupStatus.PARTIAL.label: POOR,
    BackupStatus.SOME_FAILED.label: POOR,
    BackupStatus.FAILED.label: BAD,
    BackupStatus.DELETED.label: IDLE,
    BackupStatus.MOVED_TO_S3.label: GOOD,
    BackupStatus.MOVED_TO_GLACIER.label: GOOD,
}
DR_COLOURS = {
    DrStatus.COMPLETED.label: GOOD,
    DrStatus.FAILED.label: BAD,
    DrStatus.PENDING.label: BUSY,
    DrStatus.IN_PROGRESS.label: BUSY,
    DrStatus.SKIPPED.label: IDLE,
    DrStatus.NONE.label: IDLE,
}


class FreezeForm(forms.Form):
    name = forms.CharField(max_length=255)
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 3}))


@admin.register(Backup)
class BackupAdmin(ScopedAdmin):
    paginator = InfinitePaginator
    list_display = (
        "__str__",
        "account_name",
        "shown_status",
        "shown_dr",
        "shown_s3",
        "start_time",
        "end_time",
        "is_retry",
    )
    list_filter = (
        "status",
        "dr_status",
        "s3_copy_status",
        "archive_status",
        "is_retry",
        "is_freezer_item",
        "marked_for_deletion",
    )
    search_fields = ("policy_name", "account_name", "=tracker_id")
    ordering = ("-start_time", "-id")
    fieldsets = (
        (None, {"fields": ("policy", "policy_name", "account_name", "shown_status", "outcome", "start_time", "end_time",
                           "slot", "tracker_id", "is_retry", "attempt", "retry_at", "marked_for_deletion", "name",
                           "description")}),
        ("Disaster recovery", {"fields": ("shown_dr", "dr_regions", "dr_account_regions", "dr_outcome"),
                               "classes": ["tab"]}),
        ("S3", {"fields": ("shown_s3", "s3_copy_progress", "shown_archive", "archive_progress", "copy_table"),
                "classes": ["tab"]}),
        ("Snapshots", {"fields": ("snapshot_table",), "classes": ["tab"]}),
        ("Log", {"fields": ("log",), "classes": ["tab"]}),
    )  # fmt: skip
    readonly_fields = (
        "shown_status", "shown_dr", "shown_s3", "shown_archive", "copy_table", "snapshot_table", "log",
    )  # fmt: skip
    actions = ("abort_chosen", "run_again")
    actions_detail = ("explore", "abort", "abort_copy", "retry", "freeze", "delete_snapshots")

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: Backup) -> str:
        return row.get_status_display()

    @display(description="DR", ordering="dr_status", label=DR_COLOURS)
    def shown_dr(self, row: Backup) -> str:
        return row.get_dr_status_display()

    @display(description="S3", ordering="s3_copy_status", label=COPY_COLOURS)
    def shown_s3(self, row: Backup) -> str:
        return row.get_s3_copy_status_display()

    @display(description="Archive", ordering="archive_status", label=COPY_COLOURS)
    def shown_archive(self, row: Backup) -> str:
        return row.get_archive_status_display()

    @admin.display(description="Copies")
    def copy_table(self, row: Backup) -> SafeString:
        rows = row.s3_copies.select_related("snapshot", "repository").order_by("id")[:ROWS_SHOWN]
        return table(
            ["Copy", "Of", "Repository", "Tier", "Status", "New MiB", "Ended", "Error"],
            [
                (
                    link(c),
                    c.snapshot.source_id,
                    c.repository,
                    c.get_tier_display(),
                    c.status,
                    c.bytes_new >> 20,
                    c.end_time,
                    c.error,
                )
                for c in rows
            ],
        )

    @admin.display(description="Snapshots")
    def snapshot_table(self, row: Backup) -> SafeString:
        rows = row.snapshots.order_by("id")[:ROWS_SHOWN]
        return table(
            ["Snapshot", "Kind", "Of", "Account", "Region", "Status", "%", "Error"],
            [
                (
                    link(s),
                    kind_label(s.kind),
                    s.source_id,
                    s.account_name,
                    s.region,
                    s.status,
                    s.progress,
                    s.error,
                )
                for s in rows
            ],
        )

    @admin.display(description="Log")
    def log(self, row: Backup) -> SafeString:
        return log_table("backup", row.pk)

    def has_run_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "policies.run")

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "backups.change")

    @admin.action(description="Abort", permissions=["act"])
    def abort_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> None:
        actor = actor_of(request)
        self.each(request, queryset, lambda b: backups.abort(actor=actor, backup=b), "Backups asked to stop")

    @admin.action(description="Run the policy again", permissions=["run"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Backup]) -> None:
        actor = actor_of(request)
        self.each(
            request, queryset.select_related("policy__account"), lambda b: _again(actor, b), "Backups started"
        )

    @action(description="Abort", url_path="abort", permissions=["act"])
    def abort(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Abort",
            text="Stop this backup. Snapshots that are not complete are removed.",
            done="The backup was asked to stop.",
            do=lambda _: backups.abort(actor=actor_of(request), backup=backup),
        )

    def has_abort_copy_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, s3_operations.RIGHT)

    @action(description="Abort copy to S3", url_path="abort-copy", permissions=["abort_copy"])
    def abort_copy(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Abort copy to S3",
            text="Stop copying this backup to S3. What the copy has written is removed; its snapshots stay.",
            done="The copy was asked to stop.",
            do=lambda _: s3_operations.abort_copy(actor=actor_of(request), backup=backup),
        )

    def has_explore_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, explore_sessions.RIGHT)

    @action(description="Explore", url_path="explore", permissions=["explore"])
    def explore(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Explore",
            text="Open a session to list and download files of this backup's volumes. Nothing is restored.",
            done="A worker opens the session; it appears under Explore sessions.",
            do=lambda _: explore_sessions.create(
                actor=actor_of(request), backup_record=backup.pk, now=timezone.now()
            ),
        )

    @action(description="Retry", url_path="retry", permissions=["run"])
    def retry(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Retry",
            text=f"Run policy {backup.policy_name} again, as a new backup.",
            done="A new backup has started.",
            do=lambda _: _again(actor_of(request), backup),
        )

    @action(description="Move to freezer", url_path="freeze", permissions=["act"])
    def freeze(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Move to freezer",
            text="Keep this backup until somebody deletes it. It no longer counts as a generation.",
            done="The backup is in the freezer.",
            form=FreezeForm,
            do=lambda data: freezer.freeze(actor=actor_of(request), backup=backup, **data),
        )

    @action(description="Delete snapshots", url_path="delete-snapshots", permissions=["act"])
    def delete_snapshots(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        backup = self.found(request, object_id)
        return self.act(
            request,
            backup,
            title="Delete snapshots",
            text="Delete everything that this backup holds in AWS, DR copies included. This cannot be undone.",
            done="The snapshots are being deleted.",
            do=lambda _: backup_deletion.delete_snapshots(actor=actor_of(request), backup=backup),
        )


def _again(actor: Actor, backup: Backup) -> Backup:
    if backup.policy is None:
        raise PreconditionFailed("policy_deleted", f"Policy {backup.policy_name} was deleted.")
    return backups.start(actor=actor, policy=backup.policy, now=timezone.now())
