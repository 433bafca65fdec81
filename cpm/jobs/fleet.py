"""The fleet says that it is alive: a row per process, written every few seconds, read by /healthz and the admin."""

import os
import socket
import time
from collections.abc import Sequence
from functools import cache
from importlib import metadata

from django.db import connection

from cpm.lib.states import FleetKind

# Between two writes of one process: health is judged in tens of seconds, and rows should not churn.
SEEN_EVERY_SECONDS = 10.0
# A process that was not heard from for this long is somebody else's history.
FORGET_AFTER_SECONDS = 24 * 3600
# A process that was not heard from for this long does no work: it is shown as silent, and its place counts as empty.
GONE_AFTER_SECONDS = 60.0

_SEEN = """
WITH forgotten AS (
    DELETE FROM cpm_fleetmember WHERE last_seen_at < now() - make_interval(secs => %s) AND name <> %s
)
INSERT INTO cpm_fleetmember (name, kind, queues, host, pid, version, concurrency)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, queues = excluded.queues, version = excluded.version,
    concurrency = excluded.concurrency, last_seen_at = now(),
    started_at = CASE WHEN cpm_fleetmember.pid = excluded.pid AND cpm_fleetmember.host = excluded.host
                      THEN cpm_fleetmember.started_at ELSE now() END,
    pid = excluded.pid, host = excluded.host
"""
_SERVED = """
SELECT DISTINCT served FROM cpm_fleetmember, unnest(queues) AS served
WHERE kind = 'worker' AND last_seen_at > now() - make_interval(secs => %s) AND served LIKE '%%@%%'
"""
_OWN = """
SELECT id FROM cpm_fleetmember WHERE kind = 'worker' AND host = %s AND pid = ANY(%s) ORDER BY last_seen_at DESC LIMIT 1
"""
_last: dict[str, float] = {}


def seen(name: str, kind: FleetKind, queues: Sequence[str] = (), concurrency: int | None = None) -> bool:
    """Note that this process is alive; returns whether a row was written. Cheap to call as often as one likes."""
    clock = time.monotonic()
    if clock - _last.get(name, -SEEN_EVERY_SECONDS) < SEEN_EVERY_SECONDS:
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            _SEEN,
            [
                FORGET_AFTER_SECONDS,
                name,
                name,
                kind.value,
                list(queues),
                socket.gethostname(),
                os.getpid(),
                version(),
                concurrency,
            ],
        )
    _last[name] = clock
    return True


def served_at_places() -> set[str]:
    """The queues at places (`cpm.lib.places`) that a living worker serves now."""
    with connection.cursor() as cursor:
        cursor.execute(_SERVED, [GONE_AFTER_SECONDS])
        return {row[0] for row in cursor.fetchall()}


def own_id() -> int | None:
    """The id of the fleet member that this process, or the pool process that it is, belongs to; None outside of it."""
    with connection.cursor() as cursor:
        cursor.execute(_OWN, [socket.gethostname(), [os.getpid(), os.getppid()]])
        row = cursor.fetchone()
    return row[0] if row else None


@cache
def version() -> str:
    """The version of CPM that runs, empty for one that is not installed as a package."""
    try:
        return metadata.version("cpm-backup")
    except metadata.PackageNotFoundError:
        return ""
