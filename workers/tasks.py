"""Tasks: named by what they do, a few lines each. The work is in cpm."""

from typing import Any

import structlog
from django.db import connection
from django.utils import timezone

from cpm.flows.table import ENGINE
from cpm.jobs import fleet, runner, sweeper
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import FleetKind
from cpm.scheduler import planner
from cpm.services import (
    attempts,
    audit_chain,
    backup_tally,
    cleanup,
    deliveries,
    explore_sessions,
    idempotency,
    repositories,
    strays,
    usage,
    worker_configurations,
)
from workers.app import app
from workers.queues import NAMES

log = structlog.get_logger(__name__)


@app.task(name="workers.run_step", bind=True)
def run_step(self: Any, *, step_id: int, **_: object) -> None:
    """Run a step and what else is due in the queue that the message came by."""
    try:
        runner.run_message(step_id, engine=ENGINE, queue_name=self.request.delivery_info["routing_key"])
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the tick will offer the step", step=step_id, error=str(error))


@app.task(name="workers.housekeeping")
def housekeeping(**_: object) -> None:
    """Every ten minutes: merge the backup tally, forget old answers, have the strays and the usage of today seen to,
    start the S3 cleanups and verifications that are due, and give up tests of workers that nobody has begun.
    """
    try:
        backup_tally.fold()
        idempotency.purge(now=timezone.now())
        attempts.purge(now=timezone.now())
        strays.look(now=timezone.now())
        usage.refresh_daily(now=timezone.now())
        cleanup.run_s3_daily(now=timezone.now())
        repositories.verify_due(now=timezone.now())
        worker_configurations.give_up_untaken_tests(now=timezone.now())
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the next housekeeping goes on", error=str(error))


@app.task(name="workers.notify")
def notify(**_: object) -> None:
    """Every quarter of a minute: queue messages about new alerts, and daily summaries that are due."""
    try:
        deliveries.push_alerts(now=timezone.now())
        deliveries.send_summaries(now=timezone.now())
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the next round goes on", error=str(error))


@app.task(name="workers.end_explore_sessions")
def end_explore_sessions(**_: object) -> None:
    """Every half minute: end explore sessions that nobody uses any more."""
    try:
        explore_sessions.end_idle(now=timezone.now())
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the next round goes on", error=str(error))


@app.task(name="workers.seal_audit_log")
def seal_audit_log(**_: object) -> None:
    """Every five seconds: seal what has been recorded since."""
    try:
        audit_chain.seal(now=timezone.now())
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the next round seals", error=str(error))
    except (KeyFileError, SecretUnreadable, audit_chain.ChainKeyMissing) as error:
        log.error("audit log cannot be sealed", error=str(error))


@app.task(name="workers.tick")
def tick(**_: object) -> None:
    """Once a second: offer due steps, start due policies and retries."""
    try:
        sweeper.sweep(queues=list(NAMES))
        planner.run_due()
        fleet.seen("tick", FleetKind.BEAT)
    except runner.DATABASE_GONE as error:
        connection.close()
        log.warning("database away, the next tick goes on", error=str(error))
