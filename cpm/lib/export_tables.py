"""What an export of an RDS database to S3 says of its tables, and how they are made again in PostgreSQL.

AWS: RDS User Guide, "File naming convention for exports" and "Data conversion when exporting to an Amazon S3 bucket". Lists
of tables name the original type of each column, as information_schema does; Parquet files know fewer.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from psycopg import sql

_INFO = re.compile(r"export_tables_info_.*\.json")
_IN_PATHS = re.compile(r'[\\`" ]')
"""These are underscores in names of folders."""
_WITH_LENGTH = frozenset({"character", "character varying", "bit", "bit varying"})
_WITH_PRECISION = frozenset(
    {
        "interval", "time with time zone", "time without time zone", "timestamp with time zone",
        "timestamp without time zone",
    }
)  # fmt: skip
_MOST_PRECISION = 6
_LOST = frozenset({"ARRAY", "USER-DEFINED"})
"""Types that the list names without saying which they are."""
TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its type in PostgreSQL."""

    name: str
    type: str


@dataclass(slots=True)
class Table:
    """A table of an export: where it was, its files, and its columns with the types that the export tells of."""

    database: str
    schema: str
    name: str
    files: list[str] = field(default_factory=list)
    columns: Sequence[Column] = ()

    @property
    def target(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"

    @property
    def place(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def is_info(name: str) -> bool:
    """Whether a file of an export is a list of its tables."""
    return _INFO.fullmatch(name) is not None


def tables(files: Iterable[str], lists: Iterable[bytes]) -> list[Table]:
    """The tables of an export by the names of its files and its lists of tables, in a fixed order."""
    found = {_folder(table): table for content in lists for table in _told(json.loads(content))}
    for name in sorted(files):
        folder, _, rest = name.partition("/")
        folder, rest = f"{folder}/{rest.partition('/')[0]}", rest.partition("/")[2]
        if not rest.endswith(".parquet"):
            continue
        if folder not in found:
            database, _, table = folder.partition("/")
            schema, _, table = table.partition(".")
            found[folder] = Table(database, schema, table)
        found[folder].files.append(name)
    return sorted(found.values(), key=lambda table: (table.database, table.schema, table.name))


def _folder(table: Table) -> str:
    return _IN_PATHS.sub("_", f"{table.database}/{table.schema}.{table.name}")


def _told(content: Mapping[str, Any]) -> Iterable[Table]:
    for one in content.get("perTableStatus", ()):
        parts = str(one["target"]).split(".", maxsplit=2)
        if len(parts) == 3 and one.get("status") == "COMPLETE":
            types = one.get("schemaMetadata", {}).get("originalTypeMappings", ())
            database, schema, table = parts
            columns = [Column(str(told["columnName"]), _original(told)) for told in types]
            yield Table(database, schema, table, columns=columns)


def _original(told: Mapping[str, Any]) -> str:
    kind = str(told["originalType"])
    length, precision = told.get("originalCharMaxLength"), told.get("originalDateTimePrecision")
    if kind in _LOST:
        return ""
    if kind in _WITH_LENGTH and length:
        return f"{kind}({int(length)})"
    if kind in _WITH_PRECISION and precision is not None and int(precision) < _MOST_PRECISION:
        head, _, rest = kind.partition(" ")
        return f"{head}({int(precision)}) {rest}".strip()
    return kind


def columns(table: Table, schema: pa.Schema | None) -> list[Column]:
    """The columns of a table with all that is known of them: original types first, then those of its files."""
    known = {column.name: column.type for column in table.columns}
    if schema is None:
        return [Column(name, kind or TEXT) for name, kind in known.items()]
    return [Column(one.name, known.get(one.name) or of_arrow(one.type)) for one in schema]


def of_arrow(kind: pa.DataType) -> str:
    """The PostgreSQL type that holds all values of a Parquet column."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{of_arrow(kind.value_type)}[]"
    for fits, name in _OF_ARROW:
        if fits(kind):
            return name
    return TEXT


_OF_ARROW = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int8, "smallint"),
    (pa.types.is_int16, "smallint"),
    (pa.types.is_int32, "integer"),
    (pa.types.is_int64, "bigint"),
    (pa.types.is_float32, "real"),
    (pa.types.is_float64, "double precision"),
    (pa.types.is_decimal, "numeric"),
    (pa.types.is_binary, "bytea"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "timestamp"),
)
