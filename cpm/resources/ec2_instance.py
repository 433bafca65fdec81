"""EC2 instances as targets."""

from collections.abc import Sequence
from typing import Any

from cpm.aws.client import AwsClient
from cpm.aws.iam_policy import IamAction, tag_only_on_create, tagged_as_ours
from cpm.resources import ec2_capture
from cpm.resources.base import Described, ResourceType

SNAPSHOTS = "arn:{partition}:ec2:*::snapshot/*"


class Ec2Instance(ResourceType):
    """An instance with its EBS volumes."""

    key = "instances"
    noun = "EC2 instance"
    service = "ec2"
    id_pattern = r"i-[0-9a-f]{8,17}"
    details = (
        "platform", "state", "image_id", "instance_type", "root_device", "root_device_type", "has_product_code",
        "volumes",
    )  # fmt: skip
    iam_actions = (
        IamAction(
            "ec2:DescribeInstances", "backup", "finds the instances of a policy and what they look like"
        ),
        IamAction("ec2:DescribeInstanceAttribute", "backup", "keeps settings that DescribeInstances does not show"),
        IamAction("ec2:DescribeVolumes", "backup", "keeps what the volumes of an instance look like"),
        IamAction("ec2:CreateSnapshots", "backup", "takes all volumes of an instance at one point in time"),
        IamAction("ec2:CreateImage", "backup", "makes AMIs, where a target asks for them"),
        IamAction("ec2:DescribeImages", "backup", "waits until an AMI is complete"),
        IamAction("ec2:DescribeSnapshots", "backup", "waits until snapshots are complete"),
        IamAction(
            "ec2:CreateTags",
            "backup",
            "tags snapshots and AMIs as ours",
            condition=tag_only_on_create("CreateImage", "CreateSnapshots"),
        ),
        IamAction(
            "ec2:CreateTags",
            "backup",
            "keeps the configuration of an instance in its snapshots' tags",
            SNAPSHOTS,
            tagged_as_ours(),
        ),
    )

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        found = ec2_capture.describe_instances(client, ids)
        return {id: _described(instance) for id, instance in found.items()}


def _described(instance: dict[str, Any]) -> Described:
    return Described(
        id=instance["InstanceId"],
        tags=ec2_capture.tags_of(instance),
        details={
            "platform": "windows" if ec2_capture.is_windows(instance) else "linux",
            "state": instance["State"]["Name"],
            "image_id": instance.get("ImageId", ""),
            "instance_type": instance.get("InstanceType", ""),
            "root_device": instance.get("RootDeviceName", ""),
            "root_device_type": instance.get("RootDeviceType", ""),
            "has_product_code": bool(instance.get("ProductCodes")),
            "volumes": ec2_capture.ebs_volumes_of(instance),
        },
    )
