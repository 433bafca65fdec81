"""Copies of volumes in S3: where the data is, what it took, and its archive."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from cpm.admin.base import BAD, BUSY, GOOD, IDLE, POOR, ScopedAdmin, link
from cpm.lib.states import CopyStatus, SnapshotStatus
from cpm.models import S3Copy

COLOURS = {
    SnapshotStatus.PENDING.label: BUSY,
    SnapshotStatus.COMPLETED.label: GOOD,
    SnapshotStatus.ERROR.label: BAD,
    SnapshotStatus.DELETED.label: IDLE,
}
# Of a backup's copy as a whole, and of its archive.
COPY_COLOURS = {
    CopyStatus.INITIALIZING.label: BUSY,
    CopyStatus.IN_PROGRESS.label: BUSY,
    CopyStatus.ABORTING.label: BUSY,
    CopyStatus.COMPLETED.label: GOOD,
    CopyStatus.ALL_VALID.label: GOOD,
    CopyStatus.PARTIAL.label: POOR,
    CopyStatus.FAILED.label: BAD,
    CopyStatus.ABORTED.label: POOR,
}
DAMAGED = "Damaged"


@admin.register(S3Copy)
class S3CopyAdmin(ScopedAdmin):
    paginator = InfinitePaginator
    list_display = (
        "source", "backup_link", "repository", "shown_status", "tier", "shown_archive", "new_mebibytes", "start_time",
        "end_time", "health",
    )  # fmt: skip
    list_filter = ("status", "tier", "archive_status", "retrieve_status", "damaged", "repository")
    list_select_related = ("backup", "snapshot", "repository")
    search_fields = ("=copy_id", "=archive_id", "=snapshot__source_id", "=snapshot__instance_id")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("backup_link", "snapshot_link", "repository", "copy_id", "base", "shown_status", "tier",
                           "storage_class", "start_time", "end_time", "deletion_time", "error", "health")}),
        ("Figures", {"fields": ("bytes_read", "bytes_new", "bytes_stored"), "classes": ["tab"]}),
        ("Archive", {"fields": ("archive_id", "shown_archive", "archive_class", "archived_at", "retrieve_status",
                                "retrieve_expiration"), "classes": ["tab"]}),
    )  # fmt: skip
    readonly_fields = ("backup_link", "snapshot_link", "shown_status", "shown_archive", "health")

    def get_queryset(self, request: HttpRequest) -> QuerySet[S3Copy]:
        rows: QuerySet[S3Copy] = super().get_queryset(request)
        return rows.select_related("backup", "snapshot", "repository", "base")

    @admin.display(description="Volume", ordering="snapshot__source_id")
    def source(self, row: S3Copy) -> str:
        return row.snapshot.source_id

    @admin.display(description="Backup", ordering="backup")
    def backup_link(self, row: S3Copy) -> SafeString:
        return link(row.backup)

    @admin.display(description="Snapshot")
    def snapshot_link(self, row: S3Copy) -> SafeString:
        return link(row.snapshot)

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: S3Copy) -> str:
        return row.get_status_display()

    @display(description="Archive", ordering="archive_status", label=COPY_COLOURS)
    def shown_archive(self, row: S3Copy) -> str:
        return row.get_archive_status_display()

    @admin.display(description="New MiB", ordering="bytes_new")
    def new_mebibytes(self, row: S3Copy) -> int:
        return row.bytes_new >> 20

    @display(description="Data", ordering="damaged", label={DAMAGED: BAD})
    def health(self, row: S3Copy) -> str:
        return DAMAGED if row.damaged else "-"
