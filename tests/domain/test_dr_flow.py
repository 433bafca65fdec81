"""DR: copies to other regions and accounts, keys, sharing, time limits, dropped originals."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.lib.states import AmiOption
from cpm.models import Alert, Job, ServerSettings, Snapshot
from cpm.services import backups, freezer
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


def dr_policy(world, *targets, **fields):
    return world.policy(*targets, dr_enabled=True, **fields)


def shares(aws, snapshot_id):
    answer = aws.client("ec2").describe_snapshot_attribute(
        SnapshotId=snapshot_id, Attribute="createVolumePermission"
    )
    return [permission["UserId"] for permission in answer["CreateVolumePermissions"]]


def test_copies_go_to_every_region_with_the_same_bytes(world, aws):
    volume = aws.volume()
    aws.write(volume, b"payload" * 500)
    expected = aws.sha256(volume)
    regions = [world.region_id("us-west-2"), world.region_id("eu-west-1")]

    backup = world.back_up(dr_policy(world, volume, dr_regions=regions), status="B", dr_status="C")

    copies = Snapshot.objects.filter(backup=backup, kind="dr_volumes")
    assert {copy.region for copy in copies} == {"us-west-2", "eu-west-1"}
    assert {aws.sha256(copy.aws_id) for copy in copies} == {expected}
    assert backup.dr_regions == "eu-west-1, us-west-2"
    assert copies[0].details["original_snap"] == copies[0].original.aws_id


def test_every_nth_backup_is_copied(world, aws):
    policy = dr_policy(world, aws.volume(), dr_regions=[world.region_id("us-west-2")], dr_frequency=2)

    statuses = []
    for _ in range(3):
        statuses.append(world.back_up(policy).dr_status)
        policy.refresh_from_db()

    assert statuses == ["C", "S", "C"]


def test_a_cross_account_copy_is_shared_copied_and_unshared_again(world, aws):
    volume = aws.volume()
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = dr_policy(
        world, volume, dr_account=dr_account, dr_account_regions=[world.region_id("eu-west-1")],
        copy_to_snapshot_original_region=True,
    )  # fmt: skip

    backup = world.back_up(policy, dr_status="C")

    copies = Snapshot.objects.filter(backup=backup, kind="dr_volumes")
    assert {(copy.aws_account_number, copy.region) for copy in copies} == {
        (DR_ACCOUNT, "eu-west-1"),
        (DR_ACCOUNT, "us-east-1"),
    }
    source = Snapshot.objects.get(backup=backup, kind="volumes")
    assert shares(aws, source.aws_id) == []


def test_the_originals_go_when_only_the_cross_account_copies_are_kept(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = dr_policy(
        world, aws.volume(), dr_account=dr_account, dr_account_regions=[world.region_id("us-east-1")],
        dr_keep_original_snapshots=False,
    )  # fmt: skip

    backup = world.back_up(policy, status="B", dr_status="C")

    assert Snapshot.objects.get(backup=backup, kind="volumes").status == "deleted"
    assert Snapshot.objects.get(backup=backup, kind="dr_volumes").status == "completed"
    assert world.snapshots_in_aws() == set()
    assert len(world.snapshots_in_aws(DR_ACCOUNT)) == 1


def test_the_originals_of_a_backup_that_was_frozen_during_its_dr_stay(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = dr_policy(
        world, aws.volume(), dr_account=dr_account, dr_account_regions=[world.region_id("us-east-1")],
        dr_keep_original_snapshots=False,
    )  # fmt: skip
    aws.timing(copy_seconds=0.3)
    backup = backups.start(actor=world.actor, policy=policy, now=world.now())
    while not world.snapshots_in_aws(DR_ACCOUNT):
        world.work()

    backup.refresh_from_db()
    freezer.freeze(actor=world.actor, backup=backup, name="kept", description="")
    world.run()

    backup.refresh_from_db()
    assert backup.dr_status == "C"
    assert Snapshot.objects.get(backup=backup, kind="volumes").status == "completed"


def test_images_are_copied_with_their_snapshots(world, aws):
    instance, _ = aws.instance((1, 1))
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = dr_policy(
        world, dr_account=dr_account, dr_account_regions=[world.region_id("us-west-2")],
        dr_regions=[world.region_id("us-west-2")],
    )  # fmt: skip
    world.target(policy, instance, ami_backup_option=AmiOption.ONLY)

    backup = world.back_up(policy, dr_status="C")

    copies = Snapshot.objects.filter(backup=backup, kind="only_dr_amis")
    assert {copy.aws_account_number for copy in copies} == {"123456789012", DR_ACCOUNT}
    assert all(len(copy.details["snapshot_ids"]) == 2 for copy in copies)


def encrypted_volume(aws, alias=None):
    kms = aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    if alias:
        kms.create_alias(AliasName=alias, TargetKeyId=key)
    return aws.volume(Encrypted=True, KmsKeyId=key)


def test_strict_key_detection_fails_without_a_matching_key_and_says_how_to_mend_it(world, aws):
    policy = dr_policy(world, encrypted_volume(aws, "alias/mine"), dr_regions=[world.region_id("us-west-2")])

    backup = world.back_up(policy, status="B", dr_status="F")

    assert "alias/mine" in Snapshot.objects.get(backup=backup, kind="dr_volumes").error
    assert Alert.objects.filter(policy=policy, category="dr_failed").exists()


def test_a_key_with_the_same_alias_is_used_in_the_target_region(world, aws):
    volume = encrypted_volume(aws, "alias/mine")
    kms = aws.client("kms", "us-west-2")
    there = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/mine", TargetKeyId=there)

    backup = world.back_up(dr_policy(world, volume, dr_regions=[world.region_id("us-west-2")]), dr_status="C")

    copy = Snapshot.objects.get(backup=backup, kind="dr_volumes")
    shown = aws.client("ec2", "us-west-2").describe_snapshots(SnapshotIds=[copy.aws_id])["Snapshots"][0]
    assert shown["KmsKeyId"].endswith(there)


def test_the_default_key_stands_in_with_an_alert_when_the_settings_say_so(world, aws):
    ServerSettings.objects.update_or_create(pk=1, defaults={"encryption_key_detection": "A"})
    policy = dr_policy(world, encrypted_volume(aws, "alias/mine"), dr_regions=[world.region_id("us-west-2")])

    world.back_up(policy, dr_status="C")

    assert Alert.objects.filter(policy=policy, category="dr_default_key_used").exists()


def test_copies_beyond_the_limit_of_aws_queue_and_do_not_fail(world, aws):
    aws.limits(concurrent_copies=1)
    aws.timing(copy_seconds=0.3)
    policy = dr_policy(
        world, aws.volume(), aws.volume(), aws.volume(), dr_regions=[world.region_id("us-west-2")]
    )

    backup = world.back_up(policy, dr_status="C")
    aws.timing(copy_seconds=0)

    assert Snapshot.objects.filter(backup=backup, kind="dr_volumes", succeeded=True).count() == 3


def test_a_dr_past_its_time_limit_fails_and_removes_what_hangs(world, aws):
    aws.timing(copy_seconds=600)
    policy = dr_policy(world, aws.volume(), dr_regions=[world.region_id("us-west-2")])
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    while not Snapshot.objects.filter(kind="dr_volumes").exclude(aws_id="").exists():
        world.work()
    Job.objects.filter(kind="dr_copy").update(deadline=timezone.now() - timedelta(seconds=1))

    world.run()
    aws.timing(copy_seconds=0)

    backup.refresh_from_db()
    assert (backup.status, backup.dr_status) == ("B", "F")
    assert world.snapshots_in_aws(region="us-west-2") == set()


def test_a_failed_backup_skips_its_dr(world, aws):
    policy = dr_policy(world, "vol-0123456789abcdef0", dr_regions=[world.region_id("us-west-2")])

    world.back_up(policy, status="F", dr_status="S")
