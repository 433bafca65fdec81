"""The end of a recovery's work in AWS: what was temporary goes, and what a failed or aborted one has made.

Runs however the steps before it ended. Everything here is looked for first and removed if it is there, so it
may run any number of times. What cannot be removed is named in the log and in the outcome.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from cpm.aws.errors import AwsError, InUse, InvalidState, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.recoveries import (
    recover_database,
    recover_outcome,
    recover_share,
    recover_sources,
    recover_whole,
)
from cpm.flows.recoveries.recover_base import QUEUE, aws, marked, place_of, until_listed
from cpm.flows.recoveries.recover_outcome import Outcome as Found
from cpm.flows.recoveries.recover_volume_attach import volume_at
from cpm.flows.s3 import restore_files, restore_plan
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind
from cpm.lib.states import StepState
from cpm.models import Step
from cpm.resources.ec2_capture import describe_instances, describe_snapshots, describe_volumes, tags_of

# What has not gone after this time is reported as left behind, so that the record comes to its end.
LONGEST_WAIT = timedelta(minutes=15)
# Databases and file systems, and copies of their snapshots, can be removed only when AWS is done with making them.
LONGEST_OF_WHOLE = timedelta(hours=24)


class Busy(Exception):
    """AWS is not done with something yet; look again."""


def clean(context: StepContext) -> Outcome:
    """Undo what must not stay, in the order in which AWS lets go of things."""
    found = recover_outcome.read(context)
    context.remember({"undo": found.undo})
    busy, left, longest = "", [], LONGEST_WAIT
    for kind, remove in ORDER:
        for step in found.steps:
            if step.kind != kind:
                continue
            try:
                remove(context, found, step)
            except (Busy, InUse, InvalidState) as wait:
                busy = str(wait)
                longest = LONGEST_OF_WHOLE if remove in (_whole, _whole_copies) else longest
            except AwsError as error:
                if error.transient:
                    raise
                left.append(error.explain())
    if context.cursor is None:
        context.save_cursor({"since": context.now.isoformat()})
    if busy and context.now < datetime.fromisoformat(context.cursor["since"]) + longest:
        return polling.again(context.now, message=busy)
    left += [busy] if busy else []
    if left:
        return Failed("Not everything temporary could be removed. " + " ".join(dict.fromkeys(left)))
    return Done()


def _ids(context: StepContext, client: AwsClient, step: Step, find: Callable[[], list[str]]) -> list[str]:
    """What a step has made; for an interrupted one, what AWS shows with its tag."""
    if step.token is not None:
        return list(step.token) if isinstance(step.token, list) else [step.token]
    began = isinstance(step.cursor, dict) and "began" in step.cursor
    if step.state == StepState.SUCCEEDED or not (began or step.intent_at):
        return []
    until_listed(context, step)
    return find()


def _instances(context: StepContext, found: Found, step: Step) -> None:
    client = aws(context, place_of(step.payload))

    def find() -> list[str]:
        pages = client.paginate("DescribeInstances", "Reservations", Filters=marked(step.pk))
        return [instance["InstanceId"] for page in pages for instance in page["Instances"]]

    unwanted = [one for one in _ids(context, client, step, find) if one not in found.came]
    for instance_id, instance in describe_instances(client, unwanted).items():
        _terminate(context, client, instance_id, instance)
    if unwanted and describe_instances(client, unwanted):
        raise Busy(f"Waiting for {', '.join(unwanted)} to end.")


def _terminate(context: StepContext, client: AwsClient, instance_id: str, instance: dict[str, Any]) -> None:
    """End an instance that this recovery launched, with the volumes that this recovery made for it."""
    devices = {m["Ebs"]["VolumeId"]: m["DeviceName"] for m in instance.get("BlockDeviceMappings", ()) if "Ebs" in m}
    volumes = describe_volumes(client, list(devices))
    ours = [v for v, shown in volumes.items() if tags_of(shown).get(tags.RECOVERY) == str(context.subject_id)]
    mappings = [{"DeviceName": devices[v], "Ebs": {"DeleteOnTermination": True}} for v in ours]
    with suppress(NotFound):
        if mappings:
            client.call("ModifyInstanceAttribute", InstanceId=instance_id, BlockDeviceMappings=mappings)
        client.call("ModifyInstanceAttribute", InstanceId=instance_id, DisableApiTermination={"Value": False})
        client.call("TerminateInstances", InstanceIds=[instance_id])
        context.log(f"Terminated {instance_id}: the recovery did not succeed.")


def _volumes(context: StepContext, found: Found, step: Step) -> None:
    client = aws(context, place_of(step.payload))

    def find() -> list[str]:
        return [v["VolumeId"] for v in client.paginate("DescribeVolumes", "Volumes", Filters=marked(step.pk))]

    unwanted = [] if _volume_stays(found, step) else _ids(context, client, step, find)
    shown = describe_volumes(client, unwanted)
    for volume, one in shown.items():
        with suppress(NotFound):
            if one["State"] == "in-use":
                client.call("DetachVolume", VolumeId=volume)
                raise Busy(f"Waiting for {volume} to be detached.")
            client.call("DeleteVolume", VolumeId=volume)
            context.log(f"Deleted {volume}, which the recovery had made and does not need.")


def _volume_stays(found: Found, step: Step) -> bool:
    if found.undo or step.state != StepState.SUCCEEDED:
        return False
    name = step.payload.get("attach")
    if name is None:
        return True
    attach = next(one for one in found.steps if one.payload.get("name") == name)
    return attach.state == StepState.SUCCEEDED


def _put_back(context: StepContext, found: Found, step: Step) -> None:
    """The volume that an unfinished switch has detached goes back to its device."""
    switched: dict[str, Any] = step.cursor or {}
    old = switched.get("old")
    if step.state == StepState.SUCCEEDED or old is None or "id" not in step.payload["instance"]:
        return
    client, instance_id, device = aws(context, place_of(step.payload)), step.payload["instance"]["id"], step.payload["device"]
    volume = describe_volumes(client, [old]).get(old)
    instance = describe_instances(client, [instance_id]).get(instance_id)
    if volume is None or instance is None:
        return
    held = volume_at(instance, device)
    if held is not None and held["VolumeId"] == old:
        return
    if held is not None or volume["State"] != "available":
        raise Busy(f"Waiting for {device} of {instance_id} to be free for {old}.")
    client.call("AttachVolume", VolumeId=old, InstanceId=instance_id, Device=device)
    mapping = {"DeviceName": device, "Ebs": {"DeleteOnTermination": switched["flag"]}}
    client.call("ModifyInstanceAttribute", InstanceId=instance_id, BlockDeviceMappings=[mapping])
    context.log(f"Put {old} back to {device} of {instance_id}.")


def _interfaces(context: StepContext, found: Found, step: Step) -> None:
    client = aws(context, place_of(step.payload))

    def find() -> list[str]:
        pages = client.paginate("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=marked(step.pk))
        return [nic["NetworkInterfaceId"] for nic in pages]

    if step.state == StepState.SUCCEEDED and not found.undo:
        return
    for nic in _ids(context, client, step, find):
        with suppress(NotFound):
            client.call("DeleteNetworkInterface", NetworkInterfaceId=nic)


def _images(context: StepContext, found: Found, step: Step) -> None:
    if image_stays(found, step):
        return
    client = aws(context, place_of(step.payload))

    def find() -> list[str]:
        filters = marked(step.pk)
        return [i["ImageId"] for i in client.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters)]

    for image in _ids(context, client, step, find):
        own = recover_sources.describe_images(client, [image]).get(image)
        if own is None:
            continue
        with suppress(NotFound):
            client.call("DeregisterImage", ImageId=image)
            context.log(f"Deregistered the temporary image {image}.")
        if step.kind == "recover.copy_image":
            # The snapshots of a copied image carry the step's tag too.
            _delete_snapshots(client, [m["Ebs"]["SnapshotId"] for m in own["BlockDeviceMappings"] if "Ebs" in m])
    if step.kind == "recover.copy_image":
        _delete_snapshots(client, recover_sources.find_snapshots(client, step.pk))


def image_stays(found: Found, step: Step) -> bool:
    """Whether an image outlives the recovery: by request, and only if something came of it."""
    return step.state == StepState.SUCCEEDED and not found.undo and step.payload["stays"] and bool(found.came)


def _copies(context: StepContext, found: Found, step: Step) -> None:
    if _kept_by_image(found, step):
        return
    client = aws(context, place_of(step.payload))
    ids = _ids(context, client, step, lambda: recover_sources.find_snapshots(client, step.pk))
    pending = [s for s, one in describe_snapshots(client, ids).items() if one["State"] == "pending"]
    _delete_snapshots(client, ids)
    if ids:
        context.log(f"Deleted the temporary copy {', '.join(ids)}{' before it was complete' if pending else ''}.")


def _written(context: StepContext, found: Found, step: Step) -> None:
    """Snapshots that were written from S3, unfinished ones included: AWS forgets those when they are deleted."""
    if _kept_by_image(found, step) or not (step.token or step.cursor):
        return
    client = aws(context, place_of(step.payload))
    ids = {step.token} if step.token else set()
    if step.state != StepState.SUCCEEDED:
        until_listed(context, step)
        ids |= set(recover_sources.find_snapshots(client, step.pk))
    _delete_snapshots(client, sorted(ids))
    if ids:
        context.log(f"Deleted the temporary snapshot {', '.join(sorted(ids))}.")


def _kept_by_image(found: Found, step: Step) -> bool:
    """Whether an image that stays uses the snapshot of this step."""
    images = [one for one in found.steps if one.kind == "recover.image" and image_stays(found, one)]
    return any(step.payload["name"] in image.payload["uses"] for image in images)


def _delete_snapshots(client: AwsClient, ids: list[str]) -> None:
    for snapshot in ids:
        with suppress(NotFound):
            client.call("DeleteSnapshot", SnapshotId=snapshot)


def _shares(context: StepContext, found: Found, step: Step) -> None:
    if not isinstance(step.cursor, dict) or recover_share.still_needed(context, step):
        return
    client = recover_share.holder(context, step.payload)
    given = [item for item in step.payload["items"] if item not in step.cursor["had"]]
    for operation in ("remove", "add"):
        for item in given:
            with suppress(NotFound):
                recover_share.permit(client, step.payload["type"], item, step.payload["number"], operation)
        # Somebody may have asked for the same permission while it was being removed: then it is given again.
        if not recover_share.still_needed(context, step):
            return


def _whole(context: StepContext, found: Found, step: Step) -> None:
    """What a recovery of a database or file system has made and could not finish, or is to undo."""
    if step.state == StepState.SUCCEEDED and not found.undo:
        return
    if not recover_whole.remove_made(context, step):
        raise Busy(f"Waiting until {step.token} can be removed.")


def _whole_copies(context: StepContext, found: Found, step: Step) -> None:
    if not recover_whole.remove_copy(context, step):
        raise Busy(f"Waiting until the temporary copy of {step.payload['original']} can be deleted.")


def _files(context: StepContext, found: Found, step: Step) -> None:
    """Files of an exported database that a recovery has put into a bucket without coming to its end."""
    if not found.came:
        restore_files.remove(context, step)


def _databases(context: StepContext, found: Found, step: Step) -> None:
    """A database that was made for rows from S3 which did not all come."""
    if not found.came and not recover_database.remove_made(context, step):
        raise Busy(f"Waiting until {step.token} can be removed.")


ORDER: tuple[tuple[str, Callable[[StepContext, Found, Step], None]], ...] = (
    ("recover.launch", _instances),
    ("recover.volume", _volumes),
    ("recover.attach", _put_back),
    ("recover.nic", _interfaces),
    ("recover.image", _images),
    ("recover.copy_image", _images),
    ("recover.copy", _copies),
    ("recover.s3_write", _written),
    ("recover.whole", _whole),
    ("recover.whole_copy", _whole_copies),
    (restore_plan.FILES, _files),
    (recover_database.INSTANCE, _databases),
    ("recover.share", _shares),
)
KINDS = (StepKind("recover.clean", QUEUE, clean),)
