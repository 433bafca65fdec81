"""EBS volumes: create, describe, attach, detach, modify, delete."""

from typing import Any

from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance

from cpm.simulator import kms, tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.listing import matching, page
from cpm.simulator.timing import now
from cpm.simulator.volume_rules import check as check_shape
from cpm.simulator.volume_rules import default_iops, default_throughput, zones
from cpm.simulator.world import Attachment, Snapshot, Volume, new_id


def find(call: Call, volume_id: str) -> Volume:
    """A volume of the caller's account and region."""
    if not volume_id.startswith("vol-"):
        raise invalid(f"Value ({volume_id}) for parameter volumeId is invalid. Expected: 'vol-...'.")
    volume = call.state.volumes.at(call.account, call.region).get(volume_id)
    if volume is None:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    return volume


def usable_snapshot(call: Call, snapshot_id: str) -> Snapshot:
    """A completed snapshot that the caller may make volumes from."""
    if not snapshot_id.startswith("snap-"):
        raise AwsError("InvalidSnapshotID.Malformed", f'Invalid id: "{snapshot_id}" (expecting "snap-...")')
    snapshot = call.state.snapshots.by_id.get(snapshot_id)
    if snapshot is None or snapshot.region != call.region or not snapshot.visible_to(call.account):
        raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    if snapshot.state != "completed":
        raise AwsError("IncorrectState", f"Snapshot is in invalid state - {snapshot.state}")
    return snapshot


def make(call: Call, zone: str, wanted: dict[str, Any]) -> Volume:
    """A new volume from EBS parameters; everything is checked before anything exists.

    AWS: EC2 API Reference, CreateVolume. The volume of an encrypted snapshot is encrypted, whatever is asked.
    """
    snapshot = usable_snapshot(call, wanted["SnapshotId"]) if wanted.get("SnapshotId") else None
    size = wanted.get("VolumeSize") or (snapshot.size if snapshot else None)
    if size is None:
        raise missing("size or snapshotId")
    if snapshot and size < snapshot.size:
        raise invalid(
            f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size>= {snapshot.size}GB"
        )
    kind = wanted.get("VolumeType") or "gp2"
    iops, throughput = wanted.get("Iops"), wanted.get("Throughput")
    check_shape(kind, size, iops, throughput)
    encrypted, key, failure = _encryption(call, wanted, snapshot)
    volume = Volume(
        id=new_id("vol"),
        account=call.account,
        region=call.region,
        zone=zone,
        size=size,
        type=kind,
        iops=iops or default_iops(kind, size),
        throughput=throughput or default_throughput(kind),
        encrypted=encrypted,
        kms_key_id=key,
        snapshot_id=snapshot.id if snapshot else None,
        settling=call.world.settling("volume"),
        blocks=call.world.blocks.retain(snapshot.blocks) if snapshot else {},
        failed=failure is not None,
    )
    return call.state.volumes.add(volume)


def _encryption(
    call: Call, wanted: dict[str, Any], snapshot: Snapshot | None
) -> tuple[bool, str | None, str | None]:
    by_default = bool(ec2_backends[call.account][call.region].ebs_encryption_by_default)
    if wanted.get("KmsKeyId") and wanted.get("Encrypted") is False:
        raise AwsError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set."
        )
    inherited = snapshot.kms_key_id if snapshot else None
    # Reading an encrypted snapshot needs its key, even when the volume gets another.
    failure = kms.caller_can_use(call, inherited) if inherited else None
    if not (wanted.get("Encrypted") or wanted.get("KmsKeyId") or by_default or inherited):
        return False, None, None
    if wanted.get("KmsKeyId"):
        key, refused = kms.resolve(call, wanted["KmsKeyId"], call.region)
        return True, key, failure or refused
    if inherited and snapshot and snapshot.account == call.account:
        return True, inherited, failure
    return True, kms.default_key(call.account, call.region), failure


def create(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreateVolume."""
    wanted = dict(call.params)
    wanted["VolumeSize"] = wanted.get("Size")
    zone = wanted.get("AvailabilityZone")
    if not zone:
        raise missing("AvailabilityZone")
    if zone not in zones(call.region):
        raise AwsError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    labels = tags.specified(call, "volume", ("volume",))

    def fresh() -> dict[str, Any]:
        volume = make(call, zone, wanted)
        tags.put(call, volume, labels)
        return shown(call, volume)

    return call.once(fresh)


def shown(call: Call, volume: Volume) -> dict[str, Any]:
    """A volume as DescribeVolumes shows it."""
    result: dict[str, Any] = {
        "VolumeId": volume.id,
        "Size": volume.size,
        "SnapshotId": volume.snapshot_id or "",
        "AvailabilityZone": volume.zone,
        "State": volume.state,
        "CreateTime": volume.created,
        "Attachments": [shown_attachment(volume, "attached")] if volume.attachment else [],
        "VolumeType": volume.type,
        "Encrypted": volume.encrypted,
        "KmsKeyId": volume.kms_key_id,
        "MultiAttachEnabled": False,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
    }
    labels = call.world.tags(volume)
    if labels:
        result["Tags"] = tags.listed(labels)
    return result


def shown_attachment(volume: Volume, state: str) -> dict[str, Any]:
    """An attachment as AttachVolume and DescribeVolumes show it."""
    held = volume.attachment
    assert held is not None
    return {
        "VolumeId": volume.id,
        "InstanceId": held.instance_id,
        "Device": held.device,
        "State": state,
        "AttachTime": held.attach_time,
        "DeleteOnTermination": held.delete_on_termination,
    }


LOOKUPS = {
    "volume-id": lambda volume: volume.id,
    "status": lambda volume: volume.state,
    "size": lambda volume: volume.size,
    "snapshot-id": lambda volume: volume.snapshot_id or "",
    "volume-type": lambda volume: volume.type,
    "encrypted": lambda volume: volume.encrypted,
    "availability-zone": lambda volume: volume.zone,
    "create-time": lambda volume: volume.created.isoformat(),
    "multi-attach-enabled": lambda volume: False,
    "attachment.instance-id": lambda volume: volume.attachment and volume.attachment.instance_id,
    "attachment.device": lambda volume: volume.attachment and volume.attachment.device,
    "attachment.status": lambda volume: volume.attachment and "attached",
    "attachment.delete-on-termination": lambda volume: (
        volume.attachment and volume.attachment.delete_on_termination
    ),
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeVolumes."""
    here = call.state.volumes.at(call.account, call.region)
    if call.params.get("VolumeIds"):
        chosen = [find(call, volume_id) for volume_id in dict.fromkeys(call.params["VolumeIds"])]
        for volume in chosen:
            if call.hidden(volume.created):
                raise AwsError("InvalidVolume.NotFound", f"The volume '{volume.id}' does not exist.")
    else:
        chosen = [v for v in here.values() if not call.hidden(v.created)]
    chosen = matching(chosen, call.params.get("Filters", []), LOOKUPS, call.world.tags)
    part, token = page(chosen, call.params, "VolumeIds")
    return {"Volumes": [shown(call, volume) for volume in part], "NextToken": token}


def instance_of(call: Call, instance_id: str) -> Instance:
    """moto's instance, or InvalidInstanceID.NotFound."""
    try:
        return ec2_backends[call.account][call.region].get_instance(instance_id)
    except InvalidInstanceIdError as absent:
        raise AwsError(
            "InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist"
        ) from absent


def of_instance(call: Call, instance_id: str) -> list[Volume]:
    """Volumes attached to an instance, by device name."""
    here = call.state.volumes.at(call.account, call.region).values()
    held = [v for v in here if v.attachment and v.attachment.instance_id == instance_id]
    return sorted(held, key=lambda volume: volume.attachment.device if volume.attachment else "")


def attach(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, AttachVolume."""
    volume = find(call, call.params["VolumeId"])
    instance = instance_of(call, call.params["InstanceId"])
    if instance.state not in ("running", "stopped", "pending", "stopping"):
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    if volume.attachment:
        raise AwsError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if volume.state != "available":
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is not 'available'.")
    if volume.zone != instance.placement.zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    device = call.params["Device"]
    if any(
        other.attachment and other.attachment.device == device for other in of_instance(call, instance.id)
    ):
        raise invalid(f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
    volume.attachment = Attachment(instance.id, device, now(), delete_on_termination=False)
    return shown_attachment(volume, "attaching")


def detach(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DetachVolume: InstanceId and Device are optional checks."""
    volume = find(call, call.params["VolumeId"])
    held = volume.attachment
    if held is None:
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    wrong_instance = call.params.get("InstanceId") not in (None, held.instance_id)
    if wrong_instance or call.params.get("Device") not in (None, held.device):
        raise AwsError(
            "InvalidAttachment.NotFound",
            f"The volume '{volume.id}' is not attached to instance '{call.params.get('InstanceId')}'",
        )
    instance = instance_of(call, held.instance_id)
    if held.device == instance.root_device_name and instance.state == "running":
        raise AwsError(
            "OperationNotPermitted",
            f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'",
        )
    result = shown_attachment(volume, "detaching")
    volume.attachment = None
    return result


def delete(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DeleteVolume."""
    volume = find(call, call.params["VolumeId"])
    if volume.attachment:
        raise AwsError(
            "VolumeInUse", f"Volume {volume.id} is currently attached to {volume.attachment.instance_id}"
        )
    if volume.state == "creating":
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the 'creating' state.")
    remove(call, volume)
    return {}


def remove(call: Call, volume: Volume) -> None:
    """Takes a volume and its data out of the world."""
    call.state.volumes.remove(volume)
    call.world.forget_tags(volume)
    call.world.blocks.release(list(volume.blocks.values()))


def modify(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ModifyVolume: sizes only grow."""
    volume = find(call, call.params["VolumeId"])
    size = call.params.get("Size", volume.size)
    kind = call.params.get("VolumeType", volume.type)
    if size < volume.size:
        raise invalid(f"New size cannot be smaller than existing size ({volume.size} GiB)")
    iops, throughput = call.params.get("Iops"), call.params.get("Throughput")
    check_shape(kind, size, iops, throughput)
    before = {"OriginalSize": volume.size, "OriginalVolumeType": volume.type, "OriginalIops": volume.iops}
    volume.size, volume.type = size, kind
    volume.iops = iops or default_iops(kind, size)
    volume.throughput = throughput or default_throughput(kind)
    done = {
        "VolumeId": volume.id,
        "ModificationState": "completed",
        "TargetSize": size,
        "TargetVolumeType": kind,
        "TargetIops": volume.iops,
        **before,
        "Progress": 100,
        "StartTime": now(),
        "EndTime": now(),
    }
    return {"VolumeModification": done}


ACTIONS = {
    "CreateVolume": create,
    "DescribeVolumes": describe,
    "AttachVolume": attach,
    "DetachVolume": detach,
    "DeleteVolume": delete,
    "ModifyVolume": modify,
}
