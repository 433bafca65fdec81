"""Recovery of instances from images: the image starts the machine, its volumes are the snapshots'."""

import pytest

from cpm.lib.errors import ValidationFailed
from cpm.lib.states import AmiOption
from cpm.models import Actor, Step
from cpm.services import recoveries
from tests import factories
from tests.domain.recovering import (
    ids,
    instance,
    left_over,
    log,
    run_and_die,
    start,
    tags_of,
    volumes_of,
)
from tests.domain.test_recover_instance import DEVICES, Machine, kept
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def machine(world, aws):
    """Backed up by snapshots and an initial image; the data changes between the two."""
    made = Machine(world, aws, target={"ami_backup_option": AmiOption.SINGLE})
    aws.write(made.volumes["/dev/xvda"], b"the later backup", 4096)
    made.bytes["/dev/xvda"] = aws.fingerprint(made.volumes["/dev/xvda"])
    backup = world.back_up(made.policy, status="B")
    made.row = backup.snapshots.get(kind="instances")
    aws.write(made.volumes["/dev/xvda"], b"changed since")
    return made


def test_the_initial_image_starts_it_and_its_volumes_are_those_of_the_backup(world, aws, machine):
    machine.destroy()

    recovery = machine.recover(restore_from="I")

    [made] = ids(recovery)
    machine.assert_bytes(made)
    shown = instance(world, made)
    assert shown["State"]["Name"] == "running"
    assert shown["ImageId"] == machine.row.children.model.objects.get(kind="initial_amis").aws_id
    volumes = volumes_of(world, made)
    assert tags_of(volumes["/dev/xvdb"])["disk"] == "data"
    assert [volumes[d]["Attachments"][0]["DeleteOnTermination"] for d in DEVICES] == [True, False]
    assert left_over(world, kept=kept(world, recovery)) == []


def test_volumes_are_changed_and_left_out_as_asked(world, aws, machine):
    wanted = {"volume_id": machine.volumes["/dev/xvda"], "capacity": 7, "volume_type": "gp2"}

    recovery = machine.recover(restore_from="I", instance_volumes=[wanted], ena_support=False)

    volumes = volumes_of(world, ids(recovery)[0])
    assert {device: (v["Size"], v["VolumeType"]) for device, v in volumes.items()} == {"/dev/xvda": (7, "gp2")}


def test_an_image_given_by_id_is_used_whatever_its_root_device_is_called(world, aws, machine):
    snapshot = machine.row.children.get(device="/dev/xvda").aws_id
    image = machine.ec2.register_image(
        Name="other",
        Architecture="x86_64",
        RootDeviceName="/dev/sda1",
        VirtualizationType="hvm",
        EnaSupport=True,
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
    )["ImageId"]

    recovery = machine.recover(image_id=image)

    [made] = ids(recovery)
    assert instance(world, made)["ImageId"] == image
    found = {device: aws.fingerprint(v["VolumeId"]) for device, v in volumes_of(world, made).items()}
    assert found == {"/dev/sda1": machine.bytes["/dev/xvda"], "/dev/xvdb": machine.bytes["/dev/xvdb"]}


def test_an_image_for_another_architecture_is_refused(world, aws, machine):
    recovery = machine.recover(expect="F", restore_from="I", architecture="arm64")

    assert "made for x86_64, not for arm64" in recovery.outcome


def test_a_windows_machine_is_recovered_from_its_image_by_itself(world, aws, machine):
    machine.row.details["platform"] = "windows"
    machine.row.save()

    recovery = machine.recover()

    machine.assert_bytes(ids(recovery)[0])
    assert any("from an image" in line for line in log(recovery))


def test_two_instances_get_volumes_of_their_own(world, aws, machine):
    recovery = machine.recover(restore_from="I", num_instances_to_recover=2)

    assert len(ids(recovery)) == 2
    for made in ids(recovery):
        machine.assert_bytes(made)
    assert left_over(world, kept=kept(world, recovery)) == []


@pytest.mark.parametrize("handling", ["D", "L"])
def test_the_image_follows_to_another_account_and_region(world, aws, machine, handling):
    other = world.add_account(DR_ACCOUNT)

    recovery = machine.recover(
        restore_from="I", to_account=other.pk, to_region=world.region_id("us-west-2"), ami_handling=handling
    )

    [made] = ids(recovery)
    machine.assert_bytes(made, "us-west-2", DR_ACCOUNT)
    ec2 = aws.client("ec2", "us-west-2", DR_ACCOUNT)
    images = ec2.describe_images(Owners=["self"])["Images"]
    assert len(images) == (1 if handling == "L" else 0)
    snapshots = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert len(snapshots) == (2 if handling == "L" else 0)
    permissions = machine.ec2.describe_image_attribute(
        ImageId=machine.ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag-key", "Values": ["cpm_backup_id"]}])[
            "Images"
        ][0]["ImageId"],
        Attribute="launchPermission",
    )
    assert permissions["LaunchPermissions"] == []


def test_when_the_root_volume_cannot_be_switched_nothing_is_left(world, aws, machine):
    aws.fault(service="ec2", action="DetachVolume", error="InvalidParameterValue", count=1)

    recovery = machine.recover(expect="F", restore_from="I", instance_volumes=[{"volume_id": machine.volumes["/dev/xvda"]}])

    assert left_over(world) == []
    assert "root volume" in recovery.outcome


def test_an_abort_in_the_middle_removes_everything(world, aws, machine):
    aws.timing(instance_seconds=600)
    recovery = start(world, machine.row, restore_from="I", additional_nics=[])
    while not Step.objects.filter(kind="recover.launch", token__isnull=False).exists():
        world.work()

    recoveries.abort(actor=world.actor, recovery=recovery)
    aws.timing(instance_seconds=0)
    world.run()

    recovery.refresh_from_db()
    assert (recovery.status, recovery.recovered_resource_ids) == ("F", "")
    assert left_over(world) == []


@pytest.mark.parametrize("asked", ["S", "I"])
@pytest.mark.timeout(280)
def test_a_worker_that_dies_anywhere_makes_nothing_twice(world, aws, machine, settings, monkeypatch, asked):
    settings.CPM_AWS_LIST_LAG_SECONDS = 0.05
    settings.CPM_POLL_SECONDS = 0.02
    machine.destroy()
    region = {"to_region": world.region_id("us-west-2"), "restore_from": asked}
    start(world, machine.row, **region)
    events = run_and_die(world, monkeypatch, None)

    for point in range(2, events + 1, max(1, events // 12)):
        before = set(left_over(world, region="us-west-2"))
        recovery = start(world, machine.row, **region)
        run_and_die(world, monkeypatch, point)

        recovery.refresh_from_db()
        assert recovery.status == "R", (point, recovery.outcome, log(recovery))
        [made] = ids(recovery)
        machine.assert_bytes(made, "us-west-2")
        volumes = {v["VolumeId"] for v in volumes_of(world, made, "us-west-2").values()}
        assert set(left_over(world, region="us-west-2")) == before | {made, *volumes}, point


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"num_instances_to_recover": 0}, "num_instances_to_recover"),
        ({"num_instances_to_recover": 101}, "num_instances_to_recover"),
        ({"user_data": "echo"}, "user_data"),
        ({"kernel_id": "aki-12345678"}, "kernel_id"),
        ({"ram_disk_id": "ari-12345678"}, "ram_disk_id"),
        ({"vpc_assign_ip": "nonsense"}, "vpc_assign_ip"),
        ({"vpc_assign_ip": "10.0.0.9", "num_instances_to_recover": 2}, "vpc_assign_ip"),
        ({"instance_profile_arn": "web"}, "instance_profile_arn"),
        ({"placement": "X"}, "placement"),
        ({"zone": "eu-west-1a"}, "zone"),
        ({"restore_from": "S", "image_id": "ami-0123456789abcdef0"}, "image_id"),
        ({"restore_from": "I", "ami_handling": "O"}, "ami_handling"),
        ({"to_region": 999999}, "to_region"),
        ({"to_account": 999999}, "to_account"),
        ({"from_account": 999999}, "from_account"),
        ({"instance_volumes": [{"volume_id": "vol-00000000000000000"}]}, "instance_volumes"),
        ({"instance_volumes": [{"volume_id": "vol-0000000000000000a", "capacity": 1}]}, "instance_volumes"),
        ({"instance_volumes": [{"volume_id": "vol-0000000000000000a", "volume_type": "sc1"}]}, "instance_volumes"),
        ({"instance_volumes": [{"volume_id": "vol-0000000000000000b", "device": "/dev/xvda"}]}, "instance_volumes"),
        ({"ephemeral_devices": [{"device": "/dev/sdx", "epehemeral": "disk"}]}, "ephemeral_devices"),
        ({"security_groups": [], "vpc": ["here"]}, "vpc"),
    ],
)
def test_requests_that_make_no_sense_name_the_field(request_, field, db):
    backup = factories.backup()
    details = {"aws_root_device": "/dev/xvda", "aws_virtualization_type": "hvm", "platform": "linux"}
    row = factories.snapshot(backup, "instances", source_id="i-00000000000000001", details=details)
    for letter in "ab":
        factories.snapshot(
            backup,
            parent=row,
            source_id=f"vol-0000000000000000{letter}",
            device=f"/dev/xvd{letter}",
            capacity=8,
            details={"type": "gp3", "iops": 3000, "throughput": 125},
        )

    with pytest.raises(ValidationFailed) as refused:
        recoveries.recover_instance(
            actor=Actor.of(backup.user), snapshot=row, request=request_, credentials=None, now=factories.NOW
        )

    assert field in refused.value.to_fields()


