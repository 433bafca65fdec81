"""Root's pages of settings: they write through the services and show no secrets."""

import pytest
from django.urls import reverse

from cpm.aws import gateway
from cpm.flows.identities import decrypt_secret
from cpm.models import AuditRecord, FileLevelRecoverySettings, Job, ProxySettings, ServerSettings
from tests import factories, loopback_proxy
from tests.domain.test_admin import client_of, page_of

pytestmark = pytest.mark.django_db

PASSWORD = "planted-proxy-password"
RULES = {
    "name": "backup-1", "cleanup_interval": 12, "cleanup_type": "s3", "keep_deleted_backup_records": 30, "keep_user_audit_logs_days": 30,
    "keep_resource_control_records": 30, "days_until_single_ami_rotation": 30, "encryption_key_detection": "D",
    "capture_vpcs": "on", "capture_vpcs_interval": 24, "tag_scan_interval": 3, "log_mode": "DEBUG",
    "cost_explorer_enabled": "on",
}  # fmt: skip


def _act(client, row, name, data=None):
    return client.post(reverse(f"admin:cpm_{row._meta.model_name}_{name}", args=[row.pk]), data or {})


def test_all_options_are_on_one_page_and_only_changes_are_recorded():
    client, row = client_of(factories.root()), ServerSettings.current()

    answer = client.post(page_of(row), RULES)
    recorded = AuditRecord.objects.count()
    again = client.post(page_of(row), RULES)

    row.refresh_from_db()
    assert (answer.status_code, again.status_code) == (302, 302)
    assert (row.name, row.log_mode, row.tag_scan_interval) == ("backup-1", "DEBUG", 3)
    assert row.capture_vpcs and row.cost_explorer_enabled and not row.scan_resources
    assert AuditRecord.objects.count() == recorded == 7


def test_a_refused_option_stands_at_its_field_and_changes_nothing():
    client, row = client_of(factories.root()), ServerSettings.current()

    answer = client.post(page_of(row), {**RULES, "tag_scan_interval": 100_000})

    row.refresh_from_db()
    assert answer.status_code == 200
    assert "tag_scan_interval" in answer.context["adminform"].form.errors
    assert row.cleanup_interval == 6 and not AuditRecord.objects.exists()


@pytest.mark.parametrize(
    ("button", "kinds", "recorded"),
    [
        ("clean_up", {"cleanup"}, "cleanup.started"),
        ("clean_up_s3", {"s3_cleanup"}, "s3_cleanup.started"),
    ],
)
def test_cleanups_are_started_after_asking(button, kinds, recorded):
    client, row = client_of(factories.root()), ServerSettings.current()
    factories.s3_copy()

    looked = client.get(reverse(f"admin:cpm_serversettings_{button}", args=[row.pk]))
    before = Job.objects.count()
    answer = _act(client, row, button)

    assert (looked.status_code, before, answer.status_code) == (200, 0, 302)
    assert set(Job.objects.values_list("kind", flat=True)) == kinds
    assert AuditRecord.objects.get().event_type == recorded


def test_a_new_uuid_is_made_after_asking():
    client, row = client_of(factories.root()), ServerSettings.current()
    before = row.server_id

    looked = client.get(reverse("admin:cpm_serversettings_renew", args=[row.pk]))
    unchanged = ServerSettings.objects.get().server_id
    _act(client, row, "renew", {"new_name": "backup-2"})

    row.refresh_from_db()
    assert looked.status_code == 200 and unchanged == before
    assert row.server_id != before and row.name == "backup-2"


def test_an_activation_key_is_stored():
    client, row = client_of(factories.root()), ServerSettings.current()

    refused = _act(client, row, "activate", {"key": "no key"})
    _act(client, row, "activate", {"key": "ABCD-1234-EFGH"})

    row.refresh_from_db()
    assert refused.status_code == 200
    assert decrypt_secret(row.activation_key) == "ABCD-1234-EFGH"
    assert row.activation_key not in client.get(page_of(row)).content.decode()


def test_the_proxy_is_set_and_tested_and_keeps_its_password(aws):
    gateway.configure(gateway.GatewayConfig(endpoint_url=aws.url))
    client, row = client_of(factories.root()), ProxySettings.current()
    with loopback_proxy.running(credentials=f"me:{PASSWORD}") as served:
        place = {"address": served.address, "port": served.port, "username": "me", "enabled": "on"}
        saved = client.post(page_of(row), {**place, "new_password": PASSWORD})
        kept = client.post(page_of(row), place)
        tested = _act(client, row, "test")
        moved = client.post(page_of(row), {**place, "port": 1})
        forgotten = client.post(page_of(row), {**place, "no_password": "on"})
        failed = _act(client, row, "test")

    page = client.get(page_of(row)).content.decode()
    row.refresh_from_db()
    assert [answer.status_code for answer in (saved, kept, tested, moved, forgotten, failed)] == [
        302, 302, 302, 200, 302, 200,
    ]  # fmt: skip
    assert "(407)" in failed.content.decode()
    assert row.password == "" and PASSWORD not in page


def test_file_level_recovery_keeps_its_secret():
    client, row = client_of(factories.root()), FileLevelRecoverySettings.current()
    fields = {"enabled": "on", "existing_account": "", "access_key": "AKIAIOSFODNN7EXAMPLE"}

    client.post(page_of(row), {**fields, "new_secret_key": PASSWORD})
    client.post(page_of(row), {**fields, "existing_account": "production"})

    row.refresh_from_db()
    assert (row.existing_account, decrypt_secret(row.secret_key)) == ("production", PASSWORD)
    assert PASSWORD not in client.get(page_of(row)).content.decode()
