"""Answering a report: JSON with optional pages or streamed, CSV streamed and without pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from api import fields, pagination, rows
from api.fields import Field, Fields
from api.filters import Ids
from api.renderers import CsvRenderer, JsonRenderer
from api.views import BACKEND, Endpoint, Rows, csv_file, streamed, wants_csv
from cpm.lib.errors import PreconditionFailed
from cpm.lib.secrets import KeyFileError
from cpm.reports import columns, signature
from cpm.reports.base import Report
from cpm.reports.columns import Column
from cpm.reports.stream import CsvFile, Finish, JsonLines

log = structlog.get_logger(__name__)

KINDS: Mapping[type[Column], type[Field]] = {
    columns.Text: fields.Text,
    columns.Number: fields.Integer,
    columns.Numeral: fields.NumberAsText,
    columns.Flag: fields.Boolean,
    columns.Moment: fields.Moment,
}


def shown(report: Report) -> Fields:
    """The report's columns as fields, for the OpenAPI document."""
    return Fields(**{column.name: _field(column) for column in report.json_columns()})


def _field(column: Column) -> Field:
    if isinstance(column, columns.Names):
        return fields.Items(column.name, of="string")
    if isinstance(column, columns.Code):
        return fields.Choice(column.name, column.values) if column.closed else fields.Text(column.name)
    return KINDS[type(column)](column.name)


class ReportRecords(Endpoint):
    """One report. CSV leaves the user column out where only one user can be in it."""

    report: ClassVar[Report]
    renderer_classes = [JsonRenderer, CsvRenderer]
    user_column: ClassVar[str] = "username"

    def ready(self) -> None:
        """Called when the request is known to make sense, before any row is read."""

    def selected(self, found: Rows) -> Rows:
        """The rows that a client means who has given these filters."""
        return found

    def list(self, request: Request, **_: Any) -> HttpResponseBase:
        found = BACKEND.narrow(BACKEND.asked(request, self), self.scoped(self.report.rows()), self)
        found = self.selected(found)
        if wants_csv(request):
            return self._csv(found)
        window = pagination.window_of(request) if self.operation.paged else None
        shown = self.report.json_columns()
        self.ready()
        lines = self.report.lines(found, shown, self.asked.ordering)
        if window is None:
            return streamed(rows.JsonArray(JsonLines(shown, lines)))
        total = lines.count()
        window.check(total)
        page = lines[window.offset : window.offset + window.size]
        return pagination.page_answer(request, window, total, JsonLines(shown, page).texts())

    def _csv(self, found: Rows) -> HttpResponseBase:
        shown = self.report.csv_columns(*self.left_out())
        finish = _signing() if self.report.signed else None
        self.ready()
        lines = self.report.lines(found, shown, self.asked.ordering)
        return csv_file(CsvFile(shown, lines, finish), f"{self.report.name}-report")

    def left_out(self) -> Sequence[str]:
        """Names of the columns that the CSV of this request does not have."""
        asked = self.asked.filters
        asked_for_one = "username" in asked or len(_ids(asked.get("user", ""))) == 1
        return [self.user_column] if asked_for_one or self.reaches_one_user() else []

    def reaches_one_user(self) -> bool:
        """Whether all rows that the caller may see are of one user."""
        return len(self.owners) == 1


def _ids(text: str) -> Sequence[int]:
    return Ids.read(text) if text else ()


def _signing() -> Finish:
    """What puts the signature behind a report. Raises `PreconditionFailed` without a usable key."""
    try:
        key = signature.private_keys(Path(settings.CPM_REPORT_KEYS_FILE), make=True)[0]
    except KeyFileError as error:
        # It names files of the server, which are no business of a tenant's.
        log.error("reports cannot be signed", error=str(error))
        message = "The server's key for signing reports cannot be used; its log says why. JSON needs no key."
        raise PreconditionFailed("report_key_unusable", message) from error
    return lambda pieces: signature.signed(pieces, key)
