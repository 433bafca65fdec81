"""EBS snapshots: taken from volumes, described, shared, deleted. Copies live in ``snapshot_copies``."""

from datetime import timedelta
from typing import Any

from cpm.simulator import kms, tags, volumes
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.listing import matching, page
from cpm.simulator.timing import now
from cpm.simulator.world import Snapshot, Volume, new_id


def not_found(snapshot_id: str) -> AwsError:
    return AwsError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


def find(call: Call, snapshot_id: str) -> Snapshot:
    """A snapshot that the caller can see in its region: its own, or one shared with it."""
    check_id(snapshot_id)
    snapshot = call.state.snapshots.by_id.get(snapshot_id)
    if snapshot is None or snapshot.region != call.region or not snapshot.visible_to(call.account):
        raise not_found(snapshot_id)
    return snapshot


def check_id(snapshot_id: str) -> None:
    """Raises InvalidParameterValue for what cannot be the id of a snapshot."""
    if not snapshot_id.startswith("snap-"):
        raise invalid(f"Value ({snapshot_id}) for parameter snapshotId is invalid. Expected: 'snap-...'.")


def owned(call: Call, snapshot_id: str) -> Snapshot:
    """A snapshot of the caller's own."""
    snapshot = find(call, snapshot_id)
    if snapshot.account != call.account:
        raise AwsError("AuthFailure", f"Not authorized for {snapshot_id}", 403)
    return snapshot


def take(
    call: Call, volume: Volume, description: str, labels: dict[str, str], kind: str = "snapshot"
) -> Snapshot:
    """The point-in-time copy of a volume: what is written to it later does not reach the snapshot."""
    fails = call.fails(volume.id)
    snapshot = Snapshot(
        id=new_id("snap"),
        account=call.account,
        region=call.region,
        volume_id=volume.id,
        size=volume.size,
        description=description,
        encrypted=volume.encrypted,
        kms_key_id=volume.kms_key_id,
        settling=call.world.settling(kind),
        blocks=call.world.blocks.retain(volume.blocks),
        failure="injected failure" if fails else None,
        lineage={volume.id},
    )
    volume.last_snapshot = snapshot.created
    call.state.snapshots.add(snapshot)
    tags.put(call, snapshot, labels)
    return snapshot


def ready(call: Call, volume: Volume) -> Volume:
    """The volume, or the error that AWS gives when no snapshot of it can be taken now."""
    if volume.state not in ("available", "in-use"):
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    pause = timedelta(seconds=call.state.limits.seconds_between_snapshots)
    if volume.last_snapshot and now() - volume.last_snapshot < pause:
        # AWS: EC2 API Reference, Error codes.
        raise AwsError(
            "SnapshotCreationPerVolumeRateExceeded",
            "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable"
            " sleep interval between requests.",
        )
    return volume


def create(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreateSnapshot."""
    volume = ready(call, volumes.find(call, call.params["VolumeId"]))
    labels = tags.specified(call, "snapshot", ("snapshot",))
    return shown(call, take(call, volume, call.params.get("Description", ""), labels))


def create_many(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreateSnapshots: crash-consistent over an instance's volumes, all or none."""
    specification = call.params["InstanceSpecification"]
    if not specification.get("InstanceId"):
        raise AwsError("MissingParameter", "The request must contain the parameter InstanceId")
    instance = volumes.instance_of(call, specification["InstanceId"])
    labels = tags.specified(call, "snapshot", ("snapshot",))
    attached = volumes.of_instance(call, instance.id)
    chosen = _not_excluded(instance.root_device_name, attached, specification)
    for volume in chosen:
        ready(call, volume)
    copy_tags = call.params.get("CopyTagsFromSource")
    if copy_tags not in (None, "volume"):
        raise invalid(f"Value ({copy_tags}) for parameter CopyTagsFromSource is invalid. Expected: 'volume'.")
    answers = []
    for volume in chosen:
        copied = dict(call.world.tags(volume)) if copy_tags == "volume" else {}
        copied = {key: value for key, value in copied.items() if not key.startswith("aws:")}
        snapshot = take(call, volume, call.params.get("Description", ""), {**copied, **labels})
        answers.append(_info(call, snapshot))
    return {"Snapshots": answers}


def _not_excluded(
    root_device: str | None, attached: list[Volume], specification: dict[str, Any]
) -> list[Volume]:
    roots = {v.id for v in attached if v.attachment and v.attachment.device == root_device}
    excluded = set(specification.get("ExcludeDataVolumeIds", []))
    unknown = excluded - {volume.id for volume in attached}
    if unknown or excluded & roots:
        raise invalid(
            f"{', '.join(sorted(unknown or excluded & roots))} is not a data volume of the instance"
        )
    if specification.get("ExcludeBootVolume"):
        excluded |= roots
    chosen = [volume for volume in attached if volume.id not in excluded]
    if not chosen:
        raise invalid("The instance has no volumes left to take snapshots of")
    return chosen


def _info(call: Call, snapshot: Snapshot) -> dict[str, Any]:
    info = shown(call, snapshot)
    fields = (
        "Description",
        "Encrypted",
        "VolumeId",
        "State",
        "VolumeSize",
        "StartTime",
        "Progress",
        "OwnerId",
        "SnapshotId",
    )
    return {"Tags": info.get("Tags", []), **{name: info[name] for name in fields}}


def shown(call: Call, snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as DescribeSnapshots shows it; tags are shown to its owner only."""
    result: dict[str, Any] = {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume_id,
        "State": snapshot.state,
        "StartTime": snapshot.created,
        "Progress": snapshot.progress,
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "VolumeSize": snapshot.size,
        "Encrypted": snapshot.encrypted,
        "KmsKeyId": snapshot.kms_key_id,
        "StorageTier": "standard",
        "FullSnapshotSizeInBytes": len(snapshot.blocks) * 512 * 1024,
    }
    if snapshot.state == "error":
        result["StateMessage"] = snapshot.failure
    elif snapshot.state == "completed":
        result["CompletionTime"] = snapshot.settling.end
    labels = call.world.tags(snapshot) if snapshot.account == call.account else {}
    if labels:
        result["Tags"] = tags.listed(labels)
    return result


LOOKUPS = {
    "snapshot-id": lambda snapshot: snapshot.id,
    "volume-id": lambda snapshot: snapshot.volume_id,
    "status": lambda snapshot: snapshot.state,
    "owner-id": lambda snapshot: snapshot.account,
    "description": lambda snapshot: snapshot.description,
    "encrypted": lambda snapshot: snapshot.encrypted,
    "progress": lambda snapshot: snapshot.progress,
    "volume-size": lambda snapshot: snapshot.size,
    "start-time": lambda snapshot: snapshot.created.isoformat(),
    "storage-tier": lambda snapshot: "standard",
    "owner-alias": lambda snapshot: None,
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeSnapshots: own, explicitly shared and public ones unless narrowed."""
    ids = call.params.get("SnapshotIds", [])
    if ids:
        chosen = [find(call, snapshot_id) for snapshot_id in dict.fromkeys(ids)]
    elif call.params.get("OwnerIds") == ["self"]:
        chosen = list(call.state.snapshots.at(call.account, call.region).values())
    else:
        in_region = call.state.snapshots.in_region(call.region)
        chosen = sorted((s for s in in_region if s.visible_to(call.account)), key=lambda s: s.serial)
    if owners := call.params.get("OwnerIds"):
        accounts = {call.account if owner == "self" else owner for owner in owners}
        chosen = [snapshot for snapshot in chosen if snapshot.account in accounts]
    if restorable := call.params.get("RestorableByUserIds"):
        chosen = [snapshot for snapshot in chosen if _restorable(snapshot, call.account, restorable)]
    shown_now = [s for s in chosen if not call.hidden(s.created)]
    if ids and len(shown_now) < len(chosen):
        raise not_found(next(s.id for s in chosen if s not in shown_now))
    matched = matching(shown_now, call.params.get("Filters", []), LOOKUPS, call.world.tags)
    part, token = page(matched, call.params, "SnapshotIds")
    return {"Snapshots": [shown(call, snapshot) for snapshot in part], "NextToken": token}


def _restorable(snapshot: Snapshot, account: str, users: list[str]) -> bool:
    named = {account if user == "self" else user for user in users}
    return (
        ("all" in named and snapshot.public)
        or snapshot.account in named
        or bool(snapshot.shared_with & named)
    )


def delete(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DeleteSnapshot: a snapshot of a registered AMI cannot go."""
    snapshot = owned(call, call.params["SnapshotId"])
    for image in call.state.images.at(call.account, call.region).values():
        if snapshot.id in image.snapshot_ids():
            raise AwsError(
                "InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {image.id}"
            )
    remove(call, snapshot)
    return {}


def remove(call: Call, snapshot: Snapshot) -> None:
    """Takes a snapshot and its references to blocks out of the world."""
    call.state.snapshots.remove(snapshot)
    call.world.forget_tags(snapshot)
    call.world.blocks.release(list(snapshot.blocks.values()))


def modify_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ModifySnapshotAttribute; EBS User Guide, Share an Amazon EBS snapshot.

    What the aws/ebs key encrypts cannot be shared, and nothing encrypted can be made public.
    """
    snapshot = owned(call, call.params["SnapshotId"])
    change = call.params.get("CreateVolumePermission", {})
    add, drop = list(change.get("Add", [])), list(change.get("Remove", []))
    people = [{"UserId": user} for user in call.params.get("UserIds", [])]
    people += [{"Group": group} for group in call.params.get("GroupNames", [])]
    (drop if call.params.get("OperationType") == "remove" else add).extend(people)
    for one in add:
        _check_sharable(snapshot, one)
    for one in add:
        if "UserId" in one:
            snapshot.shared_with.add(one["UserId"])
        else:
            snapshot.public = True
    for one in drop:
        if "UserId" in one:
            snapshot.shared_with.discard(one["UserId"])
        else:
            snapshot.public = False
    return {}


def _check_sharable(snapshot: Snapshot, grant: dict[str, str]) -> None:
    user = grant.get("UserId")
    if user is not None and (len(user) != 12 or not user.isdigit()):
        raise AwsError("InvalidUserID.Malformed", f'Invalid user id: "{user}"')
    if user is None and grant.get("Group") != "all":
        raise invalid(f"Invalid group: {grant.get('Group')}")
    if user is None and snapshot.encrypted:
        raise AwsError("OperationNotPermitted", "Encrypted snapshots can't be shared publicly")
    if snapshot.kms_key_id and kms.is_managed(snapshot.kms_key_id):
        raise AwsError("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")


def describe_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeSnapshotAttribute."""
    snapshot = owned(call, call.params["SnapshotId"])
    if call.params["Attribute"] == "productCodes":
        return {"SnapshotId": snapshot.id, "ProductCodes": []}
    permissions: list[dict[str, str]] = [{"UserId": user} for user in sorted(snapshot.shared_with)]
    if snapshot.public:
        permissions.append({"Group": "all"})
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}


def reset_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ResetSnapshotAttribute."""
    snapshot = owned(call, call.params["SnapshotId"])
    snapshot.shared_with.clear()
    snapshot.public = False
    return {}


ACTIONS = {
    "CreateSnapshot": create,
    "CreateSnapshots": create_many,
    "DescribeSnapshots": describe,
    "DeleteSnapshot": delete,
    "ModifySnapshotAttribute": modify_attribute,
    "DescribeSnapshotAttribute": describe_attribute,
    "ResetSnapshotAttribute": reset_attribute,
}
