"""What a record of a change says, and what it keeps to itself."""

from typing import Any

import pytest

from cpm.lib.errors import ValidationFailed
from cpm.lib.states import Authentication
from cpm.models import Actor, AuditRecord
from cpm.services import accounts, alerts, audit, policies
from tests import factories

pytestmark = pytest.mark.django_db
NOW = factories.NOW


def actor(**fields: Any) -> Actor:
    return Actor.of(factories.user(**fields), source="192.0.2.7")


def test_a_record_says_who_for_whom_from_where_and_what_was_and_is():
    owner = factories.user()
    policy = factories.policy(factories.account(owner), name="web", generations=7)
    helper = factories.delegate(owner, allow_backup_changes=True)

    policies.update(actor=Actor.of(helper, source="192.0.2.7"), policy=policy, now=NOW, generations=10)

    record = AuditRecord.objects.get()
    assert record.log == "Policy “web” changed: generations 7 → 10."
    assert (record.event_type, record.subject_type, record.subject_id) == (
        "policy.updated",
        "policy",
        policy.pk,
    )
    assert (record.username, record.user_type, record.original_username) == (
        helper.username,
        "delegate",
        owner.username,
    )
    assert (record.owner_id, record.source) == (owner.pk, "192.0.2.7")
    assert (record.before, record.after) == ({"generations": 7}, {"generations": 10})


def test_a_changed_secret_shows_as_changed_and_not_what_it_was_or_is():
    owner = factories.user()
    account = accounts.create(
        actor=Actor.of(owner), user=owner.pk, is_dr_account=False, name="prod", authentication=Authentication.KEYS,
        aws_access_key="AKIAIOSFODNN7EXAMPLE", aws_secret_key="the-first-secret",
    )  # fmt: skip

    accounts.update(actor=Actor.of(owner), account=account, aws_secret_key="the-second-secret")

    record = AuditRecord.objects.latest("id")
    assert record.log == "Account “prod” changed: secret_key."
    assert record.before == record.after == {"secret_key": "…"}
    assert "the-first-secret" not in str(list(AuditRecord.objects.values()))


def test_secrets_within_json_and_in_texts_are_hidden():
    job = factories.recovery(
        request={"user_data": "curl https://x", "zone": "a", "nested": [{"password": "hunter22"}]}
    )
    before = audit.state_of(job)
    text = "Authorization: Bearer abcdefgh12345678"

    audit.record(actor(), "recovery.updated", job, before=before, after={**before, "outcome": "x"}, text=text)
    audit.record(actor(), "recovery.created", job, after={"password": "hunter22", **before})

    first, second = AuditRecord.objects.order_by("id")
    assert first.log == "Authorization: Bearer ***"
    assert second.after["request"] == {"user_data": "…", "zone": "a", "nested": [{"password": "…"}]}
    assert second.after["password"] == "…"


def test_saving_without_a_change_is_recorded_as_that():
    policy = factories.policy(name="web")

    policies.update(actor=Actor.of(policy.user), policy=policy, now=NOW)

    record = AuditRecord.objects.get()
    assert (record.log, record.before, record.after) == ("Policy “web” saved without a change.", {}, {})


def test_dismissing_many_alerts_is_one_record():
    owner = factories.user(username="olga")
    for _ in range(5):
        factories.alert(owner)

    alerts.delete_all(actor=Actor.of(owner))

    record = AuditRecord.objects.get()
    assert (record.log, record.before) == ("All alerts of user “olga” dismissed: 5.", {"alerts": 5})


def test_a_change_that_is_refused_leaves_no_record():
    policy = factories.policy()

    with pytest.raises(ValidationFailed):
        policies.update(actor=Actor.of(policy.user), policy=policy, now=NOW, generations=0)

    assert not AuditRecord.objects.exists()


def test_a_change_costs_one_insert_more(django_assert_max_num_queries):
    alert = factories.alert()

    # Savepoint, read under lock, record, delete, release.
    with django_assert_max_num_queries(5):
        alerts.delete(actor=Actor.of(alert.user), alert=alert)
