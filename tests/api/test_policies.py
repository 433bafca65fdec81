import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cpm.models import Backup, Region
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(owner):
    return factories.account(owner)


def test_a_policy_is_made_read_changed_and_deleted(owner, account, call):
    schedule = factories.schedule(owner)

    created, made = call(
        "POST", "policies/", {"name": "nightly", "account": account.pk, "schedules": [schedule.pk]}
    )
    address = f"policies/{made['id']}/"
    changed, put = call("PUT", address, {"name": "renamed", "generations": 7, "description": None})
    listed, rows = call("GET", "policies/")

    assert (created, changed, listed) == (201, 200, 200)
    for operation, content in (
        ("13.1", made),
        ("13.4", put),
        ("13.2", rows),
        ("13.3", call("GET", address)[1]),
    ):
        facts.check(operation, content)
    assert (put["schedules"], put["account"], put["user"]) == ([schedule.pk], account.pk, owner.pk)
    assert (put["name"], put["generations"], put["enabled"]) == ("renamed", 7, True)
    assert call("DELETE", address) == (204, b"")
    assert call("GET", address)[0] == 404


def test_nonsense_is_refused_by_name(call, account):
    status, content = call("POST", "policies/", {"name": "a b", "account": account.pk, "generations": 0})
    missing = call("POST", "policies/", {})
    unknown = call("POST", "policies/", {"name": "p", "account": factories.account().pk})

    assert (status, codes(content)) == (400, {"generations": ["invalid"], "name": ["invalid_name"]})
    assert codes(missing[1]) == {"account": ["required"], "name": ["required"]}
    assert (unknown[0], codes(unknown[1])) == (400, {"account": ["not_found"]})


def test_options_are_read_and_changed(call, account):
    address = f"policies/{factories.policy(account).pk}/options/"

    _, before = call("GET", address)
    status, after = call("PUT", address, {"considered_successful": "A", "number_of_retries": 0})

    facts.check("13.11", before)
    facts.check("13.12", after)
    assert status == 200
    assert after == before | {"considered_successful": "A", "number_of_retries": 0}


def test_the_servers_own_policy_has_no_options():
    root = factories.root()
    policy = factories.policy(factories.account(root), name="cpmdata")
    call = Caller(root)

    assert call("GET", f"policies/{policy.pk}/options/")[0] == 404
    assert call("PUT", f"policies/{policy.pk}/options/", {})[0] == 404


def test_dr_options_are_read_and_changed(owner, account, call):
    address = f"policies/{factories.policy(account).pk}/dr/"
    dr = factories.account(owner, is_dr_account=True)
    region = Region.objects.create(id=9001, aws_region="mars-1", disp_name="Mars").pk
    wanted = {
        "dr_enabled": True,
        "dr_frequency": 2,
        "dr_regions": [region],
        "dr_timeout_hours": 6,
        "cross_account_dr": {
            "dr_account": dr.pk,
            "dr_account_regions": [region],
            "copy_to_snapshot_original_region": False,
            "dr_keep_original_snapshots": False,
        },
    }

    _, before = call("GET", address)
    status, after = call("PUT", address, wanted)
    refused = call("PUT", address, {"cross_account_dr": {"dr_account": None}})

    facts.check("13.9", before)
    facts.check("13.10", after)
    assert (status, after) == (200, wanted)
    assert codes(refused[1]) == {"cross_account_dr.dr_keep_original_snapshots": ["no_dr_account"]}


def test_run_now_answers_with_the_tracker_of_the_record(call, account):
    policy = factories.policy(account)
    factories.target(policy, resource_type="instances")

    status, content = call("POST", f"policies/{policy.pk}/backups/")

    facts.check("13.6", content)
    assert status == 202
    assert Backup.objects.get(tracker_id=content["tracker_id"]).policy == policy


def test_run_now_is_not_repeated_under_one_key(call, account):
    policy = factories.policy(account)

    answers = [
        call("POST", f"policies/{policy.pk}/backups/", **{"Idempotency-Key": "once"}) for _ in range(2)
    ]

    assert answers[0] == answers[1]
    assert Backup.objects.filter(policy=policy).count() == 1


def test_a_disabled_policy_does_not_run(call, account):
    policy = factories.policy(account, enabled=False)

    status, content = call("POST", f"policies/{policy.pk}/backups/")

    assert (status, codes(content)) == (412, {"non_field_errors": ["policy_disabled"]})


@pytest.mark.parametrize("tail", ["", "native/", "s3/"])
def test_snapshots_of_a_policy_are_deleted(call, account, tail):
    backup = factories.backup(factories.policy(account))

    status, _ = call("DELETE", f"policies/{backup.policy_id}/snapshots/{tail}")

    backup.refresh_from_db()
    assert status == 204
    assert backup.marked_for_deletion


def test_custom_tags_are_listed_added_and_deleted(call, account):
    address = f"policies/{factories.policy(account).pk}/custom_tags/"

    status, made = call("POST", address, {"tag_name": "env", "tag_value": "prod", "value_is_prefix": True})
    one = f"{address}{made['id']}/"

    assert status == 201
    for operation, content in (
        ("13.18", made),
        ("13.19", call("GET", address)[1]),
        ("13.20", call("GET", one)[1]),
    ):
        facts.check(operation, content)
    assert call("DELETE", one) == (204, b"")
    assert call("GET", one)[0] == 404
    assert codes(call("POST", address, {"tag_name": ""})[1]) == {"tag_name": ["blank"]}


def test_run_times_merge_all_schedules(owner, account, call):
    schedules = (factories.schedule(owner), factories.schedule(owner, every_unit="H"))
    policy = factories.policy(account, schedules)
    factories.target(policy, resource_type="instances")

    status, rows = call("GET", f"policies/{policy.pk}/run_times/?days_ahead=1")

    assert status == 200
    facts.check("13.22", rows)
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert {row["schedule_name"] for row in rows} == {schedule.name for schedule in schedules}


def test_lists_are_filtered_ordered_and_searched_in_few_queries(owner, account, call):
    schedule = factories.schedule(owner, name="sunday")
    first = factories.policy(account, (schedule,), name="a", generations=9)
    second = factories.policy(factories.account(owner), name="b", description="sundays")
    factories.policy(account, name="c")

    with CaptureQueriesContext(connection) as queries:
        _, ordered = call("GET", "policies/?ordering=-generations,name")
    _, by_account = call("GET", f"policies/?account={account.pk}&ordering=-name")
    _, by_schedule = call("GET", f"policies/?schedules={schedule.pk}")
    _, found = call("GET", "policies/?search=sunday&ordering=username")
    bad = call("GET", "policies/?ordering=secret")

    assert [row["name"] for row in ordered] == ["b", "c", "a"]
    assert [row["name"] for row in by_account] == ["c", "a"]
    assert [row["id"] for row in by_schedule] == [first.pk]
    assert {row["id"] for row in found} == {first.pk, second.pk}
    assert (bad[0], list(codes(bad[1]))) == (400, ["ordering"])
    assert len([query for query in queries if "SELECT" in query["sql"]]) <= 3


def test_others_policies_do_not_exist(call):
    policy = factories.policy()

    for method, tail in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "dr/"), ("GET", "options/"), ("POST", "backups/"),
        ("DELETE", "snapshots/"), ("GET", "custom_tags/"), ("GET", "run_times/?days_ahead=1"), ("GET", "targets/"),
    ):  # fmt: skip
        assert call(method, f"policies/{policy.pk}/{tail}", {})[0] == 404
