"""Notification settings and the e-mail identity over REST. What AWS has to do with them is tested in the domain."""

import pytest

from cpm.flows.identities import decrypt_secret
from cpm.lib.states import Role
from cpm.models import EmailIdentity, Notification
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

KEYS = {"sns_access_key": "AKIAIOSFODNN7EXAMPLE", "sns_secret_key": "wJalrXUtnFEMI/K7MDENG"}
SENDER = {
    "enabled": True, "email_address": "cpm@example.com", "ses_authentication": "C", "ses_region": "us-east-1",
    "ses_access_key": "AKIAIOSFODNN7EXAMPLE", "ses_secret_key": "wJalrXUtnFEMI/K7MDENG",
}  # fmt: skip


def settings_of(user, **more) -> dict:
    return {"user": user.pk, "sns_authentication": "C", "sns_region": "us-east-1", **KEYS, **more}


def test_settings_are_made_shown_and_changed_without_their_secret():
    user = factories.user()
    call = Caller(user)

    made, new = call(
        "POST", "settings/notifications/", settings_of(user, daily_summary={"summary_daily_time": "7:05"})
    )
    id = new["id"]
    _, listed = call("GET", "settings/notifications/")
    _, shown = call("GET", f"settings/notifications/{id}/")
    body = {
        "sns_authentication": "C", "sns_region": "eu-west-1", "include_managed_user_alerts": True,
        "user": factories.user().pk,
    }  # fmt: skip
    changed, after = call("PUT", f"settings/notifications/{id}/", body)

    assert (made, changed) == (201, 200)
    for number, answer in (("23.41", new), ("23.42", listed), ("23.43", shown), ("23.44", after)):
        facts.check(number, answer)
    assert listed == [shown] == [new]
    assert new["daily_summary"]["summary_daily_time"] == "07:05:00"
    assert after == {**new, "sns_region": "eu-west-1", "include_managed_user_alerts": True}
    row = Notification.objects.get()
    assert decrypt_secret(row.secret_key) == KEYS["sns_secret_key"] and KEYS["sns_secret_key"] not in str(new)


def test_a_user_gets_no_second_row():
    user = factories.user()
    call = Caller(user)
    call("POST", "settings/notifications/", settings_of(user))

    status, content = call("POST", "settings/notifications/", settings_of(user))

    assert (status, codes(content)) == (400, {"user": ["unique"]})


@pytest.mark.parametrize("time", ["25:00", "9 o'clock", "", "09:00:00.5+02", 900, None])
def test_a_time_that_is_none_is_refused(time):
    user = factories.user()
    body = settings_of(user, daily_summary={"summary_daily_time": time})

    status, content = Caller(user)("POST", "settings/notifications/", body)

    assert status == 400 and list(codes(content)) == ["daily_summary.summary_daily_time"]


@pytest.mark.parametrize(
    ("time", "shown"), [("9", "09:00:00"), ("21:30", "21:30:00"), ("06:15:30", "06:15:30")]
)
def test_a_time_of_day_may_be_short(time, shown):
    user = factories.user()
    body = settings_of(user, daily_summary={"summary_daily_time": time})

    _, new = Caller(user)("POST", "settings/notifications/", body)

    assert new["daily_summary"]["summary_daily_time"] == shown


def test_enabling_without_a_topic_is_refused_by_name():
    user = factories.user()
    body = settings_of(
        user, alerts={"enabled": True}, daily_summary={"enable_summary": True, "summary_daily_time": "09:00"}
    )

    status, content = Caller(user)("POST", "settings/notifications/", body)

    assert (status, codes(content)) == (
        400, {"alerts.sns_alerts_topic_arn": ["required"], "daily_summary.sns_summary_topic_arn": ["required"]},
    )  # fmt: skip


def test_everybody_sees_their_own_and_root_also_its_managed_users():
    root, managed, independent = factories.root(), factories.user(Role.MANAGED), factories.user()
    rows = {user: factories.notification(user).pk for user in (root, managed, independent)}

    def seen(user, query=""):
        return {row["id"] for row in Caller(user)("GET", f"settings/notifications/{query}")[1]}

    assert seen(root) == {rows[root], rows[managed]}
    assert seen(root, f"?user={managed.pk}") == {rows[managed]}
    assert seen(managed) == {rows[managed]} and seen(independent) == {rows[independent]}
    for path in (f"{rows[root]}/", f"{rows[independent]}/"):
        assert Caller(managed)("GET", f"settings/notifications/{path}")[0] == 404
        assert Caller(managed)("PUT", f"settings/notifications/{path}", settings_of(managed))[0] == 404
    assert Caller(managed)("POST", f"settings/notifications/{rows[root]}/test_daily_summary/")[0] == 404
    status, content = Caller(managed)("POST", "settings/notifications/", settings_of(root))
    assert (status, codes(content)) == (400, {"user": ["not_found"]})


def test_delegates_have_no_notifications():
    for owner in (factories.root(), factories.user()):
        row = factories.notification(owner)
        flags = {"allow_settings_changes": True, "allow_account_changes": True, "allow_backup_changes": True}
        call = Caller(factories.delegate(owner, **flags))
        for method, path in (
            ("GET", ""), ("POST", ""), ("GET", f"{row.pk}/"), ("PUT", f"{row.pk}/"),
            ("POST", f"{row.pk}/test_daily_summary/"),
        ):  # fmt: skip
            assert call(method, f"settings/notifications/{path}")[0] == 403, (method, path)


def test_the_server_role_is_for_root():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    body = {"user": managed.pk, "sns_authentication": "R", "sns_region": "us-east-1"}

    refused = Caller(managed)("POST", "settings/notifications/", body)
    made = Caller(root)("POST", "settings/notifications/", body)
    kept = Caller(managed)("PUT", f"settings/notifications/{made[1]['id']}/", body)

    assert (refused[0], made[0], kept[0]) == (403, 201, 403)


def test_a_summary_without_a_topic_cannot_be_tested():
    row = factories.notification(factories.root())

    status, content = Caller(row.user)("POST", f"settings/notifications/{row.pk}/test_daily_summary/")

    assert (status, codes(content)) == (400, {"daily_summary.sns_summary_topic_arn": ["required"]})


def test_the_email_identity_is_roots():
    call = Caller(factories.root())

    _, before = call("GET", "settings/email_identity/")
    status, after = call("POST", "settings/email_identity/", SENDER)
    kept, again = call("POST", "settings/email_identity/", {"enabled": False})

    assert (status, kept) == (201, 201)
    facts.check("23.18", before)
    facts.check("23.17", after)
    assert again == {**after, "enabled": False} and after["ses_account"] is None
    assert before["verify_source_address"] is True and before["enabled"] is False
    assert SENDER["ses_secret_key"] not in str(after)
    assert decrypt_secret(EmailIdentity.objects.get().secret_key) == SENDER["ses_secret_key"]
    for user in (factories.user(), factories.delegate(factories.root(), allow_settings_changes=True)):
        other = Caller(user)
        for method, path in (("GET", ""), ("POST", ""), ("POST", "verify/"), ("GET", "verify_status/")):
            assert other(method, f"settings/email_identity/{path}")[0] == 403


def test_an_account_is_named_by_its_id_as_text():
    root = factories.root()
    mine, foreign = factories.account(root), factories.account()
    call = Caller(root)

    _, after = call(
        "POST", "settings/email_identity/", {**SENDER, "ses_authentication": "A", "ses_account": str(mine.pk)}
    )

    assert (after["ses_account"], after["ses_access_key"]) == (str(mine.pk), "")
    for wrong, code in (
        (str(foreign.pk), "not_found"),
        ("x", "invalid"),
        ("9" * 19, "invalid"),
        ("", "required"),
    ):
        body = {**SENDER, "ses_authentication": "A", "ses_account": wrong}
        status, content = call("POST", "settings/email_identity/", body)
        assert (status, codes(content)) == (400, {"ses_account": [code]}), wrong


def test_verifying_needs_an_address_and_settings():
    call = Caller(factories.root())

    for body, expected in (
        ({}, {"email_address": ["required"]}),
        ({"email_address": "nobody"}, {"email_address": ["invalid"]}),
        ({"email_address": "cpm@example.com"}, {"non_field_errors": ["not_configured"]}),
    ):
        status, content = call("POST", "settings/email_identity/verify/", body)
        assert (status, codes(content)) == (400, expected)
    status, content = call("GET", "settings/email_identity/verify_status/")
    assert (status, codes(content)) == (400, {"email_address": ["required"]})
