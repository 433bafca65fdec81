"""What people are told without asking: raised alerts, and the daily summary. Any number of processes may call these
at once: rows are claimed with SKIP LOCKED, and the claim and the job that sends are one transaction."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import Q

from cpm.flows.messages import daily_summary, notify
from cpm.jobs import queue
from cpm.models import Alert, Notification
from cpm.notifications.daily import next_moment

log = structlog.get_logger(__name__)

BATCH = 200


def push_alerts(*, now: datetime) -> int:
    """Queue a message for everybody who wants to be told of alerts nobody was told of; returns how many messages.

    An alert is looked at once, also if nobody wants to be told: who switches notifications on is not told of old ones.
    """
    sent = 0
    while True:
        with transaction.atomic():
            alerts = list(
                Alert.objects.filter(notified_at=None).order_by("pk").select_for_update(of=("self",), skip_locked=True)[:BATCH]
            )  # fmt: skip
            if not alerts:
                return sent
            listeners = _listeners({alert.user_id for alert in alerts})
            jobs = [notify.alert_job(one, alert) for alert in alerts for one in listeners[alert.user_id]]
            Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(notified_at=now)
            if jobs:
                queue.create_jobs(jobs, engine_queues=notify.QUEUES)
                log.info("alerts to be sent", alerts=len(alerts), messages=len(jobs))
        sent += len(jobs)


def send_summaries(*, now: datetime) -> int:
    """Queue every daily summary that is due, once, and set when the next one is; returns how many.

    After downtime one summary covers all of it.
    """
    sent = 0
    while True:
        with transaction.atomic():
            due = list(
                Notification.objects.filter(next_summary_at__lte=now)
                .select_related("user")
                .order_by("next_summary_at")
                .select_for_update(of=("self",), skip_locked=True)[:BATCH]
            )
            if not due:
                return sent
            wanted = [row for row in due if row.summary_enabled and row.user.is_active]
            queue.create_jobs(
                [notify.summary_job(row, until=now) for row in wanted], engine_queues=notify.QUEUES
            )
            for row in due:
                row.next_summary_at = next_moment(row.summary_time, notify.system_zone(), now)
                row.last_summary_at = now if row in wanted else row.last_summary_at
                row.save(update_fields=["next_summary_at", "last_summary_at"])
        log.info("daily summaries to be sent", count=len(wanted))
        sent += len(wanted)


def _listeners(owners: Collection[int]) -> Mapping[int, list[Notification]]:
    """Whom to tell of alerts of these users, by user."""
    rows = Notification.objects.filter(
        Q(user__in=owners) | Q(include_managed_user_alerts=True), alerts_enabled=True, user__is_active=True
    ).exclude(alerts_topic_arn="")
    found: dict[int, list[Notification]] = defaultdict(list)
    for row in rows.select_related("user").order_by("pk"):
        for owner in daily_summary.covered(row):
            found[owner].append(row)
    return found
