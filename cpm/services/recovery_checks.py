"""What a request to recover must fulfil before anything starts, and the form in which it is kept.

Only what CPM itself can tell is checked here; what AWS has (subnets, keys, instances) is looked at by the first step.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import Q

from cpm import permissions
from cpm.flows.recoveries import (
    recover_instance,
    recover_instance_image,
    recover_instance_volumes,
    recover_sources,
)
from cpm.flows.recoveries.recover_volume_attach import BEHAVIOURS
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.states import BACKUP_RUNNING, BackupStatus, SnapshotKind, SnapshotStatus
from cpm.models import Account, Actor, Region, Snapshot
from cpm.resources.ebs_types import Shape

MOST_INSTANCES = 100
# EC2 takes 16 KiB of user data before it is encoded.
LONGEST_USER_DATA = 16384
_ZONE = r"{region}(-[a-z]{{3}}-\d+)?[a-z]"
_DEVICE = re.compile(r"(/dev/)?[a-z][a-z0-9/]{1,30}")
_EPHEMERAL = re.compile(r"ephemeral\d{1,2}")
_IDS = {
    "vpc": re.compile(r"vpc-[0-9a-f]{8,17}"),
    "vpc_subnet_id": re.compile(r"subnet-[0-9a-f]{8,17}"),
    "additional_nics": re.compile(r"eni-[0-9a-f]{8,17}"),
    "image_id": re.compile(r"ami-[0-9a-f]{8,17}"),
    "attach_to": re.compile(r"i-[0-9a-f]{8,17}"),
}
_CHOICES = {
    "placement": ("Z", "V", "G"),
    "restore_from": ("S", "I"),
    "ami_handling": ("D", "L", "O"),
    "architecture": ("i386", "x86_64", "arm64"),
    "auto_assign_public_ip": ("default", "enable", "disable"),
    "shutdown_behaviour": ("stop", "terminate"),
    "tenancy": ("default", "dedicated", "host"),
    "attach_behaviour": BEHAVIOURS,
}


class Problems:
    """Collects what is wrong, field by field."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[str, str]]] = {}

    def add(self, field: str, message: str, code: str = "invalid") -> None:
        self.found.setdefault(field, []).append((message, code))

    def add_all(self, found: Mapping[str, str]) -> None:
        for field, message in found.items():
            self.add(field, message)

    def raise_any(self) -> None:
        if self.found:
            raise ValidationFailed(self.found)


def finished(snapshot: Snapshot) -> None:
    """Raise PreconditionFailed while the backup of the snapshot is being made."""
    if snapshot.backup.status in BACKUP_RUNNING:
        raise PreconditionFailed("backup_running", "The backup has not finished yet. Wait for it.")


def recoverable(snapshot: Snapshot) -> None:
    """Raise PreconditionFailed unless the snapshot belongs to a backup that can be recovered from and worked itself."""
    finished(snapshot)
    backup = snapshot.backup
    if backup.status in {BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER}:
        raise PreconditionFailed("backup_moved", "The snapshots of this backup were moved away; recover from S3 instead.")
    if backup.deleted_at is not None or backup.status in {BackupStatus.DELETED, BackupStatus.FAILED}:
        label = BackupStatus(backup.status).label
        raise PreconditionFailed("backup_not_recoverable", f"This backup cannot be recovered from: {label}.")
    if snapshot.kind == SnapshotKind.INSTANCE:
        volumes = recover_instance_volumes.rows_of(snapshot)
        if not any(map(recover_sources.candidates_of, volumes)) and not recover_instance_image.images_of(snapshot):
            raise PreconditionFailed("snapshot_not_recoverable", _why(snapshot, volumes))
    elif not recover_sources.candidates_of(snapshot):
        raise PreconditionFailed("snapshot_not_recoverable", _why(snapshot, [snapshot]))


def _why(snapshot: Snapshot, rows: Sequence[Snapshot]) -> str:
    errors = " ".join(dict.fromkeys(row.error for row in rows if row.error))
    if snapshot.status == SnapshotStatus.DELETED or (rows and all(r.status == SnapshotStatus.DELETED for r in rows)):
        return f"The snapshots of {snapshot.source_id} in this backup were deleted."
    return f"This backup has no complete snapshot of {snapshot.source_id}. {errors}".strip()


def target(actor: Actor, snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The account and region to recover to: those asked for, else the snapshot's own."""
    reachable = permissions.visible(actor.user, Account.objects.all(), "recoveries.start").filter(
        Q(user=snapshot.backup.user) | Q(user=actor.on_behalf_of)
    )
    account_id = snapshot.account_id
    for field in ("to_account", "from_account"):
        wanted = request.get(field)
        if wanted is not None and not reachable.filter(pk=wanted).exists():
            problems.add(field, f"There is no account with id {wanted}.", "not_found")
        elif wanted is not None and field == "to_account":
            account_id = wanted
    if account_id is None:
        problems.add("to_account", "The account of this backup is no longer known; choose one.", "required")
    region = snapshot.region
    if request.get("to_region") is not None:
        found = Region.objects.filter(pk=request["to_region"], enabled=True).first()
        if found is None:
            problems.add("to_region", f"There is no region with id {request['to_region']}.", "not_found")
        else:
            region = found.aws_region
    return {"target_account": account_id, "target_region": region}


def common(request: Mapping[str, Any], region: str, problems: Problems) -> None:
    """Checks that volumes and instances share: choices, forms of ids, the zone."""
    for field, choices in _CHOICES.items():
        value = request.get(field)
        if value is not None and value not in choices:
            problems.add(field, f"Must be one of {', '.join(choices)}.", "invalid_choice")
    for field, pattern in _IDS.items():
        value = request.get(field)
        for one in value if isinstance(value, list) else [value] if value else []:
            if not pattern.fullmatch(str(one)):
                problems.add(field, f"“{one}” is not the id of such a resource.")
    zone = request.get("zone")
    if zone and not re.fullmatch(_ZONE.format(region=re.escape(region)), zone):
        problems.add("zone", f"“{zone}” is not an availability zone of {region}, such as {region}a.")


def volume(snapshot: Snapshot, request: Mapping[str, Any], region: str, problems: Problems) -> None:
    """Checks of 7.27 and 7.67."""
    common(request, region, problems)
    wanted = {"capacity": request.get("capacity"), "type": request.get("aws_resource_type"), "iops": request.get("iops")}
    names = {"type": "aws_resource_type"}
    shape = Shape.of(snapshot.details, snapshot.capacity, wanted)
    for field, message in shape.problems(at_least=snapshot.capacity).items():
        problems.add(names.get(field, field), message)
    if request.get("attach_to"):
        for field in ("device", "attach_behaviour"):
            if not request.get(field):
                problems.add(field, "Needed when the volume shall be attached to an instance.", "required")
        _device("device", request.get("device"), problems)


def instance(snapshot: Snapshot, request: Mapping[str, Any], region: str, problems: Problems) -> None:
    """Checks of 7.44."""
    common(request, region, problems)
    _launch(snapshot, request, problems)
    _network(request, problems)
    _image(snapshot, request, problems)
    _volumes(snapshot, request, problems)
    for one in request.get("ephemeral_devices") or ():
        _device("ephemeral_devices", one.get("device"), problems, needed=True)
        # The field is spelled so in the published API.
        if not _EPHEMERAL.fullmatch(str(one.get("epehemeral", ""))):
            problems.add("ephemeral_devices", "The drive must be named ephemeral0, ephemeral1 and so on.")


def _launch(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    count = request.get("num_instances_to_recover", 1)
    if not 1 <= count <= MOST_INSTANCES:
        problems.add("num_instances_to_recover", f"Must be 1 to {MOST_INSTANCES}.")
    data = request.get("user_data")
    if data is not None and request.get("enable_user_data") is not True:
        problems.add("user_data", "User data is used only with enable_user_data.")
    if data is not None and len(data.encode()) > LONGEST_USER_DATA:
        problems.add("user_data", f"EC2 takes at most {LONGEST_USER_DATA} bytes of user data.")
    profile = request.get("instance_profile_arn")
    if profile and not re.fullmatch(r"arn:[a-z-]+:iam::\d{12}:instance-profile/\S+", profile):
        problems.add("instance_profile_arn", "Must be the ARN of an instance profile.")
    for field in ("kernel_id", "ram_disk_id"):
        if request.get(field) and snapshot.details.get("aws_virtualization_type") != "paravirtual":
            problems.add(field, "AWS takes kernel and RAM disk ids only for paravirtual images; this is none.", "not_offered")
    if request.get("instance_type") == "":
        problems.add("instance_type", "Must not be empty.")


def _network(request: Mapping[str, Any], problems: Problems) -> None:
    address = request.get("vpc_assign_ip")
    if address:
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            problems.add("vpc_assign_ip", f"“{address}” is not an IPv4 address.")
        if request.get("num_instances_to_recover", 1) > 1:
            problems.add("vpc_assign_ip", "Several instances cannot have the same address; leave it empty.")
    if request.get("placement") == "G" and request.get("placement_group") == "":
        problems.add("placement_group", "Name the placement group.", "required")
    nics = request.get("additional_nics") or []
    if len(set(nics)) != len(nics):
        problems.add("additional_nics", "An interface is listed twice.")


def _image(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    source = restore_from(snapshot, request)
    if source == "S" and snapshot.details.get("platform") == "windows":
        problems.add("restore_from", "A Windows instance can only be recovered from an image (I).", "not_offered")
    if source == "S" and request.get("image_id"):
        problems.add("image_id", "An image is used only with restore_from I.")
    if source == "I" and request.get("ami_handling") == "O":
        problems.add("ami_handling", "An image is created only from snapshots (restore_from S).")


def restore_from(
    snapshot: Snapshot,
    request: Mapping[str, Any],
    sources_of: Callable[[Snapshot], Sequence[object]] = recover_sources.candidates_of,
) -> str:
    """From the root volume's snapshot, or whatever `sources_of` finds of it, unless something says otherwise.

    That is the request, the platform, or the lack of a root volume.
    """
    if request.get("restore_from"):
        return str(request["restore_from"])
    if request.get("image_id") or snapshot.details.get("platform") == "windows":
        return "I"
    root = snapshot.details.get("aws_root_device")
    rows = recover_instance_volumes.rows_of(snapshot)
    return "S" if any(row.device == root and sources_of(row) for row in rows) else "I"


def _volumes(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    listed = request.get("instance_volumes") or []
    known = {one["volume_id"] for one in snapshot.details.get("block_devices", ())}
    known |= {row.source_id for row in recover_instance_volumes.rows_of(snapshot)}
    for one in listed:
        if not one.get("volume_id"):
            problems.add("instance_volumes", "Each volume needs its volume_id.", "required")
        elif one["volume_id"] not in known:
            problems.add("instance_volumes", f"{one['volume_id']} is no volume of this backup's instance.", "not_found")
        _device("instance_volumes", one.get("device"), problems)
    ids = [one.get("volume_id") for one in listed]
    if len(set(ids)) != len(ids):
        problems.add("instance_volumes", "A volume is listed twice.")
    if problems.found.get("instance_volumes"):
        return
    volumes = recover_instance.volumes_to_check(snapshot, dict(request))
    devices = [one["device"] for one in request.get("ephemeral_devices") or () if one.get("device")]
    for volume in volumes:
        if listed and not volume.root and volume.row.source_id not in ids:
            continue
        devices.append(volume.device)
        for message in volume.shape.problems(at_least=volume.row.capacity, root=volume.root).values():
            problems.add("instance_volumes", f"{volume.row.source_id}: {message}")
        if volume.root and volume.device != volume.row.device and restore_from(snapshot, request) == "I":
            problems.add("instance_volumes", "The root device of an image cannot be moved to another device.")
    if len(set(devices)) != len(devices):
        problems.add("instance_volumes", "Two volumes would have the same device.")


def _device(field: str, device: Any, problems: Problems, *, needed: bool = False) -> None:
    if (device or needed) and not _DEVICE.fullmatch(str(device or "")):
        problems.add(field, f"“{device or ''}” is not the name of a device, such as /dev/sdf.")
