"""Workers report to the fleet with Celery's own heartbeat, so one that is wedged falls silent."""

from typing import Any

import structlog
from celery.signals import heartbeat_sent, worker_ready
from django.db import DatabaseError, connection

from cpm.jobs import fleet
from cpm.lib.states import FleetKind

log = structlog.get_logger(__name__)

_member: dict[str, Any] = {}


@worker_ready.connect
def _introduce(sender: Any, **_: object) -> None:
    _member.update(
        name=sender.hostname,
        queues=sorted(queue.name for queue in sender.task_consumer.queues),
        concurrency=sender.controller.concurrency,
    )


@heartbeat_sent.connect
def _report(**_: object) -> None:
    if not _member:
        return
    try:
        fleet.seen(_member["name"], FleetKind.WORKER, _member["queues"], _member["concurrency"])
    except DatabaseError as error:
        connection.close()
        log.warning("fleet row not written", error=str(error))
