"""A policy's options for copies in S3, over REST."""

import pytest
from django.test.utils import override_settings

from cpm.lib.states import DeletionStatus, Role
from cpm.models import AuditRecord, Policy
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db
DEFAULTS = {
    "archive_storage_class": "GLACIER",
    "copy_interval": 1,
    "copy_to_glacier": {"every_how": 1, "every_unit": "O"},
    "delete_aws_snapshot_after_copy": False,
    "enable_copy_to_glacier": False,
    "enabled": False,
    "repository": None,
    "resource_type": "volumes",
    "retain_in_glacier": {"retain_duration": 7, "retain_unit": "Y"},
    "retention_generation_based": {"enabled": True, "num_generations": 30},
    "retention_time_based": {"enabled": False, "every_how_many": 1, "every_unit": "Y"},
    "s3_storage_class": "STANDARD",
}


@pytest.fixture
def account(owner):
    return factories.account(owner)


@pytest.fixture
def policy(account):
    return factories.policy(account)


@pytest.fixture
def repository(account):
    return factories.s3_repository(account)


def address(policy: Policy) -> str:
    return f"policies/{policy.pk}/copy_to_s3/"


def by_time(count: int, unit: str, **more) -> dict:
    rule = {"enabled": True, "every_how_many": count, "every_unit": unit}
    return {"retention_time_based": rule, **more}


def archived(count: int, unit: str, **more) -> dict:
    return {
        "enable_copy_to_glacier": True,
        "retain_in_glacier": {"retain_duration": count, "retain_unit": unit},
        **more,
    }


ONLY_TIME = {"retention_generation_based": {"enabled": False}}


def test_every_option_is_read_and_changed(call, policy, repository):
    wanted = {
        "archive_storage_class": "DEEP_ARCHIVE",
        "copy_interval": 3,
        "copy_to_glacier": {"every_how": 2, "every_unit": "W"},
        "delete_aws_snapshot_after_copy": True,
        "enable_copy_to_glacier": True,
        "enabled": True,
        "repository": repository.pk,
        "retain_in_glacier": {"retain_duration": 18, "retain_unit": "O"},
        "retention_generation_based": {"enabled": True, "num_generations": 12},
        "retention_time_based": {"enabled": True, "every_how_many": 6, "every_unit": "O"},
        "s3_storage_class": "INTELLIGENT_TIERING",
    }

    _, before = call("GET", address(policy))
    status, after = call("PUT", address(policy), wanted)

    facts.check("13.7", before)
    facts.check("13.8", after)
    assert before == DEFAULTS
    assert (status, after) == (200, {**wanted, "resource_type": "volumes"})
    assert call("GET", address(policy))[1] == after
    record = AuditRecord.objects.get(event_type="policy.updated")
    assert record.after["s3_repository_id"] == repository.pk and record.before["s3_enabled"] is False


def test_what_is_left_out_keeps_its_value_also_within_objects(call, policy, repository):
    _, before = call("PUT", address(policy), {"enabled": True, "repository": repository.pk})

    _, nothing = call("PUT", address(policy), {})
    status, after = call("PUT", address(policy), {"retention_time_based": {"every_how_many": 5}})

    assert nothing == before
    assert status == 200
    assert after["retention_time_based"] == {"enabled": False, "every_how_many": 5, "every_unit": "Y"}
    assert after | {"retention_time_based": before["retention_time_based"]} == before


def test_copies_are_switched_off_and_the_repository_is_given_up(call, policy, repository):
    call("PUT", address(policy), {"enabled": True, "repository": repository.pk})

    kept, refusal = call("PUT", address(policy), {"repository": None})
    status, after = call("PUT", address(policy), {"enabled": False, "repository": None})

    assert (kept, codes(refusal)) == (400, {"repository": ["required"]})
    assert (status, after) == (200, DEFAULTS)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"repository": None}, {"repository": ["required"]}),
        ({"repository": 10**15}, {"repository": ["not_found"]}),
        ({"repository": "x"}, {"repository": ["invalid"]}),
        ({"copy_interval": 0}, {"copy_interval": ["invalid"]}),
        ({"copy_interval": 10_001}, {"copy_interval": ["invalid"]}),
        ({"copy_interval": None}, {"copy_interval": ["null"]}),
        ({"retention_generation_based": {"enabled": True, "num_generations": 0}},
         {"retention_generation_based.num_generations": ["invalid"]}),
        (by_time(0, "Y"), {"retention_time_based.every_how_many": ["invalid"]}),
        (by_time(101, "Y"), {"retention_time_based.every_how_many": ["invalid"]}),
        (by_time(1, "M"), {"retention_time_based.every_unit": ["invalid_choice"]}),
        ({"retention_generation_based": {"enabled": False}},
         {"retention_generation_based.enabled": ["no_retention"]}),
        (by_time(6, "D"), {"retention_time_based.every_how_many": ["too_short"]}),
        (by_time(29, "D", s3_storage_class="STANDARD_IA", **ONLY_TIME),
         {"s3_storage_class": ["billed_longer"]}),
        (archived(1, "Y", **by_time(1, "Y")), {"retain_in_glacier.retain_duration": ["too_short"]}),
        (archived(12, "O", **by_time(1, "Y")), {"retain_in_glacier.retain_duration": ["too_short"]}),
        (archived(50, "W", **by_time(11, "O")), {"retain_in_glacier.retain_duration": ["too_short"]}),
        (archived(30, "D"), {"retain_in_glacier.retain_duration": ["too_short"]}),
        (archived(0, "D"), {"retain_in_glacier.retain_duration": ["invalid"]}),
        ({"copy_to_glacier": {"every_how": 0}}, {"copy_to_glacier.every_how": ["invalid"]}),
        ({"copy_to_glacier": {"every_how": 2000, "every_unit": "O"}}, {"copy_to_glacier.every_how": ["invalid"]}),
        ({"copy_to_glacier": {"every_unit": "H"}}, {"copy_to_glacier.every_unit": ["invalid_choice"]}),
        ({"archive_storage_class": "STANDARD"}, {"archive_storage_class": ["invalid_choice"]}),
        ({"retain_in_glacier": None}, {"retain_in_glacier": ["null"]}),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name_and_changes_nothing(call, policy, repository, sent, expected):
    status, content = call("PUT", address(policy), {"enabled": True, "repository": repository.pk, **sent})

    assert (status, codes(content)) == (400, expected)
    assert call("GET", address(policy))[1] == DEFAULTS


@pytest.mark.parametrize(
    "sent",
    [
        by_time(1, "W"),
        by_time(7, "D"),
        by_time(100, "Y"),
        by_time(30, "D", s3_storage_class="STANDARD_IA", **ONLY_TIME),
        # Generations may keep copies longer than the time rule does.
        by_time(7, "D", s3_storage_class="STANDARD_IA"),
        archived(13, "O", **by_time(1, "Y")),
        archived(1, "Y", **by_time(11, "O")),
        archived(38, "D", **by_time(1, "W")),
        archived(1, "O"),
        # A rule that is off says nothing.
        archived(2, "O", retention_time_based={"enabled": False, "every_how_many": 9, "every_unit": "Y"}),
        {"retention_time_based": {"enabled": False, "every_how_many": 1, "every_unit": "D"}},
    ],
)  # fmt: skip
def test_the_least_that_is_enough_is_accepted(call, policy, repository, sent):
    status, content = call("PUT", address(policy), {"enabled": True, "repository": repository.pk, **sent})

    assert status == 200, content


def test_the_archive_is_judged_with_what_is_stored(call, policy, repository):
    good = archived(1, "Y", enabled=True, repository=repository.pk, **by_time(6, "O"))
    assert call("PUT", address(policy), good)[0] == 200

    status, content = call("PUT", address(policy), {"retention_time_based": {"every_how_many": 12}})

    assert (status, codes(content)) == (400, {"retain_in_glacier.retain_duration": ["too_short"]})


@pytest.mark.parametrize("state", [DeletionStatus.IN_PROGRESS, DeletionStatus.FAILED])
def test_a_repository_that_is_being_deleted_is_not_chosen(call, policy, account, state):
    row = factories.s3_repository(account, deletion_status=state)

    status, content = call("PUT", address(policy), {"enabled": True, "repository": row.pk})

    assert (status, codes(content)) == (400, {"repository": ["being_deleted"]})


def test_a_repository_of_another_account_of_the_user_will_do(call, owner, policy):
    row = factories.s3_repository(factories.account(owner, is_dr_account=True), aws_region="us-west-2")

    assert call("PUT", address(policy), {"enabled": True, "repository": row.pk})[0] == 200


def test_repositories_of_others_do_not_exist_even_for_root():
    call = Caller(factories.root())
    policy = factories.policy(factories.account(factories.user(Role.MANAGED)))
    roots = factories.s3_repository(factories.account(factories.root()))

    status, content = call("PUT", address(policy), {"enabled": True, "repository": roots.pk})

    assert (status, codes(content)) == (400, {"repository": ["not_found"]})
    policy.refresh_from_db()
    assert (policy.s3_enabled, policy.s3_repository) == (False, None)


def test_the_servers_own_data_is_not_copied():
    account = factories.account(factories.root())
    policy = factories.policy(account, name="cpmdata")
    sent = {"enabled": True, "repository": factories.s3_repository(account).pk}

    status, content = Caller(factories.root())("PUT", address(policy), sent)

    assert (status, codes(content)) == (400, {"enabled": ["server_data"]})


@override_settings(CPM_FEATURES_OFF=frozenset({"copy_to_s3"}))
def test_without_the_feature_copies_are_only_switched_off(call, account, repository):
    policy = factories.policy(account, s3_enabled=True, s3_repository=repository)

    refused, content = call("PUT", address(policy), {"copy_interval": 2})
    status, after = call("PUT", address(policy), {"enabled": False})

    assert (refused, codes(content)) == (403, {"non_field_errors": ["feature_off"]})
    assert (status, after["enabled"]) == (200, False)


def test_a_policy_that_copies_holds_its_repository_and_shows_it(call, policy, repository):
    call("PUT", address(policy), {"enabled": True, "repository": repository.pk})

    status, content = call("DELETE", f"s3_repositories/{repository.pk}/")

    assert (status, codes(content)) == (400, {"non_field_errors": ["in_use"]})
    assert call("GET", f"s3_repositories/{repository.pk}/")[1]["related_policies"] == [policy.pk]
    assert call("GET", f"policies/{policy.pk}/")[1]["copy_to_s3_enabled"] is True


def test_delegates_need_the_flag_and_others_see_nothing(owner, policy, repository):
    sent = {"enabled": True, "repository": repository.pk}
    without, allowed = (
        Caller(factories.delegate(owner)),
        Caller(factories.delegate(owner, allow_backup_changes=True)),
    )

    assert without("GET", address(policy))[0] == 200
    assert without("PUT", address(policy), sent)[0] == 403
    assert Caller(factories.user())("PUT", address(policy), sent)[0] == 404
    assert allowed("PUT", address(policy), sent)[0] == 200
