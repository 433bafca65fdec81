"""Sending declared rows. PostgreSQL builds the JSON (`Fields.on`), Python only joins the texts.

Lists of any length are streamed from a server-side cursor in constant memory.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

CHUNK = 2000
Rows = QuerySet[Any, Any]


def stream(rows: Rows) -> Iterator[bytes]:
    """A JSON array of rows that are JSON texts. The first chunk is read before this returns, so that what can fail
    at the start fails there.

    A failure later on raises out of the iteration, so that the server breaks the connection off instead of
    closing the array: a client never takes half a list for a whole one.
    """
    chunks = _chunks(rows)
    first = next(chunks, None)
    if first is None:
        return iter([b"[]"])
    return chain([b"[", first], (b"," + chunk for chunk in chunks), [b"]"])


def _chunks(rows: Rows) -> Iterator[bytes]:
    # Inside a transaction the cursor needs no WITH HOLD, which would copy the whole answer to disk first.
    with transaction.atomic(rows.db):
        texts = rows.iterator(chunk_size=CHUNK)
        while chunk := ",".join(islice(texts, CHUNK)):
            yield chunk.encode()


def stream_csv(header: list[str], rows: Rows) -> Iterator[str]:
    """A header line and one line per row of values, from a server-side cursor."""
    with transaction.atomic(rows.db):
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
