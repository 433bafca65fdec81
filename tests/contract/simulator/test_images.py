"""AMIs: all their volumes and tags, copies, sharing."""

import pytest

from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"


def image_of(ec2, image_id: str) -> dict:
    return ec2.describe_images(ImageIds=[image_id])["Images"][0]


def test_image_of_an_instance_has_all_its_volumes_and_launches_with_their_bytes(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CreateImage and RunInstances."""
    ec2 = aws.client("ec2")
    instance, devices = aws.instance((1, 2, 1))
    for device, volume in devices.items():
        aws.write(volume, device.encode() * 50_000)
    before = {device: aws.fingerprint(volume) for device, volume in devices.items()}

    image = ec2.create_image(
        InstanceId=instance,
        Name="all volumes",
        NoReboot=True,
        TagSpecifications=[
            {"ResourceType": "image", "Tags": [{"Key": "of", "Value": "image"}]},
            {"ResourceType": "snapshot", "Tags": [{"Key": "of", "Value": "snapshot"}]},
        ],
    )["ImageId"]
    for volume in devices.values():
        aws.write(volume, b"later")

    shown = image_of(ec2, image)
    assert shown["Tags"] == [{"Key": "of", "Value": "image"}] and shown["SourceInstanceId"] == instance
    assert {m["DeviceName"]: m["Ebs"]["VolumeSize"] for m in shown["BlockDeviceMappings"]} == {
        "/dev/xvda": 1,
        "/dev/xvdb": 2,
        "/dev/xvdc": 1,
    }
    ids = [m["Ebs"]["SnapshotId"] for m in shown["BlockDeviceMappings"]]
    tags = [one["Tags"] for one in ec2.describe_snapshots(SnapshotIds=ids)["Snapshots"]]
    assert tags == [[{"Key": "of", "Value": "snapshot"}]] * 3
    _, launched = aws.instance(ImageId=image)
    assert {device: aws.fingerprint(volume) for device, volume in launched.items()} == before


@pytest.mark.parametrize(("no_reboot", "reboots"), [(True, 0), (False, 1)])
def test_image_reboots_the_instance_unless_told_not_to(
    aws: SimulatedAws, no_reboot: bool, reboots: int
) -> None:
    """AWS: EC2 API Reference, CreateImage, NoReboot."""
    instance, _ = aws.instance()
    since = aws.last_call()

    aws.client("ec2").create_image(InstanceId=instance, Name="image", NoReboot=no_reboot)

    assert aws.count(since)["by_action"].get("internal:RebootInstances", 0) == reboots


def test_image_is_pending_until_it_is_available(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 User Guide, AMI states; EC2 API Reference, RunInstances."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance()
    aws.timing(image_seconds=0.4)

    image = ec2.create_image(InstanceId=instance, Name="slow")["ImageId"]

    assert image_of(ec2, image)["State"] == "pending"
    with refused("InvalidAMIID.Unavailable"):
        ec2.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1)
    wait_for(lambda: image_of(ec2, image)["State"] == "available")


def test_image_names_are_unique_and_well_formed(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, CreateImage, Name."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance()
    ec2.create_image(InstanceId=instance, Name="taken")

    with refused("InvalidAMIName.Duplicate"):
        ec2.create_image(InstanceId=instance, Name="taken")
    with refused("InvalidAMIName.Malformed"):
        ec2.create_image(InstanceId=instance, Name="no*star")


def test_image_leaves_out_devices_marked_no_device(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CreateImage, BlockDeviceMappings."""
    ec2 = aws.client("ec2")
    instance, _ = aws.instance((1, 1))

    image = ec2.create_image(
        InstanceId=instance,
        Name="root only",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvdb", "NoDevice": ""}],
    )["ImageId"]

    assert [m["DeviceName"] for m in image_of(ec2, image)["BlockDeviceMappings"]] == ["/dev/xvda"]


def test_registered_image_has_its_mappings(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, RegisterImage."""
    ec2 = aws.client("ec2")
    snapshot = ec2.create_snapshot(VolumeId=aws.volume(size=2))["SnapshotId"]
    mappings = [
        {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 3, "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    wanted = {"Name": "made", "Architecture": "arm64", "VirtualizationType": "hvm", "EnaSupport": True}

    image = ec2.register_image(**wanted, RootDeviceName="/dev/sda1", BlockDeviceMappings=mappings)["ImageId"]

    shown = image_of(ec2, image)
    assert shown["Architecture"] == "arm64" and shown["RootDeviceName"] == "/dev/sda1" and shown["EnaSupport"]
    root, ephemeral = shown["BlockDeviceMappings"]
    assert root["Ebs"]["VolumeSize"] == 3 and root["Ebs"]["DeleteOnTermination"] is True
    assert ephemeral == {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}
    with refused("InvalidBlockDeviceMapping"):
        ec2.register_image(
            **{**wanted, "Name": "bad"}, RootDeviceName="/dev/xvda", BlockDeviceMappings=mappings
        )


def test_snapshot_of_an_image_goes_only_after_the_image(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, DeleteSnapshot and DeregisterImage."""
    ec2 = aws.client("ec2")
    image = aws.image((1, 1))
    first, second = (m["Ebs"]["SnapshotId"] for m in image_of(ec2, image)["BlockDeviceMappings"])

    with refused("InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=first)
    ec2.deregister_image(ImageId=image)

    with refused("InvalidAMIID.NotFound"):
        image_of(ec2, image)
    ec2.delete_snapshot(SnapshotId=first)
    assert [one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]] == [second]


def test_copied_image_has_its_own_snapshots_in_the_other_region(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, CopyImage; EC2 User Guide, Copy an AMI."""
    ec2, far = aws.client("ec2"), aws.client("ec2", "eu-west-1")
    instance, devices = aws.instance((1, 1))
    aws.write(devices["/dev/xvdb"], b"copied with the image")
    label = [{"ResourceType": "image", "Tags": [{"Key": "kept", "Value": "1"}]}]
    image = ec2.create_image(InstanceId=instance, Name="source", TagSpecifications=label)["ImageId"]
    key = aws.client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    wanted = {"SourceImageId": image, "SourceRegion": "us-east-1"}

    plain = far.copy_image(**wanted, Name="plain", CopyImageTags=True)["ImageId"]
    encrypted = far.copy_image(**wanted, Name="encrypted", Encrypted=True, KmsKeyId=key)["ImageId"]

    assert image_of(far, plain)["Tags"] == [{"Key": "kept", "Value": "1"}]
    assert "Tags" not in image_of(far, encrypted)
    ids = [m["Ebs"]["SnapshotId"] for m in image_of(far, encrypted)["BlockDeviceMappings"]]
    assert {one["KmsKeyId"] for one in far.describe_snapshots(SnapshotIds=ids)["Snapshots"]} == {key}
    _, launched = aws.instance(region="eu-west-1", ImageId=plain)
    assert aws.fingerprint(launched["/dev/xvdb"]) == aws.fingerprint(devices["/dev/xvdb"])


def test_shared_image_launches_elsewhere_but_copies_only_with_its_snapshots(
    aws: SimulatedAws, refused
) -> None:
    """AWS: EC2 User Guide, Share an AMI with specific accounts and Copy an AMI."""
    ec2, other = aws.client("ec2"), aws.client("ec2", account=OTHER)
    image = aws.image((1, 1))
    snapshots = [m["Ebs"]["SnapshotId"] for m in image_of(ec2, image)["BlockDeviceMappings"]]
    wanted = {"SourceImageId": image, "SourceRegion": "us-east-1", "Name": "mine"}
    with refused("InvalidAMIID.NotFound"):
        image_of(other, image)

    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": OTHER}]})

    assert [one["ImageId"] for one in other.describe_images(ExecutableUsers=["self"])["Images"]] == [image]
    assert other.describe_images(Owners=["self"])["Images"] == []
    _, devices = aws.instance(account=OTHER, ImageId=image)
    assert len(devices) == 2
    with refused("InvalidRequest"):
        other.copy_image(**wanted)
    for snapshot in snapshots:
        ec2.modify_snapshot_attribute(SnapshotId=snapshot, OperationType="add", UserIds=[OTHER])
    assert image_of(other, other.copy_image(**wanted)["ImageId"])["OwnerId"] == OTHER
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [{"UserId": OTHER}]})
    with refused("InvalidAMIID.NotFound"):
        other.copy_image(**{**wanted, "Name": "again"})


def test_images_are_filtered(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, DescribeImages, Filters."""
    ec2 = aws.client("ec2")
    image = aws.image()
    aws.image()
    snapshot = image_of(ec2, image)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    by_snapshot = [{"Name": "block-device-mapping.snapshot-id", "Values": [snapshot]}]

    found = ec2.describe_images(Owners=["self"], Filters=by_snapshot)["Images"]

    assert [one["ImageId"] for one in found] == [image]
