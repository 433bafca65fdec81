"""Databases, tables and file systems over REST: put under a policy, shown, recovered, refused. For every type alike."""

import pytest

from cpm.models import Recovery, Snapshot
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from tests import factories
from tests.api.caller import Caller, codes
from tests.domain.conftest import aws, simulator, world
from tests.domain.whole_examples import EXAMPLES, recorded
from tests.domain.whole_examples.base import REGION

__all__ = ["aws", "simulator", "world"]
TABLES = WHOLE_BY_KEY["dynamodb_tables"]


@pytest.fixture
def policy(world):
    world.region_id(REGION)
    return world.policy()


@pytest.fixture
def call(world):
    return Caller(world.user)


def another(id: str) -> str:
    """An id that looks like this one."""
    return id[:-1] + ("1" if id[-1] != "1" else "2")


def of_backup(row: Snapshot, rest: str = "") -> str:
    return f"backups/{row.backup_id}/snapshots/{row.kind}/{row.pk}/{rest}"


@pytest.mark.parametrize("key", [kind.key for kind in WHOLE])
def test_a_resource_is_added_once_shown_and_removed(key, world, policy, call):
    kind, example = WHOLE_BY_KEY[key], EXAMPLES[key]
    address = f"policies/{policy.pk}/targets/{key}/"
    id = example.make(world, "orders")
    body = {"aws_region": REGION, kind.id_field: id, **example.options()}

    unknown = call("POST", address, {**body, kind.id_field: another(id)})
    nonsense = call("POST", address, {**body, kind.id_field: "no/such id"})
    status, made = call("POST", address, body)
    twice = call("POST", address, body)
    _, listed = call("GET", address)

    assert (unknown[0], codes(unknown[1])) == (400, {kind.id_field: ["does_not_exist"]})
    assert (nonsense[0], codes(nonsense[1])) == (400, {kind.id_field: ["invalid_id"]})
    assert status == 201 and (made["aws_resource_id"], made["resource_type"]) == (id, key)
    assert (twice[0], codes(twice[1])) == (400, {kind.id_field: ["unique"]})
    assert listed == [made]
    assert Caller(factories.user())("GET", f"{address}{made['id']}/")[0] == 404
    assert call("DELETE", f"{address}{made['id']}/")[0] == 204
    assert call("GET", address) == (200, [])


@pytest.mark.parametrize("listed", [name for kind in WHOLE for name in (kind.kind, kind.dr_kind) if name])
def test_recovering_blames_the_field_and_what_is_gone_is_not_recovered(listed, world, policy, call):
    kind = next(kind for kind in WHOLE if listed in (kind.kind, kind.dr_kind))
    example = EXAMPLES[kind.key]
    target = recorded.target(world, kind, policy, "orders")
    row = recorded.snapshot(world, kind, target, factories.backup(policy))
    if listed == kind.dr_kind:
        row = recorded.copy(kind, row)
    address = of_backup(row, "recover/")

    if example.names_taken:
        taken = call("POST", address, example.request(target.aws_resource_id))
        assert taken[0] == 400 and set(codes(taken[1])) <= {one.name for one in kind.recover_takes}
    foreign = Caller(factories.user())("POST", address, example.request("orders-again"))
    status, started = call("POST", address, example.request("orders-again"))
    Snapshot.objects.filter(pk=row.pk).update(status="deleted")
    gone = call("POST", address, example.request("orders-anew"))

    assert foreign[0] == 404
    assert (status, started["recovery_type"]) == (202, kind.recovery_type)
    assert (gone[0], codes(gone[1])) == (412, {"non_field_errors": ["snapshot_not_recoverable"]})
    assert Recovery.objects.count() == 1


def test_a_recovery_goes_by_the_list_that_the_record_is_in(world, policy, call):
    row = factories.snapshot(factories.backup(policy), resource_type="volumes")

    wrong_list = call(
        "POST", of_backup(row, "recover/").replace("volumes", TABLES.kind), {"aws_resource_name": "orders"}
    )

    assert wrong_list[0] == 404


@pytest.mark.parametrize(
    ("key", "parameter"),
    [
        ("rds_databases", "search_by_rds"), ("rds_clusters", "search_by_aurora"), ("redshift_clusters", "search_by_redshift"),
        ("dynamodb_tables", "search_by_dynamo_db"), ("efs", "search_by_efs"),
    ],
)  # fmt: skip
def test_backups_are_found_by_ids_names_and_tags_of_what_they_hold(key, parameter, owner):
    policy = factories.policy(factories.account(owner))
    wanted, other = factories.backup(policy), factories.backup(policy)
    found = {"source_id": "orders-db", "source_name": "Ledger", "details": {"tags": {"team": "shop"}}}
    factories.snapshot(wanted, key, resource_type=key, **found)
    factories.snapshot(other, resource_type="volumes", **found)
    call = Caller(owner)

    def backups(text: str) -> list[int]:
        return [row["id"] for row in call("GET", f"backups/?{parameter}={text}")[1]]

    assert [backups(text) for text in ("orders", "ledger", "shop")] == [[wanted.pk]] * 3
    assert backups("nothing") == []


def test_snapshots_of_tables_are_found_by_the_name_or_id_of_their_region(world, policy, call):
    row = factories.snapshot(factories.backup(policy), TABLES.kind, resource_type=TABLES.key)
    address = f"backups/{row.backup_id}/snapshots/{TABLES.kind}/?region="

    shown = [call("GET", f"{address}{text}")[1] for text in (REGION, world.region_id(REGION), "eu-west-1")]

    assert [[one["id"] for one in rows] for rows in shown] == [[row.pk], [row.pk], []]
