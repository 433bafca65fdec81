"""The volumes of a recovered instance: which ones and in what shape, and putting them into a launched instance.

An instance that starts from an image (restore_from I) has the image's volumes. It is stopped, each volume is
switched for one from the backup's snapshots, and it is started again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpm.flows import polling, tags
from cpm.flows.recoveries import recover_sources
from cpm.flows.recoveries.recover_base import QUEUE, Place, ec2, made, step_named, warn_of_backup_tag
from cpm.flows.recoveries.recover_sources import Ready
from cpm.flows.recoveries.recover_volume_attach import SWITCH_AND_DELETE
from cpm.flows.s3 import restore_plan
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import RunIf, SnapshotKind, StepState
from cpm.models import Snapshot
from cpm.resources.ebs_types import Shape
from cpm.resources.ec2_capture import describe_instances


@dataclass(slots=True)
class Volume:
    """One volume to recover, as the original had it and the request changes it."""

    row: Snapshot
    device: str
    shape: Shape
    delete_on_termination: bool
    labels: dict[str, str]
    root: bool

    def mapping(self, ref: Mapping[str, str]) -> dict[str, Any]:
        ebs = {**self.shape.parameters("VolumeSize"), "DeleteOnTermination": self.delete_on_termination}
        return {"DeviceName": self.device, "Ebs": ebs, "snapshot": dict(ref)}


def rows_of(row: Snapshot) -> list[Snapshot]:
    """The volume snapshots of an instance record, root first."""
    root = row.details.get("aws_root_device")
    children = row.children.filter(kind=SnapshotKind.VOLUME).select_related("original").order_by("device", "id")
    return sorted(children, key=lambda one: one.device != root)


def override_of(row: Snapshot, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the request says of a volume; None if it says nothing."""
    return next((one for one in request.get("instance_volumes") or () if one.get("volume_id") == row.source_id), None)


def chosen(
    context: StepContext,
    row: Snapshot,
    request: Mapping[str, Any],
    rows: Sequence[Snapshot],
    *,
    from_s3: bool = False,
) -> tuple[list[Volume], list[str]]:
    """The volumes to recover, root first, and what the backup lacks of them in words."""
    root, listed = row.details.get("aws_root_device"), request.get("instance_volumes")
    volumes: list[Volume] = []
    missing: list[str] = []
    for one in rows:
        override = override_of(one, request)
        if listed and override is None and one.device != root:
            continue
        if not (restore_plan.copies_of(one) if from_s3 else recover_sources.candidates_of(one)):
            what = "copy in S3 of" if from_s3 else "snapshot in"
            missing.append(f"The volume {one.source_id} ({one.device}) has no usable {what} this backup.")
            context.warn(missing[-1])
            continue
        volumes.append(shaped(one, override or {}, is_root=one.device == root))
        warn_of_backup_tag(context, volumes[-1].labels, f"The volume {one.source_id}")
    return volumes, missing


def shaped(row: Snapshot, override: Mapping[str, Any], *, is_root: bool) -> Volume:
    """A volume as the original had it, with what the request changes."""
    details = row.details
    shape = Shape.of(
        details,
        row.capacity,
        {"capacity": override.get("capacity"), "type": override.get("volume_type"), "iops": override.get("iops")},
    )
    ends = override.get("delete_on_termination")
    keep_tags = override.get("preserve_tags", True)
    return Volume(
        row=row,
        device=override.get("device") or row.device,
        shape=shape,
        delete_on_termination=bool(details.get("delete_on_termination") if ends is None else ends),
        labels=tags.without_ours(details.get("tags", {})) if keep_tags else {},
        root=is_root,
    )


def ephemeral(row: Snapshot, request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Instance store devices; their key is spelled so in the API."""
    wanted = request.get("ephemeral_devices")
    if wanted is None:
        wanted = row.details.get("ephemeral") or []
    return [{"DeviceName": one["device"], "VirtualName": one["epehemeral"]} for one in wanted]


def swap_steps(
    number: int,
    target: Place,
    volumes: Sequence[Volume],
    ready: Mapping[int, Ready],
    encryption: Mapping[int, Mapping[str, Any]],
    *,
    ena: bool | None,
) -> list[StepSpec]:
    """Stop instance `number`, switch its volumes, start it."""
    common = {"account": target.account, "region": target.region, "number": number}
    stop = f"stop-{number}"
    specs = [StepSpec("recover.stop", {"name": stop, "ena": ena, **common}, key=stop, after=("up",))]
    attaches = []
    for index, volume in enumerate(volumes):
        pk = volume.row.pk
        create, attach = _swap(index, volume, ready[pk], encryption[pk], common)
        specs += [create, attach]
        attaches.append(attach.key)
    payload = {"name": f"start-{number}", "attaches": attaches, **common}
    after = (stop, *attaches)
    return [*specs, StepSpec("recover.start", payload, key=f"start-{number}", after=after, run_if=RunIf.ENDED)]


def _swap(
    index: int, volume: Volume, source: Ready, encryption: Mapping[str, Any], common: Mapping[str, Any]
) -> tuple[StepSpec, StepSpec]:
    """Create one volume in the zone of the instance, and put it in the place of the image's."""
    number = common["number"]
    made_by, attach = f"vol-{number}-{index}", f"attach-{number}-{index}"
    payload = {
        **common,
        "name": made_by,
        "attach": attach,
        "zone": "",
        "snapshot": source.ref,
        "shape": volume.shape.parameters(),
        "encryption": dict(encryption) if "id" in source.ref else {},
        "labels": volume.labels,
        "original": volume.row.source_id,
    }
    put = {
        "name": attach,
        "account": common["account"],
        "region": common["region"],
        "instance": {"number": number},
        "device": volume.device,
        "behaviour": SWITCH_AND_DELETE,
        "volume": {"step": made_by},
        "keep_flag": volume.delete_on_termination,
        "root": volume.root,
    }
    return (
        StepSpec("recover.volume", payload, key=made_by, after=("up", *source.after)),
        StepSpec("recover.attach", put, key=attach, after=(f"stop-{number}", made_by)),
    )


def _instance_of(context: StepContext) -> str:
    launched, number = made(context, "up") or [], context.payload["number"]
    return str(launched[number]["id"]) if number < len(launched) and launched[number]["up"] else ""


def stop(context: StepContext) -> Outcome:
    """Stop a launched instance, so that its volumes may be switched."""
    client, instance_id = ec2(context), _instance_of(context)
    if not instance_id:
        return Done("There is no instance to stop.")
    shown = describe_instances(client, [instance_id]).get(instance_id)
    if shown is None:
        return Failed(f"The instance {instance_id} is gone.")
    if shown["State"]["Name"] != "stopped":
        if shown["State"]["Name"] == "running":
            client.call("StopInstances", InstanceIds=[instance_id])
            context.log(f"Stopping {instance_id} to give it the volumes of the backup.")
        return polling.again(context.now, message=f"{instance_id} is stopping.")
    if context.payload["ena"] is not None:
        client.call("ModifyInstanceAttribute", InstanceId=instance_id, EnaSupport={"Value": context.payload["ena"]})
    return Done()


def start(context: StepContext) -> Outcome:
    """Start the instance again, unless its root volume is not the backup's."""
    client, instance_id = ec2(context), _instance_of(context)
    if not instance_id:
        return Done("There is no instance to start.")
    for name in context.payload["attaches"]:
        attach = step_named(context, name)
        if attach is not None and attach.payload["root"] and attach.state != StepState.SUCCEEDED:
            return Failed(f"{instance_id} is not started: it does not have the root volume of the backup.")
    shown = describe_instances(client, [instance_id]).get(instance_id)
    if shown is None:
        return Failed(f"The instance {instance_id} is gone.")
    if shown["State"]["Name"] == "running":
        return Done()
    if shown["State"]["Name"] == "stopped" and context.token is None:
        client.call("StartInstances", InstanceIds=[instance_id])
        context.remember("started")
    elif shown["State"]["Name"] == "stopped":
        return Failed(f"{instance_id} stopped again after its volumes were switched; look at its console output.")
    return polling.again(context.now, message=f"{instance_id} is starting.")


KINDS = (StepKind("recover.stop", QUEUE, stop), StepKind("recover.start", QUEUE, start))
