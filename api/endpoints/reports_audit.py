"""The audit report: who changed what, for everybody, and for root's eyes only."""

from collections.abc import Sequence

from django.db.models import Q
from django.urls import path

from api.filters import Exactly, Ids, Matching, Since, Until
from api.reports import ReportRecords, shown
from api.views import Operation, Rows
from cpm.reports.audit import AUDIT


def _original_user(rows: Rows, text: str) -> Rows:
    return rows.filter(Q(original_username=text) | Q(original_username="", username=text))


class AuditReport(ReportRecords):
    """The recorded changes of all users, the latest first; also of users who are gone."""

    report, fields, default_ordering = AUDIT, shown(AUDIT), AUDIT.order
    filters = {
        "event_type": Exactly("event_type"),
        "from_time": Since("event_time"),
        "original_user": Matching(
            _original_user, "Username of whom the acting user was a delegate, or of that user."
        ),
        "to_time": Until("event_time"),
        "user": Ids("user_id"),
        "user_id": Ids("user_id"),
        "username": Exactly("username"),
    }
    ordering = {"event_time": "event_time", "username": "username"}
    search = ("log",)
    operations = {
        "list": Operation("audit.read", since="1.0.0", many=True, summary="Report on changes"),
    }

    def scoped(self, queryset: Rows) -> Rows:
        # Whoever may read the log reads all of it; records of deleted users belong to nobody.
        return queryset

    def left_out(self) -> Sequence[str]:
        """CSV shows whose delegate somebody was instead of the original user, and no user where one was asked for."""
        if "username" in self.asked.filters:
            return ["username", "user_type", "original_user", "delegate_of"]
        return ["original_user"]


urlpatterns = [path("reports/audit/", AuditReport.as_view({"get": "list"}))]
