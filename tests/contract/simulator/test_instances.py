"""Instances: what RunInstances takes, refuses and shows."""

import base64

import pytest

from tests.simulated_aws import SimulatedAws, wait_for


def instance_of(ec2, instance_id: str) -> dict:
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def launch(ec2, image: str, **more) -> dict:
    wanted = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **more}
    return ec2.run_instances(**wanted)["Instances"][0]


def subnet_of(ec2, zone: str = "us-east-1b") -> tuple[str, str]:
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone=zone)["Subnet"][
        "SubnetId"
    ]
    return vpc, subnet


def test_launch_overrides_the_mappings_of_the_image(aws: SimulatedAws) -> None:
    """AWS: EC2 User Guide, Block device mappings; EC2 API Reference, RunInstances."""
    ec2 = aws.client("ec2")
    made = launch(
        ec2,
        aws.image((1, 1)),
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 5, "VolumeType": "io1", "Iops": 150}},
            {"DeviceName": "/dev/xvdb", "NoDevice": ""},
            {"DeviceName": "/dev/xvdz", "Ebs": {"VolumeSize": 2, "DeleteOnTermination": False}},
        ],
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "on", "Value": "instance"}]},
            {"ResourceType": "volume", "Tags": [{"Key": "on", "Value": "volume"}]},
        ],
    )

    volumes = ec2.describe_volumes(Filters=[{"Name": "tag:on", "Values": ["volume"]}])["Volumes"]

    shapes = {v["Attachments"][0]["Device"]: (v["Size"], v["VolumeType"], v["Iops"]) for v in volumes}
    assert shapes == {"/dev/xvda": (5, "io1", 150), "/dev/xvdz": (2, "gp2", 100)}
    assert made["Tags"] == [{"Key": "on", "Value": "instance"}]


def test_terminating_deletes_only_the_volumes_that_are_to_go(aws: SimulatedAws) -> None:
    """AWS: EC2 User Guide, Preserve data when an instance is terminated."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance((1, 1))

    ec2.terminate_instances(InstanceIds=[instance])

    assert [v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]] == [devices["/dev/xvdb"]]
    shown = instance_of(ec2, instance)
    assert shown["State"]["Name"] == "terminated" and shown["BlockDeviceMappings"] == []
    assert shown["NetworkInterfaces"] == [] and ec2.describe_network_interfaces()["NetworkInterfaces"] == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"InstanceType": "t9.nano"}, "InvalidParameterValue"),
        ({"InstanceType": "m6g.medium"}, "InvalidParameterValue"),
        ({"KeyName": "none"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"Placement": {"GroupName": "none"}}, "InvalidPlacementGroup.Unknown"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}]},
            "InvalidBlockDeviceMapping",
        ),
        ({"InstanceInitiatedShutdownBehavior": "explode"}, "InvalidParameterValue"),
        ({"MaxCount": 2, "PrivateIpAddress": "172.31.0.50"}, "InvalidParameterCombination"),
    ],
)
def test_launch_that_aws_does_not_offer_is_refused_and_leaves_nothing(
    aws: SimulatedAws, refused, more, code
) -> None:
    """AWS: EC2 API Reference, RunInstances and Error codes."""
    ec2 = aws.client("ec2")
    image = aws.image((2,))

    with refused(code):
        launch(ec2, image, **more)

    assert ec2.describe_instances()["Reservations"] == [] and ec2.describe_volumes()["Volumes"] == []


def test_private_address_must_be_free_and_in_the_subnet(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, RunInstances, PrivateIpAddress; VPC User Guide, Subnet sizing."""
    ec2 = aws.client("ec2")
    image = aws.image()
    vpc, subnet = subnet_of(ec2)

    made = launch(ec2, image, SubnetId=subnet, PrivateIpAddress="10.9.1.77")

    assert (made["PrivateIpAddress"], made["VpcId"]) == ("10.9.1.77", vpc)
    assert made["Placement"]["AvailabilityZone"] == "us-east-1b"
    with refused("InvalidIPAddress.InUse"):
        launch(ec2, image, SubnetId=subnet, PrivateIpAddress="10.9.1.77")
    with refused("InvalidParameterValue"):
        launch(ec2, image, SubnetId=subnet, PrivateIpAddress="10.9.2.1")
    with refused("InvalidParameterValue"):
        launch(ec2, image, SubnetId=subnet, PrivateIpAddress="10.9.1.1")
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    assert (
        launch(ec2, image, SubnetId=subnet, PrivateIpAddress="10.9.1.77")["PrivateIpAddress"] == "10.9.1.77"
    )


def test_several_interfaces_with_groups_addresses_and_an_existing_one(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, InstanceNetworkInterfaceSpecification."""
    ec2 = aws.client("ec2")
    image = aws.image()
    vpc, subnet = subnet_of(ec2)
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    existing = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]

    made = launch(
        ec2,
        image,
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": subnet,
                "Groups": [group],
                "PrivateIpAddress": "10.9.1.10",
                "AssociatePublicIpAddress": True,
            },
            {"DeviceIndex": 1, "NetworkInterfaceId": existing},
        ],
    )

    first, second = sorted(made["NetworkInterfaces"], key=lambda nic: nic["Attachment"]["DeviceIndex"])
    assert first["PrivateIpAddress"] == "10.9.1.10" and [g["GroupId"] for g in first["Groups"]] == [group]
    assert made["PublicIpAddress"] == first["Association"]["PublicIp"]
    assert second["NetworkInterfaceId"] == existing
    assert not second["Attachment"]["DeleteOnTermination"]
    with refused("InvalidNetworkInterface.InUse"):
        launch(ec2, image, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": existing}])
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    left = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [(nic["NetworkInterfaceId"], nic["Status"]) for nic in left] == [(existing, "available")]


def test_everything_set_at_launch_is_shown(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DescribeInstances and DescribeInstanceAttribute."""
    ec2, iam = aws.client("ec2"), aws.client("iam")
    ec2.create_key_pair(KeyName="mine")
    ec2.create_placement_group(GroupName="near", Strategy="cluster")
    iam.create_instance_profile(InstanceProfileName="profile")
    data = "#!/bin/sh\necho ü"

    made = launch(
        ec2,
        aws.image(),
        InstanceType="c5.large",
        KeyName="mine",
        UserData=data,
        IamInstanceProfile={"Name": "profile"},
        InstanceInitiatedShutdownBehavior="terminate",
        DisableApiTermination=True,
        EbsOptimized=True,
        Monitoring={"Enabled": True},
        Placement={"AvailabilityZone": "us-east-1c", "GroupName": "near", "Tenancy": "dedicated"},
    )

    instance = made["InstanceId"]

    def attribute(name: str) -> dict:
        return ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)

    shown = instance_of(ec2, instance)
    placement = {"AvailabilityZone": "us-east-1c", "GroupName": "near", "Tenancy": "dedicated"}
    assert shown["Placement"] == placement and shown["KeyName"] == "mine" and shown["EbsOptimized"]
    assert shown["IamInstanceProfile"]["Arn"].endswith(":instance-profile/profile")
    assert shown["Monitoring"]["State"] == "enabled"
    assert base64.b64decode(attribute("userData")["UserData"]["Value"]).decode() == data
    assert attribute("disableApiTermination")["DisableApiTermination"]["Value"] is True
    assert (
        attribute("instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"]["Value"]
        == "terminate"
    )


def test_protected_instance_is_not_terminated(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 User Guide, Enable termination protection."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance(ImageId=aws.image(), DisableApiTermination=True)

    with refused("OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[instance])
    ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": False})

    assert (
        ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]["InstanceId"] == instance
    )


def test_instance_states_follow_the_timing(aws: SimulatedAws) -> None:
    """AWS: EC2 User Guide, Instance lifecycle."""
    ec2 = aws.client("ec2")
    image = aws.image()
    aws.timing(instance_seconds=0.4)

    made = launch(ec2, image)

    assert made["State"] == {"Code": 0, "Name": "pending"}
    wait_for(lambda: instance_of(ec2, made["InstanceId"])["State"]["Name"] == "running")
    statuses = ec2.describe_instance_status(InstanceIds=[made["InstanceId"]])["InstanceStatuses"]
    assert statuses[0]["InstanceStatus"]["Status"] == "ok"
    ec2.stop_instances(InstanceIds=[made["InstanceId"]])
    assert instance_of(ec2, made["InstanceId"])["State"]["Name"] == "stopped"


def test_client_token_launches_once(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, Ensuring idempotency."""
    ec2 = aws.client("ec2")
    image = aws.image()

    first, second = (launch(ec2, image, MaxCount=3, ClientToken="t")["InstanceId"] for _ in range(2))

    found = ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["t"]}])["Reservations"]
    assert first == second and [len(one["Instances"]) for one in found] == [3]


def test_instances_are_filtered_by_tag_and_listed_in_pages(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DescribeInstances."""
    ec2 = aws.client("ec2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web-1"}]}]
    image = aws.image()
    launch(ec2, image, MinCount=7, MaxCount=7, TagSpecifications=tags)
    launch(ec2, image)
    filters = [
        {"Name": "tag:Name", "Values": ["web-*"]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]

    pages = list(
        ec2.get_paginator("describe_instances").paginate(Filters=filters, PaginationConfig={"PageSize": 5})
    )

    assert [sum(len(r["Instances"]) for r in page["Reservations"]) for page in pages] == [5, 2]


def test_type_of_an_instance_changes_only_when_stopped(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 User Guide, Change the instance type."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance()

    with refused("IncorrectInstanceState"):
        ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.small"})
    ec2.stop_instances(InstanceIds=[instance])
    ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.small"})
    ec2.detach_volume(VolumeId=devices["/dev/xvda"])

    assert instance_of(ec2, instance)["InstanceType"] == "t3.small"
