"""AMIs: made from instances, registered from snapshots, described, shared, deregistered."""

import copy as copying
from typing import Any

from moto.ec2.models.instances import Instance

from cpm.simulator import snapshots, tags, volumes
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.listing import matching, page
from cpm.simulator.timing import now
from cpm.simulator.world import Image, new_id


def not_found(image_id: str) -> AwsError:
    return AwsError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")


def find(call: Call, image_id: str, region: str | None = None) -> Image:
    """An AMI that the caller can see in a region (its own by default)."""
    if not image_id.startswith("ami-"):
        raise AwsError("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
    image = call.state.images.by_id.get(image_id)
    if image is None or image.region != (region or call.region) or not image.visible_to(call.account):
        raise not_found(image_id)
    return image


def owned(call: Call, image_id: str) -> Image:
    """An AMI of the caller's own."""
    image = find(call, image_id)
    if image.account != call.account:
        raise AwsError("AuthFailure", f"Not authorized for image:{image_id}", 403)
    return image


def check_name(call: Call, name: str) -> None:
    """AWS: EC2 API Reference, CreateImage, Name: 3 to 128 characters, unique in account and region."""
    allowed = set(" ()[]-./'@_")
    if not 3 <= len(name) <= 128 or not all(c.isascii() and (c.isalnum() or c in allowed) for c in name):
        raise AwsError(
            "InvalidAMIName.Malformed", f"AMI names must be between 3 and 128 characters long: {name[:140]!r}"
        )
    for image in call.state.images.at(call.account, call.region).values():
        if image.name == name:
            raise AwsError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def add(call: Call, image: Image, labels: dict[str, str]) -> Image:
    """Puts a new AMI into the world."""
    call.state.images.add(image)
    tags.put(call, image, labels)
    return image


def create(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreateImage: snapshots of all the volumes; reboots unless NoReboot."""
    instance = volumes.instance_of(call, call.params["InstanceId"])
    if instance.state not in ("running", "stopped", "pending", "stopping"):
        raise AwsError("IncorrectInstanceState", f"Instance {instance.id} is '{instance.state}'.")
    check_name(call, call.params["Name"])
    image_tags = tags.specified(call, "image", ("image", "snapshot"))
    snapshot_tags = tags.specified(call, "snapshot", ("image", "snapshot"))
    if instance.state == "running" and not call.params.get("NoReboot"):
        _reboot(call, instance.id)
    image_id = new_id("ami")
    mappings = _mappings_of(call, instance.id, image_id, snapshot_tags)
    image = built(call, instance, image_id, call.params["Name"], call.params.get("Description", ""), mappings)
    add(call, image, image_tags)
    return {"ImageId": image.id}


def _reboot(call: Call, instance_id: str) -> None:
    """The reboot that AWS does by itself; the call log names it so that tests can see it."""
    call.world.calls.add(
        service="internal",
        action="RebootInstances",
        account=call.account,
        region=call.region,
        time=now().timestamp(),
        ids={"InstanceIds": [instance_id]},
    )


def built(
    call: Call, instance: Instance, image_id: str, name: str, description: str, mappings: list[dict[str, Any]]
) -> Image:
    """An AMI of an instance; it fails when one of its snapshots does."""
    source = call.state.images.by_id.get(instance.image_id)
    known = call.state.snapshots.by_id
    taken = [known.get(mapping.get("Ebs", {}).get("SnapshotId", "")) for mapping in mappings]
    failed = any(snapshot is not None and snapshot.failure for snapshot in taken)
    return Image(
        id=image_id,
        account=call.account,
        region=call.region,
        name=name,
        description=description,
        architecture=instance.architecture,
        root_device=str(instance.root_device_name),
        virtualization=instance.virtualization_type,
        ena=source.ena if source else True,
        platform=instance.platform,
        boot_mode=source.boot_mode if source else None,
        mappings=mappings,
        settling=call.world.settling("image"),
        failure="A snapshot of the image failed" if failed else None,
        source_instance=instance.id,
    )


def _mappings_of(call: Call, instance_id: str, image_id: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Snapshots every volume; BlockDeviceMappings of the call add, change or leave out devices."""
    wanted = {m["DeviceName"]: m for m in call.params.get("BlockDeviceMappings", [])}
    mappings: list[dict[str, Any]] = []
    for volume in volumes.of_instance(call, instance_id):
        assert volume.attachment is not None
        device = volume.attachment.device
        change = wanted.pop(device, {})
        if "NoDevice" in change:
            continue
        description = f"Created by CreateImage({instance_id}) for {image_id}"
        taken = snapshots.take(call, volume, description, labels, kind="image")
        ebs = {
            "SnapshotId": taken.id,
            "VolumeSize": volume.size,
            "VolumeType": volume.type,
            "Iops": volume.iops if volume.type in ("io1", "io2", "gp3") else None,
            "Throughput": volume.throughput,
            "DeleteOnTermination": volume.attachment.delete_on_termination,
            "Encrypted": volume.encrypted,
        }
        ebs.update(
            {
                key: value
                for key, value in change.get("Ebs", {}).items()
                if key not in ("SnapshotId", "Encrypted")
            }
        )
        mappings.append(
            {"DeviceName": device, "Ebs": {key: value for key, value in ebs.items() if value is not None}}
        )
    launch = call.state.launches.get(instance_id)
    mappings += [m for m in (launch.ephemeral if launch else []) if m["DeviceName"] not in wanted]
    mappings += [copying.deepcopy(mapping) for mapping in wanted.values() if "NoDevice" not in mapping]
    return mappings


def register(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, RegisterImage, from snapshots. S3-backed images are not offered here."""
    params = call.params
    check_name(call, params["Name"])
    mappings = copying.deepcopy(params.get("BlockDeviceMappings", []))
    root = params.get("RootDeviceName")
    if not root:
        raise missing("rootDeviceName")
    devices = [mapping.get("DeviceName") for mapping in mappings]
    if root not in devices or len(devices) != len(set(devices)):
        raise AwsError("InvalidBlockDeviceMapping", f"No unique mapping for the root device {root}")
    for mapping in mappings:
        _complete(call, mapping, is_root=mapping["DeviceName"] == root)
    labels = tags.specified(call, "image", ("image",))
    image = Image(
        id=new_id("ami"),
        account=call.account,
        region=call.region,
        name=params["Name"],
        description=params.get("Description", ""),
        architecture=params.get("Architecture", "i386"),
        root_device=root,
        virtualization=params.get("VirtualizationType", "paravirtual"),
        ena=params.get("EnaSupport", False),
        # AWS: RegisterImage. A snapshot does not tell the platform; what is registered shows as Linux.
        platform=None,
        boot_mode=params.get("BootMode"),
        mappings=mappings,
        settling=call.world.settling("image"),
        sriov=params.get("SriovNetSupport"),
        imds=params.get("ImdsSupport"),
    )
    if image.architecture not in ("i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"):
        raise invalid(f"Invalid architecture: {image.architecture}")
    return {"ImageId": add(call, image, labels).id}


def _complete(call: Call, mapping: dict[str, Any], *, is_root: bool) -> None:
    """Checks one mapping and fills in what AWS derives from its snapshot."""
    ebs = mapping.get("Ebs")
    if ebs is None:
        if is_root or "VirtualName" not in mapping:
            raise AwsError(
                "InvalidBlockDeviceMapping", f"{mapping['DeviceName']} has neither Ebs nor VirtualName"
            )
        return
    if "SnapshotId" not in ebs:
        if is_root or "VolumeSize" not in ebs:
            raise AwsError("InvalidBlockDeviceMapping", f"{mapping['DeviceName']} needs a snapshot")
    else:
        snapshot = volumes.usable_snapshot(call, ebs["SnapshotId"])
        if snapshot.account != call.account:
            raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot.id}' does not exist.")
        ebs.setdefault("VolumeSize", snapshot.size)
        if ebs["VolumeSize"] < snapshot.size:
            raise invalid(f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}'")
        ebs["Encrypted"] = snapshot.encrypted
    ebs.setdefault("VolumeType", "gp2")
    ebs.setdefault("DeleteOnTermination", is_root)


def shown(call: Call, image: Image) -> dict[str, Any]:
    """An AMI as DescribeImages shows it; tags and snapshots' tags belong to the owner."""
    result: dict[str, Any] = {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description,
        "OwnerId": image.account,
        "ImageLocation": f"{image.account}/{image.name}",
        "ImageType": "machine",
        "State": image.state,
        "Public": image.public,
        "CreationDate": image.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "Architecture": image.architecture,
        "RootDeviceName": image.root_device,
        "RootDeviceType": "ebs",
        "VirtualizationType": image.virtualization,
        "Hypervisor": "xen",
        "EnaSupport": image.ena,
        "SriovNetSupport": image.sriov,
        "Platform": image.platform,
        "PlatformDetails": "Windows" if image.platform else "Linux/UNIX",
        "UsageOperation": "RunInstances:0002" if image.platform else "RunInstances",
        "BootMode": image.boot_mode,
        "ImdsSupport": image.imds,
        "SourceInstanceId": image.source_instance,
        "SourceImageId": image.source_image,
        "SourceImageRegion": image.source_region,
        "BlockDeviceMappings": image.mappings,
    }
    if image.state == "failed":
        result["StateReason"] = {"Code": "Server.InternalError", "Message": image.failure}
    labels = call.world.tags(image) if image.account == call.account else {}
    if labels:
        result["Tags"] = tags.listed(labels)
    return {key: value for key, value in result.items() if value is not None}


LOOKUPS = {
    "image-id": lambda image: image.id,
    "name": lambda image: image.name,
    "description": lambda image: image.description,
    "state": lambda image: image.state,
    "owner-id": lambda image: image.account,
    "architecture": lambda image: image.architecture,
    "is-public": lambda image: image.public,
    "image-type": lambda image: "machine",
    "root-device-type": lambda image: "ebs",
    "root-device-name": lambda image: image.root_device,
    "virtualization-type": lambda image: image.virtualization,
    "platform": lambda image: image.platform,
    "ena-support": lambda image: image.ena,
    "source-instance-id": lambda image: image.source_instance,
    "block-device-mapping.snapshot-id": lambda image: image.snapshot_ids(),
    "block-device-mapping.device-name": lambda image: [m["DeviceName"] for m in image.mappings],
    "creation-date": lambda image: image.created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "hypervisor": lambda image: "xen",
    "owner-alias": lambda image: None,
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeImages: public, own and explicitly launchable ones unless narrowed."""
    if ids := call.params.get("ImageIds"):
        chosen = [find(call, image_id) for image_id in dict.fromkeys(ids)]
    else:
        in_region = call.state.images.in_region(call.region)
        chosen = sorted(
            (image for image in in_region if image.visible_to(call.account)), key=lambda i: i.serial
        )
    if owners := call.params.get("Owners"):
        accounts = {call.account if owner == "self" else owner for owner in owners}
        chosen = [image for image in chosen if image.account in accounts]
    if users := call.params.get("ExecutableUsers"):
        chosen = [image for image in chosen if _executable(image, call.account, users)]
    visible = [i for i in chosen if not call.hidden(i.created)]
    if ids and len(visible) < len(chosen):
        raise not_found(next(image.id for image in chosen if image not in visible))
    matched = matching(visible, call.params.get("Filters", []), LOOKUPS, call.world.tags)
    part, token = page(matched, call.params, "ImageIds", least=1)
    return {"Images": [shown(call, image) for image in part], "NextToken": token}


def _executable(image: Image, account: str, users: list[str]) -> bool:
    named = {account if user == "self" else user for user in users}
    return ("all" in named and image.public) or bool(image.shared_with & named)


def deregister(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DeregisterImage; its snapshots stay unless DeleteAssociatedSnapshots."""
    image = owned(call, call.params["ImageId"])
    call.state.images.remove(image)
    call.world.forget_tags(image)
    results = []
    if call.params.get("DeleteAssociatedSnapshots"):
        used = {
            s
            for other in call.state.images.at(call.account, call.region).values()
            for s in other.snapshot_ids()
        }
        for snapshot_id in image.snapshot_ids():
            snapshot = call.state.snapshots.by_id.get(snapshot_id)
            if snapshot_id in used or snapshot is None:
                results.append({"SnapshotId": snapshot_id, "ReturnCode": "skipped"})
            else:
                snapshots.remove(call, snapshot)
                results.append({"SnapshotId": snapshot_id, "ReturnCode": "success"})
    return {"Return": True, "DeleteSnapshotResults": results}


ACTIONS = {
    "CreateImage": create,
    "RegisterImage": register,
    "DescribeImages": describe,
    "DeregisterImage": deregister,
}
