"""Sending declared rows. PostgreSQL builds the JSON (`Fields.on`), Python only joins the texts.

Lists of any length are streamed from a server-side cursor in constant memory.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, Protocol

from django.db import connections, transaction

CHUNK = 2000


class Rows(Protocol):
    """A queryset of texts, or what reads like one."""

    @property
    def db(self) -> str: ...

    def iterator(self, chunk_size: int) -> Iterator[Any]: ...


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
