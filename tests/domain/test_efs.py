"""What is particular to EFS file systems and AWS Backup; what all whole types have in common is in `test_whole_resources`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cpm.flows.cleanup import retention
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import BackupStatus, DrStatus, RecoveryStatus, SnapshotStatus
from cpm.models import Recovery, Snapshot, Step, Target
from cpm.services import backup_deletion, backups, recoveries, targets
from tests.domain.whole_examples.base import snapshot_of
from tests.domain.whole_examples.efs_file_system import VAULT, FileSystemExample
from tests.domain.world import World
from tests.simulated_aws import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
example = FileSystemExample()


def protect(world: World, name: str = "orders", policy: Any = None, **options: Any) -> Target:
    target = example.protect(world, example.make(world, name), policy)
    return targets.update_whole(actor=world.actor, target=target, options=options)


def begin(world: World, snapshot: Snapshot, **request: Any) -> Recovery:
    return recoveries.recover_whole(
        actor=world.actor, snapshot=snapshot, request=request, credentials=None, now=world.now()
    )


def test_a_backup_tells_when_it_moves_to_cold_storage_and_when_it_expires(world: World) -> None:
    target = protect(
        world, expire_option="M", expire_option_value=4, move_to_cold_storage_option="D",
        move_to_cold_storage_option_value=30,
    )  # fmt: skip

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    row = snapshot_of(target)
    point = world.aws.client("backup").describe_recovery_point(BackupVaultName=VAULT, RecoveryPointArn=row.aws_id)
    assert point["Lifecycle"] == {"MoveToColdStorageAfterDays": 30, "DeleteAfterDays": 120}
    expires = datetime.fromisoformat(row.details["expire_time"])
    assert expires == point["CalculatedLifecycle"]["DeleteAt"].astimezone(UTC).replace(microsecond=0)
    assert expires - datetime.fromisoformat(row.details["move_to_cold_storage_time"]) == timedelta(days=90)
    assert row.details["performance_mode"] == "maxIO" and row.details["original_kms_key_id"].startswith("arn:")


def test_a_vault_that_may_not_be_listed_fails_no_backup(world: World) -> None:
    target = protect(world, expire_option="D", expire_option_value=7)
    world.aws.fault(action="ListRecoveryPointsByBackupVault", error="AccessDeniedException", status=403)

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert "expire_time" not in snapshot_of(target).details


def test_a_copy_does_not_take_over_the_lifetime_of_its_original(world: World) -> None:
    example.prepare_dr(world)
    policy = world.policy(dr_enabled=True, dr_regions=[world.region_id("eu-west-1")])
    target = protect(world, policy=policy, expire_option="D", expire_option_value=7)
    world.aws.fault(action="DescribeRecoveryPoint", region="eu-west-1", error="AccessDeniedException", status=403)

    world.back_up(policy, status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.COMPLETED)

    assert "expire_time" in snapshot_of(target, kind="efs").details
    assert "expire_time" not in snapshot_of(target, kind="dr_efs").details


def test_a_copy_that_nobody_could_watch_is_found_by_its_job_when_it_is_to_go(world: World) -> None:
    example.prepare_dr(world)
    policy = world.policy(dr_enabled=True, dr_regions=[world.region_id("eu-west-1")])
    protect(world, policy=policy)
    world.aws.fault(action="ListCopyJobs", error="AccessDeniedException", status=403)
    backup = world.back_up(policy, status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.FAILED)
    world.aws.clear_faults()
    wait_for(lambda: bool(example.snapshots(world, "eu-west-1")))

    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    assert example.snapshots(world, "eu-west-1") == set()


def test_retention_leaves_what_has_a_lifetime_of_its_own_until_it_is_over(world: World) -> None:
    policy = world.policy(generations=1)
    follows = protect(world, "follows", policy)
    never = protect(world, "never", policy, expire_option="N")
    days = protect(world, "days", policy, expire_option="D", expire_option_value=7)
    old = world.back_up(policy, status=BackupStatus.SUCCESSFUL)
    rows = {target.pk: old.snapshots.get(target=target) for target in (follows, never, days)}

    world.back_up(policy, status=BackupStatus.SUCCESSFUL)

    for row in rows.values():
        row.refresh_from_db()
    assert rows[follows.pk].status == SnapshotStatus.DELETED
    assert {rows[never.pk].status, rows[days.pk].status} == {SnapshotStatus.COMPLETED}
    assert {rows[never.pk].aws_id, rows[days.pk].aws_id} < example.snapshots(world)
    recovered = begin(world, rows[never.pk])
    world.run()
    recovered.refresh_from_db()
    assert recovered.status == RecoveryStatus.SUCCESSFUL, recovered.outcome

    over = {**rows[days.pk].details, "expire_time": "2020-01-01T00:00:00Z"}
    Snapshot.objects.filter(pk=rows[days.pk].pk).update(details=over)
    retention.request(now=world.now())
    world.run()
    backup_deletion.delete_snapshot(actor=world.actor, snapshot=rows[never.pk])
    world.run()

    old.refresh_from_db()
    assert old.deleted_at is not None and old.snapshots.exclude(status=SnapshotStatus.DELETED).count() == 0
    assert len(example.snapshots(world)) == 3


def test_a_vault_that_does_not_exist_is_named(world: World) -> None:
    target = protect(world, backup_vault_name="Default")

    world.back_up(target.policy, status=BackupStatus.FAILED)

    assert "[backup_vault_missing]" in snapshot_of(target).error


def test_a_vault_that_is_closed_or_absent_makes_no_snapshot_deleted(world: World) -> None:
    target = protect(world)
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    row = snapshot_of(target)
    Snapshot.objects.filter(pk=row.pk).update(details={**row.details, "backup_vault_name": "elsewhere"})

    backup_deletion.delete_snapshot(actor=world.actor, snapshot=row)
    world.run()

    row.refresh_from_db()
    assert row.status == SnapshotStatus.COMPLETED
    assert "[backup_vault_missing_or_closed]" in row.error


def test_an_aborted_backup_leaves_no_recovery_point(world: World) -> None:
    target = protect(world)
    world.aws.timing(backup_job_seconds=5.0)

    backup = backups.start(actor=world.actor, policy=target.policy, now=world.now())
    while not world.aws.client("backup").list_backup_jobs()["BackupJobs"]:
        assert world.work()
    backups.abort(actor=world.actor, backup=backup)
    world.run()

    assert example.snapshots(world) == set()
    assert {job["State"] for job in world.aws.client("backup").list_backup_jobs()["BackupJobs"]} == {"ABORTED"}


def test_restoring_into_the_original_adds_a_folder_and_never_removes_the_original(world: World) -> None:
    target = protect(world)
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    id = target.aws_resource_id
    example.change(world, id)
    changed = set(world.aws.control("GET", f"/efs/{id}/files").items())

    recovery = begin(world, snapshot_of(target), target_efs="O")
    world.run()
    world.aws.timing(backup_job_seconds=0.5)
    aborted = begin(world, snapshot_of(target), target_efs="O")
    while len(world.aws.client("backup").list_restore_jobs()["RestoreJobs"]) < 2:
        assert world.work()
    world.abort(aborted)
    world.run()

    recovery.refresh_from_db()
    assert (recovery.status, recovery.recovered_resource_ids) == (RecoveryStatus.SUCCESSFUL, f"{id} (original: {id})")
    files = world.aws.control("GET", f"/efs/{id}/files")
    restored = sorted(path.split("/", 1)[1] for path in files if path.startswith("aws-backup-restore_"))
    assert changed < set(files.items()) and restored[:2] == ["orders/1.txt", "readme"]
    assert example.resources(world) == {id}
    assert example.tags(world, id) == {"team": "shop", "Name": "orders"}


def test_a_restore_whose_answer_was_never_stored_is_found_and_removed(world: World) -> None:
    target = protect(world)
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    world.aws.fault(service="backup", action="StartRestoreJob", lost_response=True)

    recovery = begin(world, snapshot_of(target))
    while len(example.resources(world)) == 1:
        assert world.work()
    world.abort(recovery)
    world.run()

    assert example.resources(world) == {target.aws_resource_id}


def test_cleaning_up_is_patient_with_a_restore_that_takes_long(world: World) -> None:
    target = protect(world)
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    world.aws.timing(backup_job_seconds=0.5)
    recovery = begin(world, snapshot_of(target))
    while not world.aws.client("backup").list_restore_jobs()["RestoreJobs"]:
        assert world.work()
    world.abort(recovery)
    cleaning = Step.objects.filter(kind="recover.clean")
    while not cleaning.filter(cursor__isnull=False).exists():
        world.work()

    cleaning.update(cursor={"since": (world.now() - timedelta(hours=2)).isoformat()})
    world.run()

    assert example.resources(world) == {target.aws_resource_id}


def test_a_recovery_that_cannot_work_is_refused(world: World) -> None:
    target = protect(world)
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    row = snapshot_of(target)
    example.destroy(world, target.aws_resource_id)
    kms = world.aws.client("kms")
    disabled = kms.create_key()["KeyMetadata"]
    kms.disable_key(KeyId=disabled["KeyId"])
    signing = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    wrong = [
        ("encryption_key", {"encryption_key": "alias/shop"}),
        ("encryption_key", {"encryption_key": "arn:aws:kms:us-east-1:123456789012:key/none"}),
        ("encryption_key", {"encryption_key": disabled["Arn"]}),
        ("encryption_key", {"encryption_key": signing["Arn"]}),
        ("iam_role_arn", {"iam_role_arn": "arn:aws:iam::999999999999:role/backup"}),
        ("performance_mode", {"target_efs": "O", "performance_mode": "generalPurpose"}),
        ("target_efs", {"target_efs": "O"}),
    ]

    for field, request in wrong:
        with pytest.raises(ValidationFailed) as refused:
            begin(world, row, **request)
        assert set(refused.value.errors) == {field}, request

    assert not Recovery.objects.exists()
