"""What a backup keeps of instances and volumes, as EC2 describes them.

Shapes follow DescribeInstances, DescribeVolumes and DescribeInstanceAttribute (EC2 API Reference). A resource
that EC2 does not list is absent from the answer; every other trouble raises an AwsError.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cpm.aws.gateway import AwsClient

# DescribeInstances and DescribeVolumes take at most 200 values in one filter.
MOST_FILTER_VALUES = 200


def chunks(ids: Sequence[str], size: int = MOST_FILTER_VALUES) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def describe_instances(client: AwsClient, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """EC2's description of the instances that exist; a terminated one counts as gone."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(ids):
        filters = [{"Name": "instance-id", "Values": part}]
        for reservation in client.paginate("DescribeInstances", "Reservations", Filters=filters):
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in {"terminated", "shutting-down"}:
                    found[instance["InstanceId"]] = instance
    return found


def describe_volumes(client: AwsClient, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """EC2's description of the volumes that exist. A filter is used because an unknown id would fail the call."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(ids):
        filters = [{"Name": "volume-id", "Values": part}]
        for volume in client.paginate("DescribeVolumes", "Volumes", Filters=filters):
            if volume["State"] not in {"deleting", "deleted"}:
                found[volume["VolumeId"]] = volume
    return found


def describe_all(client: AwsClient, instances: Sequence[str], volumes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The instances and volumes of these ids that exist, with all volumes that are attached to the instances, by id.

    Instances have, as `cpm_attributes`, what DescribeInstances does not show.
    """
    found = describe_instances(client, instances)
    attached = [volume for instance in found.values() for volume in ebs_volumes_of(instance)]
    shown = describe_volumes(client, sorted({*volumes, *attached}))
    for instance_id, instance in found.items():
        instance["cpm_attributes"] = instance_attributes(client, instance_id)
    return {**found, **shown}


def describe_snapshots(client: AwsClient, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """EC2's description of the snapshots that it lists now."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(ids):
        filters = [{"Name": "snapshot-id", "Values": part}]
        for snapshot in client.paginate("DescribeSnapshots", "Snapshots", Filters=filters):
            found[snapshot["SnapshotId"]] = snapshot
    return found


def tags_of(resource: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}


def ebs_volumes_of(instance: dict[str, Any]) -> dict[str, str]:
    """Volume id to device name, root first."""
    mappings = [m for m in instance.get("BlockDeviceMappings", ()) if "Ebs" in m]
    root = instance.get("RootDeviceName")
    mappings.sort(key=lambda m: m["DeviceName"] != root)
    return {m["Ebs"]["VolumeId"]: m["DeviceName"] for m in mappings}


def volume_details(volume: dict[str, Any], *, delete_on_termination: bool = False) -> dict[str, Any]:
    """What recovery needs to make a volume like this one again."""
    return {
        "type": volume.get("VolumeType", ""),
        "iops": volume.get("Iops"),
        "throughput": volume.get("Throughput"),
        "zone": volume.get("AvailabilityZone", ""),
        "kms_key_id": volume.get("KmsKeyId", ""),
        "delete_on_termination": delete_on_termination,
        "tags": tags_of(volume),
    }


def instance_attributes(client: AwsClient, instance_id: str) -> dict[str, Any]:
    """The settings that DescribeInstances does not show; EC2 gives them one call at a time."""

    def attribute(name: str, key: str) -> Any:
        answer = client.call("DescribeInstanceAttribute", InstanceId=instance_id, Attribute=name)
        return answer.get(key, {}).get("Value")

    return {
        "aws_user_data": attribute("userData", "UserData") or "",
        "aws_disable_api_termination": bool(attribute("disableApiTermination", "DisableApiTermination")),
        "aws_shutdown_behaviour": attribute(
            "instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior"
        )
        or "stop",
    }


def instance_details(instance: dict[str, Any], volumes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The configuration of an instance, under the names that the API shows, plus what only recovery needs."""
    placement = instance.get("Placement", {})
    return {
        "aws_architecture": instance.get("Architecture", ""),
        "aws_image_id": instance.get("ImageId", ""),
        "aws_instance_type": instance.get("InstanceType", ""),
        "aws_ip_address": instance.get("PrivateIpAddress", ""),
        "aws_kernel_id": instance.get("KernelId", ""),
        "aws_key_name": instance.get("KeyName", ""),
        "aws_monitored": instance.get("Monitoring", {}).get("State") in {"enabled", "pending"},
        "aws_ram_disk_id": instance.get("RamdiskId", ""),
        "aws_root_device": instance.get("RootDeviceName", ""),
        "aws_security_groups": [group["GroupId"] for group in instance.get("SecurityGroups", ())],
        "aws_subnet_id": instance.get("SubnetId", ""),
        "aws_virtualization_type": instance.get("VirtualizationType", ""),
        "ebs_optimized": bool(instance.get("EbsOptimized")),
        "ena_support": bool(instance.get("EnaSupport")),
        "instance_profile_arn": instance.get("IamInstanceProfile", {}).get("Arn", ""),
        "is_root_device_ebs": instance.get("RootDeviceType") == "ebs",
        "platform": "windows" if is_windows(instance) else "linux",
        "tenancy": placement.get("Tenancy", "default"),
        "boot_mode": instance.get("BootMode", ""),
        "vpc_id": instance.get("VpcId", ""),
        "zone": placement.get("AvailabilityZone", ""),
        "placement_group": placement.get("GroupName", ""),
        "tags": tags_of(instance),
        "network_interfaces": [_nic(nic) for nic in instance.get("NetworkInterfaces", ())],
        "block_devices": [_device(m, volumes) for m in instance.get("BlockDeviceMappings", ()) if "Ebs" in m],
    }


def is_windows(instance: dict[str, Any]) -> bool:
    return str(instance.get("Platform", instance.get("PlatformDetails", ""))).lower().startswith("windows")


def names_of(resources: Iterable[dict[str, Any]]) -> list[str]:
    return [tags_of(resource).get("Name", "") for resource in resources]


def _nic(nic: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": nic.get("NetworkInterfaceId", ""),
        "subnet": nic.get("SubnetId", ""),
        "groups": [group["GroupId"] for group in nic.get("Groups", ())],
        "private_ip": nic.get("PrivateIpAddress", ""),
        "device_index": nic.get("Attachment", {}).get("DeviceIndex", 0),
    }


def _device(mapping: dict[str, Any], volumes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    volume_id = mapping["Ebs"]["VolumeId"]
    volume = volumes.get(volume_id, {})
    return {
        "device": mapping["DeviceName"],
        "volume_id": volume_id,
        "delete_on_termination": bool(mapping["Ebs"].get("DeleteOnTermination")),
        "type": volume.get("VolumeType", ""),
        "iops": volume.get("Iops"),
        "throughput": volume.get("Throughput"),
        "encrypted": bool(volume.get("Encrypted")),
        "capacity": volume.get("Size"),
    }
