"""The database wrapper that Django loads from `ENGINE`."""

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base

# PostgreSQL's protocol counts the parameters of a statement with 16 bits.
MOST_PARAMETERS = 2**16 - 1


class Cursor(base.CursorMixin, psycopg.Cursor[Any]):
    """Sends parameters apart from the statement, so that it can be prepared; too many are written into it instead."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if params is not None and len(params) > MOST_PARAMETERS:
            query, params = psycopg.ClientCursor(self.connection).mogrify(query, params), None
            options["prepare"] = False
        return super().execute(query, params, **options)


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks the socket before it asks the server.

    Django checks a kept connection before its first use in each request. A server that has gone has closed the
    connection, so there is something to read (the end) on a socket that should be silent; only then is the query of
    Django's own check sent. A server that vanished without closing would let that query hang as well.
    """

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "cursor_factory": Cursor}

    def is_usable(self) -> bool:
        if self.connection is None or self.connection.closed:
            return False
        waiting = select.poll()
        waiting.register(self.connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not waiting.poll(0) or super().is_usable()
