"""Recovery of instances from snapshots: the machine as it was, and every field that changes it."""

import base64

import pytest

from cpm.lib.states import AmiOption
from cpm.models import Recovery
from tests.domain.recovering import (
    ids,
    instance,
    instance_row,
    left_over,
    log,
    recover,
    shared_with,
    tags_of,
    volumes_of,
)
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)

DEVICES = ("/dev/xvda", "/dev/xvdb")


class Machine:
    """An instance in a network of its own, with data on its volumes, and a backup of it."""

    def __init__(self, world, aws, **options):
        self.world, self.aws, self.ec2 = world, aws, aws.client("ec2")
        policy = options.pop("policy", {})
        target = options.pop("target", {})
        self.network()
        self.profile = aws.client("iam").create_instance_profile(InstanceProfileName="web")["InstanceProfile"]["Arn"]
        self.ec2.create_key_pair(KeyName="ops")
        self.id, self.volumes = aws.instance(
            (1, 2),
            SubnetId=self.subnet,
            SecurityGroupIds=[self.group],
            PrivateIpAddress="10.1.1.20",
            KeyName="ops",
            UserData="#!/bin/sh\necho original",
            DisableApiTermination=True,
            InstanceInitiatedShutdownBehavior="terminate",
            Monitoring={"Enabled": True},
            IamInstanceProfile={"Arn": self.profile},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}],
            **options,
        )
        for number, device in enumerate(DEVICES):
            aws.write(self.volumes[device], bytes([65 + number]) * 4096)
        self.ec2.create_tags(Resources=[self.volumes["/dev/xvdb"]], Tags=[{"Key": "disk", "Value": "data"}])
        self.bytes = {device: aws.fingerprint(self.volumes[device]) for device in DEVICES}
        self.policy = world.policy(**policy)
        world.target(self.policy, self.id, **target)
        self.backup = world.back_up(self.policy, status="B")
        self.row = instance_row(self.backup)
        aws.write(self.volumes["/dev/xvda"], b"changed since")

    def network(self):
        self.vpc = self.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.add_subnet("10.1.1.0/24", "us-east-1a")
        self.group = self.ec2.create_security_group(GroupName="web", Description="web", VpcId=self.vpc)["GroupId"]

    def add_subnet(self, cidr, zone):
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=zone)
        return made["Subnet"]["SubnetId"]

    def destroy(self):
        self.ec2.modify_instance_attribute(InstanceId=self.id, DisableApiTermination={"Value": False})
        self.ec2.terminate_instances(InstanceIds=[self.id])
        for volume in self.ec2.describe_volumes()["Volumes"]:
            if volume["State"] == "available":
                self.ec2.delete_volume(VolumeId=volume["VolumeId"])

    def recover(self, **request):
        return recover(self.world, self.row, **request)

    def attribute(self, instance_id, name, key):
        return self.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name)[key].get("Value")

    def assert_bytes(self, instance_id, region="us-east-1", account="123456789012", devices=DEVICES):
        found = volumes_of(self.world, instance_id, region, account)
        assert {device: self.aws.fingerprint(v["VolumeId"]) for device, v in found.items()} == {
            device: self.bytes[device] for device in devices
        }


def kept(world, recovery):
    """The instances that came back, with their volumes and interfaces."""
    made = ids(recovery)
    found = {v["VolumeId"] for i in made for v in volumes_of(world, i).values()}
    nics = {n["NetworkInterfaceId"] for i in made for n in instance(world, i)["NetworkInterfaces"]}
    return {*made, *found, *nics}


def test_a_lost_instance_comes_back_as_it_was(world, aws):
    machine = Machine(world, aws)
    machine.destroy()

    recovery = machine.recover()

    [made] = ids(recovery)
    assert recovery.recovered_resource_ids == f"{made} (original: {machine.id})"
    machine.assert_bytes(made)
    shown = instance(world, made)
    assert shown["State"]["Name"] == "running"
    assert (shown["InstanceType"], shown["KeyName"], shown["SubnetId"]) == ("t3.micro", "ops", machine.subnet)
    assert shown["PrivateIpAddress"] == "10.1.1.20"
    assert [group["GroupId"] for group in shown["SecurityGroups"]] == [machine.group]
    assert shown["IamInstanceProfile"]["Arn"] == machine.profile
    assert shown["Monitoring"]["State"] == "enabled"
    assert tags_of(shown)["Name"] == "web"
    assert tags_of(volumes_of(world, made)["/dev/xvdb"])["disk"] == "data"
    assert machine.attribute(made, "disableApiTermination", "DisableApiTermination") is True
    assert machine.attribute(made, "instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior") == "terminate"
    assert base64.b64decode(machine.attribute(made, "userData", "UserData")) == b"#!/bin/sh\necho original"
    assert left_over(world, kept=kept(world, recovery)) == []
    machine.policy.refresh_from_db()
    assert machine.policy.last_recovery_time is not None


def test_while_the_original_runs_its_address_is_replaced_by_another_one(world, aws):
    machine = Machine(world, aws)

    recovery = machine.recover()

    assert instance(world, ids(recovery)[0])["PrivateIpAddress"] != "10.1.1.20"
    assert any("10.1.1.20 is in use" in line for line in log(recovery))


def test_settings_of_the_launch_are_those_asked_for(world, aws):
    machine = Machine(world, aws)
    machine.ec2.create_key_pair(KeyName="other")
    group = machine.ec2.create_security_group(GroupName="db", Description="db", VpcId=machine.vpc)["GroupId"]
    profile = aws.client("iam").create_instance_profile(InstanceProfileName="db")["InstanceProfile"]["Arn"]

    recovery = machine.recover(
        instance_type="m5.large",
        key_pair="other",
        security_groups=[group],
        instance_profile_arn=profile,
        shutdown_behaviour="stop",
        tenancy="dedicated",
        monitored=False,
        ebs_optimized=True,
        disable_api_termination=False,
        enable_user_data=True,
        user_data="echo new",
        preserve_tags=False,
        vpc_assign_ip="10.1.1.77",
    )

    [made] = ids(recovery)
    shown = instance(world, made)
    assert (shown["InstanceType"], shown["KeyName"], shown["PrivateIpAddress"]) == ("m5.large", "other", "10.1.1.77")
    assert [one["GroupId"] for one in shown["SecurityGroups"]] == [group]
    assert shown["IamInstanceProfile"]["Arn"] == profile
    assert shown["Placement"]["Tenancy"] == "dedicated"
    assert shown["Monitoring"]["State"] == "disabled"
    assert shown["EbsOptimized"] is True
    assert "Name" not in tags_of(shown) and tags_of(shown)["cpm_recovery_id"] == str(recovery.pk)
    assert machine.attribute(made, "disableApiTermination", "DisableApiTermination") is False
    assert machine.attribute(made, "instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior") == "stop"
    assert base64.b64decode(machine.attribute(made, "userData", "UserData")) == b"echo new"


def test_user_data_is_left_out_when_it_is_switched_off(world, aws):
    machine = Machine(world, aws)

    recovery = machine.recover(enable_user_data=False)

    assert not machine.attribute(ids(recovery)[0], "userData", "UserData")


def test_volumes_are_chosen_and_changed_one_by_one(world, aws):
    machine = Machine(world, aws)
    wanted = {
        "volume_id": machine.volumes["/dev/xvdb"],
        "capacity": 10,
        "volume_type": "io1",
        "iops": 200,
        "device": "/dev/xvdf",
        "delete_on_termination": True,
        "preserve_tags": False,
    }

    recovery = machine.recover(instance_volumes=[wanted])

    volumes = volumes_of(world, ids(recovery)[0])
    assert set(volumes) == {"/dev/xvda", "/dev/xvdf"}
    changed = volumes["/dev/xvdf"]
    assert (changed["Size"], changed["VolumeType"], changed["Iops"]) == (10, "io1", 200)
    assert changed["Attachments"][0]["DeleteOnTermination"] is True
    assert "disk" not in tags_of(changed)


def test_the_root_volume_comes_back_even_when_others_alone_are_listed_and_others_do_not(world, aws):
    machine = Machine(world, aws)

    recovery = machine.recover(instance_volumes=[{"volume_id": machine.volumes["/dev/xvda"], "capacity": 5}])

    volumes = volumes_of(world, ids(recovery)[0])
    assert {device: volume["Size"] for device, volume in volumes.items()} == {"/dev/xvda": 5}


def test_the_placement_follows_the_request(world, aws):
    machine = Machine(world, aws)
    subnet = machine.add_subnet("10.1.2.0/24", "us-east-1b")
    machine.ec2.create_placement_group(GroupName="close", Strategy="cluster")

    by_subnet = machine.recover(placement="V", vpc=[machine.vpc], vpc_subnet_id=[subnet], vpc_assign_ip="10.1.2.9")
    by_zone = machine.recover(placement="Z", zone="us-east-1b")
    by_group = machine.recover(placement="G", placement_group="close", instance_type="m5.large")
    by_default_zone = machine.recover(placement="Z", zone="us-east-1c")

    shown = instance(world, ids(by_subnet)[0])
    assert (shown["SubnetId"], shown["PrivateIpAddress"]) == (subnet, "10.1.2.9")
    assert instance(world, ids(by_zone)[0])["SubnetId"] == subnet
    assert instance(world, ids(by_group)[0])["Placement"]["GroupName"] == "close"
    elsewhere = instance(world, ids(by_default_zone)[0])
    assert elsewhere["Placement"]["AvailabilityZone"] == "us-east-1c" and elsewhere["VpcId"] != machine.vpc


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"vpc_assign_ip": "10.1.1.20"}, "in use"),
        ({"vpc_assign_ip": "10.9.9.9"}, "not free for use"),
        ({"vpc_assign_ip": "10.1.1.2"}, "not free for use"),
        ({"placement": "V", "vpc_subnet_id": ["subnet-00000000000000000"]}, "does not exist"),
        ({"placement": "V", "vpc": ["vpc-00000000000000000"]}, "no subnet in VPC"),
        ({"placement": "G", "placement_group": "none"}, "no placement group"),
        ({"key_pair": "none"}, "no key pair"),
        ({"security_groups": ["sg-00000000000000000"]}, "security group"),
        ({"additional_nics": ["eni-00000000000000000"]}, "no interface"),
        ({"restore_from": "I", "image_id": "ami-00000000000000000"}, "does not exist"),
        ({"instance_type": "t3.nonsense"}, "t3.nonsense"),
        ({"instance_type": "m6g.large"}, "architecture"),
    ],
)
def test_what_aws_does_not_have_fails_in_words_and_leaves_nothing(world, aws, request_, words):
    machine = Machine(world, aws)

    recovery = machine.recover(expect="F", **request_)

    assert words in recovery.outcome
    assert left_over(world) == [] and recovery.recovered_resource_ids == ""


@pytest.mark.parametrize(("choice", "public"), [("enable", True), ("disable", False), ("default", False)])
def test_a_public_address_is_given_as_asked(world, aws, choice, public):
    machine = Machine(world, aws)

    recovery = machine.recover(auto_assign_public_ip=choice)

    shown = instance(world, ids(recovery)[0])
    assert bool(shown.get("PublicIpAddress")) is public
    assert shown["SubnetId"] == machine.subnet and shown["SecurityGroups"][0]["GroupId"] == machine.group


def test_additional_interfaces_are_attached_or_made_again(world, aws):
    machine = Machine(world, aws)
    free = machine.ec2.create_network_interface(SubnetId=machine.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    lost = {"id": "eni-0aaaaaaaaaaaaaaaa", "subnet": machine.subnet, "groups": [machine.group], "device_index": 1}
    machine.row.details["network_interfaces"].append(lost)
    machine.row.save()

    recovery = machine.recover(additional_nics=[free, lost["id"]])

    nics = {n["Attachment"]["DeviceIndex"]: n for n in instance(world, ids(recovery)[0])["NetworkInterfaces"]}
    assert set(nics) == {0, 1, 2}
    assert nics[1]["NetworkInterfaceId"] == free
    assert nics[2]["SubnetId"] == machine.subnet and nics[2]["Groups"][0]["GroupId"] == machine.group
    assert left_over(world, kept=kept(world, recovery)) == []


def test_several_instances_come_from_one_image(world, aws):
    machine = Machine(world, aws)

    recovery = machine.recover(num_instances_to_recover=3)

    assert len(set(ids(recovery))) == 3
    for made in ids(recovery):
        machine.assert_bytes(made)
    assert left_over(world, kept=kept(world, recovery)) == []


@pytest.mark.parametrize(("handling", "images", "instances"), [("D", 0, 1), ("L", 1, 1), ("O", 1, 0)])
def test_the_temporary_image_is_handled_as_asked(world, aws, handling, images, instances):
    machine = Machine(world, aws)

    recovery = machine.recover(ami_handling=handling)

    filters = [{"Name": "tag:cpm_recovery_id", "Values": [str(recovery.pk)]}]
    found = machine.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    assert len(found) == images
    assert sum(one.startswith("i-") for one in ids(recovery)) == instances
    if handling == "O":
        assert ids(recovery) == [found[0]["ImageId"]]
        assert [m["DeviceName"] for m in found[0]["BlockDeviceMappings"]] == list(DEVICES)


def test_the_image_is_registered_with_the_machine_asked_for(world, aws):
    machine = Machine(world, aws)

    recovery = machine.recover(
        ami_handling="O",
        architecture="arm64",
        ena_support=False,
        ephemeral_devices=[{"device": "/dev/sdx", "epehemeral": "ephemeral0"}],
    )

    image = machine.ec2.describe_images(ImageIds=ids(recovery))["Images"][0]
    assert (image["Architecture"], image["EnaSupport"]) == ("arm64", False)
    assert {"DeviceName": "/dev/sdx", "VirtualName": "ephemeral0"} in image["BlockDeviceMappings"]


def test_an_instance_goes_to_another_region_and_account_on_the_way(world, aws):
    machine = Machine(world, aws)
    other = world.add_account(DR_ACCOUNT)
    native = {row.aws_id for row in machine.row.children.filter(kind="volumes")}

    recovery = machine.recover(to_account=other.pk, to_region=world.region_id("eu-west-1"))

    [made] = ids(recovery)
    machine.assert_bytes(made, "eu-west-1", DR_ACCOUNT)
    assert instance(world, made, "eu-west-1", DR_ACCOUNT)["State"]["Name"] == "running"
    volumes = {v["VolumeId"] for v in volumes_of(world, made, "eu-west-1", DR_ACCOUNT).values()}
    assert left_over(world, kept={made, *volumes}, region="eu-west-1", account=DR_ACCOUNT) == []
    assert all(shared_with(world, snapshot) == [] for snapshot in native)


def test_an_instance_is_recovered_from_dr_when_its_account_is_lost(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    region = world.region_id("eu-west-1")
    dr = {"dr_enabled": True, "dr_account": dr_account, "dr_account_regions": [region]}
    machine = Machine(world, aws, policy=dr)
    machine.destroy()
    for row in machine.row.children.filter(kind="volumes"):
        machine.ec2.delete_snapshot(SnapshotId=row.aws_id)
    world.account.access_key = "AKIANOTWORKING000000"
    world.account.save()

    recovery = machine.recover(to_account=dr_account.pk, to_region=region, from_account=dr_account.pk)

    [made] = ids(recovery)
    machine.assert_bytes(made, "eu-west-1", DR_ACCOUNT)
    assert Recovery.objects.get(pk=recovery.pk).from_dr
    machine.policy.refresh_from_db()
    assert machine.policy.last_dr_recovery_time is not None


def test_a_volume_without_a_snapshot_makes_the_recovery_partial(world, aws):
    machine = Machine(world, aws)
    row = machine.row.children.get(device="/dev/xvdb")
    row.status, row.succeeded = "error", False
    row.save()

    recovery = machine.recover(expect="A")

    assert set(volumes_of(world, ids(recovery)[0])) == {"/dev/xvda"}
    assert machine.volumes["/dev/xvdb"] in recovery.outcome


def test_a_backup_tag_that_comes_back_is_warned_of(world, aws):
    machine = Machine(world, aws)
    machine.row.details["tags"]["cpm_backup"] = machine.policy.name
    machine.row.save()

    recovery = machine.recover()

    assert tags_of(instance(world, ids(recovery)[0]))["cpm_backup"] == machine.policy.name
    assert any("next tag scan" in line for line in log(recovery))


def test_an_image_backup_is_launched_with_its_own_volumes(world, aws):
    machine = Machine(world, aws, target={"ami_backup_option": AmiOption.ONLY})
    machine.destroy()

    recovery = machine.recover(instance_volumes=[{"volume_id": machine.volumes["/dev/xvdb"], "capacity": 9}])

    [made] = ids(recovery)
    machine.assert_bytes(made)
    assert volumes_of(world, made)["/dev/xvdb"]["Size"] == 9
    image = machine.row.children.get(kind="only_amis").aws_id
    assert machine.ec2.describe_images(ImageIds=[image])["Images"]
