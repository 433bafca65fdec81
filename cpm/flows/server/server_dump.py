"""The dump of this server's own database: written in one transaction, read back for proof, loaded into an empty one.

Format "CPMDATA1": the line `CPMDATA1`, then a gzip stream of records. A record is a JSON line; the record of a table
is followed by chunks, each a line with its length in decimal and that many bytes of COPY text, and ends with
a chunk of length 0.

    {"created": …, "server_id": …, "migrations": [["cpm", "0001_initial"], …]}
    {"table": "cpm_user", "columns": ["id", …]}        chunks …
    {"sequences": {"cpm_user": 17, …}}
    {"end": true, "rows": {"cpm_user": 3, …}, "sha256": "…"}      the digest of everything before this line

Secrets of accounts stand in it as the database has them: encrypted with the field keys, which are not in it. Without
the key file (CPM_FIELD_KEYS_FILE) a restored server cannot use them, so keep that file apart from the dumps.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from django.apps import apps
from django.contrib.sessions.models import Session
from django.db import connection
from psycopg import sql

MAGIC = b"CPMDATA1\n"
CHUNK = 256 * 1024
# What is signed in ends with the server that it was signed in to.
LEFT_OUT = frozenset({Session._meta.db_table})

Tick = Callable[[], None]


class BadDump(Exception):
    """The file is no dump, is damaged, or was not written to its end; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What a dump says of itself. `rows` counts by table."""

    created: str
    server_id: str
    migrations: list[list[str]]
    rows: dict[str, int]
    sequences: dict[str, int]


def tables() -> list[str]:
    """Every table that the dump holds: those of all models, with the ones between them."""
    models = apps.get_models(include_auto_created=True)
    names = {model._meta.db_table for model in models if model._meta.managed and not model._meta.proxy}
    return sorted(names - LEFT_OUT)


def migrations(raw: psycopg.Connection[Any]) -> list[list[str]]:
    """What has been migrated; only a database with the very same takes the dump."""
    rows = raw.execute("SELECT app, name FROM django_migrations ORDER BY app, name").fetchall()
    return [list(row) for row in rows]


@contextmanager
def own_connection() -> Iterator[psycopg.Connection[Any]]:
    """A connection beside Django's, so that a long transaction does not hold up the caller's own writes."""
    wrapper = connection.copy()
    try:
        wrapper.ensure_connection()
        assert wrapper.connection is not None
        # Plain tuples and text instead of what Django makes of them.
        wrapper.connection.autocommit = True
        yield wrapper.connection
    finally:
        wrapper.close()


class _Hashing:
    """Writes through, and remembers the digest of what was written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.stream.write(data)

    def record(self, **content: Any) -> None:
        self.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")


def write(path: Path, *, server_id: str, created: str, tick: Tick) -> None:
    """Dump the database into a new file that only this user may read. `tick` is called every now and then."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with path.open("wb") as file:
        file.write(MAGIC)
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed, own_connection() as raw:
            # Everything as of one moment, however long the reading takes.
            raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _write(_Hashing(packed), raw, server_id, created, tick)  # type: ignore[arg-type]
            raw.execute("COMMIT")


def _write(out: _Hashing, raw: psycopg.Connection[Any], server_id: str, created: str, tick: Tick) -> None:
    out.record(created=created, server_id=server_id, migrations=migrations(raw))
    rows: dict[str, int] = {}
    for table in tables():
        columns = _columns(raw, table)
        out.record(table=table, columns=columns)
        rows[table] = _copy_out(out, raw, table, columns, tick)
    out.record(sequences=_sequences(raw))
    digest = out.digest.hexdigest()
    out.record(end=True, rows=rows, sha256=digest)


def _columns(raw: psycopg.Connection[Any], table: str) -> list[str]:
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attgenerated = '' ORDER BY attnum"
    )
    return [row[0] for row in raw.execute(query, [table]).fetchall()]


def _copy_out(out: _Hashing, raw: psycopg.Connection[Any], table: str, columns: list[str], tick: Tick) -> int:
    statement = sql.SQL("COPY {} ({}) TO STDOUT").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    held = bytearray()
    with raw.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for data in copy:
                held += data
                if len(held) >= CHUNK:
                    _chunk(out, held)
                    tick()
        _chunk(out, held)
        out.write(b"0\n")
        return max(cursor.rowcount, 0)


def _chunk(out: _Hashing, held: bytearray) -> None:
    if held:
        out.write(b"%d\n" % len(held))
        out.write(bytes(held))
        held.clear()


def _sequences(raw: psycopg.Connection[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in tables():
        query = (
            "SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attname = 'id' AND pg_get_serial_sequence(%s, 'id') IS NOT NULL"
        )
        row = raw.execute(query, [table, table, table]).fetchone()
        if row is not None and row[0] is not None:
            found[table] = row[0]
    return found


class Reader:
    """Reads a dump from its beginning to its end, checking it on the way. Every mistake raises BadDump."""

    def __init__(self, stream: IO[bytes]) -> None:
        if stream.read(len(MAGIC)) != MAGIC:
            raise BadDump("This is no dump of a CPM server.")
        self._stream = gzip.GzipFile(fileobj=stream, mode="rb")
        self._digest = hashlib.sha256()
        self.head = self._record()

    def tables(self) -> Iterator[tuple[str, list[str], Iterator[bytes]]]:
        """Name, columns and COPY text of each table; the text must be used up before the next."""
        while "table" in (record := self._record()):
            yield record["table"], record["columns"], self._chunks()
        self._sequences = record.get("sequences", {})

    def end(self, rows: dict[str, int]) -> Dump:
        """What the dump says of itself, if its last line is there, is true, and says of rows what was read."""
        digest = self._digest.hexdigest()
        last = self._record()
        if not last.get("end") or last["sha256"] != digest or last["rows"] != rows or self._read_line(last=True):
            raise BadDump("The dump is damaged: what was read is not what was written.")
        head = self.head
        return Dump(head["created"], head["server_id"], head["migrations"], rows, self._sequences)

    def _record(self) -> dict[str, Any]:
        try:
            found = json.loads(self._read_line())
        except ValueError as error:
            raise BadDump("The dump is damaged: a record is not readable.") from error
        if not isinstance(found, dict):
            raise BadDump("The dump is damaged: a record is not readable.")
        return found

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._read_line().strip()
            if not line.isdigit() or int(line) > 2**31:
                raise BadDump("The dump is damaged: a chunk has no length.")
            if not int(line):
                return
            yield self._read(int(line))

    def _read_line(self, *, last: bool = False) -> bytes:
        try:
            line = self._stream.readline()
        except (OSError, EOFError) as error:
            raise BadDump(f"The dump is damaged: {error}") from error
        if not line.endswith(b"\n") and not last:
            raise BadDump("The dump ends too early.")
        self._digest.update(line)
        return line

    def _read(self, length: int) -> bytes:
        try:
            data = self._stream.read(length)
        except (OSError, EOFError) as error:
            raise BadDump(f"The dump is damaged: {error}") from error
        if len(data) != length:
            raise BadDump("The dump ends too early.")
        self._digest.update(data)
        return data


def verify(stream: IO[bytes], *, tick: Tick) -> Dump:
    """Read a whole dump and check it; raises BadDump."""
    reader, rows = Reader(stream), dict[str, int]()
    for table, _, chunks in reader.tables():
        rows[table] = 0
        for data in chunks:
            # COPY's text format writes line ends of values as \\n, so each row is one line.
            rows[table] += data.count(b"\n")
            tick()
    return reader.end(rows)
