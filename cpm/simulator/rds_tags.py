"""Tags of RDS's things: given when they are made, added, listed and removed by ARN."""

from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import Held
from cpm.simulator.rds_names import KINDS, missing, shelf

# AWS: RDS User Guide, Tagging Amazon RDS resources.
MOST = 50


def given(call: Call) -> dict[str, str]:
    """The tags of a call that makes something; raises InvalidParameterValue for what AWS does not take."""
    if call.params.get("TagSpecifications"):
        raise AwsError("UnsupportedOperation", "The simulator takes tags of databases in Tags only.")
    return _checked({tag["Key"]: tag.get("Value", "") for tag in call.params.get("Tags", ())})


def _checked(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise invalid(f"Invalid length of the tag {key}")
        if key.lower().startswith("aws:") or key.lower().startswith("rds:"):
            raise invalid("Tag keys cannot start with the reserved prefixes 'aws:' or 'rds:'.")
    if len(labels) > MOST:
        raise invalid(f"A resource may have at most {MOST} tags")
    return labels


def listed(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in labels.items()]


def _owner(call: Call) -> Held:
    arn = str(call.params["ResourceName"])
    parts = arn.split(":", 6)
    kind = next((kind for kind in KINDS if len(parts) == 7 and parts[5] == kind.resource), None)
    if kind is None or parts[2] != "rds":
        raise invalid(f"Invalid resource name: {arn}")
    found: Held | None = shelf(call, kind).by_id.get(arn)
    if found is None or found.gone or (found.account, found.region) != (call.account, call.region):
        raise missing(kind, parts[6])
    return found


def add(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, AddTagsToResource."""
    owner = _owner(call)
    owner.tags = _checked({**owner.tags, **given(call)})
    return {}


def list_tags(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, ListTagsForResource."""
    return {"TagList": listed(_owner(call).tags)}


def remove(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, RemoveTagsFromResource."""
    owner = _owner(call)
    for key in call.params["TagKeys"]:
        owner.tags.pop(key, None)
    return {}


ACTIONS = {"AddTagsToResource": add, "ListTagsForResource": list_tags, "RemoveTagsFromResource": remove}
