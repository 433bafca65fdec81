"""Telling people: one step sends one message to one topic.

A message is sent at least once: Publish takes no token on standard topics, so a worker that dies between sending and
saying so sends it again. A lost alert would be worse. FIFO topics drop the repetition.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

from cpm.aws import gateway
from cpm.aws.errors import Throttled, Unreachable
from cpm.flows.identities import identity_behind
from cpm.flows.messages import alerting, daily_summary
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.models import Alert, Notification, ServerSettings, Step
from cpm.notifications import messages, topics
from cpm.notifications.messages import Message

KIND = SUBJECT = "notification"
ALERT, SUMMARY = "notify.alert", "notify.summary"
QUEUE = "control"

# An alert that goes and comes back within this time is told of once: its cause flaps.
QUIET = timedelta(hours=1)
# While AWS cannot be reached a message is tried again, less and less often, until it is too old to be news.
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 3600.0
TOO_OLD = timedelta(hours=12)


def alert_job(notification: Notification, alert: Alert) -> JobSpec:
    """Tell the owner of these settings about an alert. The job is the server's: it may wait, and holds up nobody who
    deletes the user."""
    payload = {
        "alert": alert.pk, "about": alert.user_id, "policy": alert.policy_id, "category": alert.category,
    }  # fmt: skip
    return JobSpec(KIND, SUBJECT, notification.pk, [StepSpec(ALERT, payload)])


def summary_job(notification: Notification, *, until: datetime) -> JobSpec:
    """Send the summary of what happened since the last one. The row still says when that was."""
    message = summary_of(notification, now=until)
    payload = {"subject": message.subject, "body": message.body}
    return JobSpec(KIND, SUBJECT, notification.pk, [StepSpec(SUMMARY, payload)])


def summary_of(notification: Notification, *, now: datetime) -> Message:
    return messages.summary_message(
        daily_summary.collect(notification, now=now), zone=system_zone(), server=_server_name()
    )


def publish(notification: Notification, topic: str, message: Message, *, once: str, session: str) -> str:
    """Send with the settings' own credentials and return SNS's id of the message. Raises AwsError and DomainError."""
    sns = gateway.client(identity_behind(notification, session=session), "sns", notification.region)
    return topics.publish(sns, topic, message, once=once)


def summary_topic(notification: Notification) -> str:
    """Where summaries go; empty if nowhere."""
    return notification.alerts_topic_arn if notification.use_same_topic else notification.summary_topic_arn


def system_zone() -> ZoneInfo:
    return ZoneInfo(settings.TIME_ZONE)


def tell(context: StepContext) -> Outcome:
    """Publish an alert, unless its cause is gone meanwhile or nobody wants to know any more."""
    notification = _notification(context)
    alert = (
        Alert.objects.select_related("user", "policy__account").filter(pk=context.payload["alert"]).first()
    )
    if alert is None:
        return Done("The alert is gone, nobody needs to be told.")
    if notification is None or not (notification.alerts_enabled and notification.alerts_topic_arn):
        return Done("Notifications of alerts are switched off.")
    if told := _told_before(context):
        pause = (told + QUIET - context.now).total_seconds()
        if pause > 0:
            return Wait(pause, message="This alert comes and goes; it is told of again after a while.")
    message = messages.alert_message(
        alert,
        advice=alerting.ADVICE.get(alert.category, alerting.GENERAL_ADVICE),
        zone=system_zone(),
        server=_server_name(),
    )
    return _send(context, notification, notification.alerts_topic_arn, message)


def summarize(context: StepContext) -> Outcome:
    """Publish a summary that was composed when it fell due."""
    notification = _notification(context)
    topic = summary_topic(notification) if notification else ""
    if notification is None or not notification.summary_enabled or not topic:
        return Done("Daily summaries are switched off.")
    return _send(context, notification, topic, Message(context.payload["subject"], context.payload["body"]))


def _send(context: StepContext, notification: Notification, topic: str, message: Message) -> Outcome:
    try:
        # A token is what an earlier attempt of this step has sent.
        sent = context.token or publish(
            notification,
            topic,
            message,
            once=f"cpm-step-{context.step_id}",
            session=f"cpm-job-{context.job_id}",
        )
    except (Throttled, Unreachable) as error:
        problem = error.explain()
        age = context.now - Step.objects.values_list("created_at", flat=True).get(pk=context.step_id)
        if age > TOO_OLD:
            return Failed(f"Given up after {age.total_seconds() / 3600:.0f} hours. {problem}")
        pause = min(FIRST_PAUSE * 2 ** min(context.lease.attempts, 10), LONGEST_PAUSE)
        return Wait(pause, message=problem, write=lambda: _note(notification.pk, problem))
    if context.token is None:
        context.remember(sent)
    context.log(f"Sent to {topic}: {message.subject}")
    return Done(f"Sent as {sent}.", write=lambda: _note(notification.pk, ""))


def _told_before(context: StepContext) -> datetime | None:
    """When the same user was last told about the same cause."""
    payload = context.payload
    steps = Step.objects.filter(
        job__subject_type=SUBJECT, job__subject_id=context.subject_id, kind=ALERT, token__isnull=False,
        finished_at__gt=context.now - QUIET, payload__about=payload["about"], payload__policy=payload["policy"],
        payload__category=payload["category"],
    )  # fmt: skip
    return (
        steps.exclude(pk=context.step_id)
        .order_by("-finished_at")
        .values_list("finished_at", flat=True)
        .first()
    )


def _notification(context: StepContext) -> Notification | None:
    rows = Notification.objects.select_related("user", "account")
    return rows.filter(pk=context.subject_id, user__is_active=True).first()


def _note(notification_id: int, problem: str) -> None:
    Notification.objects.filter(pk=notification_id).exclude(last_error=problem).update(last_error=problem)


def _failed(context: StepContext, message: str) -> None:
    _note(context.subject_id, message)


def _server_name() -> str:
    return ServerSettings.objects.filter(pk=1).values_list("name", flat=True).first() or ""


KINDS = (
    StepKind(ALERT, QUEUE, tell, failed=_failed),
    StepKind(SUMMARY, QUEUE, summarize, failed=_failed),
)
QUEUES = {kind.name: kind.queue for kind in KINDS}
