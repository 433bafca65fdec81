"""Recovery of an instance.

From snapshots (S): [share] -> [copy] -> register image -> launch -> wait until it runs.
From an image (I): [share] -> [copy image] -> launch -> stop -> volumes from the snapshots -> switch -> start.
Then the temporary things are removed and the record is settled.
"""

from typing import Any

from cpm.flows import tags
from cpm.flows.recoveries import (
    recover_instance_image,
    recover_instance_launch,
    recover_instance_network,
    recover_instance_nics,
    recover_instance_volumes,
    recover_sources,
)
from cpm.flows.recoveries.recover_base import QUEUE, Place, aws, recovery_of, refused, warn_of_backup_tag
from cpm.flows.recoveries.recover_finish import ends, plan_cancelled, plan_failed
from cpm.flows.recoveries.recover_instance_image import Image
from cpm.flows.recoveries.recover_instance_volumes import Volume
from cpm.flows.s3 import restore_plan
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec
from cpm.models import Recovery, Snapshot


class Plan:
    """What the steps of one instance recovery are made from."""

    def __init__(self, context: StepContext, recovery: Recovery) -> None:
        self.context = context
        self.recovery = recovery
        if self.recovery.snapshot is None:
            raise refused("The snapshot record was deleted before the recovery began.")
        self.row: Snapshot = self.recovery.snapshot
        self.request: dict[str, Any] = self.recovery.request
        self.details: dict[str, Any] = self.row.details
        self.target = Place(self.request["target_account"], self.request["target_region"])
        self.count: int = self.request["num_instances_to_recover"]
        self.moved = (self.row.account_id, self.row.region) != (self.target.account, self.target.region)
        rows = recover_instance_volumes.rows_of(self.row)
        self.volumes, self.missing = recover_instance_volumes.chosen(
            context, self.row, self.request, rows, from_s3=self.recovery.from_s3
        )
        preserve = self.request.get("preserve_tags", True)
        self.labels = tags.without_ours(self.details.get("tags", {})) if preserve else {}
        warn_of_backup_tag(context, self.labels, "The recovered instance")
        self.ready: dict[int, recover_sources.Ready] = {}
        self.sources: dict[int, recover_sources.Source] = {}
        self.restored: dict[int, restore_plan.Restored] = {}

    @property
    def handling(self) -> str:
        return str(self.request.get("ami_handling") or "D")

    @property
    def common(self) -> dict[str, Any]:
        return {"account": self.target.account, "region": self.target.region}

    def prepare(self, *, owned: bool) -> list[StepSpec]:
        """Find the snapshots and make them usable at the target."""
        rows = [volume.row for volume in self.volumes]
        if self.recovery.from_s3:
            self.restored = restore_plan.choose(self.context, self.recovery, rows, self.target)
            self.sources = {pk: one.source for pk, one in self.restored.items()}
            self.ready = {pk: one.ready for pk, one in self.restored.items()}
            return [spec for ready in self.ready.values() for spec in ready.specs]
        self.sources = recover_sources.choose(
            self.context, rows, self.target, from_account=self.request.get("from_account")
        )
        for pk, source in self.sources.items():
            self.ready[pk] = recover_sources.prepare(self.context, source, self.target, owned=owned)
        return [spec for ready in self.ready.values() for spec in ready.specs]

    @property
    def from_dr(self) -> bool:
        return any(source.row.original_id is not None for source in self.sources.values())


def plan(context: StepContext) -> Outcome:
    """Look at what AWS has now, refuse what cannot work, and plan the steps. Nothing has been made so far."""
    recovery = recovery_of(context)
    if recovery.from_s3 and (waiting := restore_plan.turn(context, recovery)):
        return waiting
    work = Plan(context, recovery)
    specs = _from_snapshots(work) if work.request["restore_from"] == "S" else _from_image(work)

    def write() -> None:
        if work.from_dr:
            Recovery.objects.filter(pk=work.recovery.pk).update(from_dr=True)
        restore_plan.begun(recovery, work.restored)

    how = "its snapshots" if work.request["restore_from"] == "S" else "an image"
    how += " and its copies in S3" if recovery.from_s3 else ""
    context.log(f"Recovering {work.row.source_id} from {how} to {work.target.region}.")
    return Done(then=[*specs, *ends(specs)], write=write)


def _from_snapshots(work: Plan) -> list[StepSpec]:
    root = next((volume for volume in work.volumes if volume.root), None)
    if root is None:
        raise refused("The backup has no usable snapshot of the root volume; recover from an image (restore_from I).")
    specs = work.prepare(owned=True)
    stays = work.handling in {"L", "O"}
    if stays:
        work.context.warn("The image stays registered. While it exists, AWS does not delete the snapshots it uses.")
    devices = [volume.mapping(work.ready[volume.row.pk].ref) for volume in work.volumes]
    devices += recover_instance_volumes.ephemeral(work.row, work.request)
    payload = {
        "name": "image",
        **work.common,
        **recover_instance_image.registration(work.row, work.request, devices, root.device),
        "original": work.row.source_id,
        "labels": work.labels if stays else {},
        "stays": stays,
        "uses": [ready.ref["step"] for ready in work.ready.values() if "step" in ready.ref],
        "missing": work.missing,
    }
    after = tuple(key for ready in work.ready.values() for key in ready.after)
    image = StepSpec("recover.image", payload, key="image", after=after)
    if work.handling == "O":
        return [*specs, image]
    labels = {volume.device: volume.labels for volume in work.volumes}
    launched = _launch(work, {"step": "image"}, ("image",), devices=[], volume_labels=labels)
    return [*specs, image, *launched]


def _from_image(work: Plan) -> list[StepSpec]:
    image = recover_instance_image.existing(
        work.context, work.recovery, work.row, work.target, stays=work.handling == "L"
    )
    wanted = work.request.get("architecture")
    if wanted and image.described.get("Architecture") not in {None, wanted}:
        raise refused(f"The image is made for {image.described['Architecture']}, not for {wanted}.")
    ena = work.request.get("ena_support")
    ena = None if ena == image.described.get("EnaSupport") else ena
    specs = [*image.specs, *work.prepare(owned=False)]
    for volume in work.volumes:
        if volume.root:
            volume.device = image.root or volume.device
    keys = tuple(spec.key for spec in image.specs)
    if work.volumes:
        if not any(volume.root for volume in work.volumes):
            raise refused("The backup has no usable snapshot of the root volume.")
        # What the image has beside its root comes from the snapshots instead, or was not asked for.
        devices: list[dict[str, Any]] = [
            {"DeviceName": device, "NoDevice": ""} for device in image.devices if device != image.root
        ]
    else:
        devices = _changed_devices(work, image)
    devices += recover_instance_volumes.ephemeral(work.row, work.request)
    labels = {} if work.volumes else _image_labels(work)
    specs += _launch(work, image.ref, keys, devices=devices, volume_labels=labels)
    if work.volumes or ena is not None:
        encryption = {pk: source.encryption for pk, source in work.sources.items()}
        for number in range(work.count):
            specs += recover_instance_volumes.swap_steps(
                number, work.target, work.volumes, work.ready, encryption, ena=ena
            )
    return specs


def _image_labels(work: Plan) -> dict[str, dict[str, str]]:
    """The tags of the original's volumes where the image alone was backed up."""
    labels = {one["device"]: one.get("tags", {}) for one in work.details.get("block_devices", ())}
    return {device: tags.without_ours(found) for device, found in labels.items() if found}


def _changed_devices(work: Plan, image: Image) -> list[dict[str, Any]]:
    """What the request changes of the volumes that an image brings along."""
    listed = work.request.get("instance_volumes") or []
    by_id = {one["volume_id"]: one["device"] for one in work.details.get("block_devices", ())}
    wanted = {by_id[one["volume_id"]]: one for one in listed if one["volume_id"] in by_id}
    mappings: list[dict[str, Any]] = []
    for shown in image.described.get("BlockDeviceMappings", ()):
        if "Ebs" not in shown:
            continue
        device, change = shown["DeviceName"], wanted.get(shown["DeviceName"])
        if change is None:
            if listed and device != image.root:
                mappings.append({"DeviceName": device, "NoDevice": ""})
            continue
        ends = change.get("delete_on_termination")
        values = {
            "VolumeSize": change.get("capacity"),
            "VolumeType": change.get("volume_type"),
            "Iops": change.get("iops"),
            "DeleteOnTermination": ends,
        }
        ebs = {key: value for key, value in values.items() if value is not None}
        moved_to = change.get("device") or device
        if moved_to != device:
            mappings.append({"DeviceName": device, "NoDevice": ""})
            ebs = {**{k: v for k, v in shown["Ebs"].items() if k != "Encrypted"}, **ebs}
        if ebs:
            mappings.append({"DeviceName": moved_to, "Ebs": ebs})
    return mappings


def _launch(
    work: Plan,
    image: dict[str, str],
    after: tuple[str, ...],
    *,
    devices: list[dict[str, Any]],
    volume_labels: dict[str, dict[str, str]],
) -> list[StepSpec]:
    """Launch, wait, and attach additional interfaces."""
    network = recover_instance_network.choose(
        work.context, aws(work.context, work.target), work.details, work.request, moved=work.moved
    )
    parameters = recover_instance_launch.parameters(
        work.context, work.target, work.details, work.request, network, moved=work.moved
    )
    launch = {
        "name": "launch",
        **work.common,
        "image": image,
        "parameters": parameters,
        "devices": devices,
        "labels": work.labels,
        "missing": [] if work.request["restore_from"] == "S" else work.missing,
    }
    up = {"name": "up", **work.common, "count": work.count, "volume_labels": volume_labels}
    return [
        StepSpec("recover.launch", launch, key="launch", after=after),
        StepSpec("recover.up", up, key="up", after=("launch",)),
        *recover_instance_nics.plan(work.context, work.target, work.details, work.request, network),
    ]


def volumes_to_check(row: Snapshot, request: dict[str, Any]) -> list[Volume]:
    """The shapes that a request asks for, for the checks before anything starts."""
    root = row.details.get("aws_root_device")
    return [
        recover_instance_volumes.shaped(one, recover_instance_volumes.override_of(one, request) or {}, is_root=one.device == root)
        for one in recover_instance_volumes.rows_of(row)
    ]


KINDS = (
    StepKind("recover.plan_instance", QUEUE, plan, failed=plan_failed, cancelled=plan_cancelled),
    *recover_instance_image.KINDS,
    *recover_instance_launch.KINDS,
    *recover_instance_volumes.KINDS,
    *recover_instance_nics.KINDS,
)
