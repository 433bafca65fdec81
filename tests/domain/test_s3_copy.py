"""Copying backups to S3: what is copied, what is read for it, and when."""

import pytest
from django.utils import timezone

from cpm.aws.ebs_direct import BLOCK
from cpm.flows.s3 import copy
from cpm.flows.s3 import repositories as flow
from cpm.lib.states import AmiOption, SnapshotKind
from cpm.models import Backup, Job, S3Copy, Snapshot, Step
from cpm.repository.verify import Depth, verify
from cpm.services import backups
from tests.domain import copying
from tests.domain.copying import block
from tests.domain.world import DR_ACCOUNT, World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


def copy_of(backup: Backup, volume: str) -> S3Copy:
    return S3Copy.objects.get(backup=backup, snapshot__source_id=volume)


def reads(world: World, since: int, action: str = "GetSnapshotBlock") -> int:
    return sum(one["action"] == action for one in world.aws.calls(since))


def test_a_backup_is_copied_and_reads_back_the_same(world: World) -> None:
    instance, devices = world.aws.instance((1, 1))
    root, data, free = devices["/dev/xvda"], devices["/dev/xvdb"], world.aws.volume(2)
    copying.write(world, root, _0=1, _1500=2)
    copying.write(world, data, _2047=1)
    copying.write(world, free, _1024=3, _4095=4)
    policy = copying.policy_with_s3(world, instance, free)

    backup = copying.copied(world, policy)

    assert copying.blocks(copy_of(backup, root)) == {0: block(1), 1500: block(2)}
    assert copying.blocks(copy_of(backup, data)) == {2047: block(1)}
    assert copying.blocks(copy_of(backup, free)) == {1024: block(3), 4095: block(4)}
    assert backup.s3_copy_progress == 100 and backup.status == "B"
    row = copy_of(backup, free)
    assert (row.succeeded, row.status, row.bytes_read, row.base) == (True, "completed", 2 * BLOCK, None)
    snapshot = Snapshot.objects.get(pk=row.snapshot_id)
    assert (snapshot.cbt_valid_size_mb, snapshot.cbt_changed_size_mb) == (1, 1)
    # The one block that two volumes share is stored once.
    stored = row.repository
    assert stored is not None and (stored.copies_stored, stored.blocks_stored) == (3, 4)


def test_the_next_copy_reads_what_has_changed(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2, _1100=3)
    policy = copying.policy_with_s3(world, volume)
    first = copying.copied(world, policy)
    copying.write(world, volume, _1=4, _2=5)
    since = world.aws.last_call()

    second = copying.copied(world, policy)

    assert reads(world, since) == 2 and reads(world, since, "ListSnapshotBlocks") == 0
    row = copy_of(second, volume)
    assert row.base == copy_of(first, volume) and row.bytes_read == 2 * BLOCK
    assert copying.blocks(row) == {0: block(1), 1: block(4), 2: block(5), 1100: block(3)}
    assert copying.blocks(copy_of(first, volume)) == {0: block(1), 1: block(2), 1100: block(3)}
    snapshot = row.snapshot
    assert (snapshot.cbt_valid_size_mb, snapshot.cbt_changed_size_mb) == (3, 1)


@pytest.mark.parametrize("how", ["deleted", "unrelated", "not in S3"])
def test_without_a_base_everything_is_read_and_nothing_stored_twice(world: World, how: str) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2)
    policy = copying.policy_with_s3(world, volume)
    first = copy_of(copying.copied(world, policy), volume)
    copying.write(world, volume, _1=3)
    if how == "deleted":
        world.aws.client("ec2").delete_snapshot(SnapshotId=first.snapshot.aws_id)
    elif how == "unrelated":
        world.aws.fault(
            action="ListChangedBlocks", error="ValidationException", message="UNRELATED_SNAPSHOTS"
        )
    else:
        assert first.repository is not None
        flow.opened(first.repository).delete_copy(first.copy_id)
    since = world.aws.last_call()

    second = copy_of(copying.copied(world, policy), volume)

    assert second.base is None and reads(world, since) == 2
    assert (second.bytes_read, second.bytes_new) == (2 * BLOCK, BLOCK)
    assert copying.blocks(second) == {0: block(1), 1: block(3)}
    assert any("is read as a whole" in line for line in world.log(second.backup))
    assert second.snapshot.cbt_valid_size_mb == 1


def test_what_the_repository_has_lost_is_read_again(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2)
    policy = copying.policy_with_s3(world, volume)
    first = copy_of(copying.copied(world, policy), volume)
    assert first.repository is not None
    repository = flow.opened(first.repository)
    repository.store.delete([info.key for info in repository.store.list("packs/")])
    assert verify(repository, Depth.LIST).damage

    second = copy_of(copying.copied(world, policy), volume)

    # It heals the copy before, which needs the same blocks.
    assert second.base == first and second.bytes_new == 2 * BLOCK
    assert copying.blocks(second) == {0: block(1), 1: block(2)}
    assert copying.blocks(first) == {0: block(1), 1: block(2)}


def test_what_a_snapshot_holds_is_asked_of_aws_when_its_base_is_lost_on_the_way(world: World, settings) -> None:
    settings.CPM_S3_SLICE_SECONDS = 0
    volume = world.aws.volume(2)
    copying.write(world, volume, _0=1, _1=2, _1100=3, _2047=4)
    policy = copying.policy_with_s3(world, volume)
    first = copy_of(copying.copied(world, policy), volume)
    copying.write(world, volume, _1=5, _2=6)
    second = copying.backed_up(world, policy)
    copying.one_step("s3_copy.plan")
    for _ in range(2):
        copying.one_step("s3_copy.part")
    world.aws.client("ec2").delete_snapshot(SnapshotId=first.snapshot.aws_id)

    world.run()

    row = copy_of(second, volume)
    assert (row.succeeded, row.base) == (True, None)
    assert copying.blocks(row) == {0: block(1), 1: block(5), 2: block(6), 1100: block(3), 2047: block(4)}
    # Five blocks of half a MiB.
    assert row.snapshot.cbt_valid_size_mb == 3


def test_a_base_of_unknown_size_is_no_reason_to_know_none_for_ever(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2)
    policy = copying.policy_with_s3(world, volume)
    copying.copied(world, policy)
    Snapshot.objects.update(cbt_valid_size_mb=None)
    copying.write(world, volume, _2=3, _3=4)

    row = copy_of(copying.copied(world, policy), volume)

    assert row.base is not None and row.snapshot.cbt_valid_size_mb == 2


def test_a_copy_in_full_is_made_once(world: World) -> None:
    instance, devices = world.aws.instance((1,))
    copying.write(world, devices["/dev/xvda"], _0=1, _1=2)
    policy = copying.policy_with_s3(world, instance)
    copying.copied(world, policy)
    policy.targets.update(force_full_s3_copy=True)
    since = world.aws.last_call()

    second = copy_of(copying.copied(world, policy), devices["/dev/xvda"])
    in_full = reads(world, since)
    third = copy_of(copying.copied(world, policy), devices["/dev/xvda"])

    assert (second.base, second.bytes_new, in_full) == (None, 0, 2)
    assert not policy.targets.get().force_full_s3_copy
    assert third.base == second and third.bytes_read == 0


def test_a_volume_is_copied_in_parts_and_slices(world: World, settings) -> None:
    settings.CPM_S3_PART_GIB, settings.CPM_S3_SLICE_SECONDS = 1, 0
    volume = world.aws.volume(3)
    copying.write(world, volume, _0=1, _1023=2, _1024=3, _4500=4)

    backup = copying.copied(world, copying.policy_with_s3(world, volume))

    assert copying.blocks(copy_of(backup, volume)) == {
        0: block(1),
        1023: block(2),
        1024: block(3),
        4500: block(4),
    }
    parts = Step.objects.filter(kind="s3_copy.part").order_by("id")
    assert [(part.payload["first"], part.payload["end"]) for part in parts] == [(0, 2), (2, 4), (4, 6)]
    # Every slice ends after a segment, and goes on from there.
    assert all(part.lease_epoch == 2 for part in parts)
    assert parts[0].message == "1.0 of 1.0 GiB done, 0.0 GiB read."


def test_what_cannot_be_copied_is_left_out(world: World) -> None:
    instance, devices = world.aws.instance((1, 1))
    ami = world.aws.instance((1,))[0]
    policy = copying.policy_with_s3(world, instance)
    world.target(policy, ami, ami_backup_option=AmiOption.ONLY)
    backup = copying.backed_up(world, policy)
    target = policy.targets.get(aws_resource_id=instance)
    target.details |= {"has_product_code": True}
    target.save()

    world.run()
    backup.refresh_from_db()

    assert backup.s3_copy_status == "V"
    assert [row.snapshot.source_id for row in backup.s3_copies.all()] == [devices["/dev/xvdb"]]


@pytest.mark.parametrize(
    ("sold", "root", "copied"),
    [
        (True, "/dev/xvda", {"/dev/xvdb"}),
        (True, "/dev/xvdb", {"/dev/xvda"}),
        (False, "/dev/xvda", {"/dev/xvda", "/dev/xvdb"}),
    ],
)
def test_of_what_was_bought_at_the_marketplace_only_the_root_volume_stays(
    world: World, sold: bool, root: str, copied: set[str]
) -> None:
    instance, devices = world.aws.instance((1, 1))
    policy = copying.policy_with_s3(world, instance)
    backup = copying.backed_up(world, policy)
    target = policy.targets.get(aws_resource_id=instance)
    target.details |= {"has_product_code": sold}
    target.save()
    record = backup.snapshots.get(kind=SnapshotKind.INSTANCE)
    assert record.details["aws_root_device"] == "/dev/xvda"
    record.details |= {"aws_root_device": root}
    record.save()

    world.run()

    backup.refresh_from_db()
    names = {volume: device for device, volume in devices.items()}
    assert {names[row.snapshot.source_id] for row in backup.s3_copies.all()} == copied
    assert backup.s3_copy_status == ("V" if sold else "S")


def test_a_backup_of_which_nothing_can_be_copied_is_skipped(world: World) -> None:
    policy = copying.policy_with_s3(world)
    world.target(policy, world.aws.instance((1,))[0], ami_backup_option=AmiOption.ONLY)

    backup = world.back_up(policy, status="B", s3_copy_status="K")

    assert any("none of its snapshots can be copied" in line for line in world.log(backup))


def test_originals_that_only_dr_shall_keep_are_copied_before_they_go(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1)
    dr = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = copying.policy_with_s3(
        world, volume, dr_enabled=True, dr_account=dr, dr_account_regions=[world.region_id("us-west-2")],
        dr_keep_original_snapshots=False,
    )  # fmt: skip
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())

    # The deletion waits for the copy, and looks again when half a minute has passed.
    while not Job.objects.filter(kind="s3_copy", finished_at__isnull=False).exists():
        world.work()
    assert len(world.snapshots_in_aws()) == 1
    Step.objects.filter(kind="cleanup.delete").update(not_before=timezone.now())
    world.run()

    backup.refresh_from_db()
    assert (backup.status, backup.dr_status, backup.s3_copy_status) == ("B", "C", "S")
    assert world.snapshots_in_aws() == set()
    assert copying.blocks(copy_of(backup, volume)) == {0: block(1)}


def test_moving_deletes_the_snapshots_that_were_copied(world: World) -> None:
    instance, devices = world.aws.instance((1,))
    copying.write(world, devices["/dev/xvda"], _0=1)
    policy = copying.policy_with_s3(world, instance, s3_delete_originals=True)

    first = world.back_up(policy, s3_copy_status="S", status="M")
    second = world.back_up(policy, s3_copy_status="S", status="M")

    assert first.status_before_deletion == "B" and not first.marked_for_deletion
    assert world.snapshots_in_aws() == set()
    assert copying.blocks(copy_of(first, devices["/dev/xvda"])) == {0: block(1)}
    row = copy_of(second, devices["/dev/xvda"])
    assert (row.base, row.bytes_new) == (None, 0)


def test_parts_are_whole_segments(settings) -> None:
    settings.CPM_S3_PART_GIB = 0.1
    least = copy.part_segments()
    settings.CPM_S3_PART_GIB = 32

    assert (least, copy.part_segments()) == (1, 64)
