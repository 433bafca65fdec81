"""Notification settings and the e-mail identity in the admin."""

import pytest
from django.urls import reverse

from cpm.flows.identities import decrypt_secret
from cpm.lib.states import Role
from cpm.models import EmailIdentity, Notification
from tests import factories
from tests.domain.test_admin import _quiet, client_of, page_of

pytestmark = pytest.mark.django_db

__all__ = ["_quiet"]
SECRET = "wJalrXUtnFEMI/K7MDENG"
FORM = {
    "authentication": "C", "new_access_key": "AKIAIOSFODNN7EXAMPLE", "new_secret_key": SECRET, "region": "us-east-1",
    "summary_time": "07:30", "alerts_topic_arn": "", "summary_topic_arn": "",
}  # fmt: skip


def errors_of(answer) -> dict:
    assert answer.status_code == 200
    return answer.context["adminform"].form.errors


def test_settings_are_made_through_the_service_and_keep_their_secret():
    user = factories.user()
    client = client_of(user)

    client.post(reverse("admin:cpm_notification_add"), {**FORM, "user": user.pk})
    row = Notification.objects.get()
    page = client.get(page_of(row)).content.decode()
    client.post(page_of(row), {**FORM, "new_secret_key": "", "include_managed_user_alerts": "on"})

    row.refresh_from_db()
    assert row.user == user and row.include_managed_user_alerts and f"{row.summary_time:%H:%M}" == "07:30"
    assert decrypt_secret(row.secret_key) == SECRET
    assert SECRET not in page and row.secret_key not in page and "AKIAIOSFODNN7EXAMPLE" in page


def test_refusals_stand_at_their_fields():
    user = factories.user()
    client = client_of(user)
    form = {**FORM, "user": user.pk}
    for changes, field in (
        ({"alerts_enabled": "on"}, "alerts_topic_arn"),
        ({"new_access_key": "short"}, "new_access_key"),
        ({"region": "atlantis-1"}, "region"),
        ({"add_user_email": "on"}, "add_user_email"),
    ):
        answer = client.post(reverse("admin:cpm_notification_add"), {**form, **changes})
        assert field in errors_of(answer), changes
    assert not Notification.objects.exists()


def test_nobody_makes_settings_for_others_or_with_the_server_role():
    managed, root = factories.user(Role.MANAGED), factories.root()
    client = client_of(managed)

    foreign = client.post(reverse("admin:cpm_notification_add"), {**FORM, "user": root.pk})
    role = client.post(
        reverse("admin:cpm_notification_add"), {**FORM, "user": managed.pk, "authentication": "R"}
    )

    assert errors_of(foreign) and errors_of(role)
    assert not Notification.objects.exists()
    assert (
        client_of(factories.delegate(managed)).get(reverse("admin:cpm_notification_changelist")).status_code
        == 403
    )


def test_a_test_without_a_topic_says_what_is_missing():
    row = factories.notification(factories.root())

    answer = client_of(row.user).post(reverse("admin:cpm_notification_test_summary", args=[row.pk]), {})

    assert "no topic" in answer.content.decode()


def test_root_changes_the_email_identity():
    root = factories.root()
    row = EmailIdentity.current()
    client = client_of(root)
    form = {
        "enabled": "on", "email_address": "cpm@example.com", "authentication": "C", "region": "us-east-1",
        "new_access_key": "AKIAIOSFODNN7EXAMPLE", "new_secret_key": SECRET, "verify_source_address": "on",
    }  # fmt: skip

    refused = client.post(page_of(row), {**form, "region": ""})
    client.post(page_of(row), form)

    assert "region" in errors_of(refused)
    row = EmailIdentity.objects.get()
    assert (row.enabled, row.email_address, decrypt_secret(row.secret_key)) == (
        True,
        "cpm@example.com",
        SECRET,
    )
    verify = client.post(
        reverse("admin:cpm_emailidentity_verify", args=[row.pk]), {"email_address": "nobody"}
    )
    assert verify.status_code == 200
    assert client_of(factories.user()).get(reverse("admin:cpm_emailidentity_changelist")).status_code == 403
