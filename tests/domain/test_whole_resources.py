"""What every resource type that AWS snapshots as a whole must do. A type is covered by being in the registry."""

from typing import Any

import pytest

from cpm.aws import gateway
from cpm.flows import iam
from cpm.jobs import queue
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import AutoRemove, BackupStatus, DrStatus, RecoveryStatus, SnapshotStatus
from cpm.models import Job, Recovery, Snapshot, Step, Target
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from cpm.resources.whole import Dr
from cpm.services import backup_deletion, backups, recoveries
from tests.api.caller import Caller
from tests.domain.whole_examples import EXAMPLES
from tests.domain.whole_examples.base import REGION, Example, snapshot_of
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCOUNT

# What the API shows of any snapshot and AWS knows nothing of.
OF_RECORDS = {
    "account_id", "account_name", "backup_id", "deletion_time", "dr_account", "end_time", "id", "instance_id",
    "instance_name", "policy_name", "snapshot_account_id", "snapshot_account_name", "snapshot_type", "start_time", "username",
}  # fmt: skip
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[kind.key for kind in WHOLE])
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


def recover(world: World, snapshot: Snapshot, request: dict[str, Any]) -> Recovery:
    made = recoveries.recover_whole(
        actor=world.actor, snapshot=snapshot, request=request, credentials=None, now=world.now()
    )
    world.run()
    made.refresh_from_db()
    return made


def test_what_is_recovered_equals_what_was_backed_up_though_the_source_is_gone(
    world: World, example: Example
) -> None:
    source = example.make(world, "orders")
    before = example.content(world, source)
    target = example.protect(world, source)

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    example.change(world, source)
    example.destroy(world, source)
    recovery = recover(world, snapshot_of(target), example.request("orders-again"))

    assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome
    made = example.recovered(recovery.recovered_resource_ids)
    assert made != source and recovery.recovered_resource_ids.endswith(f"(original: {source})")
    assert example.content(world, made) == before
    assert example.tags(world, made)["team"] == "shop"
    assert backup.snapshots.get().aws_id in example.snapshots(world)


def test_only_what_is_called_is_declared(world: World, example: Example) -> None:
    kind = WHOLE_BY_KEY[example.key]
    source = example.make(world, "orders")
    declared = {one.action for one in kind.iam_actions}

    with gateway.recording() as calls:
        target = example.protect(world, source)
        world.back_up(target.policy)
        recover(world, snapshot_of(target), example.request("orders-again"))

    called = {iam.action_of(service, action) for service, action in calls}
    general = {one.action for one in (*iam.GENERAL, *iam.ENCRYPTION)}
    assert called - declared - general == set()


def test_an_interrupted_start_makes_one_snapshot(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    target = example.protect(world, source)
    world.aws.fault(action=example.creates, lost_response=True, count=1)
    world.aws.fault(action=example.lists, error="ThrottlingException", count=1)

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert len(example.snapshots(world)) == 1
    # AWS is asked for what was made since then, however late the interrupted attempt is followed by another one.
    assert snapshot_of(target).start_time == Step.objects.get(kind="backup.start_whole").started_at


def test_what_aws_is_busy_with_is_backed_up_when_that_is_over(world: World, example: Example) -> None:
    target = example.protect(world, example.make(world, "orders"))
    world.aws.fault(action=example.creates, error="BackupInUseException", count=2)

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)


def test_throttling_is_never_an_empty_answer(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    target = example.protect(world, source, auto_remove_resource=AutoRemove.YES)
    world.aws.fault(action=example.lists, error="ThrottlingException", count=1)

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert Target.objects.filter(pk=target.pk).exists()


def test_a_resource_that_is_gone_leaves_the_policy_only_if_that_is_wanted(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    kept = example.protect(world, source)
    removed = example.protect(world, source, auto_remove_resource=AutoRemove.YES)
    example.destroy(world, source)

    world.back_up(kept.policy, status=BackupStatus.FAILED)
    world.back_up(removed.policy)

    assert Target.objects.filter(pk=kept.pk).exists()
    assert "no longer exists" in snapshot_of(kept).error
    assert not Target.objects.filter(pk=removed.pk).exists()


def test_an_account_that_is_denied_loses_no_target(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    target = example.protect(world, source, auto_remove_resource=AutoRemove.YES)
    service = WHOLE_BY_KEY[example.key].service
    world.aws.fault(action="Describe*", error="AccessDeniedException", status=403)
    world.aws.fault(action="List*", error="AccessDeniedException", status=403)

    world.back_up(target.policy, status=BackupStatus.FAILED)

    assert Target.objects.filter(pk=target.pk).exists()
    error = Snapshot.objects.get(source_id=source).error
    assert service in error or "denied" in error.lower()


def test_deleting_twice_is_deleting(world: World, example: Example) -> None:
    target = example.protect(world, example.make(world, "orders"))
    backup = world.back_up(target.policy)
    row = snapshot_of(target)

    backup_deletion.delete_snapshot(actor=world.actor, snapshot=row)
    world.run()
    Snapshot.objects.filter(pk=row.pk).update(status=SnapshotStatus.COMPLETED)
    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    row.refresh_from_db()
    assert row.status == SnapshotStatus.DELETED and row.error == ""
    assert example.snapshots(world) == set()


def test_a_name_that_is_taken_is_refused_before_anything_starts(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    target = example.protect(world, source)
    world.back_up(target.policy)
    if not example.names_taken:
        pytest.skip("what is recovered gets its id from AWS")

    with pytest.raises(ValidationFailed) as refused:
        recover(world, snapshot_of(target), example.request(source))

    assert "already" in str(refused.value)
    assert not Recovery.objects.exists()


def test_of_two_recoveries_to_one_name_only_one_makes_something(world: World, example: Example) -> None:
    target = example.protect(world, example.make(world, "orders"))
    world.back_up(target.policy)
    if not example.names_taken:
        pytest.skip("what is recovered gets its id from AWS")
    before = example.resources(world)

    both = [
        recoveries.recover_whole(
            actor=world.actor, snapshot=snapshot_of(target), request=example.request("orders-again"), credentials=None,
            now=world.now(),
        )
        for _ in range(2)
    ]  # fmt: skip
    world.run()

    for one in both:
        one.refresh_from_db()
    assert [one.status for one in both] == [RecoveryStatus.SUCCESSFUL, RecoveryStatus.FAILED]
    assert f"recovery {both[0].pk} is making" in both[1].outcome
    assert len(example.resources(world) - before) == 1


def test_a_snapshot_that_aws_fails_fails_the_backup(world: World, example: Example) -> None:
    source = example.make(world, "orders")
    target = example.protect(world, source)
    if not example.fails_later:
        pytest.skip("AWS knows no failed snapshots of this type")
    world.aws.fault(service="*", action=example.creates, snapshots_error=True, resource_id=source)

    world.back_up(target.policy, status=BackupStatus.FAILED)

    assert snapshot_of(target).status == SnapshotStatus.ERROR


def test_an_aborted_recovery_leaves_nothing(world: World, example: Example) -> None:
    target = example.protect(world, example.make(world, "orders"))
    world.back_up(target.policy)
    world.aws.timing(**dict.fromkeys(example.timing, 1.0))
    recovery = recoveries.recover_whole(
        actor=world.actor, snapshot=snapshot_of(target), request=example.request("orders-again"), credentials=None,
        now=world.now(),
    )  # fmt: skip
    before = example.resources(world)
    while example.resources(world) == before:
        assert world.work()

    world.abort(recovery)
    world.run()

    assert example.resources(world) == before


def test_an_interrupted_restore_makes_one_resource(world: World, example: Example) -> None:
    target = example.protect(world, example.make(world, "orders"))
    world.back_up(target.policy)
    before = example.resources(world)
    world.aws.fault(action=example.restores, lost_response=True, count=1)

    recovery = recover(world, snapshot_of(target), example.request("orders-again"))

    assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome
    assert len(example.resources(world) - before) == 1


def test_an_interrupted_copy_makes_one_copy_and_an_aborted_one_none(world: World, example: Example) -> None:
    if not example.copies:
        pytest.skip("AWS makes no copies of this type")
    example.prepare_dr(world)
    dr = {"dr_enabled": True, "dr_regions": [world.region_id("eu-west-1")]}
    target = example.protect(world, example.make(world, "orders"), **dr)
    world.aws.fault(action=example.copies, lost_response=True, count=1)

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.COMPLETED)

    (kept,) = example.snapshots(world, "eu-west-1")
    world.aws.fault(action=example.copies, lost_response=True)
    backup = backups.start(actor=world.actor, policy=target.policy, now=world.now())
    while len(example.snapshots(world, "eu-west-1")) < 2:
        world.work()
    queue.request_abort(Job.objects.get(kind="dr_copy", finished_at=None).pk)
    world.run()
    backup.refresh_from_db()
    assert backup.dr_status == DrStatus.FAILED
    assert example.snapshots(world, "eu-west-1") == {kept}


def test_many_resources_cost_one_call_each_and_a_few_more(world: World, example: Example) -> None:
    policy = world.policy()
    for number in range(example.many):
        example.protect(world, example.make(world, f"orders-{number}"), policy)
    since = world.aws.last_call()

    world.back_up(policy, status=BackupStatus.SUCCESSFUL)

    counted = world.aws.count(since)["by_action"]
    creates = sum(n for action, n in counted.items() if action.endswith(example.creates))
    assert creates == example.many
    assert sum(counted.values()) - creates <= example.other_calls, counted


def test_dr_gives_copies_that_outlive_the_source_or_says_why_not(world: World, example: Example) -> None:
    kind = WHOLE_BY_KEY[example.key]
    source = example.make(world, "orders")
    before = example.content(world, source)
    fields = {"dr_enabled": True, "dr_regions": [world.region_id("eu-west-1")]}
    if kind.dr is Dr.COPY:
        dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
        fields |= {"dr_account": dr_account, "dr_account_regions": [world.region_id("eu-west-1")]}
        example.prepare_dr(world)
    target = example.protect(world, source, **fields)

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    if kind.dr is not Dr.COPY:
        assert backup.dr_status == DrStatus.SKIPPED and "eu-west-1" in backup.dr_outcome
        return
    assert backup.dr_status == DrStatus.COMPLETED, world.log(backup)
    backup_deletion.delete_snapshot(actor=world.actor, snapshot=snapshot_of(target, kind=kind.kind))
    world.run()
    for copy in Snapshot.objects.filter(backup=backup, kind=kind.dr_kind):
        recovery = recover(world, copy, example.request("orders-again"))
        assert recovery.status == RecoveryStatus.SUCCESSFUL, recovery.outcome
        made = example.recovered(recovery.recovered_resource_ids)
        assert example.content(world, made, copy.region, copy.aws_account_number) == before


def test_originals_go_only_where_the_dr_account_has_copies_of_its_own(world: World, example: Example) -> None:
    kind, account = WHOLE_BY_KEY[example.key], world.add_account(DR_ACCOUNT, is_dr_account=True)
    example.prepare_dr(world)
    # DocumentDB copies to another account only where the snapshot is; of file systems only eu-west-1 is prepared.
    where: dict[str, Any] = {"copy_to_snapshot_original_region": True}
    if not kind.shared:
        where = {"dr_account_regions": [world.region_id("eu-west-1")]}
    target = example.protect(
        world, example.make(world, "orders"), dr_enabled=True, dr_account=account, dr_keep_original_snapshots=False, **where
    )

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    left = set() if kind.dr is Dr.COPY else {SnapshotStatus.COMPLETED}
    assert set(backup.snapshots.filter(kind=kind.kind).exclude(status="deleted").values_list("status", flat=True)) == left
    assert len(example.snapshots(world)) == len(left)
    if kind.dr is Dr.COPY:
        copy = backup.snapshots.get(kind=kind.dr_kind)
        assert example.snapshots(world, copy.region, DR_ACCOUNT) == {copy.aws_id}


def test_the_api_shows_what_aws_says(world: World, example: Example) -> None:
    kind, call = WHOLE_BY_KEY[example.key], Caller(world.user)
    source = example.make_unusual(world, "ledger")
    example.prepare_dr(world)
    dr = {"dr_enabled": True, "dr_regions": [world.region_id("eu-west-1")]} if kind.dr_kind else {}
    target = example.protect(world, source, options=example.unusual_options(), **dr)

    # It has changed since it was put under the policy.
    Target.objects.filter(pk=target.pk).update(details={**target.details, "status": "creating", "capacity": 7})

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    (of_policy,) = call("GET", f"policies/{target.policy_id}/targets/{kind.key}/")[1]
    common = {"aws_region": REGION, "aws_resource_id": source, "resource_type": kind.key, "tagged": False}
    assert of_policy == {"id": target.pk, **common, **example.target_fields(world, source)}
    lists = {kind.kind: REGION} | ({kind.dr_kind: "eu-west-1"} if kind.dr_kind else {})
    for listed, region in lists.items():
        (shown,) = call("GET", f"backups/{backup.pk}/snapshots/{listed}/")[1]
        (made,) = example.snapshots(world, region)
        expected = {
            "aws_account_number": DEFAULT_ACCOUNT,
            "backed_up_resource_id": source,
            "backed_up_resource_name": "Ledger",
            "region": region,
            "snapshot_aws_account_number": DEFAULT_ACCOUNT,
            "snapshot_id": made,
            "status": "completed",
            "succeeded": True,
            **example.snapshot_fields(world, source, made, region),
        }
        if listed == kind.dr_kind:
            expected["original_snapshot_id"] = Snapshot.objects.get(backup=backup, kind=kind.kind).aws_id
        assert {name: shown[name] for name in expected} == expected
        assert set(shown) - set(expected) == OF_RECORDS - (set() if "dr_account" in shown else {"dr_account"})
