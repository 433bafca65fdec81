"""Leases: who may work on a step, for how long, and every guarded write of a step row.

A claim is one UPDATE that raises `lease_epoch`. Each later write names the epoch it holds; when it changes
no row, somebody else owns the step by now, `LeaseLost` is raised and the loser stops. All times are the
database's, so clocks of workers do not matter.

Allowed changes: READY -> RUNNING, WAITING -> RUNNING (claim); RUNNING -> WAITING | READY | final (owner);
RUNNING -> READY (sweeper, when the lease ran out; raises the epoch too).
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import structlog
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from cpm.lib.states import RunIf, StepState

log = structlog.get_logger(__name__)


Param: TypeAlias = str | int | float | datetime | None


class LeaseLost(Exception):
    """The step belongs to somebody else now; stop, and write nothing."""


@dataclass(slots=True)
class Lease:
    """A claimed step as it was when claimed."""

    step_id: int
    epoch: int
    job_id: int
    kind: str
    queue: str
    payload: dict[str, Any]
    token: Any
    cursor: Any
    intent_at: datetime | None
    failures: int
    attempts: int
    run_if: RunIf
    poll_group: str
    job_kind: str
    subject_type: str
    subject_id: int | None
    user_id: int | None
    aborted: bool
    timed_out: bool
    started_at: datetime
    now: datetime
    lost: threading.Event = field(default_factory=threading.Event)


_CLAIM = """
WITH due AS (
    SELECT id FROM cpm_step
    WHERE {where} AND pending_after = 0 AND not_before <= now()
    ORDER BY not_before, id FOR UPDATE SKIP LOCKED LIMIT %(limit)s
)
UPDATE cpm_step s SET state = 'running', lease_owner = %(owner)s, lease_epoch = s.lease_epoch + 1,
    lease_until = now() + make_interval(secs => %(lease)s), attempts = s.attempts + 1,
    started_at = coalesce(s.started_at, now())
FROM due, cpm_job j
WHERE s.id = due.id AND j.id = s.job_id
RETURNING s.id, s.lease_epoch, s.job_id, s.kind, s.queue, s.payload, s.token, s.cursor, s.intent_at, s.failures,
    s.attempts, s.run_if, s.poll_group, j.kind, j.subject_type, j.subject_id, j.user_id, j.abort_requested_at IS NOT NULL,
    coalesce(j.deadline < now(), false), s.started_at, now()
"""
_ONE = _CLAIM.format(
    where="id = %(id)s AND queue = %(queue)s AND (state = 'ready' OR (state = 'waiting' AND poll_group = ''))"
)
_READY = _CLAIM.format(
    where="queue = %(queue)s AND state IN ('ready', 'waiting') AND (state = 'ready' OR poll_group = '')"
)
_GROUP = _CLAIM.format(where="state = 'waiting' AND poll_group = %(group)s")


def claim_one(step_id: int, queue: str, owner: str) -> list[Lease]:
    """The lease of this step of the queue if it is due and free; a step that waits in a group is left to its group."""
    return _claim(_ONE, owner, 1, id=step_id, queue=queue)


def claim_ready(queue: str, owner: str, limit: int) -> list[Lease]:
    """Leases of up to `limit` due steps of a queue, oldest first."""
    return _claim(_READY, owner, limit, queue=queue)


def claim_group(group: str, owner: str, limit: int) -> list[Lease]:
    """Leases of the due waiting steps of one poll group."""
    return _claim(_GROUP, owner, limit, group=group)


def due_group(queue: str) -> str | None:
    """A poll group of the queue that has due steps, or None."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT poll_group FROM cpm_step WHERE queue = %s AND state = 'waiting' AND pending_after = 0"
            " AND not_before <= now() AND poll_group <> '' ORDER BY not_before LIMIT 1",
            [queue],
        )
        row = cursor.fetchone()
    return row[0] if row else None


def _claim(sql: str, owner: str, limit: int, **params: str | int) -> list[Lease]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {"owner": owner, "lease": settings.CPM_LEASE_SECONDS, "limit": limit, **params})
        rows = cursor.fetchall()
    leases = [_lease(row) for row in rows]
    keeper.hold(leases)
    return leases


def _lease(row: Sequence[Any]) -> Lease:
    values = list(row)
    for index in (5, 6, 7):  # jsonb columns come as text from a raw cursor
        if values[index] is not None:
            values[index] = json.loads(values[index])
    values[11] = RunIf(values[11])
    return Lease(*values)


def guarded(lease: Lease, assignments: str, params: Sequence[Param]) -> None:
    """UPDATE the step with the given SQL assignments if the lease still holds; else raise LeaseLost."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE cpm_step SET {assignments} WHERE id = %s AND lease_epoch = %s AND state = 'running'",  # noqa: S608 (constants of this package)
            [*params, lease.step_id, lease.epoch],
        )
        if cursor.rowcount != 1:
            lease.lost.set()
            raise LeaseLost(lease.step_id)


def finish(lease: Lease, state: StepState, message: str) -> list[tuple[str, int]]:
    """End the step, settle what depends on it, and the job with its last step. Needs a transaction.

    Returns the (queue, id) pairs of steps that may start now. The job row is locked first: all ends of steps
    of one job come one after the other, so exactly one of them sees that it is the last.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT open_steps FROM cpm_job WHERE id = %s FOR UPDATE", [lease.job_id])
        guarded(
            lease,
            "state = %s, message = %s, finished_at = now(), lease_until = NULL, lease_owner = '',"
            " progress = CASE WHEN %s = 'succeeded' THEN 100 ELSE progress END",
            [state, message, state],
        )
        ended: list[tuple[int, StepState]] = [(lease.step_id, state)]
        ready: list[tuple[str, int]] = []
        total = 0
        while ended:
            step_id, how = ended.pop()
            total += 1
            if how is not StepState.SUCCEEDED:
                cursor.execute(
                    "UPDATE cpm_step SET state = 'cancelled', finished_at = now(), message = %s"
                    " WHERE job_id = %s AND pending_after > 0 AND after @> ARRAY[%s]::bigint[] AND run_if = 'success'"
                    " AND state = 'ready' RETURNING id",
                    ["A step before it did not succeed.", lease.job_id, step_id],
                )
                ended.extend((row[0], StepState.CANCELLED) for row in cursor.fetchall())
            cursor.execute(
                "UPDATE cpm_step SET pending_after = pending_after - 1,"
                " offered_until = now() + make_interval(secs => %s)"
                " WHERE job_id = %s AND pending_after > 0 AND after @> ARRAY[%s]::bigint[]"
                " AND state = 'ready' RETURNING queue, id, pending_after",
                [settings.CPM_OFFER_SECONDS, lease.job_id, step_id],
            )
            ready.extend((row[0], row[1]) for row in cursor.fetchall() if row[2] == 0)
        cursor.execute(
            "UPDATE cpm_job SET open_steps = open_steps - %s, state = 'running' WHERE id = %s RETURNING open_steps",
            [total, lease.job_id],
        )
        if cursor.fetchone()[0] == 0:
            settle(lease.job_id)
    return ready


def settle(job_id: int) -> None:
    """Set a job's state from its steps' states and forget its secret. Needs the job row locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE cpm_job SET finished_at = now(), secret = '', state = (SELECT CASE"
            " WHEN bool_or(state = 'failed') THEN 'failed' WHEN bool_or(state = 'cancelled') THEN 'cancelled'"
            " ELSE 'succeeded' END FROM cpm_step WHERE job_id = %s) WHERE id = %s",
            [job_id, job_id],
        )


class LeaseKeeper:
    """Renews, from one thread per process, every lease that the process holds."""

    def __init__(self) -> None:
        self._held: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hold(self, leases: Sequence[Lease]) -> None:
        with self._lock:
            self._held.update({lease.step_id: lease for lease in leases})

    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._held.get(lease.step_id) is lease:
                del self._held[lease.step_id]

    def start(self) -> None:
        """Start renewing in this process, once; call it again after a fork."""
        with self._lock:
            if self._thread and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(settings.CPM_LEASE_SECONDS / 3):
            try:
                self.renew()
            except DatabaseError:
                log.warning("leases not renewed", exc_info=True)
                connection.close()

    def renew(self) -> None:
        """Extend all held leases by one statement; leases that are gone are marked lost."""
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE cpm_step s SET lease_until = now() + make_interval(secs => %s)"
                " FROM unnest(%s::bigint[], %s::int[]) AS h(id, epoch)"
                " WHERE s.id = h.id AND s.lease_epoch = h.epoch AND s.state = 'running' RETURNING s.id",
                [settings.CPM_LEASE_SECONDS, [h.step_id for h in held], [h.epoch for h in held]],
            )
            kept = {row[0] for row in cursor.fetchall()}
        for lease in held:
            if lease.step_id not in kept:
                lease.lost.set()
                self.release(lease)


keeper = LeaseKeeper()
