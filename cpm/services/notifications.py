"""Notification settings: one row for each user, with topics of Amazon SNS.

Topics are made, subscribed to and looked at when settings are saved, before the row is locked: AWS may take its time.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time
from typing import TypedDict, Unpack

from django.db import IntegrityError, transaction

from cpm import permissions
from cpm.aws import gateway
from cpm.aws.errors import AwsError, BadCredentials
from cpm.flows import tags
from cpm.flows.identities import encrypt_secret, identity_behind
from cpm.flows.messages import notify
from cpm.lib.errors import NON_FIELD, Conflict, ValidationFailed
from cpm.lib.names import Problem
from cpm.lib.states import Authentication
from cpm.models import Account, Actor, Notification, ServerSettings, User
from cpm.notifications import topics
from cpm.notifications.daily import next_moment
from cpm.services import accounts, audit, regions, scope
from cpm.services.blame import blaming

RIGHT = "notifications.change"
SERVER_ROLE_RIGHT = "notifications.use_server_role"
SESSION = "cpm-notifications"
ALERTS_ARN, SUMMARY_ARN = "alerts.sns_alerts_topic_arn", "daily_summary.sns_summary_topic_arn"

Problems = dict[str, list[Problem]]


class AlertFields(TypedDict, total=False):
    """`create_new_topic` makes the user's own topic, `add_user_email` subscribes the user to it."""

    enabled: bool
    sns_alerts_topic_arn: str
    create_new_topic: bool
    add_user_email: bool


class SummaryFields(TypedDict, total=False):
    """With `use_same_sns_topic` summaries go to the alerts' topic, and no other is made."""

    enable_summary: bool
    sns_summary_topic_arn: str
    summary_daily_time: time
    use_same_sns_topic: bool
    create_new_summery_topic: bool
    add_user_email_to_summary: bool


class NotificationFields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. The secret key goes in and never comes out."""

    sns_authentication: Authentication
    sns_region: str
    sns_access_key: str
    sns_secret_key: str
    sns_account: int | None
    include_managed_user_alerts: bool
    alerts: AlertFields
    daily_summary: SummaryFields


def create(*, actor: Actor, user: int, now: datetime, **fields: Unpack[NotificationFields]) -> Notification:
    """The settings of that user, who must have none yet.

    Raises `Conflict` if there are some, `ValidationFailed` for what makes no sense and for what AWS refuses, `NotFound`
    for a user or account out of reach, and `PermissionDenied` for the server's role unless root asks.
    """
    owner = scope.owner(actor, RIGHT, user)
    row = Notification(user=owner)
    if Notification.objects.filter(user=owner).exists():
        raise _exists(owner)
    _apply(actor, row, fields, now)
    row.alerts_topic_arn, row.summary_topic_arn = _topics(row, fields)
    try:
        with transaction.atomic():
            row.save()
            audit.record(actor, "notification.created", row, after=audit.state_of(row))
    except IntegrityError as error:
        raise _exists(owner) from error
    return row


def update(
    *, actor: Actor, notification: Notification, now: datetime, **fields: Unpack[NotificationFields]
) -> Notification:
    """Changes what is given; the user never changes. Raises what `create` raises."""
    with transaction.atomic():
        draft = scope.locked(actor, RIGHT, notification, "notification")
    _apply(actor, draft, fields, now)
    alerts_arn, summary_arn = _topics(draft, fields)
    with transaction.atomic():
        row = scope.locked(actor, RIGHT, notification, "notification")
        before = audit.state_of(row)
        _apply(actor, row, fields, now)
        row.alerts_topic_arn, row.summary_topic_arn, row.last_error = alerts_arn, summary_arn, ""
        row.save()
        audit.record(actor, "notification.updated", row, before=before, after=audit.state_of(row))
    return row


def test_daily_summary(*, actor: Actor, notification: Notification, now: datetime) -> None:
    """Sends the daily summary at once. Raises `ValidationFailed` with AWS's reason if that fails."""
    permissions.require(actor, RIGHT)
    topic = notify.summary_topic(notification)
    if not topic:
        raise ValidationFailed.one(
            SUMMARY_ARN, "There is no topic to send a summary to; set one first.", "required"
        )
    message = notify.summary_of(notification, now=now)
    with _blaming(NON_FIELD):
        sent = notify.publish(
            notification,
            topic,
            message,
            once=f"cpm-test-{notification.pk}-{now.timestamp()}",
            session=SESSION,
        )
    with transaction.atomic():
        Notification.objects.filter(pk=notification.pk).update(last_error="")
        audit.record(
            actor, "notification.tested", notification, text=f"Sent a daily summary to {topic} as {sent}"
        )


def _exists(owner: User) -> Conflict:
    text = f"User {owner.username} has notification settings already; change those."
    return Conflict("unique", text, field="user")


def _apply(actor: Actor, row: Notification, fields: NotificationFields, now: datetime) -> None:
    """Put the fields into the row and check the whole, but for what only AWS knows."""
    row.authentication = fields.get("sns_authentication", row.authentication)
    if row.authentication == Authentication.SERVER_ROLE:
        permissions.require(actor, SERVER_ROLE_RIGHT)
    row.region = regions.require_enabled(fields.get("sns_region", row.region), field="sns_region")
    row.include_managed_user_alerts = fields.get(
        "include_managed_user_alerts", row.include_managed_user_alerts
    )
    _apply_credentials(row, fields)
    alerts, summary = fields.get("alerts", {}), fields.get("daily_summary", {})
    row.alerts_enabled = alerts.get("enabled", row.alerts_enabled)
    row.alerts_topic_arn = alerts.get("sns_alerts_topic_arn", row.alerts_topic_arn)
    row.summary_enabled = summary.get("enable_summary", row.summary_enabled)
    row.summary_topic_arn = summary.get("sns_summary_topic_arn", row.summary_topic_arn)
    row.use_same_topic = summary.get("use_same_sns_topic", row.use_same_topic)
    row.summary_time = summary.get("summary_daily_time", row.summary_time)
    row.next_summary_at = (
        next_moment(row.summary_time, notify.system_zone(), now) if row.summary_enabled else None
    )
    problems = _problems(row, alerts, summary)
    if any(problems.values()):
        raise ValidationFailed(problems)


def _apply_credentials(row: Notification, fields: NotificationFields) -> None:
    """What the chosen authentication does not use is emptied."""
    key_before = row.access_key
    row.access_key = fields.get("sns_access_key", row.access_key)
    if row.access_key != key_before:
        row.secret_key = ""
    if fields.get("sns_secret_key"):
        row.secret_key = encrypt_secret(fields["sns_secret_key"])
    if row.authentication != Authentication.KEYS:
        row.access_key = row.secret_key = ""
    if row.authentication != Authentication.ASSUME_ROLE:
        row.account = None
    elif fields.get("sns_account") is not None:
        # Only accounts of the same owner: messages sent with somebody else's credentials would be theirs.
        row.account = scope.referred(
            Account.objects.filter(user=row.user_id),
            fields["sns_account"] or 0,
            what="account",
            field="sns_account",
        )
    elif "sns_account" in fields:
        row.account = None


def _problems(row: Notification, alerts: AlertFields, summary: SummaryFields) -> Problems:
    problems: Problems = defaultdict(list)
    if row.authentication == Authentication.KEYS:
        accounts.check_keys(row.access_key, row.secret_key, "sns", problems)
    elif row.authentication == Authentication.ASSUME_ROLE and row.account is None:
        problems["sns_account"].append(("Access by an account needs the account.", "required"))
    own_summary = not row.use_same_topic
    for wanted, arn, field in (
        (row.alerts_enabled, row.alerts_topic_arn, ALERTS_ARN),
        (row.summary_enabled and own_summary, row.summary_topic_arn, SUMMARY_ARN),
    ):
        new = (
            alerts.get("create_new_topic") if field == ALERTS_ARN else summary.get("create_new_summery_topic")
        )
        if new:
            continue
        if arn and (problem := topics.problem_with(arn, row.region)):
            problems[field].append((problem, "invalid"))
        elif wanted and not arn:
            problems[field].append(("Give the ARN of a topic, or have a new one created.", "required"))
    if (
        row.summary_enabled
        and row.use_same_topic
        and not (row.alerts_topic_arn or alerts.get("create_new_topic"))
    ):
        problems["daily_summary.use_same_sns_topic"].append(
            ("There is no topic for alerts to use as well.", "required")
        )
    for asked, field in (
        (alerts.get("add_user_email"), "alerts.add_user_email"),
        (summary.get("add_user_email_to_summary"), "daily_summary.add_user_email_to_summary"),
    ):
        if asked and not row.user.email:
            problems[field].append(
                (f"User {row.user.username} has no e-mail address to subscribe.", "required")
            )
    return problems


def _topics(row: Notification, fields: NotificationFields) -> tuple[str, str]:
    """The topics for alerts and for summaries, made, checked and subscribed to as the fields ask. AWS is asked only
    about what is in use. Raises `ValidationFailed` with AWS's reason."""
    alerts, summary = fields.get("alerts", {}), fields.get("daily_summary", {})
    alerts_arn = _topic(
        row, row.alerts_topic_arn, topics.ALERTS, ALERTS_ARN,
        create=alerts.get("create_new_topic", False),
        subscribe=alerts.get("add_user_email", False),
        check=row.alerts_enabled or (row.summary_enabled and row.use_same_topic),
    )  # fmt: skip
    if row.use_same_topic:
        _topic(
            row, alerts_arn, topics.ALERTS, ALERTS_ARN, create=False, check=False,
            subscribe=summary.get("add_user_email_to_summary", False) and not alerts.get("add_user_email"),
        )  # fmt: skip
        return alerts_arn, row.summary_topic_arn
    summary_arn = _topic(
        row, row.summary_topic_arn, topics.SUMMARY, SUMMARY_ARN,
        create=summary.get("create_new_summery_topic", False),
        subscribe=summary.get("add_user_email_to_summary", False),
        check=row.summary_enabled,
    )  # fmt: skip
    return alerts_arn, summary_arn


def _topic(
    row: Notification, arn: str, purpose: str, field: str, *, create: bool, subscribe: bool, check: bool
) -> str:
    if not create and not (arn and (subscribe or check)):
        return arn
    with _blaming(field):
        sns = gateway.client(identity_behind(row, session=SESSION), "sns", row.region)
        if create:
            server = ServerSettings.current().server_id
            labels: Mapping[str, str] = {tags.SERVER: str(server)}
            arn = topics.create(sns, topics.name_of(server, row.user_id, purpose), labels)
        else:
            topics.check(sns, arn)
        if subscribe:
            topics.subscribe(sns, arn, row.user.email)
    return arn


@contextmanager
def _blaming(field: str) -> Iterator[None]:
    fields: Mapping[type[AwsError], str] = {} if field == NON_FIELD else {BadCredentials: "sns_authentication"}
    with blaming(field, account="sns_account", unreadable="sns_secret_key", fields=fields):
        yield
