"""EBS volumes as targets, whether attached or not."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cpm.aws.client import AwsClient
from cpm.aws.iam_policy import IamAction, tag_only_on_create
from cpm.resources import ec2_capture
from cpm.resources.base import Described, ResourceType


class EbsVolume(ResourceType):
    """A volume that is protected on its own, independent of any instance."""

    key = "volumes"
    noun = "EBS volume"
    service = "ec2"
    id_pattern = r"vol-[0-9a-f]{8,17}"
    details = (
        "volume_type", "capacity", "iops", "status", "zone", "created", "encrypted", "device", "attached_to",
    )  # fmt: skip
    iam_actions = (
        IamAction("ec2:DescribeVolumes", "backup", "finds the volumes of a policy and what they look like"),
        IamAction("ec2:CreateSnapshot", "backup", "takes a volume that is protected on its own"),
        IamAction("ec2:DescribeSnapshots", "backup", "waits until snapshots are complete"),
        IamAction(
            "ec2:CreateTags",
            "backup",
            "tags snapshots as ours",
            condition=tag_only_on_create("CreateSnapshot"),
        ),
    )

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        found = ec2_capture.describe_volumes(client, ids)
        return {id: _described(volume) for id, volume in found.items()}


def _described(volume: dict[str, Any]) -> Described:
    attachment: dict[str, Any] = next((a for a in volume.get("Attachments", ()) if a.get("InstanceId")), {})
    return Described(
        id=volume["VolumeId"],
        tags=ec2_capture.tags_of(volume),
        details={
            "volume_type": volume.get("VolumeType", ""),
            "capacity": volume.get("Size"),
            "iops": volume.get("Iops"),
            "status": volume["State"],
            "zone": volume.get("AvailabilityZone", ""),
            "created": _utc(volume.get("CreateTime")),
            "encrypted": bool(volume.get("Encrypted")),
            "device": attachment.get("Device", ""),
            "attached_to": attachment.get("InstanceId", ""),
        },
    )


def _utc(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
