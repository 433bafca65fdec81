"""Kinds of columns: what a value is in SQL, in JSON and in a cell of a CSV file.

A column reads a path of model fields or an expression. `as_json` and `as_cell` dress the SQL of that value.
"""

from collections.abc import Mapping
from typing import Any

from django.db.models import Expression, F

from cpm.lib.states import LabelledEnum

# What makes a spreadsheet take a text for a formula when it stands first; an apostrophe before it makes it harmless.
FORMULA_STARTS = "=+-@\t\r\n"
_STARTS = ", ".join(str(ord(sign)) for sign in FORMULA_STARTS)


class Column:
    """A text. Other kinds of values are subclasses."""

    def __init__(
        self, name: str, title: str, source: str | Expression = "", *, only_csv: bool = False
    ) -> None:
        self.name, self.title, self.only_csv = name, title, only_csv
        self.source = source or name

    def value(self) -> Any:
        return F(self.source) if isinstance(self.source, str) else self.source

    def as_json(self, sql: str) -> str:
        return sql

    def as_cell(self, sql: str, zone: str) -> str:
        """The value in a CSV file; times are shown in the zone."""
        return f"CASE WHEN ascii({sql}) IN ({_STARTS}) THEN '''' || {sql} ELSE {sql} END"

    def heading(self, zone: str) -> str:
        return self.title


class Text(Column):
    """A text, which a person may have written."""


class Number(Column):
    """A whole number."""

    def as_cell(self, sql: str, zone: str) -> str:
        return sql


class Numeral(Number):
    """A whole number that JSON shows as a string."""

    def as_json(self, sql: str) -> str:
        return f"({sql})::text"


class Flag(Column):
    """True or false."""

    def as_cell(self, sql: str, zone: str) -> str:
        return f"CASE {sql} WHEN true THEN 'Yes' WHEN false THEN 'No' END"


class Moment(Column):
    """A time to the second: UTC in JSON, the server's local time in CSV."""

    def as_json(self, sql: str) -> str:
        return f"to_char({sql} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

    def as_cell(self, sql: str, zone: str) -> str:
        return f"to_char({sql} AT TIME ZONE {_literal(zone)}, 'YYYY-MM-DD HH24:MI:SS')"

    def heading(self, zone: str) -> str:
        return f"{self.title} ({zone})"


class Code(Column):
    """A letter of an enumeration: as it is in JSON, its label in CSV. Empty means none. `labels` are ours."""

    def __init__(
        self,
        name: str,
        title: str,
        source: str | Expression = "",
        *,
        values: type[LabelledEnum],
        closed: bool = True,
    ) -> None:
        super().__init__(name, title, source)
        self.values, self.closed = values, closed

    def as_json(self, sql: str) -> str:
        return f"NULLIF({sql}, '')"

    def as_cell(self, sql: str, zone: str) -> str:
        labels: Mapping[str, str] = {member.value: member.label for member in self.values}
        cases = " ".join(f"WHEN {_literal(code)} THEN {_literal(label)}" for code, label in labels.items())
        return f"CASE {sql} {cases} ELSE NULLIF({sql}, '') END"


class Names(Column):
    """A list of names."""

    def as_cell(self, sql: str, zone: str) -> str:
        return super().as_cell(f"array_to_string({sql}, '; ')", zone)


def _literal(text: str) -> str:
    """A text of this program as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
