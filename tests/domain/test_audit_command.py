"""`cpm audit`, and the admin's page of the log."""

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.commands import terminal
from cpm.lib.states import Role
from cpm.models import AuditRecord
from cpm.services import audit_chain
from tests import factories

pytestmark = pytest.mark.django_db
LIST = reverse("admin:cpm_auditrecord_changelist")


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """A wide terminal and the servers of the tests."""
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    factories.root()


def _cpm(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["audit", *arguments])


def _tamper(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE cpm_auditrecord DISABLE TRIGGER USER")
        cursor.execute(statement)
        cursor.execute("ALTER TABLE cpm_auditrecord ENABLE TRIGGER USER")


def test_verify_counts_prints_the_head_and_takes_it_back():
    for _ in range(2):
        factories.audit_record()
    audit_chain.seal(now=factories.NOW)
    factories.audit_record()

    result = _cpm("verify")

    head = result.stdout.rpartition("Head: ")[2].strip()
    assert result.exit_code == 0 and len(head) == 64
    assert "2 records in 1 seals are as they were written." in result.stdout
    assert "1 records are not sealed yet." in result.stdout
    assert _cpm("verify", "--head", head).exit_code == 0


def test_verify_exits_with_1_and_names_what_was_altered():
    record = factories.audit_record()
    audit_chain.seal(now=factories.NOW)
    _tamper(f"UPDATE cpm_auditrecord SET log = 'nothing happened' WHERE id = {record.pk}")

    result = _cpm("verify")

    assert result.exit_code == 1
    assert f"Record {record.pk} " in result.stderr and "Head" not in result.stdout
    assert _cpm("verify", "--head", "0" * 63 + "1").exit_code == 1


def test_an_empty_log_is_not_taken_for_one_that_contains_a_head():
    assert _cpm("verify").exit_code == 0
    assert "does not contain the head" in _cpm("verify", "--head", "a" * 64).stderr


def test_list_shows_the_latest_records_by_filter():
    factories.audit_record(
        factories.user(username="olga"), log="Policy “web” created.", event_type="policy.created"
    )
    factories.audit_record(
        factories.user(username="dora"), log="Account “prod” deleted.", event_type="account.deleted"
    )

    assert "olga" in _cpm("list").stdout and "dora" in _cpm("list").stdout
    assert "olga" not in _cpm("list", "--by", "dora").stdout
    assert "dora" not in _cpm("list", "--event", "policy").stdout
    assert "olga" not in _cpm("list", "--search", "PROD").stdout
    assert "olga" not in _cpm("list", "--until", "2020-01-01").stdout
    assert "olga" in _cpm("list", "--since", "2020-01-01 12:00").stdout


def test_only_root_reads_the_log_on_the_command_line():
    factories.user(username="olga")

    for command in ("list", "verify"):
        assert _cpm(command, "--user", "olga").exit_code == 1


def _admin(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_root_sees_the_records_of_all_users_in_the_admin_and_filters_them():
    olga, dora = factories.user(username="olga"), factories.user(username="dora")
    factories.audit_record(olga, log="Policy “web” created.")
    record = factories.audit_record(
        dora,
        subject_type="account",
        log="Account <b> changed.",
        before={"role_name": "x"},
        after={"role_name": "<i>"},
    )
    client = _admin(factories.root())

    def shown(**query: object) -> str:
        answer = client.get(LIST, query)
        assert answer.status_code == 200
        return answer.content.decode()

    assert "“web” created" in shown() and "Account &lt;b&gt;" in shown()
    assert "“web” created" not in shown(by=dora.pk)
    assert "“web” created" not in shown(kind="account")
    assert "Account &lt;b&gt;" not in shown(q="olga")
    assert "“web” created" not in shown(event_time__gte="2100-01-01")
    page = client.get(reverse("admin:cpm_auditrecord_change", args=[record.pk])).content.decode()
    assert "role_name" in page and "&lt;i&gt;" in page and "<i>" not in page


def test_nobody_changes_the_log_in_the_admin_and_nobody_but_root_sees_it():
    record = factories.audit_record()
    page = reverse("admin:cpm_auditrecord_change", args=[record.pk])
    root = _admin(factories.root())

    assert root.post(page, {"log": "x"}).status_code == 403
    assert root.post(reverse("admin:cpm_auditrecord_delete", args=[record.pk])).status_code == 403
    assert root.get(reverse("admin:cpm_auditrecord_add")).status_code == 403
    for user in (factories.user(), factories.user(Role.MANAGED), factories.delegate(factories.root())):
        assert _admin(user).get(LIST).status_code == 403
    assert AuditRecord.objects.get().log == record.log


def test_a_login_to_the_admin_is_recorded_and_a_failed_one_is_not_taken_for_it():
    user = factories.user(username="olga")
    user.set_password("a-long-and-winding-word")
    user.save()
    page, client = reverse("admin:login"), Client(REMOTE_ADDR="192.0.2.9")

    client.post(page, {"username": "olga", "password": "wrong"})
    assert not AuditRecord.objects.filter(event_type="user.logged_in").exists()
    client.post(page, {"username": "olga", "password": "a-long-and-winding-word"})

    record = AuditRecord.objects.get(event_type="user.logged_in")
    assert (record.username, record.source, record.log) == ("olga", "192.0.2.9", "User “olga”: logged in.")
