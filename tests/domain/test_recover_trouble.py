"""Recoveries while AWS loses answers, throttles and lags, and while others use the same snapshots."""

import pytest

from cpm.models import Job, ServerSettings
from tests.domain.recovering import ids, left_over, recover, shared_with, start, volume_row, volumes_of
from tests.domain.test_recover_instance import Machine, kept
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "action", ["CopySnapshot", "RegisterImage", "RunInstances", "DeregisterImage", "DeleteSnapshot", "CreateTags"]
)
def test_a_lost_answer_makes_nothing_twice(world, aws, action):
    machine = Machine(world, aws)
    aws.fault(service="ec2", action=action, lost_response=True, count=1)

    recovery = machine.recover(to_region=world.region_id("us-west-2"))

    [made] = ids(recovery)
    machine.assert_bytes(made, "us-west-2")
    volumes = {v["VolumeId"] for v in volumes_of(world, made, "us-west-2").values()}
    assert left_over(world, kept={made, *volumes}, region="us-west-2") == []


@pytest.mark.parametrize("action", ["CreateVolume", "AttachVolume", "DetachVolume", "StopInstances", "StartInstances"])
def test_a_lost_answer_on_the_way_over_an_image_makes_nothing_twice(world, aws, action):
    machine = Machine(world, aws)
    snapshot = machine.row.children.get(device="/dev/xvda").aws_id
    image = machine.ec2.register_image(
        Name="other",
        Architecture="x86_64",
        RootDeviceName="/dev/xvda",
        VirtualizationType="hvm",
        EnaSupport=True,
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
    )["ImageId"]
    aws.fault(service="ec2", action=action, lost_response=True, count=1)

    recovery = machine.recover(image_id=image)

    machine.assert_bytes(ids(recovery)[0])
    assert left_over(world, kept=kept(world, recovery)) == []


def test_throttling_and_lagging_lists_only_delay(world, aws, settings):
    machine = Machine(world, aws)
    aws.fault(service="ec2", action="Describe*", list_lag_seconds=0.3)
    aws.fault(service="ec2", action="*", error="RequestLimitExceeded", status=503, probability=0.1)
    settings.CPM_AWS_LIST_LAG_SECONDS = 1.0

    recovery = machine.recover(restore_from="S")

    aws.clear_faults()
    machine.assert_bytes(ids(recovery)[0])
    assert left_over(world, kept=kept(world, recovery)) == []


def test_copies_queue_at_the_limit_of_parallel_copies(world, aws):
    machine = Machine(world, aws)
    aws.limits(concurrent_copies=1)
    aws.timing(copy_seconds=0.3)

    recovery = machine.recover(to_region=world.region_id("us-west-2"))

    machine.assert_bytes(ids(recovery)[0], "us-west-2")


def test_two_recoveries_that_share_one_snapshot_do_not_hinder_each_other(world, aws):
    volume = aws.volume()
    row = volume_row(world.back_up(world.policy(volume), status="B"))
    other = world.add_account(DR_ACCOUNT)

    both = [start(world, row, to_account=other.pk) for _ in range(2)]
    world.run()

    for recovery in both:
        recovery.refresh_from_db()
        assert recovery.status == "R", recovery.outcome
    assert shared_with(world, row.aws_id) == []


@pytest.mark.parametrize(("detection", "status"), [("S", "F"), ("D", "R")])
def test_an_encrypted_machine_goes_elsewhere_only_with_a_key_that_may_be_used(world, aws, detection, status):
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    volume = aws.volume(Encrypted=True, KmsKeyId=key)
    row = volume_row(world.back_up(world.policy(volume), status="B"))
    other = world.add_account(DR_ACCOUNT)
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"},'
        ' "Action": "kms:*", "Resource": "*"}]}'
    )
    aws.client("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=policy)
    ServerSettings.objects.update_or_create(pk=1, defaults={"encryption_key_detection": detection})

    recovery = recover(world, row, expect=status, to_account=other.pk)

    if status == "F":
        assert "matches the source's key" in recovery.outcome
    else:
        made = aws.client("ec2", account=DR_ACCOUNT).describe_volumes(VolumeIds=ids(recovery))["Volumes"][0]
        assert made["Encrypted"] and aws.sha256(made["VolumeId"]) == aws.sha256(volume)


def test_what_cannot_be_removed_is_named_and_the_recovery_still_counts(world, aws):
    machine = Machine(world, aws)
    aws.fault(service="ec2", action="DeregisterImage", error="UnauthorizedOperation")

    recovery = machine.recover()

    assert "ec2:DeregisterImage" in recovery.outcome and "temporary could be removed" in recovery.outcome
    assert Job.objects.get(kind="recovery", subject_id=recovery.pk).state == "failed"
    machine.assert_bytes(ids(recovery)[0])


def test_an_instance_that_gives_up_while_starting_is_reported(world, aws):
    machine = Machine(world, aws)
    aws.fault(service="ec2", action="RunInstances", error="InsufficientInstanceCapacity")

    recovery = machine.recover(expect="F")

    assert "capacity" in recovery.outcome
    assert left_over(world) == []


def test_volumes_that_are_being_created_are_asked_about_together(world, aws):
    volumes = [aws.volume() for _ in range(5)]
    backup = world.back_up(world.policy(*volumes), status="B")
    aws.timing(volume_seconds=0.4)
    since = aws.last_call()

    for volume in volumes:
        start(world, volume_row(backup, volume))
    world.run()

    looks = [call for call in aws.calls(since) if call["action"] == "DescribeVolumes"]
    assert len(looks) < 5 + 0.4 / 0.05 + 10, "one look each, then one for all of them per interval"
