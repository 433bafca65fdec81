"""The tables of a PostgreSQL server as the Parquet files that an RDS export makes of them.

AWS: RDS User Guide, Data conversion when exporting to an Amazon S3 bucket, PostgreSQL data type mapping; Considerations
for snapshot exports; File naming conventions. Each table is read with the text that PostgreSQL itself writes of a value,
which is what most types are exported as. The markers of complete batches are not documented, but real exports have them.
"""

import io
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

Link = psycopg.Connection[tuple[Any, ...]]
# Small, so that tables of a few thousand rows already come in several files.
ROWS_PER_FILE = 1000
MARKER = "_SUCCESS"
# A table is left out for one of these in a column's name, or for a slash in its own.
BAD_IN_COLUMN = re.compile(r"[,;{}()\n\t= ]")
# Become underscores in the names of files.
BAD_IN_PATH = re.compile(r'[\\`" ]')


@dataclass(frozen=True)
class Mapping:
    """How a column is exported: its Arrow type, its name in the list of tables, and how its text is read."""

    arrow: pa.DataType
    shown: str
    read: Callable[[bytes], Any]


TEXT = Mapping(pa.string(), "binary (UTF8)", bytes.decode)
MAPPINGS = {
    "bigint": Mapping(pa.int64(), "int64", int),
    "integer": Mapping(pa.int32(), "int32", int),
    "smallint": Mapping(pa.int16(), "int32 (INT_16)", int),
    "double precision": Mapping(pa.float64(), "double", float),
    "real": Mapping(pa.float32(), "float", float),
    "boolean": Mapping(pa.bool_(), "boolean", lambda value: value == b"t"),
    "bytea": Mapping(pa.binary(), "binary", lambda value: bytes.fromhex(value[2:].decode())),
}
# Object identifiers have no place in an export.
UNMAPPED = re.compile(r"oid|reg[a-z]+")

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname,
       has_table_privilege(%(master)s, c.oid, 'SELECT') AND has_schema_privilege(%(master)s, n.oid, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
ORDER BY 2, 3
"""
# The table itself, or the parts of a partitioned one, which become batches.
BATCHES = """
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass)))
ORDER BY 1, 2
"""
COLUMNS = """
SELECT column_name, CASE WHEN domain_name IS NULL THEN data_type ELSE 'domain' END, data_type,
       coalesce(character_maximum_length, 0), coalesce(numeric_precision, 0), coalesce(datetime_precision, 0)
FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""


@dataclass
class Extract:
    """What an export has read: files by their path below the export's folder, and what is told of each table."""

    files: dict[str, bytes] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    found: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Column:
    name: str
    mapping: Mapping
    told: dict[str, Any]


def extract(connect: Callable[[str], str], master: str, only: list[str]) -> Extract:
    """All tables that the master user may read, of those asked for. ``connect`` has the URL of a database."""
    done = Extract()
    with psycopg.connect(connect("postgres")) as link:
        databases = [name for (name,) in link.execute(DATABASES)]
    for database in databases:
        with psycopg.connect(connect(database)) as link:
            for oid, schema, table, readable in link.execute(TABLES, {"master": master}).fetchall():
                names = {database, f"{database}.{schema}", f"{database}.{schema}.{table}"}
                if only and names.isdisjoint(only):
                    continue
                done.found |= names
                target = f"{database}.{schema}.{table}"
                reason = "PERMISSIONS_DO_NOT_EXIST" if not readable else _unfit(link, schema, table)
                if reason:
                    done.skipped.append({"tableName": target, "reason": reason})
                else:
                    folder = BAD_IN_PATH.sub("_", f"{database}/{schema}.{table}")
                    done.tables.append(
                        {"target": target, **_table(link, oid, schema, table, folder, done.files)}
                    )
    return done


def _unfit(link: Link, schema: str, table: str) -> str | None:
    names = [row[0] for row in link.execute(COLUMNS, [schema, table])]
    if "/" in table or any(BAD_IN_COLUMN.search(name) for name in names):
        return "UNSUPPORTED_CHARACTERS_IN_NAME"
    return None


def _table(
    link: Link, oid: int, schema: str, table: str, folder: str, files: dict[str, bytes]
) -> dict[str, Any]:
    columns = [
        _column(*row) for row in link.execute(COLUMNS, [schema, table]) if not UNMAPPED.fullmatch(row[1])
    ]
    before, count = sum(map(len, files.values())), 0
    for batch, (part_schema, part) in enumerate(link.execute(BATCHES, {"oid": oid}).fetchall(), start=1):
        for number, data in enumerate(_parts(link, part_schema, part, columns)):
            files[f"{folder}/{batch}/part-{number:05d}-{uuid.uuid4()}-c000.gz.parquet"] = data
            count += 1
        files[f"{folder}/{batch}/{MARKER}"] = b""
    return {
        "tableStatistics": {
            "partitioningInfo": {"numberOfPartitions": count, "numberOfCompletedPartitions": count}
        },
        "schemaMetadata": {"originalTypeMappings": [column.told for column in columns]},
        "status": "COMPLETE",
        "sizeGB": (sum(map(len, files.values())) - before) / 2**30,
    }


def _column(name: str, kind: str, original: str, length: int, precision: int, time_precision: int) -> _Column:
    mapping = MAPPINGS.get(kind, TEXT)
    told = {
        "columnName": name,
        "originalType": original,
        "expectedExportedType": mapping.shown,
        "originalCharMaxLength": length,
        "originalNumPrecision": precision,
        "originalDateTimePrecision": time_precision,
    }
    return _Column(name, mapping, told)


def _parts(link: Link, schema: str, table: str, columns: list[_Column]) -> Iterator[bytes]:
    """The rows in files of Parquet; an empty table has none."""
    if not columns:
        return
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    result = link.execute(
        sql.SQL("SELECT {} FROM ONLY {}").format(names, sql.Identifier(schema, table))
    ).pgresult
    assert result is not None
    for start in range(0, result.ntuples, ROWS_PER_FILE):
        rows = range(start, min(start + ROWS_PER_FILE, result.ntuples))
        arrays = {}
        for index, column in enumerate(columns):
            raw = (result.get_value(row, index) for row in rows)
            values = [None if value is None else column.mapping.read(value) for value in raw]
            arrays[column.name] = pa.array(values, column.mapping.arrow)
        out = io.BytesIO()
        pq.write_table(pa.table(arrays), out, compression="gzip")
        yield out.getvalue()
