"""A small EC2 behind the gateway: describes what it is given, and fails the way it is told."""

from collections.abc import Iterator
from typing import Any

from cpm.aws.errors import AwsError

KINDS = {
    "DescribeInstances": ("instance-id", "InstanceId"),
    "DescribeVolumes": ("volume-id", "VolumeId"),
}


class FakeEc2:
    """Put descriptions into `instances` and `volumes`; an `error` is raised by every call."""

    def __init__(self) -> None:
        self.instances: list[dict[str, Any]] = []
        self.volumes: list[dict[str, Any]] = []
        self.error: AwsError | None = None
        self.asked: list[tuple[str, str, int]] = []
        self.identities: list[Any] = []

    def client(self, identity: Any, service: str, region: str) -> "FakeClient":
        self.identities.append(identity)
        return FakeClient(self, region)


class FakeClient:
    """What `cpm.aws.gateway.client` would answer."""

    def __init__(self, ec2: FakeEc2, region: str) -> None:
        self.ec2, self.region = ec2, region

    def paginate(self, action: str, key: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:
        filter_name, id_field = KINDS[action]
        (asked,) = parameters["Filters"]
        assert asked["Name"] == filter_name
        self.ec2.asked.append((action, self.region, len(asked["Values"])))
        if self.ec2.error:
            raise self.ec2.error
        known = self.ec2.instances if action == "DescribeInstances" else self.ec2.volumes
        found = [item for item in known if item[id_field] in asked["Values"]]
        if action == "DescribeInstances":
            yield from ({"Instances": [item]} for item in found)
        else:
            yield from found


def instance(id: str, *, platform: str = "", state: str = "running", **more: Any) -> dict[str, Any]:
    """An instance with a root volume and a data volume, as DescribeInstances shows it."""
    described: dict[str, Any] = {
        "InstanceId": id,
        "State": {"Name": state},
        "ImageId": "ami-0123456789abcdef0",
        "InstanceType": "t3.micro",
        "RootDeviceName": "/dev/xvda",
        "RootDeviceType": "ebs",
        "Tags": [{"Key": "Name", "Value": "web"}],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-00000000000000001"}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeId": "vol-00000000000000002"}},
        ],
    }
    return described | ({"Platform": platform} if platform else {}) | more


def volume(id: str, *, size: int = 8, attached_to: str = "", **more: Any) -> dict[str, Any]:
    """A volume as DescribeVolumes shows it."""
    attachments = [{"InstanceId": attached_to, "Device": "/dev/sdf"}] if attached_to else []
    return {
        "VolumeId": id,
        "State": "in-use" if attached_to else "available",
        "Size": size,
        "Iops": 3000,
        "VolumeType": "gp3",
        "AvailabilityZone": "us-east-1a",
        "Encrypted": False,
        "Attachments": attachments,
        **more,
    }
