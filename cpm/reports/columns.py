"""Kinds of columns: what a value is in SQL, in JSON and in a cell of a CSV file.

A column reads a path of model fields or an expression. `as_json` and `as_cell` dress the SQL of that value.
"""

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

    def as_cell(self, sql: str) -> str:
        """The value in a CSV file. Times are shown in the zone of the session, in ISO style."""
        return f"CASE WHEN ascii({sql}) IN ({_STARTS}) THEN '''' || {sql} ELSE {sql} END"

    def heading(self, zone: str) -> str:
        return self.title


class Text(Column):
    """A text, which a person may have written."""


class Number(Column):
    """A whole number."""

    def as_cell(self, sql: str) -> str:
        return sql


class Numeral(Number):
    """A whole number that JSON shows as a string."""

    def as_json(self, sql: str) -> str:
        return f"({sql})::text"


class Flag(Column):
    """True or false."""

    def as_cell(self, sql: str) -> str:
        return f"CASE WHEN {sql} THEN 'Yes' WHEN NOT {sql} THEN 'No' END"


class Moment(Column):
    """A time to the second: UTC in JSON, the server's local time in CSV."""

    def as_json(self, sql: str) -> str:
        return f"to_char({sql} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

    def as_cell(self, sql: str) -> str:
        # Half the cost of to_char; what is cut off are fractions of a second and the offset.
        return f"left(({sql})::text, 19)"

    def heading(self, zone: str) -> str:
        return f"{self.title} ({zone})"


class Code(Column):
    """A letter of an enumeration: as it is in JSON, its label in CSV. Empty means none.

    `closed` says that the documented type is the enumeration, and not just a string.
    """

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

    def as_cell(self, sql: str) -> str:
        # Comparing numbers is cheaper than comparing texts. The code of no letter is 0.
        labels = " ".join(f"WHEN {ord(member.value)} THEN {_literal(member.label)}" for member in self.values)
        return f"CASE ascii({sql}) {labels} WHEN 0 THEN NULL ELSE {sql} END"


class Names(Column):
    """A list of names."""

    def as_cell(self, sql: str) -> str:
        return super().as_cell(f"array_to_string({sql}, '; ')")


def _literal(text: str) -> str:
    """A text of this program as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
