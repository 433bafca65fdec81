"""Tags of Redshift's things: given when they are made, added, listed and removed by ARN."""

from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.redshift_model import Held
from cpm.simulator.redshift_names import KINDS, combination, living, page, tagged

# AWS: Redshift API Reference, CreateTags.
MOST = 50


def given(call: Call) -> dict[str, str]:
    """The tags of a call that makes something."""
    return _checked({tag["Key"]: tag.get("Value", "") for tag in call.params.get("Tags", ())})


def _checked(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        # AWS: Redshift Management Guide, Tagging restrictions.
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise AwsError("InvalidTagFault", f"The tag {key} is invalid.")
    if len(labels) > MOST:
        raise AwsError("TagLimitExceededFault", f"A resource may have at most {MOST} tags.")
    return labels


def listed(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in labels.items()]


def _owners(call: Call) -> list[tuple[str, Held]]:
    return [(kind.resource, item) for kind in KINDS for item in living(call, kind)]


def _owner(call: Call) -> tuple[str, Held]:
    arn = call.params["ResourceName"]
    for kind, item in _owners(call):
        if item.id == arn:
            return kind, item
    raise AwsError("ResourceNotFoundFault", f"The resource {arn} could not be found.", 404)


def create(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, CreateTags: a key that exists gets the new value."""
    _, owner = _owner(call)
    owner.tags = _checked({**owner.tags, **given(call)})
    return {}


def delete(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DeleteTags."""
    _, owner = _owner(call)
    for key in call.params["TagKeys"]:
        owner.tags.pop(key, None)
    return {}


def describe(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DescribeTags: of one ARN, or of all things of a type. A page counts things."""
    wanted = call.params.get("ResourceType", "").lower().replace(" ", "")
    if call.params.get("ResourceName"):
        if wanted:
            raise combination("ResourceName and ResourceType cannot be given together.")
        owners = [_owner(call)]
    else:
        owners = [(kind, item) for kind, item in _owners(call) if wanted in ("", kind)]
    kinds = {item.id: kind for kind, item in owners}
    part, marker = page(call, tagged((item for _, item in owners), call))
    keys, values = call.params.get("TagKeys"), call.params.get("TagValues")
    return {
        "TaggedResources": [
            {
                "Tag": {"Key": key, "Value": value},
                "ResourceName": item.id,
                "ResourceType": kinds[item.id],
            }
            for item in part
            for key, value in item.tags.items()
            if (not keys or key in keys) and (not values or value in values)
        ],
        "Marker": marker,
    }


ACTIONS = {"CreateTags": create, "DeleteTags": delete, "DescribeTags": describe}
