"""Attaching a recovered volume to an instance, or switching it for the one that is at the device now.

Every run looks at the state of things first and does the next thing, so a run that dies anywhere is simply
followed by another.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cpm.aws.errors import AwsError, InvalidState, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import polling
from cpm.flows.recoveries.recover_base import QUEUE, ec2, made, resolve
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.resources.ec2_capture import describe_instances, describe_volumes

FREE, SWITCH, SWITCH_AND_DELETE = "attach_free", "switch_no_delete", "switch_and_delete"
BEHAVIOURS = (FREE, SWITCH, SWITCH_AND_DELETE)


def volume_at(instance: Mapping[str, Any], device: str) -> dict[str, Any] | None:
    """What DescribeInstances shows at a device: VolumeId, DeleteOnTermination, Status."""
    for mapping in instance.get("BlockDeviceMappings", ()):
        if mapping["DeviceName"] == device and "Ebs" in mapping:
            found: dict[str, Any] = mapping["Ebs"]
            return found
    return None


def obstacle(instance: Mapping[str, Any], device: str, behaviour: str) -> str:
    """Why a volume cannot be attached there now; empty when it can."""
    held = volume_at(instance, device)
    if held is None:
        return ""
    where = f"{device} of {instance['InstanceId']}"
    if behaviour == FREE:
        return f"{where} is taken by {held['VolumeId']}. Choose a free device, or switch the volumes."
    if instance["State"]["Name"] != "stopped":
        return f"Stop {instance['InstanceId']} first: the volume at {where} may be in use by its operating system."
    return ""


def attach(context: StepContext) -> Outcome:
    """Payload: instance, device, behaviour, volume, and optionally `keep_flag` (delete on termination)."""
    payload, client = context.payload, ec2(context)
    instance_id = _instance(context)
    if not instance_id:
        return Done("There is no instance to attach it to.")
    volume = resolve(context, payload["volume"])
    instance = describe_instances(client, [instance_id]).get(instance_id)
    if instance is None:
        return Failed(f"The instance {instance_id} is gone.")
    held = volume_at(instance, payload["device"])
    if held is not None and held["VolumeId"] == volume:
        if held.get("Status", "attached") == "attaching":
            return polling.again(context.now, message=f"{volume} is being attached.")
        return _attached(context, client, instance_id, volume)
    if held is not None:
        return _make_room(context, client, instance, held)
    shown = describe_volumes(client, [volume]).get(volume)
    if shown is None:
        return Failed(f"The volume {volume} is gone.")
    if any(one["InstanceId"] != instance_id for one in shown.get("Attachments", ())):
        return Failed(f"Somebody else attached {volume} to another instance meanwhile.")
    if shown["State"] != "available":
        return polling.again(context.now, message=f"{volume} is being attached.")
    return _put(context, client, instance_id, volume)


def _instance(context: StepContext) -> str:
    ref = context.payload["instance"]
    if "id" in ref:
        return str(ref["id"])
    launched = made(context, "up") or []
    number = ref["number"]
    return str(launched[number]["id"]) if number < len(launched) and launched[number]["up"] else ""


def _make_room(context: StepContext, client: AwsClient, instance: dict[str, Any], held: dict[str, Any]) -> Outcome:
    """Detach what is at the device. Which volume that is gets remembered before anything happens to it."""
    payload, old = context.payload, (context.cursor or {}).get("old")
    if old is not None and old != held["VolumeId"]:
        return Failed(f"Somebody else attached {held['VolumeId']} to {payload['device']} meanwhile; it is left alone.")
    problem = obstacle(instance, payload["device"], payload["behaviour"])
    if problem:
        return Failed(problem)
    if old is None:
        context.save_cursor({"old": held["VolumeId"], "flag": bool(held.get("DeleteOnTermination"))})
    if held.get("Status", "attached") != "detaching":
        _detach(client, instance["InstanceId"], held["VolumeId"])
        context.log(f"Detached {held['VolumeId']} from {payload['device']} of {instance['InstanceId']}.")
    return _soon(context, f"{held['VolumeId']} is being detached.")


def _detach(client: AwsClient, instance_id: str, volume: str) -> None:
    """Detach; a volume that is detached already is refused by DetachVolume with IncorrectState, and is fine."""
    try:
        client.call("DetachVolume", VolumeId=volume, InstanceId=instance_id)
    except InvalidState:
        shown = describe_volumes(client, [volume]).get(volume)
        if shown is not None and any(one["InstanceId"] == instance_id for one in shown.get("Attachments", ())):
            raise


def _put(context: StepContext, client: AwsClient, instance_id: str, volume: str) -> Outcome:
    """Attach the new volume; when AWS refuses, the old one goes back to its place."""
    device, old = context.payload["device"], (context.cursor or {}).get("old")
    if old is not None:
        before = describe_volumes(client, [old]).get(old)
        if before is not None and before["State"] == "in-use" and before["Attachments"][0]["InstanceId"] == instance_id:
            return _soon(context, f"{old} is being detached.")
    try:
        client.call("AttachVolume", VolumeId=volume, InstanceId=instance_id, Device=device)
    except AwsError as error:
        if error.transient:
            raise
        words = error.explain()
        if old is not None:
            client.call("AttachVolume", VolumeId=old, InstanceId=instance_id, Device=device)
            words += f" {old} was put back to {device}."
        return Failed(words)
    return _soon(context, f"{volume} is being attached.")


def _attached(context: StepContext, client: AwsClient, instance_id: str, volume: str) -> Outcome:
    payload, cursor = context.payload, context.cursor or {}
    flag = payload.get("keep_flag", cursor.get("flag"))
    if flag is not None:
        mapping = {"DeviceName": payload["device"], "Ebs": {"DeleteOnTermination": flag}}
        client.call("ModifyInstanceAttribute", InstanceId=instance_id, BlockDeviceMappings=[mapping])
    old = cursor.get("old")
    if old is not None and payload["behaviour"] == SWITCH_AND_DELETE:
        shown = describe_volumes(client, [old]).get(old)
        if shown is not None and shown["State"] == "in-use":
            return _soon(context, f"{old} is being detached.")
        with suppress(NotFound):
            client.call("DeleteVolume", VolumeId=old)
        context.log(f"Deleted {old}, which {volume} replaces.")
    context.remember(volume)
    kept = f" {old} was kept, detached." if old and payload["behaviour"] == SWITCH else ""
    context.log(f"Attached {volume} to {instance_id} as {payload['device']}.{kept}")
    return Done()


def _soon(context: StepContext, message: str) -> Wait:
    return polling.again(context.now, message=message)


KINDS = (StepKind("recover.attach", QUEUE, attach),)
