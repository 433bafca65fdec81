"""Images (AMIs) around an instance backup: its own, similar ones elsewhere, and the interfaces it had.

The assistant for recoveries from an image, when the original image is missing where the instance is to go.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

from cpm import permissions
from cpm.aws.gateway import AwsClient, client
from cpm.flows.identities import identity_of
from cpm.lib.errors import NotFound, PreconditionFailed
from cpm.models import Account, Actor, Snapshot

READ = "backups.read"
# How alike two names or descriptions are that count as similar: 1 is equal.
SIMILAR = 0.8
# Versions and build dates change from image to image; the words before them stay.
_VERSION = re.compile(r"[\d.]{4,}.*$")
# E exact, C same name and description, N same name, D same description, A similar name, S similar description
BEST_FIRST = "ECNDAS"


def ami_of(*, actor: Actor, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The image that the backed-up instance was launched from. Raises NotFound when AWS has it no longer."""
    permissions.require(actor, READ)
    image, region = _original(snapshot)
    return [
        {
            "id": snapshot.pk,
            "aws_image_id": image["ImageId"],
            "aws_region": region,
            "aws_owner_id": image.get("OwnerId", ""),
            "aws_owner_alias": image.get("ImageOwnerAlias", ""),
            **_shown(image),
        }
    ]


def additional_nics(*, actor: Actor, snapshot: Snapshot) -> list[dict[str, str]]:
    """The interfaces beside the first that the instance had at the time of the backup."""
    permissions.require(actor, READ)
    nics = sorted(snapshot.details.get("network_interfaces", ()), key=lambda nic: nic.get("device_index", 0))
    return [
        {"id": nic["id"], "display_name": f"{nic['id']} ({nic.get('private_ip', '')}, {nic.get('subnet', '')})"}
        for nic in nics
        if nic.get("device_index", 0) > 0
    ]


def find_similar(
    *, actor: Actor, snapshot: Snapshot, region: str | None, account: Account | None, exact: bool
) -> list[dict[str, Any]]:
    """Images like the instance's own in a region and account, best first; only equal ones with `exact`.

    Raises NotFound when the original image cannot be looked at, because then there is nothing to compare with.
    """
    permissions.require(actor, READ)
    original, _ = _original(snapshot)
    where = region or snapshot.region
    ec2 = _client(account or _account(snapshot), where)
    found = [
        {
            "aws_image_id": image["ImageId"],
            "aws_region": where,
            "match_type": kind,
            "kernel_id": image.get("KernelId", ""),
            "ramdisk_id": image.get("RamdiskId", ""),
            **_shown(image),
        }
        for image in _candidates(ec2, original)
        if image["ImageId"] != original["ImageId"] and (kind := match_type(original, image))
    ]
    found.sort(key=lambda one: (BEST_FIRST.index(one["match_type"]), one["name"], one["aws_image_id"]))
    return [one for one in found if one["match_type"] == "E"] if exact else found


def match_type(original: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """How an image resembles the original: a letter of BEST_FIRST, or nothing."""
    name, description = str(original.get("Name", "")), str(original.get("Description", ""))
    other_name, other_description = str(image.get("Name", "")), str(image.get("Description", ""))
    same_name = bool(name) and name == other_name
    same_description = bool(description) and description == other_description
    if same_name and description == other_description:
        same_owner = original.get("OwnerId") == image.get("OwnerId")
        root = ("RootDeviceName", "RootDeviceType")
        return "E" if same_owner and all(original.get(key) == image.get(key) for key in root) else "C"
    if same_name:
        return "N"
    if same_description:
        return "D"
    if _alike(name, other_name):
        return "A"
    return "S" if _alike(description, other_description) else ""


def _alike(one: str, other: str) -> bool:
    return bool(one and other) and SequenceMatcher(None, one, other, autojunk=False).ratio() >= SIMILAR


def _candidates(ec2: AwsClient, original: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Available images that could run in the original's place, narrowed by AWS: the public catalogue is huge."""
    common = [
        {"Name": "state", "Values": ["available"]},
        {"Name": "architecture", "Values": [original["Architecture"]]},
        {"Name": "virtualization-type", "Values": [original["VirtualizationType"]]},
        {"Name": "root-device-type", "Values": [original["RootDeviceType"]]},
    ]
    found: dict[str, dict[str, Any]] = {}
    for field, text in (("name", original.get("Name", "")), ("description", original.get("Description", ""))):
        stem = _VERSION.sub("", text)
        if stem:
            filters = [*common, {"Name": field, "Values": [f"{_literal(stem)}*"]}]
            found |= {image["ImageId"]: image for image in ec2.paginate("DescribeImages", "Images", Filters=filters)}
    return found.values()


def _literal(text: str) -> str:
    """EC2 filters know the wildcards * and ?; a backslash takes their meaning away."""
    return re.sub(r"([*?\\])", r"\\\1", text)


def _original(snapshot: Snapshot) -> tuple[dict[str, Any], str]:
    image_id = snapshot.details.get("aws_image_id", "")
    ec2 = _client(_account(snapshot), snapshot.region)
    filters = [{"Name": "image-id", "Values": [image_id]}]
    images = list(ec2.paginate("DescribeImages", "Images", Filters=filters)) if image_id else []
    if not images:
        raise NotFound("image", image_id or "(unknown)")
    return images[0], snapshot.region


def _account(snapshot: Snapshot) -> Account:
    if snapshot.account is None:
        raise PreconditionFailed("account_gone", "The account of this backup is no longer known to CPM.")
    return snapshot.account


def _client(account: Account, region: str) -> AwsClient:
    return client(identity_of(account, session="cpm-images"), "ec2", region)


def _shown(image: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": image.get("Name", ""),
        "description": image.get("Description", ""),
        "aws_hypervisor": image.get("Hypervisor", ""),
        "aws_virtualization_type": image.get("VirtualizationType", ""),
        "root_device_name": image.get("RootDeviceName", ""),
        "root_device_type": image.get("RootDeviceType", ""),
    }
