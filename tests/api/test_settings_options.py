"""VPC capture, tag scan, cost explorer, log mode and file-level recovery: stored options, changed one by one."""

import pytest

from cpm.lib.states import Role
from cpm.models import AuditRecord, FileLevelRecoverySettings, ServerSettings
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
# Address, operations that read and change it, a change, and what is required of it.
OPTIONS = [
    ("capture_vpc", "23.3", "23.2", {"capture_vpcs": True, "capture_vpcs_interval": 12}, ["capture_vpcs_interval"]),
    (
        "tagscan", "23.52", "23.51",
        {"scan_resources": True, "tag_scan_interval": 3, "tag_scan_excluded_volumes_enabled": True},
        ["tag_scan_interval"],
    ),
    ("cost_explorer", "23.12", "23.11", {"enabled": True}, ["enabled"]),
    ("cpm_log_mode", "23.15", "23.14", {"cpm_log_mode": "DEBUG"}, []),
    (
        "file_level_recovery", "23.22", "23.21",
        {
            "aws_access_key": "AKIAIOSFODNN7EXAMPLE", "aws_secret_key": SECRET, "enable_file_level_recovery": True,
            "existing_account": "production", "use_exisiting_account": True,
        },
        [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("noun", "read", "write", "change", "required"), OPTIONS)
def test_options_are_read_and_changed_and_recorded(noun, read, write, change, required):
    call = Caller(factories.root())

    _, before = call("GET", f"settings/{noun}/")
    status, after = call("POST", f"settings/{noun}/", change)
    missing, refused = call("POST", f"settings/{noun}/", {})

    facts.check(read, before)
    facts.check(write, after)
    shown = {name: value for name, value in change.items() if name != "aws_secret_key"}
    assert status == 201
    assert {name: after[name] for name in shown} == shown
    assert after != before and SECRET not in str(after)
    assert missing == (400 if required else 201)
    assert not required or codes(refused) == {name: ["required"] for name in required}
    assert call("GET", f"settings/{noun}/")[1] == after
    assert AuditRecord.objects.filter(subject_id=1, event_type__endswith=".updated").exists()
    assert SECRET not in str(list(AuditRecord.objects.values()))


@pytest.mark.parametrize(
    ("noun", "change", "kept"),
    [
        ("capture_vpc", {"capture_vpcs_interval": 5}, "capture_vpcs"),
        ("tagscan", {"tag_scan_interval": 5}, "scan_resources"),
        ("file_level_recovery", {"existing_account": "other"}, "enable_file_level_recovery"),
    ],
)
def test_what_is_left_out_keeps_its_value(noun, change, kept):
    call = Caller(factories.root())
    everything = next(option[3] for option in OPTIONS if option[0] == noun)
    call("POST", f"settings/{noun}/", everything)
    secret = FileLevelRecoverySettings.objects.values_list("secret_key", flat=True).first()

    _, after = call("POST", f"settings/{noun}/", change)

    assert after[kept] is True
    assert after.items() >= change.items()
    assert FileLevelRecoverySettings.objects.values_list("secret_key", flat=True).first() == secret


@pytest.mark.parametrize("hours", [0, 745, 2**31])
@pytest.mark.parametrize("name", ["capture_vpcs_interval", "tag_scan_interval"])
def test_intervals_out_of_range_are_refused_and_change_nothing(name, hours):
    call = Caller(factories.root())
    noun = "tagscan" if name == "tag_scan_interval" else "capture_vpc"
    before = call("GET", f"settings/{noun}/")[1]

    status, refused = call("POST", f"settings/{noun}/", {name: hours})

    assert status == 400 and list(codes(refused)) == [name]
    assert call("GET", f"settings/{noun}/")[1] == before


def test_another_access_key_needs_its_secret():
    call = Caller(factories.root())
    keys = {"aws_access_key": "AKIAIOSFODNN7EXAMPLE", "aws_secret_key": SECRET}
    call("POST", "settings/file_level_recovery/", keys)

    status, refused = call("POST", "settings/file_level_recovery/", {"aws_access_key": "AKIAOTHER"})

    assert (status, codes(refused)) == (400, {"aws_secret_key": ["required"]})
    assert SECRET not in FileLevelRecoverySettings.objects.get().secret_key


def test_the_cost_explorer_is_also_for_roots_delegates_who_may_change_settings():
    root = factories.root()
    allowed = Caller(factories.delegate(root, allow_settings_changes=True))
    reader = Caller(factories.delegate(root))

    assert allowed("POST", "settings/cost_explorer/", {"enabled": True})[0] == 201
    assert reader("GET", "settings/cost_explorer/") == (200, {"enabled": True})
    assert reader("POST", "settings/cost_explorer/", {"enabled": False})[0] == 403
    assert Caller(factories.user())("GET", "settings/cost_explorer/")[0] == 403
    assert ServerSettings.objects.get().cost_explorer_enabled


@pytest.mark.parametrize("noun", ["capture_vpc", "tagscan", "cpm_log_mode", "file_level_recovery"])
def test_the_others_are_for_root_alone(noun):
    delegate = factories.delegate(factories.root(), allow_settings_changes=True)

    for user in (delegate, factories.user(), factories.user(Role.MANAGED)):
        call = Caller(user)
        assert call("GET", f"settings/{noun}/")[0] == 403
        assert call("POST", f"settings/{noun}/", {})[0] == 403


def test_vpc_capture_can_be_missing_from_a_server(settings):
    settings.CPM_FEATURES_OFF = frozenset({"vpc"})

    status, refused = Caller(factories.root())("GET", "settings/capture_vpc/")

    assert (status, codes(refused)) == (403, {"non_field_errors": ["feature_off"]})
