"""The audit report: one line per recorded change."""

from django.db.models import Case, F, TextField, Value, When
from django.db.models.functions import Cast

from cpm.models import AuditRecord
from cpm.reports.base import Report
from cpm.reports.columns import Moment, Text

NO_DELEGATE = "N/A"


def _original(otherwise: F | Value) -> Case:
    """The user for whom a delegate acted; for anybody else what is said."""
    return Case(
        When(original_username="", then=Cast(otherwise, TextField())),
        default=Cast(F("original_username"), TextField()),
        output_field=TextField(),
    )


AUDIT = Report(
    name="audit",
    model=AuditRecord,
    columns=(
        Moment("event_time", "Event Time"),
        Text("event_type", "Event Type"),
        Text("log", "Log"),
        Text("username", "User"),
        Text("user_type", "User Type"),
        Text("original_user", "Original User", _original(F("username"))),
        Text("delegate_of", "Delegate of", _original(Value(NO_DELEGATE)), only_csv=True),
    ),
    order=("-event_time", "-id"),
)
