"""Cleanup against the simulated AWS: what goes, what stays, and what is said about it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.lib.states import AmiOption
from cpm.models import Alert, AuditRecord, Backup, Job, LogLine, ServerSettings, Snapshot
from cpm.services import audit_chain, audit_verification, backup_deletion, backups, cleanup, freezer
from tests import factories
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


def clean_up(world):
    cleanup.run(actor=world.actor, now=timezone.now())
    world.run()


def kept(policy):
    return list(
        Backup.objects.filter(policy=policy, deleted_at=None).order_by("pk").values_list("pk", flat=True)
    )


def test_only_the_newest_generations_stay_in_aws(world, aws):
    policy = world.policy(aws.volume(), generations=2)

    made = [world.back_up(policy, status="B").pk for _ in range(4)]

    assert kept(policy) == made[-2:]
    rows = Snapshot.objects.filter(backup_id__in=made[-2:])
    assert world.snapshots_in_aws() == set(rows.values_list("aws_id", flat=True))
    oldest = Backup.objects.get(pk=made[0])
    assert (oldest.status, oldest.status_before_deletion, oldest.marked_for_deletion) == ("D", "B", True)


def test_failed_runs_do_not_count_and_go_with_what_is_older(world, aws):
    volume = aws.volume()
    policy = world.policy(volume, generations=1, number_of_retries=0)
    first = world.back_up(policy, status="B")
    aws.fault(snapshots_error=True, count=1)
    failed = world.back_up(policy, status="F")
    kept_before = kept(policy)

    last = world.back_up(policy, status="B")

    assert kept_before == [first.pk, failed.pk]
    assert kept(policy) == [last.pk]
    assert Snapshot.objects.get(backup=failed).status == "deleted"
    assert len(world.snapshots_in_aws()) == 1


def test_a_snapshot_deleted_by_somebody_else_counts_as_deleted(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    aws.client("ec2").delete_snapshot(SnapshotId=Snapshot.objects.get(backup=first).aws_id)

    world.back_up(policy, status="B")

    first.refresh_from_db()
    assert first.status == "D"


def test_an_error_is_shown_and_the_next_cleanup_tries_again(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    aws.fault(action="DeleteSnapshot", error="UnauthorizedOperation", status=403)
    world.back_up(policy, status="B")
    first.refresh_from_db()
    before, error = first.status, Snapshot.objects.get(backup=first).error
    alert = Alert.objects.get(policy=policy, category="cleanup_failed")
    aws.clear_faults()

    clean_up(world)

    first.refresh_from_db()
    assert "ec2:DeleteSnapshot" in error
    assert (before, first.status) == ("B", "D")
    assert alert.severity == "W" and "ec2:DeleteSnapshot" in alert.message_body
    assert not Alert.objects.filter(policy=policy, category="cleanup_failed").exists()
    assert LogLine.objects.filter(level="Error", message__contains="could not be deleted").exists()


def test_an_ami_is_deregistered_before_its_snapshots_are_deleted(world, aws):
    instance, _ = aws.instance((1, 1))
    policy = world.policy(generations=1)
    world.target(policy, instance, ami_backup_option=AmiOption.ONLY)
    world.back_up(policy, status="B")

    last = world.back_up(policy, status="B")

    images = aws.client("ec2").describe_images(Owners=["self"])["Images"]
    ours = {
        image["ImageId"]
        for image in images
        if any(t["Key"] == "cpm_backup_id" for t in image.get("Tags", []))
    }
    assert ours == {Snapshot.objects.get(backup=last, kind="only_amis").aws_id}
    assert len(world.snapshots_in_aws()) == 2


def test_an_initial_ami_stays_while_kept_backups_start_from_it(world, aws):
    instance, _ = aws.instance((1,))
    policy = world.policy(generations=1)
    world.target(policy, instance, ami_backup_option=AmiOption.SINGLE)
    first = world.back_up(policy, status="B")
    world.back_up(policy, status="B")
    initial = Snapshot.objects.get(backup=first, kind="initial_amis")
    while_needed = initial.status
    Snapshot.objects.filter(pk=initial.pk).update(start_time=timezone.now() - timedelta(days=91))

    world.back_up(policy, status="B")
    clean_up(world)

    initial.refresh_from_db()
    assert (while_needed, initial.status) == ("completed", "deleted")
    assert Snapshot.objects.filter(kind="initial_amis", status="completed").count() == 1


def test_frozen_backups_are_left_alone_and_do_not_count(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    freezer.freeze(actor=world.actor, backup=first, name="keep", description="for ever")

    for _ in range(2):
        world.back_up(policy, status="B")

    first.refresh_from_db()
    assert (first.status, first.is_freezer_item, len(world.snapshots_in_aws())) == ("B", True, 2)
    freezer.delete(actor=world.actor, backup=first)
    world.run()
    assert len(world.snapshots_in_aws()) == 1


def test_one_broken_target_stops_retention_and_this_is_said_until_it_is_mended(world, aws):
    policy = world.policy(aws.volume(), generations=1, number_of_retries=0)
    world.back_up(policy, status="B")
    broken = world.target(policy, "vol-0123456789abcdef0")
    for _ in range(2):
        world.back_up(policy, status="S")

    policy.refresh_from_db()
    assert policy.retention_stuck_since is not None
    assert Alert.objects.get(policy=policy, category="retention_stuck").severity == "W"
    assert len(kept(policy)) == 3
    broken.delete()
    world.back_up(policy, status="B")
    policy.refresh_from_db()
    assert policy.retention_stuck_since is None
    assert not Alert.objects.exists()
    assert len(kept(policy)) == 1


def test_a_backup_whose_dr_failed_does_not_count(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    second = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    Backup.objects.filter(pk=second.pk).update(is_retry=True)
    world.run()
    Backup.objects.filter(pk=second.pk).update(dr_status="F")

    clean_up(world)

    assert kept(policy) == [first.pk, second.pk]


def test_a_backup_in_recovery_is_not_deleted(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    recovery = factories.recovery(Snapshot.objects.get(backup=first), status="P")
    world.back_up(policy, status="B")
    during = Backup.objects.get(pk=first.pk).marked_for_deletion
    recovery.status = "R"
    recovery.save()

    clean_up(world)

    first.refresh_from_db()
    assert (during, first.status) == (False, "D")


def test_copies_in_a_dr_account_without_delete_rights_are_tagged_and_left(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True, allow_deleting_snapshots=False)
    policy = world.policy(
        aws.volume(), generations=1, dr_enabled=True, dr_account=dr_account,
        dr_account_regions=[world.region_id("us-east-1")],
    )  # fmt: skip
    first = world.back_up(policy, dr_status="C")
    world.back_up(policy, dr_status="C")

    clean_up(world)

    first.refresh_from_db()
    copy = Snapshot.objects.get(backup=first, kind="dr_volumes")
    assert first.status == "D"
    ec2 = aws.client("ec2", account=DR_ACCOUNT)
    shown = ec2.describe_snapshots(SnapshotIds=[copy.aws_id])["Snapshots"][0]
    assert {"Key": "cpm_outdated", "Value": "true"} in shown["Tags"]


def test_records_of_deleted_backups_go_after_their_time(world, aws):
    policy = world.policy(aws.volume(), generations=1)
    first = world.back_up(policy, status="B")
    world.back_up(policy, status="B")
    ServerSettings.objects.update_or_create(pk=1, defaults={"keep_deleted_backup_records": 7})
    Backup.objects.filter(pk=first.pk).update(deleted_at=timezone.now() - timedelta(days=8))

    clean_up(world)

    assert not Backup.objects.filter(pk=first.pk).exists()
    assert Backup.objects.filter(policy=policy).count() == 1


def test_audit_records_go_after_their_time_and_the_log_stays_provable(world):
    ServerSettings.objects.update_or_create(pk=1, defaults={"keep_user_audit_logs_days": 30})
    now = timezone.now()
    old = factories.audit_record()
    audit_chain.seal(now=now - timedelta(days=31))
    young = factories.audit_record()
    audit_chain.seal(now=now - timedelta(days=29))

    clean_up(world)

    assert not AuditRecord.objects.filter(pk=old.pk).exists()
    assert AuditRecord.objects.filter(pk=young.pk).exists()
    found = audit_verification.verify()
    assert (found.damage, found.purged_records) == ("", 1)


def test_deleting_on_request_removes_the_snapshots_of_a_backup(world, aws):
    policy = world.policy(aws.volume(), aws.volume())
    backup = world.back_up(policy, status="B")

    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    backup.refresh_from_db()
    assert (backup.status, world.snapshots_in_aws()) == ("D", set())


def test_deleting_one_snapshot_leaves_the_others(world, aws):
    policy = world.policy(aws.volume(), aws.volume())
    backup = world.back_up(policy, status="B")
    gone, stays = Snapshot.objects.filter(backup=backup).order_by("pk")

    backup_deletion.delete_snapshot(actor=world.actor, snapshot=gone)
    world.run()

    backup.refresh_from_db()
    assert (backup.status, world.snapshots_in_aws()) == ("B", {stays.aws_id})


def test_deleting_while_the_backup_runs_is_refused(world, aws):
    backup = backups.start(actor=world.actor, policy=world.policy(aws.volume()), now=timezone.now())

    with pytest.raises(Exception, match="running"):
        backup_deletion.delete_snapshots(actor=world.actor, backup=backup)

    assert Job.objects.filter(kind="cleanup").count() == 0
