"""Recovery records: what was asked for, what came of it, and the log."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from cpm.admin.base import BAD, BUSY, GOOD, POOR, ScopedAdmin, actor_of, log_table
from cpm.lib.states import RecoveryStatus
from cpm.models import Recovery
from cpm.services import recoveries

COLOURS = {
    RecoveryStatus.IN_PROGRESS.label: BUSY,
    RecoveryStatus.SUCCESSFUL.label: GOOD,
    RecoveryStatus.PARTIAL.label: POOR,
    RecoveryStatus.FAILED.label: BAD,
}


@admin.register(Recovery)
class RecoveryAdmin(ScopedAdmin):
    read_right = "recoveries.read"
    list_display = (
        "id",
        "recovery_type",
        "policy",
        "account",
        "from_dr",
        "from_s3",
        "shown_status",
        "recovery_time",
        "end_time",
    )
    list_filter = ("status", "recovery_type", "from_dr", "from_s3")
    list_select_related = ("policy", "account")
    search_fields = ("recovered_resource_ids", "policy__name")
    ordering = ("-recovery_time", "-id")
    fields = (
        "recovery_type", "policy", "account", "backup", "snapshot", "from_dr", "from_s3", "shown_status", "outcome",
        "s3_transfers",
        "recovered_resource_ids", "recovery_time", "end_time", "backup_time", "request", "log",
    )  # fmt: skip
    readonly_fields = ("shown_status", "s3_transfers", "log")
    actions_detail = ("abort",)

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: Recovery) -> str:
        return row.get_status_display()

    @admin.display(description="Transfers from S3")
    def s3_transfers(self, row: Recovery) -> str:
        """The status of the volumes that come from S3 and of what is retrieved, with a percentage for each."""
        shown = []
        if row.retrieve_progress:
            shown.append(f"Archive: {row.get_retrieve_status_display()}{_percentages(row.retrieve_progress)}")
        if row.from_s3:
            shown.append(f"Volumes: {row.get_s3_status_display()}{_percentages(row.s3_progress)}")
        return "; ".join(shown) or "-"

    @admin.display(description="Log")
    def log(self, row: Recovery) -> SafeString:
        return log_table("recovery", row.pk)

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "recoveries.start")

    @action(description="Abort", url_path="abort", permissions=["act"])
    def abort(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        recovery = self.found(request, object_id)
        return self.act(
            request,
            recovery,
            title="Abort",
            text="Stop this recovery. What it has made so far is removed.",
            done="The recovery was asked to stop.",
            do=lambda _: recoveries.abort(actor=actor_of(request), recovery=recovery),
        )


def _percentages(progress: list[int]) -> str:
    return f" ({', '.join(f'{percent} %' for percent in progress)})" if progress else ""
