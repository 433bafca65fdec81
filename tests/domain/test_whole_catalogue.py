"""What AWS snapshots as a whole is recovered from a catalogue that was rebuilt, whatever type it is."""

from typing import Any

import pytest

from cpm.aws import gateway
from cpm.flows import iam
from cpm.lib.states import RecoveryStatus, SnapshotStatus
from cpm.models import Backup, Policy, Snapshot, Target
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from cpm.resources.whole import Dr
from tests.domain.test_catalogue import lose_database, rebuild
from tests.domain.test_whole_resources import recover
from tests.domain.whole_examples import EXAMPLES
from tests.domain.whole_examples.base import Example
from tests.domain.world import DR_ACCOUNT, World

pytestmark = pytest.mark.django_db(transaction=True)
PLACES = ("us-east-1", "eu-west-1")
COLUMNS = (
    "kind", "resource_type", "region", "aws_account_number", "aws_id", "source_id", "source_name", "status", "capacity",
    "encrypted", "details",
)  # fmt: skip


@pytest.fixture(params=[kind.key for kind in WHOLE])
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


def rows() -> dict[str, dict[str, Any]]:
    return {row["aws_id"]: row for row in Snapshot.objects.values(*COLUMNS)}


def test_what_was_backed_up_is_recovered_from_a_rebuilt_catalogue(world: World, example: Example) -> None:
    kind = WHOLE_BY_KEY[example.key]
    source = example.make(world, "orders")
    before, labels = example.content(world, source), example.tags(world, source)
    policy = example.protect(world, source, name="Daily_at-two-2").policy
    former = world.back_up(policy, status="B")
    recorded, targets = rows(), list(Target.objects.values("aws_resource_id", "aws_region", "options"))
    example.destroy(world, source)
    lost = lose_database(world)

    with gateway.recording() as calls:
        result = rebuild(world, lost, PLACES)
    again = rebuild(world, regions=PLACES)

    assert (result.found, result.snapshots, result.backups, result.policies) == (1, 1, 1, 1)
    assert (again.found, again.known, again.snapshots, again.backups, again.problems) == (1, 1, 0, 0, [])
    backup = Backup.objects.get()
    assert (backup.pk, backup.status) == (former.pk, "B")
    if kind.takes_tags:
        assert (result.problems, Policy.objects.get().name) == ([], "Daily_at-two-2")
        assert rows() == recorded
    else:
        assert "no tags" in " ".join(result.problems) and Policy.objects.get().name == "daily-at-two-2"
        labels = {}
    assert list(Target.objects.values("aws_resource_id", "aws_region", "options")) == targets
    recovery = recover(world, Snapshot.objects.get(), example.request("orders-again"))
    assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome
    made = example.recovered(recovery.recovered_resource_ids)
    assert example.content(world, made) == before
    found = example.tags(world, made)
    assert labels.items() <= found.items()
    declared = {one.action for one in kind.iam_actions if one.group == "catalogue"}
    called = {iam.action_of(service, action) for service, action in calls if service != "ec2"}
    assert declared <= called | {"sts:GetCallerIdentity"}


@pytest.mark.parametrize("key", [kind.key for kind in WHOLE if kind.dr is Dr.COPY])
def test_copies_in_other_regions_and_accounts_are_found_as_copies(world: World, key: str) -> None:
    kind, example = WHOLE_BY_KEY[key], EXAMPLES[key]
    source = example.make(world, "orders")
    before = example.content(world, source)
    abroad = [world.region_id("eu-west-1")]
    dr_account = world.add_account(DR_ACCOUNT, name="far", is_dr_account=True)
    example.prepare_dr(world)
    fields = {"dr_enabled": True, "dr_regions": abroad, "dr_account": dr_account, "dr_account_regions": abroad}
    former = world.back_up(example.protect(world, source, **fields).policy, status="B", dr_status="C")
    recorded = rows()
    native = Snapshot.objects.get(kind=kind.kind)
    copies = recorded.keys() - {native.aws_id}
    lost = lose_database(world)

    whole = rebuild(world, lost, PLACES)
    found = rows()
    Backup.objects.all().delete()
    abroad_only = rebuild(world, lost, ["eu-west-1"])
    first_again = rebuild(world, lost, PLACES)

    assert (whole.found, whole.snapshots, whole.problems) == (len(recorded), len(recorded), [])
    assert found.keys() == recorded.keys()
    assert {id: row["kind"] for id, row in found.items()} == {id: row["kind"] for id, row in recorded.items()}
    assert found[native.aws_id] == recorded[native.aws_id]
    assert (abroad_only.found, first_again.known, first_again.snapshots) == (len(copies), len(copies), 1)
    backup = Backup.objects.get()
    assert (backup.pk, backup.status, backup.dr_status) == (former.pk, "B", "C")
    assert Target.objects.get().aws_region == "us-east-1"
    for copy in Snapshot.objects.filter(aws_id__in=copies):
        assert copy.original == Snapshot.objects.get(aws_id=native.aws_id)
        recovery = recover(world, copy, example.request("orders-again"))
        assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome
        made = example.recovered(recovery.recovered_resource_ids)
        assert example.content(world, made, copy.region, copy.aws_account_number) == before


def test_without_the_configuration_what_aws_shows_is_enough_to_recover(
    world: World, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = WHOLE_BY_KEY[example.key]
    source = example.make(world, "orders")
    monkeypatch.setattr("cpm.flows.server.catalogue_tags.of_whole", lambda row: {})
    world.back_up(example.protect(world, source).policy, status="B")
    lost = lose_database(world)

    result = rebuild(world, lost, PLACES)

    if kind.takes_tags:
        assert any("the configuration of" in line for line in result.problems)
    known = {"db_instance_class": "db.r5.large"} if "aws_dbinstance_id" in example.request("x") else {}
    recovery = recover(world, Snapshot.objects.get(), {**example.request("orders-again"), **known})
    assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome


def test_tables_come_under_the_policy_that_other_snapshots_name(world: World) -> None:
    tables = EXAMPLES["dynamodb_tables"]
    policy = world.policy(world.aws.volume(), name="Shop_daily")
    world.back_up(tables.protect(world, tables.make(world, "alone"), name="Shop_daily-tables").policy, status="B")
    tables.protect(world, tables.make(world, "orders"), policy)
    world.back_up(policy, status="B")
    lost = lose_database(world)

    result = rebuild(world, lost)

    assert (result.policies, result.backups, result.snapshots) == (2, 2, 3)
    assert {policy.name for policy in Policy.objects.all()} == {"Shop_daily", "shop-daily-tables"}


def test_a_snapshot_that_a_backup_is_just_making_is_not_recorded_twice(world: World, example: Example) -> None:
    world.back_up(example.protect(world, example.make(world, "orders")).policy, status="B")
    Snapshot.objects.update(status=SnapshotStatus.PENDING, aws_id="of-a-job", succeeded=None)

    result = rebuild(world)

    assert (result.found, result.known, result.snapshots) == (1, 1, 0)


def test_what_may_not_be_listed_is_one_problem_of_all_regions(world: World) -> None:
    world.aws.fault(action="ListBackups", error="AccessDeniedException", status=403)

    result = rebuild(world, regions=PLACES)

    [problem] = result.problems
    assert "us-east-1, eu-west-1" in problem and "DynamoDB table" in problem and "ListBackups" in problem
