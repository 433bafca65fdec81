"""Worker configurations and tags in the admin."""

import pytest
from django.urls import reverse

from cpm.flows.identities import decrypt_secret
from cpm.models import Job, Region, WorkerConfiguration, WorkerTag
from tests import factories
from tests.domain.test_admin import _quiet, client_of, page_of

pytestmark = pytest.mark.django_db

__all__ = ["_quiet"]
PASSWORD = "planted proxy password"


def form(account, **changes) -> dict[str, object]:
    region = Region.objects.get_or_create(aws_region="us-east-1", defaults={"disp_name": "Virginia"})[0]
    return {
        "account": account.pk, "region": region.pk, "aws_vpc": "vpc-0123456789abcdef0",
        "aws_security_group": "sg-0123456789abcdef0", "aws_subnet": "", "aws_key_pair": "",
        "requires_http_proxy": "on", "http_proxy_address": "proxy.example.com", "http_proxy_port": 3128,
        "http_proxy_user_name": "cpm", "http_proxy_password_encrypted": PASSWORD, **changes,
    }  # fmt: skip


def test_a_configuration_is_made_kept_and_changed_without_showing_its_password():
    owner = factories.user()
    client, account = client_of(owner), factories.account(owner)

    client.post(reverse("admin:cpm_workerconfiguration_add"), form(account))
    row = WorkerConfiguration.objects.get()
    shown = client.get(page_of(row)).content.decode()
    client.post(page_of(row), form(account, http_proxy_password_encrypted="", aws_key_pair="ops"))

    assert PASSWORD not in shown and row.http_proxy_password not in shown
    row.refresh_from_db()
    assert (row.user, row.aws_key_pair, decrypt_secret(row.http_proxy_password)) == (owner, "ops", PASSWORD)
    client.post(page_of(row), form(account, http_proxy_password_encrypted="", no_password="on"))
    row.refresh_from_db()
    assert row.http_proxy_password == ""


def test_what_the_service_refuses_stands_at_its_field():
    owner = factories.user()

    answer = client_of(owner).post(
        reverse("admin:cpm_workerconfiguration_add"), form(factories.account(owner), aws_vpc="my vpc")
    )

    assert "it looks like vpc-" in answer.content.decode()
    assert not WorkerConfiguration.objects.exists()


def test_a_test_is_asked_for_first_and_its_result_is_shown():
    row = factories.worker_configuration()
    client = client_of(row.user)
    address = reverse("admin:cpm_workerconfiguration_try_out", args=[row.pk])

    client.get(address)
    assert not row.tests.exists()
    client.post(address)

    test = row.tests.get()
    assert Job.objects.get(kind="worker_test").subject_id == test.pk
    row.tests.update(status="F", details="EC2: <no> such group.", end_time=factories.NOW)
    assert "EC2: &lt;no&gt; such group." in client.get(page_of(row)).content.decode()
    assert "Failed" in client.get(reverse("admin:cpm_workerconfiguration_changelist")).content.decode()


def test_delegates_without_the_flag_look_and_do_not_test():
    row = factories.worker_configuration()
    client = client_of(factories.delegate(row.user, allow_backup_changes=True))

    assert client.get(page_of(row)).status_code == 200
    assert client.post(reverse("admin:cpm_workerconfiguration_try_out", args=[row.pk])).status_code == 403
    assert not row.tests.exists()


def test_a_tag_is_made_changed_and_deleted():
    owner = factories.user()
    client, account = client_of(owner), factories.account(owner)

    client.post(
        reverse("admin:cpm_workertag_add"), {"account": account.pk, "key": "team", "value": "storage"}
    )
    tag = WorkerTag.objects.get()
    client.post(page_of(tag), {"account": account.pk, "key": "team", "value": "network"})
    tag.refresh_from_db()
    assert (tag.key, tag.value) == ("team", "network")

    client.post(reverse("admin:cpm_workertag_delete", args=[tag.pk]), {"post": "yes"})
    assert not WorkerTag.objects.exists()
