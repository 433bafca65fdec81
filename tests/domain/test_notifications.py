"""Notification settings, the push of alerts, and the e-mail identity, against a simulated AWS."""

import threading
from datetime import time, timedelta

import pytest
from django.db import connections
from django.utils import timezone

from cpm.flows.identities import decrypt_secret, encrypt_secret
from cpm.flows.messages import alerting, notify
from cpm.lib import errors
from cpm.lib.states import Role
from cpm.models import (
    Account,
    Actor,
    Alert,
    AuditRecord,
    EmailIdentity,
    LogLine,
    Notification,
    ServerSettings,
    Step,
    User,
)
from cpm.notifications import messages, topics
from cpm.services import accounts, cleanup, deliveries, email_identity, notifications
from tests import factories
from tests.domain.world import DR_ACCOUNT, World
from workers import tasks

pytestmark = pytest.mark.django_db(transaction=True)

ALICE = "alice@example.com"


@pytest.fixture(autouse=True)
def _regions(world: World) -> None:
    for name in ("us-east-1", "eu-west-1"):
        world.region_id(name)


def set_up(world: World, user: User | None = None, **fields) -> Notification:
    """Settings of a user that send alerts with keys of the simulated AWS to a topic of their own."""
    user = user or world.user
    access_key, secret_key = world.aws.credentials()
    given = {
        "sns_authentication": "C", "sns_region": "us-east-1", "sns_access_key": access_key,
        "sns_secret_key": secret_key, "alerts": {"enabled": True, "create_new_topic": True},
    } | fields  # fmt: skip
    return notifications.create(actor=Actor.of(user), user=user.pk, now=timezone.now(), **given)


def change(row: Notification, actor: User | None = None, **fields) -> Notification:
    given = {"sns_authentication": row.authentication, "sns_region": row.region} | fields
    return notifications.update(
        actor=Actor.of(actor or row.user), notification=row, now=timezone.now(), **given
    )


def raise_one(user: User, category: str = alerting.BACKUP_FAILED, **more) -> Alert:
    given = {"title": "Policy “nightly” failed", "message": "No snapshot succeeded.", "policy": None} | more
    alerting.raise_alert(user=user, category=category, now=timezone.now(), **given)
    return Alert.objects.get(user=user, policy=given["policy"], category=category)


def push(world: World) -> int:
    count = deliveries.push_alerts(now=timezone.now())
    world.run()
    return count


def published(world: World, row: Notification) -> list[dict]:
    row.refresh_from_db()
    shown = world.aws.control("GET", "/sns")["topics"]
    return [sent for topic in shown if topic["arn"] == row.alerts_topic_arn for sent in topic["published"]]


def refused(error: pytest.ExceptionInfo, field: str, code: str) -> bool:
    return code in [problem["code"] for problem in error.value.to_fields().get(field, ())]


# -- settings -----------------------------------------------------------------------------------------------


def test_a_topic_is_made_for_the_user_who_is_asked_to_confirm(world: World):
    world.user.email = ALICE
    world.user.save()

    row = set_up(world, alerts={"enabled": True, "create_new_topic": True, "add_user_email": True})

    (topic,) = world.aws.control("GET", "/sns")["topics"]
    server = ServerSettings.current().server_id
    assert row.alerts_topic_arn == topic["arn"]
    assert topic["arn"].endswith(f":cpm-{server}-{world.user.pk}-alerts")
    assert topic["tags"] == {"cpm_server_id": str(server)}
    assert topic["subscriptions"] == [{"protocol": "email", "endpoint": ALICE, "confirmed": False}]
    assert change(row, alerts={"create_new_topic": True}).alerts_topic_arn == topic["arn"]


def test_secrets_are_encrypted_and_kept_out_of_the_audit(world: World):
    row = set_up(world)
    secret = world.aws.credentials()[1]

    assert decrypt_secret(row.secret_key) == secret
    (record,) = AuditRecord.objects.filter(event_type="notification.created")
    assert secret not in str(record.after) and row.secret_key not in str(record.after)
    assert record.owner_id == world.user.pk


def test_a_topic_must_exist_and_be_usable(world: World):
    row = set_up(world)
    foreign = world.aws.client("sns", account=DR_ACCOUNT).create_topic(Name="theirs")["TopicArn"]
    for arn, code in (
        (row.alerts_topic_arn + "x", "aws_not_found"), (foreign, "aws_denied"), ("my topic", "invalid"),
        (row.alerts_topic_arn.replace("us-east-1", "eu-west-1"), "invalid"),
    ):  # fmt: skip
        with pytest.raises(errors.ValidationFailed) as error:
            change(row, alerts={"sns_alerts_topic_arn": arn})
        assert refused(error, "alerts.sns_alerts_topic_arn", code), arn
    row.refresh_from_db()

    assert row.alerts_topic_arn.endswith("-alerts")


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"sns_region": "atlantis-1"}, "sns_region", "unknown_region"),
        ({"sns_access_key": "short"}, "sns_access_key", "invalid"),
        ({"sns_access_key": "AKIAANOTHERONE000000"}, "sns_secret_key", "required"),
        ({"sns_secret_key": "not the secret of this key"}, "sns_authentication", "aws_bad_credentials"),
        ({"sns_authentication": "A"}, "sns_account", "required"),
        ({"alerts": {"sns_alerts_topic_arn": ""}}, "alerts.sns_alerts_topic_arn", "required"),
        ({"alerts": {"add_user_email": True}}, "alerts.add_user_email", "required"),
        ({"daily_summary": {"enable_summary": True}}, "daily_summary.sns_summary_topic_arn", "required"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(world: World, fields, field, code):
    row = set_up(world)

    with pytest.raises(errors.ValidationFailed) as error:
        change(row, **fields)

    assert refused(error, field, code), error.value
    before = row.access_key, row.region
    row.refresh_from_db()
    assert (row.access_key, row.region) == before


def test_a_secret_whose_key_is_lost_is_to_be_entered_again(world: World):
    row = set_up(world)
    Notification.objects.update(secret_key="altered", summary_topic_arn=row.alerts_topic_arn)
    row.refresh_from_db()
    identity(world)
    EmailIdentity.objects.update(secret_key="altered")

    with pytest.raises(errors.ValidationFailed) as error:
        notifications.test_daily_summary(actor=world.actor, notification=row, now=timezone.now())
    assert refused(error, "sns_secret_key", "secret_unreadable")
    with pytest.raises(errors.ValidationFailed) as error:
        email_identity.verify_status(actor=world.actor, email_address=None)
    assert refused(error, "ses_secret_key", "secret_unreadable")


def test_a_user_has_one_row_and_keeps_it(world: World):
    set_up(world)

    with pytest.raises(errors.Conflict) as error:
        set_up(world)

    assert error.value.field == "user" and world.user.username in str(error.value)


def test_the_server_role_is_for_root_and_accounts_are_the_users_own(world: World):
    managed = factories.user(Role.MANAGED)
    for user in (managed, factories.user()):
        with pytest.raises(errors.PermissionDenied):
            set_up(world, user, sns_authentication="R", alerts={})
        with pytest.raises(errors.NotFound) as error:
            set_up(world, user, sns_authentication="A", sns_account=world.account.pk, alerts={})
        assert error.value.field == "sns_account"
    with pytest.raises(errors.NotFound):
        notifications.create(
            actor=Actor.of(managed),
            user=world.user.pk,
            now=timezone.now(),
            sns_authentication="R",
            sns_region="us-east-1",
        )

    made = notifications.create(
        actor=world.actor, user=managed.pk, now=timezone.now(), sns_authentication="R", sns_region="us-east-1"
    )

    assert made.user == managed and made.access_key == ""


def test_an_account_that_sends_notifications_cannot_be_deleted(world: World):
    row = set_up(world, sns_authentication="A", sns_account=world.account.pk)
    assert row.secret_key == "" and row.alerts_topic_arn

    with pytest.raises(errors.InUse) as error:
        accounts.delete(actor=world.actor, account=world.account)

    assert f"notification settings of {world.user.username}" in error.value.by
    change(
        row, sns_authentication="C", sns_access_key="A" * 20, sns_secret_key="s", alerts={"enabled": False}
    )
    accounts.delete(actor=world.actor, account=world.account)
    assert not Account.objects.filter(pk=world.account.pk).exists()


def test_settings_that_use_nothing_ask_aws_nothing(world: World):
    before = world.aws.last_call()

    row = set_up(world, alerts={}, daily_summary={"summary_daily_time": time(7, 30)})

    assert world.aws.count(before)["total"] == 0
    assert (row.summary_time, row.next_summary_at) == (time(7, 30), None)


# -- alerts -------------------------------------------------------------------------------------------------


def test_an_alert_is_published_once_however_often_it_is_raised(world: World):
    row = set_up(world)
    policy = factories.policy(world.account)
    raise_one(world.user, policy=policy)

    assert push(world) == 1
    raise_one(world.user, policy=policy, message="Again.")
    assert push(world) == 0

    (sent,) = published(world, row)
    assert sent["subject"] == 'CPM Error: Policy "nightly" failed'
    for part in (
        "No snapshot succeeded.",
        policy.name,
        world.account.name,
        world.user.username,
        "UTC",
        "run the policy",
    ):
        assert part in sent["message"], part
    assert Alert.objects.get().notified_at is not None


def test_an_alert_that_comes_and_goes_is_told_of_once_in_a_while(world: World):
    row = set_up(world)
    raise_one(world.user)
    push(world)
    alerting.clear_alert(user=world.user, policy=None, category=alerting.BACKUP_FAILED)
    raise_one(world.user)

    assert deliveries.push_alerts(now=timezone.now()) == 1
    world.work()

    step = Step.objects.get(finished_at=None)
    assert timedelta(minutes=55) < step.not_before - timezone.now() <= notify.QUIET
    assert len(published(world, row)) == 1
    Step.objects.exclude(finished_at=None).update(finished_at=timezone.now() - notify.QUIET)
    Step.objects.filter(finished_at=None).update(not_before=timezone.now())
    world.run()
    assert len(published(world, row)) == 2


def test_an_alert_that_is_gone_before_it_was_told_of_is_not_sent(world: World):
    row = set_up(world)
    raise_one(world.user)
    deliveries.push_alerts(now=timezone.now())
    alerting.clear_alert(user=world.user, policy=None, category=alerting.BACKUP_FAILED)

    world.run()

    assert published(world, row) == []


def test_managed_users_alerts_reach_those_who_manage_them(world: World):
    world.user.username = "root"
    world.user.save()
    managed, other, independent = factories.user(Role.MANAGED), factories.user(Role.MANAGED), factories.user()
    independent.applied_managed_users.add(managed)
    rows = {user: set_up(world, user, include_managed_user_alerts=True) for user in (world.user, independent)}
    for user in (managed, other, independent, factories.user()):
        raise_one(user, title=f"of {user.pk}")

    push(world)

    subjects = {user: {sent["subject"] for sent in published(world, row)} for user, row in rows.items()}
    assert subjects[world.user] == {f"CPM Error: of {managed.pk}", f"CPM Error: of {other.pk}"}
    assert subjects[independent] == {f"CPM Error: of {managed.pk}", f"CPM Error: of {independent.pk}"}
    change(rows[world.user], include_managed_user_alerts=False)
    raise_one(managed, category=alerting.DR_FAILED)
    push(world)
    assert len(published(world, rows[world.user])) == 2


def test_who_switches_notifications_on_is_not_told_of_what_was_before(world: World):
    raise_one(world.user)
    assert push(world) == 0
    row = set_up(world)

    assert push(world) == 0

    assert published(world, row) == []


def test_no_answer_from_aws_is_tried_again_and_shown_meanwhile(world: World):
    row = set_up(world)
    raise_one(world.user)
    world.aws.fault(service="sns", action="Publish", error="ServiceUnavailable", status=503)

    deliveries.push_alerts(now=timezone.now())
    world.work()

    row.refresh_from_db()
    assert "ServiceUnavailable" in row.last_error
    world.aws.clear_faults()
    Step.objects.filter(finished_at=None).update(not_before=timezone.now())
    world.run()
    row.refresh_from_db()
    assert len(published(world, row)) == 1 and row.last_error == ""


def test_a_refusal_is_final_and_shown(world: World):
    row = set_up(world)
    raise_one(world.user)
    world.aws.client("sns").delete_topic(TopicArn=row.alerts_topic_arn)

    push(world)

    row.refresh_from_db()
    assert "Topic does not exist" in row.last_error
    assert Step.objects.get().state == "failed"


def test_a_worker_that_died_after_sending_is_succeeded_by_one_that_sends_again(world: World):
    """At least once: what SNS was asked by the dead worker cannot be known."""
    row = set_up(world)
    raise_one(world.user)
    world.aws.fault(service="sns", action="Publish", lost_response=True, count=1)
    deliveries.push_alerts(now=timezone.now())
    world.work()
    Step.objects.filter(finished_at=None).update(not_before=timezone.now())

    world.run()

    assert len(published(world, row)) == 2


def test_what_was_sent_and_noted_is_not_sent_again(world: World):
    """The worker died between noting the message's id and ending the step."""
    row = set_up(world)
    raise_one(world.user)
    deliveries.push_alerts(now=timezone.now())
    Step.objects.update(token="an-id-of-sns")

    world.run()

    assert Step.objects.get().state == "succeeded"
    assert published(world, row) == []


def test_two_sweeps_at_once_tell_of_an_alert_once(world: World):
    row = set_up(world)
    for number in range(20):
        raise_one(world.user, category=f"category {number}")
    start, counts = threading.Barrier(2), []

    def sweep() -> None:
        try:
            start.wait(10)
            counts.append(deliveries.push_alerts(now=timezone.now()))
        finally:
            connections.close_all()

    sweeps = [threading.Thread(target=sweep) for _ in range(2)]
    for one in sweeps:
        one.start()
    for one in sweeps:
        one.join(20)
    world.run()

    assert sum(counts) == 20
    assert len(published(world, row)) == 20


def test_a_sweep_that_dies_loses_nothing(world: World, monkeypatch):
    row = set_up(world)
    raise_one(world.user)

    def die(*_: object, **__: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as dying:
        dying.setattr(deliveries.queue, "create_jobs", die)
        with pytest.raises(OSError, match="power cut"):
            deliveries.push_alerts(now=timezone.now())
    assert Alert.objects.get().notified_at is None

    assert push(world) == 1
    assert len(published(world, row)) == 1


def test_fifo_topics_are_published_to_in_order(world: World):
    fifo = world.aws.client("sns").create_topic(Name="ordered.fifo", Attributes={"FifoTopic": "true"})[
        "TopicArn"
    ]
    row = set_up(world, alerts={"enabled": True, "sns_alerts_topic_arn": fifo})
    raise_one(world.user)

    push(world)

    assert len(published(world, row)) == 1


def test_the_fleet_sweeps_by_the_clock(world: World):
    row = set_up(world)
    raise_one(world.user)
    tasks.app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in tasks.app.conf.beat_schedule.values()}

    tasks.notify()
    world.run()

    assert len(published(world, row)) == 1
    assert "workers.notify" in scheduled and scheduled <= set(tasks.app.tasks)


def test_old_lines_of_the_log_are_forgotten(world: World):
    long_ago = timezone.now() - timedelta(days=400)
    factories.log_line(notify.SUBJECT, 1, time=long_ago)
    factories.log_line(notify.SUBJECT, 1, "Sent.", time=timezone.now())

    cleanup.run(actor=None, now=timezone.now())
    world.run()

    assert [line.message for line in LogLine.objects.filter(subject_type=notify.SUBJECT)] == ["Sent."]


def test_a_subject_is_one_line_of_ascii_and_bodies_are_cut_between_characters():
    assert messages.subject_of("Größe\n\u201cy\u201d \u2013 it\u2019s\t…") == 'Gro?e "y" - it\'s ...'
    assert len(messages.subject_of("a" * 500)) == messages.LONGEST_SUBJECT
    assert messages.subject_of("日本").isascii()
    long = messages.body_of("é" * messages.LONGEST_BODY)
    assert len(long.encode()) < 262_144 and long.endswith("é\n[…]")


def test_what_is_no_topic_of_the_region_is_told_apart():
    assert topics.problem_with("arn:aws:sns:us-east-1:123456789012:x", "us-east-1") == ""
    assert topics.problem_with("arn:aws-cn:sns:cn-north-1:123456789012:x.fifo", "cn-north-1") == ""
    assert "region" in topics.problem_with("arn:aws:sns:us-east-1:123456789012:x", "eu-west-1")
    assert "not the ARN" in topics.problem_with("arn:aws:sqs:us-east-1:123456789012:x", "us-east-1")


# -- e-mail identity ----------------------------------------------------------------------------------------


def identity(world: World, **fields) -> EmailIdentity:
    access_key, secret_key = world.aws.credentials()
    given = {
        "enabled": True, "email_address": "cpm@example.com", "ses_authentication": "C", "ses_region": "us-east-1",
        "ses_access_key": access_key, "ses_secret_key": secret_key,
    } | fields  # fmt: skip
    return email_identity.change(actor=world.actor, **given)


def test_an_address_is_verified_through_ses(world: World):
    row = identity(world)

    def status(address=None):
        return email_identity.verify_status(actor=world.actor, email_address=address)

    assert status() == ("cpm@example.com", "NotStarted")
    email_identity.verify(actor=world.actor, email_address="cpm@example.com")
    assert status() == ("cpm@example.com", "Pending")
    assert status("other@example.com") == ("other@example.com", "NotStarted")
    world.aws.control("POST", "/ses", {"address": "cpm@example.com"})
    before = world.aws.last_call()
    email_identity.verify(actor=world.actor, email_address="cpm@example.com")
    assert status() == ("cpm@example.com", "Success")
    assert "ses:VerifyEmailIdentity" not in world.aws.count(before)["by_action"]
    assert decrypt_secret(row.secret_key) == world.aws.credentials()[1]


def test_the_identity_is_checked_and_aws_reason_is_passed_on(world: World):
    with pytest.raises(errors.ValidationFailed) as error:
        email_identity.change(actor=world.actor, enabled=True)
    assert set(error.value.errors) == {"email_address", "ses_authentication", "ses_region"}
    with pytest.raises(errors.ValidationFailed) as error:
        email_identity.verify(actor=world.actor, email_address="cpm@example.com")
    assert refused(error, "non_field_errors", "not_configured")
    with pytest.raises(errors.ValidationFailed):
        identity(world, email_address="nobody")
    with pytest.raises(errors.PermissionDenied):
        email_identity.change(actor=Actor.of(factories.user()), enabled=False)
    identity(world, ses_authentication="A", ses_account=str(world.account.pk))
    EmailIdentity.objects.update(authentication="C", access_key="A" * 20, secret_key=encrypt_secret("wrong"))
    with pytest.raises(errors.ValidationFailed) as error:
        email_identity.verify_status(actor=world.actor, email_address=None)
    assert refused(error, "non_field_errors", "aws_bad_credentials")
