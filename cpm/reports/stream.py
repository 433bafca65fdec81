"""Sending lines of any number in constant memory: as JSON texts from a cursor, as CSV by COPY.

Both wrap the query that the ORM has compiled, so that PostgreSQL dresses the values and Python only passes bytes on.
"""

import csv
import io
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import EmptyResultSet
from django.db import connections, transaction
from django.db.models import QuerySet

from cpm.reports.columns import FORMULA_STARTS, Column

PIECE = 64 * 1024
# Until the end of the transaction.
_SESSION = "SELECT set_config('TimeZone', %s, true), set_config('DateStyle', 'ISO', true)"
Rows = QuerySet[Any, Any]
Finish = Callable[[Iterator[bytes]], Iterator[bytes]]


class JsonLines:
    """Lines as JSON objects, one text each; `rows` are plain values in the order of the columns."""

    def __init__(self, columns: Sequence[Column], rows: Rows) -> None:
        self.columns, self.rows, self.db = columns, rows, rows.db

    def iterator(self, chunk_size: int) -> Iterator[str]:
        """The texts, read through a server-side cursor."""
        try:
            sql, values = self._statement()
        except EmptyResultSet:
            return
        with connections[self.db].chunked_cursor() as cursor:
            cursor.execute(sql, values)
            while batch := cursor.fetchmany(chunk_size):
                yield from (text for (text,) in batch)

    def texts(self) -> list[str]:
        """All of them at once, for a page."""
        try:
            sql, values = self._statement()
        except EmptyResultSet:
            return []
        with connections[self.db].cursor() as cursor:
            cursor.execute(sql, values)
            return [text for (text,) in cursor.fetchall()]

    def _statement(self) -> tuple[str, Sequence[Any]]:
        shown = ", ".join(
            f'{column.as_json(f"c{place}")} AS "{column.name}"' for place, column in enumerate(self.columns)
        )
        inner, values = _wrapped(shown, self.rows, len(self.columns))
        return f"SELECT row_to_json(line)::text FROM ({inner}) AS line", values  # noqa: S608  # see _wrapped


class CsvFile:
    """A CSV file in pieces: a heading, then one line per row of plain values, written by COPY.

    The first piece is read when the file is made, so that what can fail at the start fails there. A failure later
    raises out of the iteration, so that the server breaks the connection off: nobody takes half a file for a whole
    one. `close` ends the COPY; Django calls it when the answer is sent or the client has gone. Nothing is read ahead
    of the client. `finish` may add to the pieces, e.g. a signature.
    """

    def __init__(self, columns: Sequence[Column], rows: Rows, finish: Finish | None = None) -> None:
        zone = settings.TIME_ZONE
        self._pieces = _copied(columns, rows, zone)
        begin = [_line(column.heading(zone) for column in columns) + next(self._pieces, b"")]
        whole = chain(begin, self._pieces)
        self._sent = finish(whole) if finish else whole

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._sent)

    def close(self) -> None:
        self._pieces.close()


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> bytes:
    """A small CSV file of texts that come from no query, guarded against formulas like those that do."""
    guarded = ([f"'{cell}" if cell.startswith(tuple(FORMULA_STARTS)) else cell for cell in line] for line in lines)
    return b"".join(_line(line) for line in chain([headings], guarded))


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _wrapped(shown: str, rows: Rows, width: int) -> tuple[str, Sequence[Any]]:
    """The query of the rows with `shown` selected from its values, which are called c0, c1 and so on.

    Nothing of a client's is in the text: `shown` comes from the definitions, the rest from the ORM.
    """
    inner, values = rows.query.sql_with_params()
    names = ", ".join(f"c{place}" for place in range(width))
    return f"SELECT {shown} FROM ({inner}) AS held({names})", values  # noqa: S608


def _copied(columns: Sequence[Column], rows: Rows, zone: str) -> Generator[bytes, None, None]:
    """The lines in pieces of about `PIECE` bytes. Leaving the generator early cancels the COPY."""
    shown = ", ".join(column.as_cell(f"c{place}") for place, column in enumerate(columns))
    try:
        sql, values = _wrapped(shown, rows, len(columns))
    except EmptyResultSet:
        return
    django = connections[rows.db]
    with transaction.atomic(rows.db), django.wrap_database_errors:
        connection: psycopg.Connection[Any] = django.connection
        # COPY takes no parameters: psycopg writes them as literals, quoted by their types.
        bound = psycopg.ClientCursor(connection).mogrify(sql.encode(), values)
        statement = b"COPY (%s) TO STDOUT WITH (FORMAT csv)" % bound.encode()
        with psycopg.Cursor(connection) as cursor:
            cursor.execute(_SESSION, [zone])
            with cursor.copy(statement) as copy:
                held, size = [], 0
                while row := copy.read():
                    held.append(row)
                    size += len(row)
                    if size >= PIECE:
                        yield b"".join(held)
                        held, size = [], 0
        yield b"".join(held)
