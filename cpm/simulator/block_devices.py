"""Block device mappings of a launch: the image's, with the request's changes."""

from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, missing
from cpm.simulator.volume_rules import check as check_shape
from cpm.simulator.world import Image


def merged(call: Call, image: Image) -> list[dict[str, Any]]:
    """The image's mappings with the request's changes, each checked.

    AWS: EC2 User Guide, Block device mappings: a device of the image may grow, change its type or vanish with
    NoDevice; a snapshot it has cannot be exchanged; others are added.
    """
    found = {
        mapping["DeviceName"]: {**mapping, "Ebs": dict(mapping["Ebs"])} if "Ebs" in mapping else dict(mapping)
        for mapping in image.mappings
    }
    for change in call.params.get("BlockDeviceMappings", []):
        device = change.get("DeviceName")
        if not device:
            raise missing("BlockDeviceMapping.DeviceName")
        if "NoDevice" in change:
            if device == image.root_device:
                raise AwsError("InvalidBlockDeviceMapping", "The root device cannot be left out")
            found.pop(device, None)
        elif "Ebs" in change and "Ebs" in found.get(device, {}):
            base = found[device]["Ebs"]
            if change["Ebs"].get("SnapshotId") not in (None, base.get("SnapshotId")):
                raise AwsError(
                    "InvalidBlockDeviceMapping", f"snapshotId cannot be modified on device {device}"
                )
            if change["Ebs"].get("VolumeType") not in (None, base.get("VolumeType")):
                base.pop("Iops", None)
                base.pop("Throughput", None)
            base.update(change["Ebs"])
        else:
            found[device] = change
    for mapping in found.values():
        _check_mapping(call, image, mapping)
    return list(found.values())


def _check_mapping(call: Call, image: Image, mapping: dict[str, Any]) -> None:
    ebs = mapping.get("Ebs")
    if ebs is None:
        if "VirtualName" not in mapping:
            raise AwsError(
                "InvalidBlockDeviceMapping", f"{mapping['DeviceName']} has neither Ebs nor VirtualName"
            )
        return
    size = ebs.get("VolumeSize")
    if ebs.get("SnapshotId"):
        snapshot = call.state.snapshots.by_id.get(ebs["SnapshotId"])
        # Who may launch an AMI may use its snapshots, shared or not.
        if snapshot is None or (
            ebs["SnapshotId"] not in image.snapshot_ids() and not snapshot.visible_to(call.account)
        ):
            raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{ebs['SnapshotId']}' does not exist.")
        size = size or snapshot.size
        if size < snapshot.size:
            raise AwsError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.size}GB",
            )
    if not size:
        raise AwsError("InvalidBlockDeviceMapping", f"{mapping['DeviceName']} needs a snapshot or a size")
    check_shape(ebs.get("VolumeType") or "gp2", size, ebs.get("Iops"), ebs.get("Throughput"))
