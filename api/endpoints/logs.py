"""Logs of operations, shared by backups, recoveries and cleanup."""

from typing import ClassVar

from api.fields import Fields, Moment, Text
from api.views import LogRecords, Rows
from cpm.models import LogLine

LOG_FIELDS = Fields(log=Text("message"), log_time=Moment("time"), log_type=Text("level"))


class Logs(LogRecords):
    """The log of one subject, oldest line first. Subclasses name the subject and check that the caller sees it."""

    model, fields, noun = LogLine, LOG_FIELDS, "log line"
    subject_type: ClassVar[str]

    def subject(self) -> int | None:
        """The subject's id; raises `NotFound` if the caller does not see it."""
        raise NotImplementedError

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(subject_type=self.subject_type, subject_id=self.subject())

    def scoped(self, queryset: Rows) -> Rows:
        # Lines belong to their subject, whose owner `subject` has checked.
        return queryset if queryset.model is LogLine else super().scoped(queryset)
