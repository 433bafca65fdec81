import pytest

from cpm.lib.states import Role
from cpm.models import Job
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

CLEANUP = {
    "cleanup_interval": 12,
    "days_until_single_ami_rotation": 62,
    "keep_deleted_backup_records": 30,
    "keep_resource_control_records": 61,
    "keep_user_audit_logs_days": 60,
}


def test_cleanup_settings_are_read_and_changed_by_root():
    call = Caller(factories.root())

    read, before = call("GET", "settings/cleanup/")
    changed, after = call("POST", "settings/cleanup/", CLEANUP)
    missing = call("POST", "settings/cleanup/", {"cleanup_interval": 0})

    assert (read, changed, missing[0]) == (200, 201, 400)
    facts.check("23.7", before)
    facts.check("23.6", after)
    assert {name: after[name] for name in CLEANUP} == CLEANUP
    assert codes(missing[1]) == {name: ["required"] for name in CLEANUP if name != "cleanup_interval"}


def test_the_settings_say_which_cleanup_is_started_on_demand():
    call = Caller(factories.root())
    copy = factories.s3_copy()

    _, kept = call("POST", "settings/cleanup/", CLEANUP)
    status, chosen = call("POST", "settings/cleanup/", {**CLEANUP, "cleanup_type": "s3"})
    started = call("POST", "settings/cleanup/run/")
    _, after = call("GET", "settings/cleanup/")

    assert (kept["cleanup_type"], status, chosen["cleanup_type"]) == ("snapshots", 201, "s3")
    assert started == (202, b"")
    assert after["last_s3_cleanup_time"] and not after["last_cleanup_time"]
    assert Job.objects.get(kind="s3_cleanup").subject_id == copy.backup.policy_id
    assert not Job.objects.filter(kind="cleanup").exists()


def test_security_settings_are_read_and_changed_by_root():
    call = Caller(factories.root())

    _, before = call("GET", "settings/security/")
    status, after = call("POST", "settings/security/", {"encryption_key_detection": "A"})

    facts.check("23.50", before)
    facts.check("23.49", after)
    assert (status, after) == (201, {"encryption_key_detection": "A"})


def test_pages_of_settings_are_accepted_and_nonsense_is_not():
    call = Caller(factories.root())

    assert call("GET", "settings/security/?page=1&page_size=5") == call("GET", "settings/security/")
    assert codes(call("GET", "settings/security/?page=x")[1]) == {"page": ["invalid"]}


def test_nobody_else_reads_or_changes_settings():
    delegate = factories.delegate(factories.root(), allow_settings_changes=True, allow_backup_changes=True)

    for user in (delegate, factories.user(), factories.user(Role.MANAGED)):
        call = Caller(user)
        for address in ("cleanup", "security"):
            assert call("GET", f"settings/{address}/")[0] == 403
            assert call("POST", f"settings/{address}/", {})[0] == 403
        assert call("POST", "settings/cleanup/run/")[0] == 403


def test_root_starts_a_cleanup():
    status, content = Caller(factories.root())("POST", "settings/cleanup/run/")

    assert (status, content) == (202, b"")
    assert Job.objects.filter(kind="cleanup").count() == 1


def test_everybody_reads_the_lines_about_themselves_and_root_the_general_ones():
    root, managed, independent = factories.root(), factories.user(Role.MANAGED), factories.user()
    factories.log_line("cleanup", None, "general")
    for user in (managed, independent):
        factories.log_line("cleanup", user.pk, user.username)

    logs = {user: Caller(user)("GET", "settings/cleanup/logs/")[1] for user in (root, managed, independent)}

    facts.check("23.8", logs[root])
    assert [row["log"] for row in logs[root]] == ["general", managed.username]
    assert [row["log"] for row in logs[managed]] == [managed.username]
    assert [row["log"] for row in logs[independent]] == [independent.username]


def test_the_cleanup_log_is_a_csv_file_too():
    factories.log_line("cleanup", None, "general")

    status, content = Caller(factories.root(), accept="text/csv")("GET", "settings/cleanup/logs/")

    assert status == 200
    assert content.splitlines()[0] == b"log,log_time,log_type"
    assert content.splitlines()[1].startswith(b"general,2026-11-21")
