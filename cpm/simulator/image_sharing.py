"""CopyImage and the attributes of AMIs: launch permissions and descriptions."""

import copy as copying
from typing import Any

from cpm.simulator import images, kms, snapshot_copies, tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.volume_rules import zones
from cpm.simulator.world import Image, Snapshot, new_id


def copy(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CopyImage: copies the snapshots too; from another account it must see both."""
    params = call.params
    if not zones(params["SourceRegion"]):
        raise invalid(f"Invalid source region: {params['SourceRegion']}")
    source = images.find(call, params["SourceImageId"], params["SourceRegion"])
    if source.state != "available":
        raise AwsError(
            "InvalidAMIID.Unavailable", f"The image '{source.id}' is not available; it is {source.state}"
        )
    images.check_name(call, params["Name"])
    image_tags = tags.specified(call, "image", ("image", "snapshot"))
    snapshot_tags = tags.specified(call, "snapshot", ("image", "snapshot"))
    if params.get("CopyImageTags") and source.account == call.account:
        copied = {k: v for k, v in call.world.tags(source).items() if not k.startswith("aws:")}
        image_tags = {**copied, **image_tags}
    sources = [_readable(call, snapshot_id, source) for snapshot_id in source.snapshot_ids()]
    snapshot_copies.check_quota(call, len(sources))
    image_id = new_id("ami")
    made = {one.id: _copy_one(call, one, source, image_id, snapshot_tags) for one in sources}
    mappings = copying.deepcopy(source.mappings)
    for mapping in mappings:
        if "SnapshotId" in mapping.get("Ebs", {}):
            copied_snapshot = made[mapping["Ebs"]["SnapshotId"]]
            mapping["Ebs"]["SnapshotId"] = copied_snapshot.id
            mapping["Ebs"]["Encrypted"] = copied_snapshot.encrypted
    failure = next((one.failure for one in made.values() if one.failure), None)
    image = copying.copy(source)
    image.id, image.account, image.region, image.mappings = image_id, call.account, call.region, mappings
    image.name, image.description = params["Name"], params.get("Description", source.description)
    image.settling, image.failure = call.world.settling("copy"), failure
    # AWS: EC2 User Guide, Copy an AMI. Launch permissions are not copied.
    image.shared_with, image.public = set(), False
    image.source_image, image.source_region, image.source_instance = source.id, source.region, None
    images.add(call, image, image_tags)
    return {"ImageId": image.id}


def _readable(call: Call, snapshot_id: str, source: Image) -> Snapshot:
    snapshot = call.state.snapshots.by_id.get(snapshot_id)
    if snapshot is None or not snapshot.visible_to(call.account):
        # AWS: EC2 User Guide, Copy an AMI. The owner must share the snapshots as well as the AMI.
        raise AwsError(
            "InvalidRequest", f"You do not have permission to access the storage of this ami {source.id}"
        )
    return snapshot


def _copy_one(call: Call, one: Snapshot, source: Image, image_id: str, labels: dict[str, str]) -> Snapshot:
    wants = bool(call.params.get("Encrypted"))
    return snapshot_copies.make(
        call,
        one,
        description=f"Copied for DestinationAmi {image_id} from SourceAmi {source.id} for SourceSnapshot {one.id}.",
        encrypted=wants,
        key=call.params.get("KmsKeyId") if wants or one.encrypted else None,
        labels=labels,
        kind="copy",
    )


def modify_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ModifyImageAttribute: launch permission and description."""
    image = images.owned(call, call.params["ImageId"])
    if "Description" in call.params:
        image.description = call.params["Description"].get("Value", "")
    elif call.params.get("Attribute") == "description":
        image.description = call.params.get("Value", "")
    change = call.params.get("LaunchPermission", {})
    add, drop = list(change.get("Add", [])), list(change.get("Remove", []))
    people = [{"UserId": user} for user in call.params.get("UserIds", [])]
    people += [{"Group": group} for group in call.params.get("UserGroups", [])]
    (drop if call.params.get("OperationType") == "remove" else add).extend(people)
    for grant in add:
        _check(call, image, grant)
    for grants, present in ((add, True), (drop, False)):
        for grant in grants:
            if "UserId" not in grant:
                image.public = present
            elif present:
                image.shared_with.add(grant["UserId"])
            else:
                image.shared_with.discard(grant["UserId"])
    return {}


def _check(call: Call, image: Image, grant: dict[str, str]) -> None:
    """AWS: EC2 User Guide, Share an AMI: not with the aws/ebs key, and not encrypted to the public."""
    user = grant.get("UserId")
    if user is not None and (len(user) != 12 or not user.isdigit()):
        raise AwsError(
            "InvalidAMIAttributeItemValue", f'Invalid attribute item value "{user}" for userId item type.'
        )
    if user is None and grant.get("Group") != "all":
        raise AwsError(
            "InvalidAMIAttributeItemValue", f'Invalid attribute item value "{grant}" for group item type.'
        )
    for snapshot_id in image.snapshot_ids():
        snapshot = call.state.snapshots.by_id[snapshot_id]
        if snapshot.kms_key_id and (user is None or kms.is_managed(snapshot.kms_key_id)):
            raise invalid(
                f"Snapshot {snapshot_id} is encrypted. Images with encrypted snapshots cannot be shared so"
            )


def describe_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeImageAttribute."""
    image = images.owned(call, call.params["ImageId"])
    attribute = call.params["Attribute"]
    if attribute == "launchPermission":
        people: list[dict[str, str]] = [{"UserId": user} for user in sorted(image.shared_with)]
        return {
            "ImageId": image.id,
            "LaunchPermissions": people + ([{"Group": "all"}] if image.public else []),
        }
    if attribute == "description":
        return {"ImageId": image.id, "Description": {"Value": image.description}}
    if attribute == "blockDeviceMapping":
        return {"ImageId": image.id, "BlockDeviceMappings": image.mappings}
    if attribute == "productCodes":
        return {"ImageId": image.id, "ProductCodes": []}
    raise invalid(f"Attribute {attribute} is not simulated")


def reset_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ResetImageAttribute."""
    image = images.owned(call, call.params["ImageId"])
    image.shared_with.clear()
    image.public = False
    return {}


ACTIONS = {
    "CopyImage": copy,
    "ModifyImageAttribute": modify_attribute,
    "DescribeImageAttribute": describe_attribute,
    "ResetImageAttribute": reset_attribute,
}
