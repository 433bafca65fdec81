"""Steps that start the native snapshots of a backup and watch them complete.

CreateSnapshot, CreateSnapshots and CreateImage take no client token, so they run under the once-only
protocol: our step tag finds what an interrupted call has made.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.errors import NotFound as AwsNotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import tags
from cpm.flows.backups import watching
from cpm.flows.identities import identity_of
from cpm.flows.named_images import create_or_adopt
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind
from cpm.lib.states import SnapshotStatus
from cpm.models import Account, Snapshot
from cpm.resources.base import Shown
from cpm.resources.ec2_capture import describe_snapshots

QUEUE = "backup"
# EC2 allows 255 characters.
LONGEST_DESCRIPTION = 255


def ec2(context: StepContext) -> AwsClient:
    """The EC2 client of the step's account and region, whose session name shows the job."""
    account = Account.objects.get(pk=context.payload["account"])
    return client(identity_of(account, session=f"cpm-job-{context.job_id}"), "ec2", context.payload["region"])


def start_volume(context: StepContext) -> Outcome:
    """CreateSnapshot of one volume. Payload: account, region, volume, snapshot (row id), description, tags."""
    ec2_client, payload = ec2(context), context.payload

    def create() -> dict[str, str]:
        made = ec2_client.call(
            "CreateSnapshot",
            VolumeId=payload["volume"],
            Description=payload["description"][:LONGEST_DESCRIPTION],
            TagSpecifications=[tags.specification("snapshot", _step_tags(context))],
        )
        return {payload["volume"]: made["SnapshotId"]}

    token = context.once(
        create=create, find=lambda: _find_sets(ec2_client, context), discard=_discard(ec2_client)
    )
    return Done(write=lambda: _started(context, {payload["snapshot"]: token[payload["volume"]]}))


def start_instance(context: StepContext) -> Outcome:
    """CreateSnapshots: all chosen volumes of an instance at one point in time.

    Payload: account, region, instance, snapshots {volume id: row id}, exclude_boot, exclude_volumes,
    description, tags.
    """
    ec2_client, payload = ec2(context), context.payload

    def create() -> dict[str, str]:
        chosen: dict[str, Any] = {
            "InstanceId": payload["instance"],
            "ExcludeBootVolume": payload["exclude_boot"],
        }
        if payload["exclude_volumes"]:
            chosen["ExcludeDataVolumeIds"] = payload["exclude_volumes"]
        made = ec2_client.call(
            "CreateSnapshots",
            InstanceSpecification=chosen,
            Description=payload["description"][:LONGEST_DESCRIPTION],
            **({"CopyTagsFromSource": "volume"} if payload.get("copy_tags", True) else {}),
            TagSpecifications=[tags.specification("snapshot", _step_tags(context))],
        )
        return {snapshot["VolumeId"]: snapshot["SnapshotId"] for snapshot in made["Snapshots"]}

    token = context.once(
        create=create, find=lambda: _find_sets(ec2_client, context), discard=_discard(ec2_client)
    )
    rows: dict[str, int] = payload["snapshots"]
    missing = sorted(set(rows) - set(token))
    for volume in missing:
        context.warn(f"Volume {volume} was detached from {payload['instance']} before its snapshot.")
    return Done(write=lambda: _started(context, {row: token.get(volume, "") for volume, row in rows.items()}))


def start_image(context: StepContext) -> Outcome:
    """CreateImage of an instance. Payload: account, region, instance, snapshot (row id), name, no_reboot, tags."""
    ec2_client, payload = ec2(context), context.payload

    def create() -> str:
        marks = _step_tags(context)
        made = ec2_client.call(
            "CreateImage",
            InstanceId=payload["instance"],
            Name=f"{payload['name']}-{context.step_id}",
            Description=payload["description"][:LONGEST_DESCRIPTION],
            NoReboot=payload["no_reboot"],
            TagSpecifications=[tags.specification("image", marks), tags.specification("snapshot", marks)],
        )
        return str(made["ImageId"])

    def find() -> list[str]:
        filters = tags.made_by(context.step_id, context.payload["tags"][tags.SERVER])
        images = list(ec2_client.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters))
        images.sort(key=lambda image: image.get("CreationDate", ""))
        return [image["ImageId"] for image in images]

    def discard(image_id: str) -> None:
        ec2_client.call("DeregisterImage", ImageId=image_id)

    image = context.once(create=lambda: create_or_adopt(context, create, find), find=find, discard=discard)
    return Done(write=lambda: _started(context, {payload["snapshot"]: image}))


def poll_snapshots(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask for all snapshots of one account and region in calls of 200 ids."""
    rows = watching.rows_of(contexts)
    pending = [row.aws_id for held in rows.values() for row in held if row.status == SnapshotStatus.PENDING]
    shown = describe_snapshots(ec2(contexts[0]), pending)
    return {
        context.step_id: watching.judge(
            context, rows[context.step_id], {i: _snapshot_state(s) for i, s in shown.items()}
        )
        for context in contexts
    }


def poll_images(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask for all images of one account and region that are being made."""
    rows = watching.rows_of(contexts)
    ids = [row.aws_id for held in rows.values() for row in held if row.status == SnapshotStatus.PENDING]
    ec2_client, shown = ec2(contexts[0]), {}
    for start in range(0, len(ids), 200):
        filters = [{"Name": "image-id", "Values": ids[start : start + 200]}]
        for image in ec2_client.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters):
            shown[image["ImageId"]] = _image_state(image)
    return {context.step_id: watching.judge(context, rows[context.step_id], shown) for context in contexts}


def _snapshot_state(snapshot: dict[str, Any]) -> Shown:
    state = {"completed": SnapshotStatus.COMPLETED, "error": SnapshotStatus.ERROR}.get(
        snapshot["State"], SnapshotStatus.PENDING
    )
    percent = int(snapshot.get("Progress", "0%").rstrip("%") or 0)
    kept = {"kms_key_id": snapshot["KmsKeyId"]} if snapshot.get("KmsKeyId") else {}
    return Shown(state, percent, snapshot.get("StateMessage", ""), kept, snapshot.get("VolumeSize"))


def _image_state(image: dict[str, Any]) -> Shown:
    state = {"available": SnapshotStatus.COMPLETED, "pending": SnapshotStatus.PENDING}.get(
        image["State"], SnapshotStatus.ERROR
    )
    devices = [m for m in image.get("BlockDeviceMappings", ()) if m.get("Ebs", {}).get("SnapshotId")]
    kept = {
        "snapshot_ids": [m["Ebs"]["SnapshotId"] for m in devices],
        "block_devices": {m["DeviceName"]: m["Ebs"]["SnapshotId"] for m in devices},
    }
    return Shown(state, 0, image.get("StateReason", {}).get("Message", ""), kept)


def _step_tags(context: StepContext) -> dict[str, str]:
    ours = {**context.payload["tags"], tags.STEP: str(context.step_id)}
    return tags.with_source(ours, context.payload.get("source_tags", {}))


def _find_sets(ec2_client: AwsClient, context: StepContext) -> list[dict[str, str]]:
    """What interrupted attempts of this step have made: one {volume: snapshot} for each, oldest first."""
    filters = tags.made_by(context.step_id, context.payload["tags"][tags.SERVER])
    found = list(ec2_client.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters))
    per_volume: dict[str, list[str]] = defaultdict(list)
    for snapshot in sorted(found, key=lambda item: (str(item["StartTime"]), item["SnapshotId"])):
        per_volume[snapshot["VolumeId"]].append(snapshot["SnapshotId"])
    count = max((len(ids) for ids in per_volume.values()), default=0)
    return [{v: ids[n] for v, ids in per_volume.items() if n < len(ids)} for n in range(count)]


def _discard(ec2_client: AwsClient) -> Any:
    def discard(token: dict[str, str]) -> None:
        for snapshot_id in token.values():
            try:
                ec2_client.call("DeleteSnapshot", SnapshotId=snapshot_id)
            except AwsNotFound:
                continue

    return discard


def _started(context: StepContext, made: Mapping[int, str]) -> None:
    for row, aws_id in made.items():
        changes: dict[str, Any] = {"aws_id": aws_id, "start_time": context.now}
        if not aws_id:
            changes |= {"status": SnapshotStatus.ERROR, "succeeded": False, "end_time": context.now}
            changes |= {"error": "The volume was detached before its snapshot."}
        Snapshot.objects.filter(pk=row).update(**changes)
    context.log("Started " + ", ".join(sorted(filter(None, made.values()))) + ".")


def cancel_started(context: StepContext) -> None:
    """Abort: delete what this step has started. Absent is as good as deleted."""
    if context.lease.intent_at is None:
        return
    ec2_client = ec2(context)
    for token in [context.token] if context.token is not None else _find_sets(ec2_client, context):
        _discard(ec2_client)(token)
        context.log("Removed " + ", ".join(token.values()) + ".")


def cancel_image(context: StepContext) -> None:
    """Abort: deregister the image of this step and delete its snapshots."""
    if context.lease.intent_at is None:
        return
    ec2_client = ec2(context)
    filters = tags.made_by(context.step_id, context.payload["tags"][tags.SERVER])
    for image in list(ec2_client.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters)):
        ec2_client.call("DeregisterImage", ImageId=image["ImageId"])
        context.log(f"Removed {image['ImageId']}.")
    for token in _find_sets(ec2_client, context):
        _discard(ec2_client)(token)


def cancel_watch(context: StepContext) -> None:
    """Abort: delete the snapshots that are not complete, and say so in their records."""
    ec2_client = ec2(context)
    for row in Snapshot.objects.filter(pk__in=context.payload["rows"], status=SnapshotStatus.PENDING):
        if row.aws_id.startswith("snap-"):
            _discard(ec2_client)({row.source_id: row.aws_id})
        elif row.aws_id:
            remove_image(ec2_client, row.aws_id)
        context.log(f"Removed {row.aws_id or 'nothing'} of {row.source_id}: the backup was aborted.")
    with context.fenced():
        Snapshot.objects.filter(pk__in=context.payload["rows"], status=SnapshotStatus.PENDING).update(
            status=SnapshotStatus.DELETED, succeeded=False, deletion_time=context.now, error="Aborted."
        )


def remove_image(ec2_client: AwsClient, image_id: str) -> None:
    """Deregister an image and then delete its snapshots (EC2 refuses the other order). Absent is fine."""
    try:
        images = ec2_client.call("DescribeImages", ImageIds=[image_id])["Images"]
        snapshots = [
            mapping["Ebs"]["SnapshotId"]
            for image in images
            for mapping in image.get("BlockDeviceMappings", ())
            if mapping.get("Ebs", {}).get("SnapshotId")
        ]
        ec2_client.call("DeregisterImage", ImageId=image_id)
    except AwsNotFound:
        return
    _discard(ec2_client)({snapshot: snapshot for snapshot in snapshots})


KINDS = (
    StepKind("backup.start_volume", QUEUE, start_volume, cancel=cancel_started, failed=watching.mark_failed),
    StepKind("backup.start_instance", QUEUE, start_instance, cancel=cancel_started, failed=watching.mark_failed),
    StepKind("backup.start_image", QUEUE, start_image, cancel=cancel_image, failed=watching.mark_failed),
    StepKind(
        "backup.watch_snapshots", QUEUE, watching.watch, poll=poll_snapshots, cancel=cancel_watch, failed=watching.mark_failed
    ),
    StepKind("backup.watch_images", QUEUE, watching.watch, poll=poll_images, cancel=cancel_watch, failed=watching.mark_failed),
)
