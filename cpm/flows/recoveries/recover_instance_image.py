"""The image that a recovered instance starts from: registered from the root snapshot, or one that exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpm.aws.errors import LimitReached
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.named_images import create_or_adopt
from cpm.flows.recoveries import recover_share, recover_sources
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    aws,
    ec2,
    marked,
    marks,
    not_shown,
    refused,
    server_id,
    token_once,
)
from cpm.flows.recoveries.recover_sources import Source
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import SnapshotKind
from cpm.models import Recovery, Snapshot

IMAGE_KINDS = (SnapshotKind.INITIAL_AMI, SnapshotKind.ONLY_AMI)
BOOT_MODES = frozenset({"legacy-bios", "uefi", "uefi-preferred"})


@dataclass(frozen=True, slots=True)
class Image:
    """An image to launch from; `devices` are its block device mappings, `copied` whether we bring it along."""

    ref: dict[str, str]
    described: Mapping[str, Any]
    specs: tuple[StepSpec, ...] = ()

    @property
    def root(self) -> str:
        return str(self.described.get("RootDeviceName", ""))

    @property
    def devices(self) -> list[str]:
        return [m["DeviceName"] for m in self.described.get("BlockDeviceMappings", ()) if "Ebs" in m]


def images_of(row: Snapshot) -> list[Snapshot]:
    """The complete images of an instance record: its own, then the initial one that its backup relies on."""
    wanted = list(row.children.filter(kind__in=IMAGE_KINDS))
    initial = row.details.get("initial_ami")
    if initial and initial not in {one.pk for one in wanted}:
        wanted += list(Snapshot.objects.filter(pk=initial))
    return [one for one in wanted if recover_sources.candidates_of(one)]


def existing(context: StepContext, recovery: Recovery, row: Snapshot, target: Place, *, stays: bool) -> Image:
    """The image for restore_from I: the one asked for, the backup's, or the one the original was launched from."""
    request, client = recovery.request, aws(context, target)
    wanted = request.get("image_id")
    if wanted:
        return Image({"id": wanted}, _visible(client, wanted))
    backed_up = images_of(row)
    if backed_up:
        source = recover_sources.choose(context, backed_up[:1], target, from_account=request.get("from_account"))
        return _brought(context, source[backed_up[0].pk], target, stays=stays)
    original = row.details.get("aws_image_id", "")
    found = recover_sources.describe_images(client, [original]) if original else {}
    if original not in found:
        raise refused(
            f"The image {original or 'of the original'} does not exist in {target.region}. Give an image_id; the list of"
            " similar images helps to find one."
        )
    return Image({"id": original}, found[original])


def _visible(client: AwsClient, image_id: str) -> Mapping[str, Any]:
    found = recover_sources.describe_images(client, [image_id]).get(image_id)
    if found is None:
        raise refused(f"The image {image_id} does not exist in {client.region}, or this account may not use it.")
    if found["State"] != "available":
        raise refused(f"The image {image_id} is not available; it is {found['State']}.")
    return found


def _brought(context: StepContext, source: Source, target: Place, *, stays: bool) -> Image:
    """An image of a backup, shared with the target's account and copied to its region where that is needed."""
    foreign, far = source.place.account != target.account, source.place.region != target.region
    specs: list[StepSpec] = []
    if foreign:
        snapshots = [m["Ebs"]["SnapshotId"] for m in source.described["BlockDeviceMappings"] if "Ebs" in m]
        specs.append(recover_share.step(context, source.row, source.place, target, [source.aws_id, *snapshots]))
    if not far:
        return Image({"id": source.aws_id}, source.described, tuple(specs))
    payload = {
        "name": "image",
        "account": target.account,
        "region": target.region,
        "source": source.aws_id,
        "source_region": source.place.region,
        "encryption": dict(source.encryption),
        "stays": stays,
    }
    after = tuple(spec.key for spec in specs)
    return Image({"step": "image"}, source.described, (*specs, StepSpec("recover.copy_image", payload, key="image", after=after)))


def registration(
    row: Snapshot, request: Mapping[str, Any], devices: Sequence[Mapping[str, Any]], root: str
) -> dict[str, Any]:
    """RegisterImage but for name and tags: the machine as it was, with what the request changes."""
    details = row.details
    ena = request.get("ena_support")
    chosen: dict[str, Any] = {
        "Architecture": request.get("architecture") or details.get("aws_architecture") or "x86_64",
        "RootDeviceName": root,
        "VirtualizationType": details.get("aws_virtualization_type") or "hvm",
        "EnaSupport": bool(details.get("ena_support") if ena is None else ena),
    }
    if details.get("boot_mode") in BOOT_MODES:
        chosen["BootMode"] = details["boot_mode"]
    if chosen["VirtualizationType"] == "paravirtual":
        kernel = request.get("kernel_id") or details.get("aws_kernel_id")
        disk = request.get("ram_disk_id") or details.get("aws_ram_disk_id")
        chosen |= ({"KernelId": kernel} if kernel else {}) | ({"RamdiskId": disk} if disk else {})
    return {"parameters": chosen, "devices": list(devices)}


def register(context: StepContext) -> Outcome:
    """RegisterImage from the snapshots. It takes no client token, so it runs under the once-only protocol."""
    client, payload = ec2(context), context.payload

    def create() -> str:
        mappings = [recover_sources.mapping(context, one) for one in payload["devices"]]
        answer = client.call(
            "RegisterImage",
            Name=f"CPM-recovery-{context.subject_id}-{context.step_id}-{str(server_id())[:8]}",
            Description=f"CPM recovery {context.subject_id} of {payload['original']}",
            BlockDeviceMappings=mappings,
            TagSpecifications=[tags.specification("image", tags.with_source(marks(context), payload["labels"]))],
            **payload["parameters"],
        )
        return str(answer["ImageId"])

    def find() -> list[str]:
        found = list(client.paginate("DescribeImages", "Images", Owners=["self"], Filters=marked(context.step_id)))
        return [one["ImageId"] for one in sorted(found, key=lambda one: (one.get("CreationDate", ""), one["ImageId"]))]

    def discard(extra: str) -> None:
        client.call("DeregisterImage", ImageId=extra)

    image = context.once(create=lambda: create_or_adopt(context, create, find), find=find, discard=discard)
    return _until_available(context, client, image, f"Registered {image} from the snapshots of {payload['original']}.")


def copy_image(context: StepContext) -> Outcome:
    """CopyImage of the backup's image to the region to recover to."""
    client, payload = ec2(context), context.payload
    ours = marks(context)

    def call(token: str) -> str:
        answer = client.call(
            "CopyImage",
            ClientToken=token,
            Name=f"CPM-recovery-{context.subject_id}-{context.step_id}-{str(server_id())[:8]}",
            Description=f"CPM recovery {context.subject_id}: copy of {payload['source']}",
            SourceImageId=payload["source"],
            SourceRegion=payload["source_region"],
            TagSpecifications=[tags.specification("image", ours), tags.specification("snapshot", ours)],
            **payload["encryption"],
        )
        return str(answer["ImageId"])

    try:
        image = token_once(context, call)
    except LimitReached as error:
        if not error.transient:
            raise
        return polling.again(context.now, message="Waiting: AWS is copying as many images as it allows.")
    return _until_available(context, client, image, f"Copied {payload['source']} to {client.region} as {image}.")


def _until_available(context: StepContext, client: AwsClient, image: str, message: str) -> Outcome:
    shown = recover_sources.describe_images(client, [image]).get(image)
    if shown is None:
        return not_shown(context, image)
    if shown["State"] == "pending":
        return polling.again(context.now, message=f"{image} is being made.")
    if shown["State"] != "available":
        return Failed(f"{image} failed: {shown.get('StateReason', {}).get('Message', 'AWS gives no reason')}.")
    context.log(message)
    return Done()


KINDS = (StepKind("recover.image", QUEUE, register), StepKind("recover.copy_image", QUEUE, copy_image))
