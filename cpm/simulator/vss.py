"""What the Systems Manager document AWSEC2-CreateVssSnapshot does on a Windows instance.

AWS: EC2 User Guide, Create VSS based EBS snapshots.
"""

from typing import Any

from cpm.simulator import images, snapshots, volumes
from cpm.simulator.call import Call
from cpm.simulator.timing import now
from cpm.simulator.world import new_id

Parameters = dict[str, list[str]]


def snapshots_of(call: Call, instance_id: str, parameters: Parameters) -> str:
    """Takes the snapshots that the parameters ask for; answers the text that the document prints.

    Honoured are ExcludeBootVolume, description, tags (``Key=k,Value=v;…``), CreateAmi and AmiName. Every
    snapshot is tagged Device and AppConsistent.
    """
    instance = volumes.instance_of(call, instance_id)
    labels = _labels(_asked(parameters, "tags"))
    skip_root = _asked(parameters, "ExcludeBootVolume").lower() == "true"
    lines: list[str] = ["SnapshotSet:"]
    mappings: list[dict[str, Any]] = []
    for volume in volumes.of_instance(call, instance_id):
        assert volume.attachment is not None
        device = volume.attachment.device
        if skip_root and device == instance.root_device_name:
            continue
        own = {"Device": device, "AppConsistent": "True", **labels}
        taken = snapshots.take(call, volume, _asked(parameters, "description"), own)
        lines.append(f"SnapshotId: {taken.id}  VolumeId: {volume.id}  Device: {device}")
        ebs = {
            "SnapshotId": taken.id,
            "VolumeSize": volume.size,
            "VolumeType": volume.type,
            "DeleteOnTermination": volume.attachment.delete_on_termination,
            "Encrypted": volume.encrypted,
        }
        mappings.append({"DeviceName": device, "Ebs": ebs})
    if _asked(parameters, "CreateAmi").lower() == "true":
        name = _asked(parameters, "AmiName") or f"VSS-{instance_id}-{now():%Y%m%d%H%M%S}"
        image = images.built(call, instance, new_id("ami"), name, _asked(parameters, "description"), mappings)
        images.add(call, image, {"AppConsistent": "True", **labels})
        lines.append(f"ImageId: {image.id}")
    return "\n".join(lines) + "\n"


def _asked(parameters: Parameters, name: str) -> str:
    return (parameters.get(name) or [""])[0]


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for pair in filter(None, (part.strip() for part in text.split(";"))):
        key, _, value = pair.partition(",")
        labels[key.removeprefix("Key=").strip()] = value.strip().removeprefix("Value=")
    return labels
