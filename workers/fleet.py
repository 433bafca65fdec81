"""Workers report from their event loop, so one that is wedged falls silent; they take up a changed log mode as well.

Celery's own heartbeat is switched off: it publishes to the broker under a lock, for ever if the broker is away, and a
worker that is told to stop then waits for that lock.
"""

from typing import Any

import structlog
from celery import bootsteps
from celery.worker.consumer.connection import Connection
from django.db import DatabaseError, connection

from cpm.jobs import fleet
from cpm.lib.states import FleetKind
from cpm.services import log_mode
from workers.app import app

log = structlog.get_logger(__name__)

EVERY_SECONDS = 2.0


class Report(bootsteps.StartStopStep):
    """A timer of the consumer: it stands still while there is no broker."""

    requires = (Connection,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        self._timer = consumer.timer.call_repeatedly(EVERY_SECONDS, report, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop


def report(consumer: Any) -> None:
    """Say that this worker is alive, and which queues it serves. A database that is away changes nothing."""
    log_mode.follow()
    if consumer.task_consumer is None:
        return
    queues = sorted(queue.name for queue in consumer.task_consumer.queues)
    try:
        fleet.seen(consumer.hostname, FleetKind.WORKER, queues, consumer.controller.concurrency)
    except DatabaseError as error:
        connection.close()
        log.warning("fleet row not written", error=str(error))


app.steps["consumer"].add(Report)
