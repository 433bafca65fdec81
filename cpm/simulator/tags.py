"""Tags: CreateTags and DeleteTags for the objects kept here, tag specifications, and AWS's rules for both."""

from typing import Any

from moto.ec2.models import ec2_backends, validate_resource_ids

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.world import Placed


def specified(call: Call, kind: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """Tags that TagSpecifications give to one kind of resource; other kinds than the allowed are refused."""
    found: dict[str, str] = {}
    for specification in call.params.get("TagSpecifications", []):
        resource = specification.get("ResourceType")
        if resource not in allowed:
            raise invalid(f"'{resource}' is not a valid taggable resource type for this operation.")
        if resource == kind:
            found.update(as_dict(specification.get("Tags", [])))
    return found


def as_dict(tags: list[dict[str, str]]) -> dict[str, str]:
    """A tag list checked against AWS's limits.

    AWS: EC2 User Guide, Tag restrictions: keys up to 127 characters, values up to 255, 50 tags, no ``aws:``.
    """
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key:
            raise invalid("Tag key cannot be null or empty.")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if len(key) > 128 or len(value) > 256:
            raise invalid(f"Tag '{key[:40]}' exceeds the maximum length")
        if key in found:
            raise invalid(f"Duplicate tag key '{key}' specified.")
        found[key] = value
    if len(found) > 50:
        raise AwsError("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    return found


def listed(tags: dict[str, str]) -> list[dict[str, str]]:
    """Tags as the API shows them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def put(call: Call, item: Placed, tags: dict[str, str]) -> None:
    """Gives tags to an object just made."""
    call.world.tags(item).update(tags)


NOT_FOUND = {
    "snap": "InvalidSnapshot.NotFound",
    "vol": "InvalidVolume.NotFound",
    "ami": "InvalidAMIID.NotFound",
}


def _existing(call: Call) -> list[str]:
    """The ids to tag. Those that moto keeps are checked by moto."""
    ids: list[str] = call.params.get("Resources", [])
    validate_resource_ids(ids)
    backend = ec2_backends[call.account][call.region]
    state = call.state
    for resource in ids:
        prefix = resource.split("-")[0]
        shelf: Any = {"snap": state.snapshots, "vol": state.volumes, "ami": state.images}.get(prefix)
        if shelf is None:
            if prefix == "i":
                backend.get_instance(resource)
            backend.do_resources_exist([resource])
        elif resource not in shelf.at(call.account, call.region):
            raise AwsError(NOT_FOUND[prefix], f"The ID '{resource}' does not exist")
    return ids


def create(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreateTags."""
    wanted = as_dict(call.params.get("Tags", []))
    ids = _existing(call)
    ec2_backends[call.account][call.region].create_tags(ids, wanted)
    return {}


def delete(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DeleteTags: no Tags means all; a tag without Value goes whatever its value."""
    backend = ec2_backends[call.account][call.region]
    for resource in _existing(call):
        tags = backend.tags[resource]
        if "Tags" not in call.params:
            for key in [key for key in tags if not key.startswith("aws:")]:
                del tags[key]
        for tag in call.params.get("Tags", []):
            if tag["Key"] in tags and tag.get("Value") in (None, tags[tag["Key"]]):
                del tags[tag["Key"]]
    return {}


ACTIONS = {"CreateTags": create, "DeleteTags": delete}
