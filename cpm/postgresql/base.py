"""The database wrapper that Django loads from `ENGINE`."""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks the socket before it asks the server.

    Django checks a kept connection before its first use in each request. A server that has gone has closed the
    connection, so there is something to read (the end) on a socket that should be silent; only then is the query of
    Django's own check sent. A server that vanished without closing would let that query hang as well.
    """

    def is_usable(self) -> bool:
        if self.connection is None or self.connection.closed:
            return False
        waiting = select.poll()
        waiting.register(self.connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not waiting.poll(0) or super().is_usable()
