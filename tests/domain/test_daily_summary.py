"""The daily summary: when it is due, what it says, and that it is sent once."""

import itertools
import threading
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connections, transaction
from django.utils import timezone

from cpm.flows.dr import dr_copy
from cpm.lib import errors
from cpm.lib.states import Role
from cpm.models import Actor, Alert, Job, Notification, Policy
from cpm.notifications.daily import next_moment
from cpm.services import deliveries, notifications
from tests import factories
from tests.domain.world import World

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def topic(world: World) -> str:
    world.region_id("us-east-1")
    arn: str = world.aws.client("sns").create_topic(Name="summaries")["TopicArn"]
    return arn


def set_up(world: World, topic: str, **summary) -> Notification:
    access_key, secret_key = world.aws.credentials()
    return notifications.create(
        actor=world.actor, user=world.user.pk, now=timezone.now(), sns_authentication="C", sns_region="us-east-1",
        sns_access_key=access_key, sns_secret_key=secret_key,
        daily_summary={
            "enable_summary": True, "sns_summary_topic_arn": topic, "summary_daily_time": time(9), **summary,
        },
    )  # fmt: skip


def due(row: Notification, now: datetime) -> None:
    Notification.objects.filter(pk=row.pk).update(next_summary_at=now - timedelta(seconds=1))


def sent(world: World, topic: str) -> list[dict]:
    shown = world.aws.control("GET", "/sns")["topics"]
    return next(one["published"] for one in shown if one["arn"] == topic)


@pytest.mark.parametrize(
    ("at", "zone", "after", "expected"),
    [
        (time(9), BERLIN, "2026-11-21T07:59:59", "2026-11-21T08:00:00"),
        (time(9), BERLIN, "2026-11-21T08:00:00", "2026-11-22T08:00:00"),
        # West and east of Greenwich the local date differs from that of UTC.
        (time(23), NEW_YORK, "2026-11-21T01:00:00", "2026-11-21T04:00:00"),
        (time(1), ZoneInfo("Pacific/Auckland"), "2026-11-21T11:30:00", "2026-11-21T12:00:00"),
        # The night in which clocks go forward skips 02:30: it comes an hour later by the clock.
        (time(2, 30), BERLIN, "2026-03-28T12:00:00", "2026-03-29T01:30:00"),
        (time(2, 30), BERLIN, "2026-03-29T01:30:00", "2026-03-30T00:30:00"),
        # The night in which they go back has 02:30 twice: the first counts, the second does not.
        (time(2, 30), BERLIN, "2026-10-24T12:00:00", "2026-10-25T00:30:00"),
        (time(2, 30), BERLIN, "2026-10-25T00:30:00", "2026-10-26T01:30:00"),
    ],
)
def test_a_summary_is_due_once_on_every_local_date(at, zone, after, expected):
    assert next_moment(at, zone, utc(after)) == utc(expected)


def test_a_year_of_summaries_has_one_for_each_date():
    moment, dates = utc("2026-01-01T00:00:00"), []
    while moment < utc("2027-01-01T00:00:00"):
        moment = next_moment(time(2, 30), BERLIN, moment)
        dates.append(moment.astimezone(BERLIN).date())

    assert len(dates) == len(set(dates)) == 366
    assert all(later - earlier == timedelta(days=1) for earlier, later in itertools.pairwise(dates))


@pytest.mark.django_db(transaction=True)
def test_the_time_is_that_of_the_server(world: World, topic: str, settings):
    settings.TIME_ZONE = "Asia/Tokyo"

    row = set_up(world, topic, summary_daily_time=time(9))

    assert row.next_summary_at is not None
    assert row.next_summary_at.astimezone(UTC).time() == time(0)
    assert timedelta(0) < row.next_summary_at - timezone.now() <= timedelta(days=1)


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_send_a_summary_once(world: World, topic: str):
    row = set_up(world, topic)
    now = timezone.now()
    due(row, now)
    start, counts = threading.Barrier(2), []

    def beat() -> None:
        try:
            start.wait(10)
            counts.append(deliveries.send_summaries(now=now))
        finally:
            connections.close_all()

    beats = [threading.Thread(target=beat) for _ in range(2)]
    for one in beats:
        one.start()
    for one in beats:
        one.join(20)
    world.run()

    assert sorted(counts) == [0, 1]
    assert len(sent(world, topic)) == 1
    row.refresh_from_db()
    assert row.last_summary_at == now and row.next_summary_at > now
    assert deliveries.send_summaries(now=now) == 0


@pytest.mark.django_db(transaction=True)
def test_what_another_scheduler_holds_is_passed_by(world: World, topic: str):
    row = set_up(world, topic)
    now = timezone.now()
    due(row, now)
    counts = []

    def beat() -> None:
        try:
            counts.append(deliveries.send_summaries(now=now))
        finally:
            connections.close_all()

    with transaction.atomic():
        Notification.objects.select_for_update().get(pk=row.pk)
        other = threading.Thread(target=beat)
        other.start()
        other.join(20)

    assert counts == [0]
    assert deliveries.send_summaries(now=now) == 1


@pytest.mark.django_db(transaction=True)
def test_after_downtime_one_summary_covers_all_of_it(world: World, topic: str):
    row = set_up(world, topic)
    now = timezone.now()
    Notification.objects.filter(pk=row.pk).update(
        next_summary_at=now - timedelta(days=4), last_summary_at=now - timedelta(days=5)
    )
    factories.backup(
        factories.policy(world.account), start_time=now - timedelta(days=3), end_time=now - timedelta(days=3)
    )

    assert deliveries.send_summaries(now=now) == 1
    world.run()

    (message,) = sent(world, topic)
    assert "Backups:    1 successful, 0 partially successful, 0 failed" in message["message"]


@pytest.mark.django_db(transaction=True)
def test_the_summary_counts_what_ended_since_the_last_one(world: World, topic: str):
    row = set_up(world, topic)
    now = timezone.now()
    before, since = now - timedelta(hours=25), now - timedelta(hours=2)
    policy = factories.policy(
        world.account, (factories.schedule(world.user),), last_success_at=before, name="nightly"
    )
    Policy.objects.update(created_at=before)
    for status, more in (
        ("B", {}), ("D", {"status_before_deletion": "B"}), ("A", {}), ("S", {}), ("F", {}), ("F", {"end_time": before}),
        ("P", {"end_time": None}),
    ):  # fmt: skip
        factories.backup(policy, **{"status": status, "start_time": before, "end_time": since, **more})
    for status in ("C", "F", "F"):
        copied = factories.backup(policy, dr_status=status, start_time=before, end_time=before)
        Job.objects.create(
            kind=dr_copy.KIND,
            subject_type="backup",
            subject_id=copied.pk,
            state="succeeded",
            finished_at=since,
        )
    factories.recovery(status="R")
    factories.recovery(factories.snapshot(copied), status="F", recovery_time=since, end_time=since)
    factories.backup(start_time=since, end_time=since)
    managed = factories.user(Role.MANAGED)
    for user in (world.user, managed):
        factories.alert(user, title=f"Trouble of {user.username}")
    due(row, now)

    deliveries.send_summaries(now=now)
    world.run()

    (message,) = sent(world, topic)
    body = message["message"]
    assert "Backups:    2 successful, 2 partially successful, 1 failed" in body
    assert "DR copies:  1 successful, 0 partially successful, 2 failed" in body
    assert "Recoveries: 0 successful, 0 partially successful, 1 failed" in body
    assert (
        "Alerts that stand: 1" in body
        and f"Trouble of {world.user.username}" in body
        and managed.username not in body
    )
    assert "Policies without a success in the last 24 hours: 1\n- nightly, last success" in body
    assert message["subject"].endswith(": 4 failed, 1 alerts") and len(message["subject"]) < 100


@pytest.mark.django_db(transaction=True)
def test_managed_users_are_in_the_summary_if_asked_for(world: World, topic: str):
    row = set_up(world, topic)
    managed = factories.user(Role.MANAGED)
    now = timezone.now()
    factories.backup(
        factories.policy(factories.account(managed)), start_time=now, end_time=now - timedelta(hours=1)
    )
    Notification.objects.filter(pk=row.pk).update(include_managed_user_alerts=True, next_summary_at=now)

    deliveries.send_summaries(now=now)
    world.run()

    assert "Backups:    1 successful" in sent(world, topic)[0]["message"]


@pytest.mark.django_db(transaction=True)
def test_a_test_sends_at_once_and_changes_nothing(world: World, topic: str):
    row = set_up(world, topic)
    next_one = row.next_summary_at

    notifications.test_daily_summary(actor=world.actor, notification=row, now=timezone.now())

    assert len(sent(world, topic)) == 1 and "all is well" in sent(world, topic)[0]["subject"]
    row.refresh_from_db()
    assert (row.next_summary_at, row.last_summary_at) == (next_one, None)


@pytest.mark.django_db(transaction=True)
def test_a_test_says_why_it_cannot_send(world: World, topic: str):
    row = set_up(world, topic)
    world.aws.client("sns").delete_topic(TopicArn=topic)
    with pytest.raises(errors.ValidationFailed) as error:
        notifications.test_daily_summary(actor=world.actor, notification=row, now=timezone.now())
    assert "Topic does not exist" in str(error.value)
    Notification.objects.update(summary_topic_arn="")
    row.refresh_from_db()
    with pytest.raises(errors.ValidationFailed) as error:
        notifications.test_daily_summary(actor=world.actor, notification=row, now=timezone.now())
    assert "no topic" in str(error.value)
    delegate = factories.delegate(world.user, allow_settings_changes=True)
    with pytest.raises(errors.PermissionDenied):
        notifications.test_daily_summary(actor=Actor.of(delegate), notification=row, now=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_the_same_topic_serves_both(world: World, topic: str):
    row = set_up(world, "", enable_summary=False)
    assert row.next_summary_at is None
    given = {"sns_authentication": "C", "sns_region": "us-east-1"}
    with pytest.raises(errors.ValidationFailed) as error:
        notifications.update(
            actor=world.actor, notification=row, now=timezone.now(), **given,
            daily_summary={"enable_summary": True, "use_same_sns_topic": True},
        )  # fmt: skip
    assert set(error.value.errors) == {"daily_summary.use_same_sns_topic"}

    row = notifications.update(
        actor=world.actor, notification=row, now=timezone.now(), **given, alerts={"sns_alerts_topic_arn": topic},
        daily_summary={"enable_summary": True, "use_same_sns_topic": True, "create_new_summery_topic": True},
    )  # fmt: skip
    due(row, timezone.now())
    deliveries.send_summaries(now=timezone.now())
    world.run()

    assert row.summary_topic_arn == "" and len(world.aws.control("GET", "/sns")["topics"]) == 1
    assert len(sent(world, topic)) == 1


@pytest.mark.django_db(transaction=True)
def test_nobody_is_sent_what_was_switched_off_meanwhile(world: World, topic: str):
    row = set_up(world, topic)
    factories.alert(world.user)
    due(row, timezone.now())
    deliveries.send_summaries(now=timezone.now())
    Notification.objects.update(summary_enabled=False)

    world.run()

    assert sent(world, topic) == [] and Alert.objects.exists()
