"""Getting declared rows out of PostgreSQL as JSON text.

PostgreSQL builds the JSON, Python only joins the pieces: Django's own query for the declared columns is wrapped in
`row_to_json`. Lists of any length are streamed from a server-side cursor in constant memory.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections, transaction
from django.db.models import QuerySet

from api.fields import Fields

CHUNK = 2000
Rows = QuerySet[Any, Any]


def _query(rows: Rows, fields: Fields) -> tuple[str, tuple[Any, ...]]:
    inner, parameters = rows.query.get_compiler(rows.db).as_sql()
    names = ", ".join(f'"{name}"' for name in fields.names)
    return f"SELECT row_to_json(r)::text FROM ({inner}) AS r({names})", tuple(parameters)


def texts(rows: Rows, fields: Fields) -> list[str]:
    """The rows as JSON objects, in one query."""
    try:
        sql, parameters = _query(rows, fields)
    except EmptyResultSet:
        return []
    with connections[rows.db].cursor() as cursor:
        cursor.execute(sql, parameters)
        return [text for (text,) in cursor.fetchall()]


def stream(rows: Rows, fields: Fields) -> Iterator[bytes]:
    """A JSON array of all rows. What can fail has failed before this returns; the first chunk is already read.

    A failure later on raises out of the iteration, so that the server breaks the connection off instead of closing
    the array: a client never takes half a list for a whole one.
    """
    chunks = _chunks(rows, fields)
    first = next(chunks, None)
    if first is None:
        return iter([b"[]"])
    return chain([b"[", first], (b"," + chunk for chunk in chunks), [b"]"])


def _chunks(rows: Rows, fields: Fields) -> Iterator[bytes]:
    try:
        sql, parameters = _query(rows, fields)
    except EmptyResultSet:
        return
    connection = connections[rows.db]
    # Inside a transaction the cursor needs no WITH HOLD, which would copy the whole answer to disk first.
    with transaction.atomic(rows.db), connection.chunked_cursor() as cursor:
        cursor.execute(sql, parameters)
        while chunk := cursor.fetchmany(CHUNK):
            yield ",".join(text for (text,) in chunk).encode()


def stream_csv(rows: Rows, fields: Fields) -> Iterator[str]:
    """A header line and one line per row. Cells that a spreadsheet would run as a formula are made inert."""
    return csv_lines(fields.names, rows.iterator(chunk_size=CHUNK))


def csv_lines(header: list[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for row in chain([header], rows):
        writer.writerow([inert(cell) for cell in row])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def inert(cell: Any) -> Any:
    """The cell, with an apostrophe before anything that spreadsheets would take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
