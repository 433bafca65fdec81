"""A small company in AWS: a backup account, a DR account, a network, one instance with three volumes and a free one."""

from dataclasses import dataclass
from typing import Any

from cpm.demo import images
from cpm.demo.aws import AwsAccount, SimulatedAws
from cpm.demo.images import Image
from cpm.demo.waiting import Patience

DR_ACCOUNT_NUMBER = "210987654321"
ROOT_DEVICE = "/dev/xvda"
# Device -> the file system on it.
DEVICES = {ROOT_DEVICE: "system", "/dev/xvdf": "orders", "/dev/xvdg": "logs"}
FREE_VOLUME_IMAGE = "orders"
VOLUME_GIB = 1
BUCKET = "shop-backups"


@dataclass(frozen=True)
class Network:
    """What an instance needs to stand in."""

    vpc: str
    subnet: str
    security_group: str
    key_pair: str


@dataclass(frozen=True)
class Volume:
    """A volume of the source. The free one has no device."""

    id: str
    name: str
    device: str
    image: Image


@dataclass(frozen=True)
class Regions:
    home: str
    dr: str
    dr_account: str


@dataclass(frozen=True)
class World:
    """Everything that exists before CPM is told of it."""

    aws: SimulatedAws
    account: AwsAccount
    dr_account: AwsAccount
    regions: Regions
    network: Network
    dr_network: Network
    instance: str
    volumes: tuple[Volume, ...]

    @property
    def home(self) -> Any:
        """EC2 where the source is."""
        return self.aws.ec2(self.account, self.regions.home)

    @property
    def attached(self) -> list[Volume]:
        return [volume for volume in self.volumes if volume.device]

    @property
    def free(self) -> Volume:
        return next(volume for volume in self.volumes if not volume.device)

    def places(self) -> list[tuple[AwsAccount, str]]:
        """Every account and region that holds something of ours."""
        regions = self.regions
        return [
            (self.account, regions.home),
            (self.account, regions.dr),
            (self.dr_account, regions.dr_account),
        ]


def build(aws: SimulatedAws, account: AwsAccount, regions: Regions, patience: Patience) -> World:
    """Makes it all with plain calls of EC2 and S3, and fills the volumes with file systems."""
    dr_account = aws.new_account(DR_ACCOUNT_NUMBER)
    ec2 = aws.ec2(account, regions.home)
    network = _network(ec2, regions.home)
    dr_network = _network(aws.ec2(dr_account, regions.dr_account), regions.dr_account)
    _bucket(aws.s3(account, regions.dr), regions.dr)
    instance, attached = _instance(ec2, regions.home, network, patience)
    free = _volume(ec2, regions.home, "spare", patience)
    volumes = [Volume(attached[device], name, device, images.load(name)) for device, name in DEVICES.items()]
    volumes.append(Volume(free, "spare", "", images.load(FREE_VOLUME_IMAGE)))
    for volume in volumes:
        for offset, data in images.pieces(volume.image):
            patience.check()
            aws.write(volume.id, offset, data)
    return World(aws, account, dr_account, regions, network, dr_network, instance, tuple(volumes))


def _bucket(s3: Any, region: str) -> None:
    """A bucket that encrypts."""
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region})
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})


def _network(ec2: Any, region: str) -> Network:
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16", TagSpecifications=_name("vpc", "shop"))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24", AvailabilityZone=f"{region}a")
    group = ec2.create_security_group(GroupName="shop", Description="Web shop", VpcId=vpc)["GroupId"]
    ec2.create_key_pair(KeyName="shop")
    return Network(vpc, subnet["Subnet"]["SubnetId"], group, "shop")


def _instance(ec2: Any, region: str, network: Network, patience: Patience) -> tuple[str, dict[str, str]]:
    """A running instance; its volumes' ids by device."""
    made = ec2.run_instances(
        ImageId=_base_image(ec2, region, patience),
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        KeyName=network.key_pair,
        SubnetId=network.subnet,
        SecurityGroupIds=[network.security_group],
        TagSpecifications=_name("instance", "shop-1"),
    )["Instances"][0]["InstanceId"]
    patience.until("the instance's start", lambda: _shown(ec2, made)["State"]["Name"] == "running", within=30)
    for device, name in DEVICES.items():
        if device != ROOT_DEVICE:
            volume = _volume(ec2, region, name, patience)
            ec2.attach_volume(InstanceId=made, VolumeId=volume, Device=device)
    return made, devices_of(ec2, made)


def devices_of(ec2: Any, instance: str) -> dict[str, str]:
    """Ids of an instance's volumes by device."""
    return {one["DeviceName"]: one["Ebs"]["VolumeId"] for one in _shown(ec2, instance)["BlockDeviceMappings"]}


def _shown(ec2: Any, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return found


def _base_image(ec2: Any, region: str, patience: Patience) -> str:
    """An AMI to launch from; its only volume is empty and is filled after the launch."""
    volume = _volume(ec2, region, "base", patience)
    snapshot = ec2.create_snapshot(VolumeId=volume, Description="Base image")["SnapshotId"]
    patience.until(
        "the base snapshot's completion",
        lambda: ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed",
        within=60,
    )
    ec2.delete_volume(VolumeId=volume)
    ebs = {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}
    image: str = ec2.register_image(
        Name="shop-base",
        Architecture="x86_64",
        RootDeviceName=ROOT_DEVICE,
        VirtualizationType="hvm",
        EnaSupport=True,
        BlockDeviceMappings=[{"DeviceName": ROOT_DEVICE, "Ebs": ebs}],
    )["ImageId"]
    return image


def _volume(ec2: Any, region: str, name: str, patience: Patience) -> str:
    made: str = ec2.create_volume(
        AvailabilityZone=f"{region}a",
        Size=VOLUME_GIB,
        VolumeType="gp3",
        TagSpecifications=_name("volume", name),
    )["VolumeId"]
    patience.until(
        "the volume's creation",
        lambda: ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"] == "available",
        within=30,
    )
    return made


def _name(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]
