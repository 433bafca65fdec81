"""The Celery application. It carries wake-ups only: no results, and early acknowledgement, since the
database leases decide what is done (cpm.jobs)."""

import os

import django
from celery import Celery
from celery.signals import setup_logging, worker_process_init
from django.conf import settings
from django.db import connections
from kombu import Queue

from cpm.jobs import sessions
from cpm.lib import places
from workers.queues import NAMES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cpm.settings")
django.setup()

app = Celery("cpm")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 3600,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=False,
    task_serializer="json",
    accept_content=["json"],
    task_publish_retry=False,
    task_queues=[Queue(name) for name in (*NAMES, *places.queues_at(settings.CPM_WORKER_PLACE))],
    task_default_queue="control",
    task_create_missing_queues=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    enable_utc=True,
    include=["workers.tasks", "workers.fleet", "workers.log_mode"],
    beat_schedule_filename=str(settings.DATA_DIR / "beat-schedule"),
    beat_schedule={
        "tick": {
            "task": "workers.tick",
            "schedule": settings.CPM_TICK_SECONDS,
            "options": {"queue": "control", "expires": 10},
        },
        "notify": {
            "task": "workers.notify",
            "schedule": 15.0,
            "options": {"queue": "control", "expires": 15},
        },
        "end-explore-sessions": {
            "task": "workers.end_explore_sessions",
            "schedule": 30.0,
            "options": {"queue": "control", "expires": 30},
        },
        "seal-audit-log": {
            "task": "workers.seal_audit_log",
            "schedule": 5.0,
            "options": {"queue": "control", "expires": 5},
        },
        "housekeeping": {
            "task": "workers.housekeeping",
            "schedule": 600.0,
            "options": {"queue": "control", "expires": 300},
        },
    },
)


@setup_logging.connect
def _keep_logging(**_: object) -> None:
    """Logging is configured by Django's application; Celery must not replace it."""


@worker_process_init.connect
def _fresh_connections(**_: object) -> None:
    """A forked pool process must not share its parent's database sockets."""
    sessions.bound()
    for connection in connections.all(initialized_only=True):
        connection.connection = None
