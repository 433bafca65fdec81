"""What a step's handler works with: its payload, the once-only protocol, progress and log."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from cpm.jobs import leases
from cpm.jobs.kinds import Wait
from cpm.models import Job, LogLine


class NotYet(Exception):
    """An interrupted creation must wait until AWS's lists surely show it; the runner turns this into a Wait."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.message)
        self.wait = wait


class StepContext:
    """One claimed step. Every write goes through the lease; a lost lease raises `LeaseLost`."""

    def __init__(self, lease: leases.Lease) -> None:
        self.lease = lease
        self._lines: list[LogLine] = []
        self._written = 0.0
        # Whether this very run has begun a creation. What an earlier run began is settled by looking for it alone: an error
        # of something else, of the looking too, says nothing about it.
        self._began = False

    @property
    def step_id(self) -> int:
        return self.lease.step_id

    @property
    def job_id(self) -> int:
        return self.lease.job_id

    @property
    def payload(self) -> dict[str, Any]:
        return self.lease.payload

    @property
    def token(self) -> Any:
        return self.lease.token

    @property
    def cursor(self) -> Any:
        """Where the previous slice of long work stopped; None at the start."""
        return self.lease.cursor

    @property
    def subject_id(self) -> int:
        assert self.lease.subject_id is not None
        return self.lease.subject_id

    @property
    def now(self) -> datetime:
        """The database's time when the step was claimed."""
        return self.lease.now

    @property
    def aborted(self) -> bool:
        """Whether the job has been asked to stop (as of the claim; `refresh_aborted` asks again)."""
        return self.lease.aborted

    def refresh_aborted(self) -> bool:
        """Ask the database whether the job is to stop. For slices of long work."""
        self.lease.aborted = Job.objects.filter(pk=self.job_id, abort_requested_at__isnull=False).exists()
        return self.lease.aborted

    def job_secret(self) -> str:
        """The encrypted secret of the job, or an empty text."""
        return Job.objects.values_list("secret", flat=True).get(pk=self.job_id)

    def log(self, message: str, level: str = "Info") -> None:
        """Add a line to the log of the job's subject. It is committed with the step's next write."""
        self._lines.append(
            LogLine(
                subject_type=self.lease.subject_type,
                subject_id=self.lease.subject_id,
                step_id=self.step_id,
                level=level,
                message=message,
            )
        )

    def warn(self, message: str) -> None:
        self.log(message, "Warning")

    def error(self, message: str) -> None:
        self.log(message, "Error")

    def flush_log(self) -> None:
        """Insert the collected lines. Belongs into the transaction of a guarded write."""
        if self._lines:
            LogLine.objects.bulk_create(self._lines)
            self._lines = []

    def progress(self, percent: int, message: str = "") -> None:
        """Show how far the step is. Written at most once a second."""
        if time.monotonic() - self._written < 1:
            return
        self._written = time.monotonic()
        with transaction.atomic():
            leases.guarded(self.lease, "progress = %s, message = %s", [percent, message])
            self.flush_log()

    def save_cursor(self, cursor: Any) -> None:
        """Remember where a slice has come to, so that a successor goes on from there."""
        with transaction.atomic():
            leases.guarded(self.lease, "cursor = %s", [json.dumps(cursor)])
            self.flush_log()
        self.lease.cursor = cursor

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A transaction that commits only while the lease holds. For writes to other tables in mid-step."""
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM cpm_step WHERE id = %s AND lease_epoch = %s AND state = 'running' FOR UPDATE",
                    [self.lease.step_id, self.lease.epoch],
                )
                if cursor.fetchone() is None:
                    self.lease.lost.set()
                    raise leases.LeaseLost(self.lease.step_id)
            yield
            self.flush_log()

    def once(
        self,
        *,
        create: Callable[[], Any],
        find: Callable[[], list[Any]],
        discard: Callable[[Any], None] | None = None,
    ) -> Any:
        """Create something in AWS exactly once, for calls that take no client token; returns its token.

        The intent is stored before `create` and the token after it. A step that finds an intent without a
        token was interrupted: when AWS's lists have had time to catch up, `find` looks for what the
        interrupted call may have made (oldest first); the first is adopted, `discard` removes the others, and only if
        there is none is it created again. What a frozen worker makes after its lease was lost is discarded too,
        by itself or by its successor. Tokens must be JSON values. Raises NotYet while waiting.
        """
        if self.token is not None:
            self._remove_strays(discard)
            return self.token
        if self.lease.intent_at is not None:
            token = self._adopt(find, discard)
            if token is not None:
                self._remove_strays(discard)
                return token
        self._intend()
        made = create()
        try:
            self.remember(made)
        except leases.LeaseLost:
            self._disown(made, discard)
            raise
        self._remove_strays(discard)
        return made

    def remember(self, token: Any) -> Any:
        """Store what the step has made, before anything else happens. The intent's time becomes that of its end."""
        with transaction.atomic():
            leases.guarded(self.lease, "token = %s, intent_at = now()", [json.dumps(token)])
            self.flush_log()
        self.lease.token, self.lease.intent_at = token, self.now
        return token

    def forget_intent(self) -> None:
        """The call of this run surely did nothing: a retry need not look for what it may have made."""
        if self._began and self.lease.intent_at is not None and self.token is None:
            leases.guarded(self.lease, "intent_at = NULL", [])
            self.lease.intent_at = None

    def still_unsure(self) -> None:
        """The call of this run may have been carried out at any moment until now: whoever looks for it counts from here."""
        if self._began and self.lease.intent_at is not None and self.token is None:
            leases.guarded(self.lease, "intent_at = now()", [])

    def _disown(self, made: Any, discard: Callable[[Any], None] | None) -> None:
        """Made after the lease was lost. A successor that has chosen what counts does not know of it: discard it.
        One that has not yet may find and adopt it, so it is told to look at what is left over then.
        """
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE cpm_step SET payload = jsonb_set(payload, '{strays}',"
                " coalesce(payload->'strays', '[]') || %s::jsonb)"
                " WHERE id = %s AND token IS NULL AND finished_at IS NULL",
                [json.dumps([made]), self.step_id],
            )
            if cursor.rowcount:
                return
            cursor.execute("SELECT token = %s::jsonb FROM cpm_step WHERE id = %s", [json.dumps(made), self.step_id])
            row = cursor.fetchone()
        if discard is not None and not (row and row[0]):
            discard(made)

    def _remove_strays(self, discard: Callable[[Any], None] | None) -> None:
        """Discard what earlier holders of this step have made too late."""
        if self.lease.epoch == 1 or discard is None:
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT payload->'strays' FROM cpm_step WHERE id = %s", [self.step_id])
            row = cursor.fetchone()
        strays = json.loads(row[0]) if row and row[0] else []
        for stray in strays:
            if stray != self.token:
                self.warn(f"Removing what a worker made after it had lost this step: {stray}")
                discard(stray)
        if strays:
            leases.guarded(self.lease, "payload = payload - 'strays'", [])

    def _intend(self) -> None:
        with transaction.atomic():
            leases.guarded(self.lease, "intent_at = now()", [])
            self.flush_log()
        self.lease.intent_at, self._began = self.lease.now, True

    def _adopt(self, find: Callable[[], list[Any]], discard: Callable[[Any], None] | None) -> Any:
        assert self.lease.intent_at is not None
        visible = self.lease.intent_at + timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS)
        if self.now < visible:
            seconds = (visible - self.now).total_seconds()
            raise NotYet(Wait(seconds, message="Interrupted; looking for what was made before going on."))
        found = find()
        if not found:
            return None
        for extra in found[1:]:
            self.warn(f"Removing a duplicate made by an interrupted attempt: {extra}")
            if discard is not None:
                discard(extra)
        return self.remember(found[0])
