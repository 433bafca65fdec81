"""Recovery of a volume: plan -> [share] -> [copy] -> create -> [attach or switch] -> clean -> finish.

From S3: plan -> [retrieve] -> write a temporary snapshot -> create, and so on.

A device is switched only on a stopped instance, because the operating system may be using the old volume. The
old volume is deleted only when the new one is attached in its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.recoveries import recover_sources, recover_volume_attach
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    aws,
    ec2,
    made,
    marks,
    not_shown,
    poll_group,
    recovery_of,
    refused,
    resolve,
    token_once,
    warn_of_backup_tag,
)
from cpm.flows.recoveries.recover_finish import ends, plan_cancelled, plan_failed
from cpm.flows.s3 import restore_plan
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.models import Recovery, Snapshot
from cpm.resources.ebs_types import Shape
from cpm.resources.ec2_capture import describe_instances, describe_volumes

RESULT = "volume"


def plan(context: StepContext) -> Outcome:
    """Look at what AWS has now, refuse what cannot work, and plan the steps. Nothing has been made so far."""
    recovery = recovery_of(context)
    row, request = recovery.snapshot, recovery.request
    if row is None:
        raise refused("The snapshot record was deleted before the recovery began.")
    target = Place(request["target_account"], request["target_region"])
    if recovery.from_s3 and (waiting := restore_plan.turn(context, recovery)):
        return waiting
    client = aws(context, target)
    restored: dict[int, restore_plan.Restored] = {}
    if recovery.from_s3:
        restored = restore_plan.choose(context, recovery, [row], target)
        source, ready = restored[row.pk].source, restored[row.pk].ready
        origin = f"its copy in S3 repository {restored[row.pk].copy.repository}"
        zone = _zone(client, row, request, target)
    else:
        source = recover_sources.choose(context, [row], target)[row.pk]
        zone = _zone(client, row, request, target)
        ready, origin = recover_sources.prepare(context, source, target, owned=False), source.aws_id
    create = StepSpec(
        "recover.volume", _payload(context, recovery, row, source, target, zone, ready), key=RESULT, after=ready.after
    )
    specs = [*ready.specs, create]
    if request.get("attach_to"):
        payload = {
            "name": "attach",
            "account": target.account,
            "region": target.region,
            "instance": {"id": request["attach_to"]},
            "device": request["device"],
            "behaviour": request["attach_behaviour"],
            "volume": {"step": RESULT},
        }
        specs.append(StepSpec("recover.attach", payload, key="attach", after=(RESULT,)))
    context.log(f"Recovering {row.source_id} from {origin} to zone {zone}.")
    return Done(then=[*specs, *ends(specs)], write=lambda: restore_plan.begun(recovery, restored))


def _payload(
    context: StepContext,
    recovery: Recovery,
    row: Snapshot,
    source: recover_sources.Source,
    target: Place,
    zone: str,
    ready: recover_sources.Ready,
) -> dict[str, Any]:
    request = recovery.request
    wanted = {"capacity": request.get("capacity"), "type": request.get("aws_resource_type"), "iops": request.get("iops")}
    shape = Shape.of(row.details, row.capacity or source.described.get("VolumeSize"), wanted)
    labels = tags.without_ours(row.details.get("tags", {})) if request.get("preserve_tags", True) else {}
    warn_of_backup_tag(context, labels, "The recovered volume")
    # A copy on the way already has the right key; only a volume made straight from a shared snapshot needs it told.
    return {
        "name": RESULT,
        "account": target.account,
        "region": target.region,
        "zone": zone,
        "snapshot": ready.ref,
        "shape": shape.parameters(),
        "encryption": dict(source.encryption) if "id" in ready.ref else {},
        "labels": labels,
        "original": row.source_id,
    }


def _zone(client: AwsClient, row: Snapshot, request: dict[str, Any], target: Place) -> str:
    """The zone of the new volume: the one asked for, the instance's, the original one, or the region's first."""
    answer = client.call("DescribeAvailabilityZones")
    zones = sorted(zone["ZoneName"] for zone in answer["AvailabilityZones"] if zone["State"] == "available")
    zone = request.get("zone")
    if zone and zone not in zones:
        raise refused(f"There is no zone {zone} in {target.region}; choose one of {', '.join(zones)}.")
    if request.get("attach_to"):
        instance = describe_instances(client, [request["attach_to"]]).get(request["attach_to"])
        if instance is None:
            raise refused(f"The instance {request['attach_to']} does not exist in {target.region}.")
        there = instance["Placement"]["AvailabilityZone"]
        if zone and zone != there:
            raise refused(f"{request['attach_to']} is in zone {there}; a volume in {zone} cannot be attached to it.")
        problem = recover_volume_attach.obstacle(instance, request["device"], request["attach_behaviour"])
        if problem:
            raise refused(problem)
        zone = there
    if not zones:
        raise refused(f"{target.region} has no available zone.")
    original = row.details.get("zone", "")
    return str(zone or (original if original in zones else zones[0]))


def create(context: StepContext) -> Outcome:
    """CreateVolume from the snapshot, and wait until it can be used."""
    client, payload = ec2(context), context.payload
    zone = payload["zone"] or _zone_of_instance(context)
    if not zone:
        return Done("There is no instance to make it for.")

    def call(token: str) -> str:
        answer = client.call(
            "CreateVolume",
            ClientToken=token,
            AvailabilityZone=zone,
            SnapshotId=resolve(context, payload["snapshot"]),
            TagSpecifications=[
                tags.specification("volume", tags.with_source(marks(context), payload["labels"]))
            ],
            **payload["shape"],
            **payload["encryption"],
        )
        return str(answer["VolumeId"])

    volume = token_once(context, call)
    return _state(context, describe_volumes(client, [volume]).get(volume))


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all volumes that are being created in one account and region together."""
    shown = describe_volumes(ec2(contexts[0]), [context.token for context in contexts])
    return {context.step_id: _state(context, shown.get(context.token)) for context in contexts}


def _state(context: StepContext, shown: Mapping[str, Any] | None) -> Outcome:
    volume, original = context.token, context.payload["original"]
    if shown is None:
        return not_shown(context, volume)
    if shown["State"] == "creating":
        return polling.again(context.now, group=poll_group(context, "volumes"), message=f"{volume} is being created.")
    if shown["State"] == "error":
        why = "The KMS key may not be usable by the account." if shown.get("Encrypted") else "AWS gives no reason."
        return Failed(f"AWS could not create {volume} from the snapshot of {original}. {why}")
    context.log(f"Created {volume} in {shown['AvailabilityZone']} from the snapshot of {original}.")
    return Done()


def _zone_of_instance(context: StepContext) -> str:
    """The zone of the launched instance that the volume is for; empty when that one was not launched."""
    launched = made(context, "up") or []
    number = context.payload["number"]
    return str(launched[number]["zone"]) if number < len(launched) and launched[number]["up"] else ""


KINDS = (
    StepKind("recover.plan_volume", QUEUE, plan, failed=plan_failed, cancelled=plan_cancelled),
    StepKind("recover.volume", QUEUE, create, poll=poll),
    *recover_volume_attach.KINDS,
)
