"""Recovery of volumes against the simulated AWS: every field, DR, other accounts, abort, interruptions."""

import pytest

from cpm.lib.errors import PermissionDenied, PreconditionFailed, ValidationFailed
from cpm.lib.states import Role
from cpm.models import Actor, Job, Recovery, Step
from cpm.services import recoveries
from tests import factories
from tests.domain.recovering import (
    ids,
    left_over,
    log,
    recover,
    run_and_die,
    shared_with,
    start,
    tags_of,
    volume_row,
    volumes_of,
)
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


def backed_up(world, aws, *, data=b"as it was", **options):
    """A volume with data and a backup of it; the volume, the snapshot record and the policy."""
    policy = options.pop("policy", {})
    volume = aws.volume(**options)
    aws.write(volume, data * 1000)
    made = world.policy(volume, **policy)
    backup = world.back_up(made, status="B")
    return volume, volume_row(backup), made


def describe(aws, volume, region="us-east-1", account=None):
    return aws.client("ec2", region, account).describe_volumes(VolumeIds=[volume])["Volumes"][0]


def test_a_volume_comes_back_byte_for_byte_like_the_original(world, aws):
    volume, row, policy = backed_up(world, aws, size=20, VolumeType="gp3", Iops=4000, Throughput=200)
    expected = aws.fingerprint(volume)
    aws.write(volume, b"changed since" * 1000)

    recovery = recover(world, row)

    [made] = ids(recovery)
    assert recovery.recovered_resource_ids == f"{made} (original: {volume})"
    assert aws.fingerprint(made) == expected
    shown = describe(aws, made)
    assert (shown["VolumeType"], shown["Iops"], shown["Throughput"], shown["Size"]) == ("gp3", 4000, 200, 20)
    assert shown["AvailabilityZone"] == "us-east-1a"
    policy.refresh_from_db()
    assert policy.last_recovery_time is not None and policy.last_dr_recovery_time is None
    assert f"Recovered {made}." in recovery.outcome
    assert left_over(world, kept={made}) == []


def test_zone_type_size_and_iops_are_those_asked_for(world, aws):
    _, row, _ = backed_up(world, aws)

    recovery = recover(world, row, zone="us-east-1b", capacity=10, aws_resource_type="io1", iops=300)

    shown = describe(aws, ids(recovery)[0])
    assert (shown["AvailabilityZone"], shown["Size"]) == ("us-east-1b", 10)
    assert (shown["VolumeType"], shown["Iops"]) == ("io1", 300)


@pytest.mark.parametrize("preserve", [True, False])
def test_tags_come_back_unless_told_otherwise_and_a_backup_tag_is_warned_of(world, aws, preserve):
    volume = aws.volume()
    tags = [{"Key": "Name", "Value": "data"}, {"Key": "cpm backup", "Value": "p1"}]
    aws.client("ec2").create_tags(Resources=[volume], Tags=tags)
    row = volume_row(world.back_up(world.policy(volume), status="B"))

    recovery = recover(world, row, preserve_tags=preserve)

    found = tags_of(describe(aws, ids(recovery)[0]))
    assert found.get("Name") == ("data" if preserve else None)
    assert found["cpm_recovery_id"] == str(recovery.pk) and "cpm_backup_id" not in found
    assert any("next tag scan" in line for line in log(recovery)) is preserve


def test_a_volume_is_attached_to_a_free_device_in_the_zone_of_the_instance(world, aws):
    _, row, _ = backed_up(world, aws)
    instance, devices = aws.instance((1,))

    recovery = recover(world, row, attach_to=instance, device="/dev/sdf", attach_behaviour="attach_free")

    [made] = ids(recovery)
    assert volumes_of(world, instance)["/dev/sdf"]["VolumeId"] == made
    assert volumes_of(world, instance)["/dev/xvda"]["VolumeId"] == devices["/dev/xvda"]


def test_a_taken_device_is_refused_before_anything_is_made(world, aws):
    _, row, _ = backed_up(world, aws)
    instance, devices = aws.instance((1, 1))

    recovery = recover(
        world, row, expect="F", attach_to=instance, device="/dev/xvdb", attach_behaviour="attach_free"
    )

    assert f"/dev/xvdb of {instance} is taken by {devices['/dev/xvdb']}" in recovery.outcome
    assert left_over(world) == [] and recovery.recovered_resource_ids == ""


@pytest.mark.parametrize("behaviour", ["switch_no_delete", "switch_and_delete"])
@pytest.mark.parametrize("device", ["/dev/xvda", "/dev/xvdb"])
def test_a_volume_is_switched_for_the_old_one_on_a_stopped_instance(world, aws, behaviour, device):
    volume, row, _ = backed_up(world, aws)
    instance, devices = aws.instance((1, 1))
    ec2 = aws.client("ec2")
    ec2.stop_instances(InstanceIds=[instance])
    flag = {d: v["Attachments"][0]["DeleteOnTermination"] for d, v in volumes_of(world, instance).items()}

    recovery = recover(world, row, attach_to=instance, device=device, attach_behaviour=behaviour)

    now = volumes_of(world, instance)[device]
    assert now["VolumeId"] == ids(recovery)[0]
    assert aws.sha256(now["VolumeId"]) == aws.sha256(volume)
    assert now["Attachments"][0]["DeleteOnTermination"] == flag[device]
    old = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [devices[device]]}])["Volumes"]
    assert [one["State"] for one in old] == ([] if behaviour == "switch_and_delete" else ["available"])


def test_switching_on_a_running_instance_is_refused(world, aws):
    _, row, _ = backed_up(world, aws)
    instance, _ = aws.instance((1, 1))

    recovery = recover(
        world, row, expect="F", attach_to=instance, device="/dev/xvdb", attach_behaviour="switch_and_delete"
    )

    assert f"Stop {instance} first" in recovery.outcome
    assert left_over(world) == []


def test_when_attaching_fails_the_old_volume_goes_back_and_the_new_one_is_kept(world, aws):
    _, row, _ = backed_up(world, aws)
    instance, devices = aws.instance((1, 1))
    aws.client("ec2").stop_instances(InstanceIds=[instance])
    aws.fault(service="ec2", action="AttachVolume", error="InvalidParameterValue", count=1)

    recovery = recover(
        world, row, expect="A", attach_to=instance, device="/dev/xvdb", attach_behaviour="switch_and_delete"
    )

    assert volumes_of(world, instance)["/dev/xvdb"]["VolumeId"] == devices["/dev/xvdb"]
    assert describe(aws, ids(recovery)[0])["State"] == "available"
    assert "was put back" in recovery.outcome


def test_a_volume_is_recovered_into_another_account_and_the_share_is_taken_back(world, aws):
    volume, row, _ = backed_up(world, aws)
    other = world.add_account(DR_ACCOUNT)

    recovery = recover(world, row, to_account=other.pk)

    [made] = ids(recovery)
    assert describe(aws, made, account=DR_ACCOUNT)["State"] == "available"
    assert aws.sha256(made) == aws.sha256(volume)
    assert shared_with(world, row.aws_id) == []


def test_a_permission_that_was_there_before_stays(world, aws):
    _, row, _ = backed_up(world, aws)
    other = world.add_account(DR_ACCOUNT)
    aws.client("ec2").modify_snapshot_attribute(
        SnapshotId=row.aws_id, Attribute="createVolumePermission", OperationType="add", UserIds=[DR_ACCOUNT]
    )

    recover(world, row, to_account=other.pk)

    assert shared_with(world, row.aws_id) == [DR_ACCOUNT]


def test_what_is_encrypted_with_the_default_key_cannot_go_to_another_account(world, aws):
    _, row, _ = backed_up(world, aws, Encrypted=True)
    other = world.add_account(DR_ACCOUNT)

    recovery = recover(world, row, expect="F", to_account=other.pk)

    assert "default key aws/ebs" in recovery.outcome


def test_an_encrypted_volume_comes_back_encrypted_with_its_key(world, aws):
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    volume, row, _ = backed_up(world, aws, Encrypted=True, KmsKeyId=key)

    recovery = recover(world, row)

    shown = describe(aws, ids(recovery)[0])
    assert (shown["Encrypted"], shown["KmsKeyId"]) == (True, key)
    assert aws.sha256(shown["VolumeId"]) == aws.sha256(volume)


def test_a_dr_copy_is_recovered_where_it_is_when_everything_else_is_gone(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    dr = {"dr_enabled": True, "dr_account": dr_account, "dr_account_regions": [world.region_id("eu-west-1")]}
    volume, row, policy = backed_up(world, aws, policy=dr)
    expected = aws.sha256(volume)
    aws.client("ec2").delete_volume(VolumeId=volume)
    aws.client("ec2").delete_snapshot(SnapshotId=row.aws_id)
    copy = volume_row(row.backup, kind="dr_volumes")

    recovery = recover(world, copy)

    [made] = ids(recovery)
    assert aws.sha256(made) == expected
    assert describe(aws, made, "eu-west-1", DR_ACCOUNT)["AvailabilityZone"].startswith("eu-west-1")
    policy.refresh_from_db()
    assert policy.last_dr_recovery_time is not None and policy.last_recovery_time is None
    assert Recovery.objects.get(pk=recovery.pk).from_dr


def test_a_lost_native_snapshot_is_replaced_by_its_dr_copy(world, aws):
    dr = {"dr_enabled": True, "dr_regions": [world.region_id("us-west-2")]}
    volume, row, _ = backed_up(world, aws, policy=dr)
    aws.client("ec2").delete_snapshot(SnapshotId=row.aws_id)

    recovery = recover(world, row)

    [made] = ids(recovery)
    assert aws.sha256(made) == aws.sha256(volume)
    assert left_over(world, kept={made}) == []


def test_given_credentials_are_used_and_never_kept(world, aws):
    _, row, _ = backed_up(world, aws)
    key, secret = aws.credentials()
    world.account.access_key = "AKIANOTWORKING000000"
    world.account.save()

    recovery = start(world, row, credentials={"aws_access_key": key, "aws_secret_key": secret})
    job = Job.objects.get(kind="recovery", subject_id=recovery.pk)
    assert job.secret and secret not in job.secret
    world.run()

    recovery.refresh_from_db()
    assert recovery.status == "R", recovery.outcome
    job.refresh_from_db()
    assert job.secret == ""
    assert secret not in str(recovery.request) + " ".join(log(recovery)) + str(list(Step.objects.values("payload")))


def test_a_snapshot_that_is_gone_is_said_in_words(world, aws):
    _, row, _ = backed_up(world, aws)
    aws.client("ec2").delete_snapshot(SnapshotId=row.aws_id)

    recovery = recover(world, row, expect="F")

    assert f"{row.aws_id} no longer exists in us-east-1" in recovery.outcome
    assert Job.objects.get(kind="recovery", subject_id=recovery.pk).state == "failed"


def test_an_aborted_recovery_removes_the_volume_it_has_made(world, aws):
    _, row, _ = backed_up(world, aws)
    aws.timing(volume_seconds=1.5)
    recovery = start(world, row)
    while not Step.objects.filter(kind="recover.volume", token__isnull=False).exists():
        world.work()

    recoveries.abort(actor=world.actor, recovery=recovery)
    aws.timing(volume_seconds=0)
    world.run()

    recovery.refresh_from_db()
    assert (recovery.status, recovery.recovered_resource_ids) == ("F", "")
    assert recovery.outcome.startswith("Aborted")
    assert left_over(world) == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"zone": "us-west-2a"}, "zone"),
        ({"zone": "nonsense"}, "zone"),
        ({"capacity": 1}, "capacity"),
        ({"aws_resource_type": "floppy"}, "aws_resource_type"),
        ({"aws_resource_type": "gp2", "iops": 500}, "iops"),
        ({"aws_resource_type": "io1"}, "iops"),
        ({"aws_resource_type": "io1", "iops": 5000}, "iops"),
        ({"attach_to": "i-0123456789abcdef0"}, "device"),
        ({"attach_to": "i-0123456789abcdef0", "device": "/dev/sdf"}, "attach_behaviour"),
        ({"attach_to": "server", "device": "/dev/sdf", "attach_behaviour": "attach_free"}, "attach_to"),
        ({"to_account": 99999999}, "to_account"),
    ],
)
def test_requests_that_make_no_sense_name_the_field(request_, field, db):
    account = factories.account()
    row = factories.snapshot(
        factories.backup(factories.policy(account)), capacity=4, details={"type": "gp2", "zone": "us-east-1a"}
    )

    with pytest.raises(ValidationFailed) as refused:
        recoveries.recover_volume(
            actor=Actor.of(account.user), snapshot=row, request=request_, credentials=None, now=factories.NOW
        )

    assert field in refused.value.to_fields()
    assert not Recovery.objects.exists()


@pytest.mark.parametrize(
    ("backup", "snapshot"),
    [
        ({"status": "D"}, {}),
        ({"status": "P"}, {}),
        ({"status": "F"}, {}),
        ({"status": "G"}, {}),
        ({"deleted_at": factories.NOW}, {}),
        ({}, {"status": "deleted"}),
        ({}, {"status": "error", "succeeded": False}),
    ],
)
def test_what_cannot_be_recovered_is_refused_at_once(backup, snapshot, db):
    row = factories.snapshot(factories.backup(**backup), **snapshot)

    with pytest.raises(PreconditionFailed):
        recoveries.recover_volume(
            actor=Actor.of(row.backup.user), snapshot=row, request={}, credentials=None, now=factories.NOW
        )


def test_a_delegate_needs_the_right_to_recover(db):
    row = factories.snapshot()
    delegate = factories.delegate(row.backup.user)

    with pytest.raises(PermissionDenied):
        recoveries.recover_volume(
            actor=Actor.of(delegate), snapshot=row, request={}, credentials=None, now=factories.NOW
        )

    assert delegate.role == Role.DELEGATE


def test_only_the_record_of_a_finished_recovery_is_deleted(world, aws):
    _, row, _ = backed_up(world, aws)
    recovery = start(world, row)

    with pytest.raises(PreconditionFailed):
        recoveries.delete(actor=world.actor, recovery=recovery)
    world.run()
    recovery.refresh_from_db()
    made = ids(recovery)
    recoveries.delete(actor=world.actor, recovery=recovery)

    assert not Recovery.objects.exists()
    assert describe(aws, made[0])["State"] == "available"


@pytest.mark.timeout(240)
def test_a_worker_that_dies_anywhere_makes_nothing_twice(world, aws, settings, monkeypatch):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0.05
    settings.CPM_POLL_SECONDS = 0.02
    dr = {"dr_enabled": True, "dr_regions": [world.region_id("us-west-2")]}
    volume, row, _ = backed_up(world, aws, policy=dr)
    aws.client("ec2").delete_snapshot(SnapshotId=row.aws_id)
    instance, _ = aws.instance((1, 1))
    aws.client("ec2").stop_instances(InstanceIds=[instance])
    attach = {"attach_to": instance, "device": "/dev/xvdb", "attach_behaviour": "switch_and_delete"}
    start(world, row, **attach)
    events = run_and_die(world, monkeypatch, None)

    for point in range(1, events + 1, 3):
        recovery = start(world, row, **attach)
        run_and_die(world, monkeypatch, point)

        recovery.refresh_from_db()
        assert recovery.status == "R", (point, recovery.outcome, log(recovery))
        [made] = ids(recovery)
        assert volumes_of(world, instance)["/dev/xvdb"]["VolumeId"] == made
        assert aws.fingerprint(made) == aws.fingerprint(volume)
        assert left_over(world, kept={made}) == [], point
