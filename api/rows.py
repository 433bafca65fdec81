"""Sending declared rows. PostgreSQL builds the JSON (`Fields.on`), Python only joins the texts.

Lists of any length are streamed from a server-side cursor in constant memory.
"""

import csv
import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any

from django.db import connections, transaction
from django.db.models import QuerySet

CHUNK = 2000
Rows = QuerySet[Any, Any]


class JsonArray:
    """A JSON array of rows that are JSON texts, in chunks.

    The first chunk is read when it is made, so that what can fail at the start fails there. A failure later on
    raises out of the iteration, so that the server breaks the connection off instead of closing the array: a
    client never takes half a list for a whole one. `close` gives the database cursor back; Django calls it when
    the answer is sent or the client has gone.
    """

    def __init__(self, rows: Rows) -> None:
        self._chunks = _chunks(rows)
        first = next(self._chunks, None)
        more = (b"," + chunk for chunk in self._chunks)
        self._pieces = iter([b"[]"]) if first is None else chain([b"[", first], more, [b"]"])

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self._chunks.close()


def _chunks(rows: Rows) -> Generator[bytes, None, None]:
    with cursor_scope(rows.db):
        texts = rows.iterator(chunk_size=CHUNK)
        while chunk := ",".join(islice(texts, CHUNK)):
            yield chunk.encode()


def cursor_scope(using: str) -> AbstractContextManager[object]:
    """A transaction for one server-side cursor, if there is none yet.

    Inside a transaction the cursor needs no WITH HOLD, which would copy the whole answer to disk first.
    """
    return nullcontext() if connections[using].in_atomic_block else transaction.atomic(using)


def stream_csv(header: list[str], rows: Rows) -> Iterator[str]:
    """A header line and one line per row of values, from a server-side cursor."""
    with cursor_scope(rows.db):
        yield from csv_lines(header, rows.iterator(chunk_size=CHUNK))


def csv_lines(header: list[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """CSV text by line. Cells that a spreadsheet would run as a formula are made inert."""
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
