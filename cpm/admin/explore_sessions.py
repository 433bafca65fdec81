"""Explore sessions: how each stands, browsing its files, downloading them, ending it."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from cpm.admin.base import BAD, BUSY, GOOD, IDLE, ScopedAdmin, actor_of, link, log_table
from cpm.aws.errors import AwsError
from cpm.explore import paths
from cpm.lib.errors import DomainError
from cpm.lib.states import ExploreStatus
from cpm.models import ExploreSession
from cpm.services import explore_files, explore_sessions
from cpm.services.explore_files import Node, Page, Wanted

PAGE_ROWS = 500
COLOURS = {
    ExploreStatus.UNDEFINED.label: BUSY,
    ExploreStatus.OPEN.label: GOOD,
    ExploreStatus.EXPIRING.label: BUSY,
    ExploreStatus.ENDED.label: IDLE,
    ExploreStatus.FAILED.label: BAD,
}


@admin.register(ExploreSession)
class ExploreSessionAdmin(ScopedAdmin):
    read_right = "explore_sessions.read"
    list_display = ("id", "name", "user", "explore_type", "shown_status", "start_time", "expires_at")
    list_filter = ("status", "explore_type")
    list_select_related = ("user",)
    search_fields = ("name", "=volume_ids")
    ordering = ("-start_time", "-id")
    fields = (
        "name", "user", "backup_link", "explore_type", "shown_status", "failure", "volume_ids", "start_time",
        "end_time", "expires_at", "log",
    )  # fmt: skip
    readonly_fields = ("backup_link", "shown_status", "log")
    actions_detail = ("browse", "end")

    @display(description="Status", ordering="status", label=COLOURS)
    def shown_status(self, row: ExploreSession) -> str:
        return row.get_status_display()

    @admin.display(description="Backup")
    def backup_link(self, row: ExploreSession) -> SafeString | str:
        return link(row.backup) if row.backup else "-"

    @admin.display(description="Log")
    def log(self, row: ExploreSession) -> SafeString:
        return log_table("explore_session", row.pk)

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, explore_sessions.RIGHT)

    @action(description="End", url_path="end", permissions=["act"])
    def end(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="End",
            text="Nothing can be listed or downloaded in this session any more; downloads under way break off.",
            done="The session has ended.",
            do=lambda _: explore_sessions.end(actor=actor_of(request), session=row, now=timezone.now()),
        )

    @action(description="Browse", url_path="browse", permissions=["act"])
    def browse(self, request: HttpRequest, object_id: Any) -> HttpResponseBase:
        """A folder with links to those in it. Posted, it is the download of what was chosen, which is recorded."""
        row = self.found(request, object_id)
        path = request.GET.get("path", "/")
        page = Page([], 0)
        try:
            if request.method == "POST":
                return self._download(request, row)
            offset = PAGE_ROWS * (_number(request.GET.get("page", "1")) - 1)
            page = explore_files.page(
                actor=actor_of(request),
                session=row,
                wanted=Wanted(path, search=request.GET.get("search", "")),
                offset=offset,
                limit=PAGE_ROWS,
            )
        except (DomainError, AwsError) as error:
            messages.error(request, str(error))
        return TemplateResponse(request, "admin/cpm/browse.html", self._shown(request, row, path, page))

    def _download(self, request: HttpRequest, row: ExploreSession) -> StreamingHttpResponse:
        chosen = request.POST.getlist("paths")
        pieces = explore_files.download(actor=actor_of(request), session=row, chosen=chosen)
        response = StreamingHttpResponse(pieces, content_type="application/zip")
        response["Content-Disposition"] = f'attachment; filename="explore-{row.pk}.zip"'
        return response

    def _shown(self, request: HttpRequest, row: ExploreSession, path: str, page: Page) -> dict[str, Any]:
        number = _number(request.GET.get("page", "1"))
        at = paths.candidates(path)[-1]
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": row,
            "title": f"Files of {row}",
            "back": reverse("admin:cpm_exploresession_change", args=[row.pk]),
            "path": path,
            "shown_path": paths.display(at),
            "parent": paths.friendly(paths.parent(at)) if paths.parts(at) else "",
            "search": request.GET.get("search", ""),
            "rows": [_line(node) for node in page.nodes],
            "total": page.total,
            "incomplete": page.incomplete,
            "before": number - 1,
            "after": number + 1 if number * PAGE_ROWS < page.total else 0,
        }


def _number(text: str) -> int:
    return max(int(text), 1) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _line(node: Node) -> dict[str, Any]:
    entry = node.entry
    return {
        "name": paths.display(entry.name),
        "friendly": paths.friendly(node.path),
        "is_folder": entry.kind == "D",
        "what": entry.what,
        "size": entry.size,
        "modified": explore_files.moment(entry.modified),
    }
