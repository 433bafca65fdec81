"""EFS file systems: creating, describing, deleting and tagging them. Their bytes come in through the control endpoint."""

import secrets
from typing import Any

from cpm.simulator import kms, listing
from cpm.simulator.call import Call
from cpm.simulator.efs_model import FileSystem
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now
from cpm.simulator.volume_rules import zones
from cpm.simulator.world import State

KEY_ALIAS = "alias/aws/elasticfilesystem"
MOST_ITEMS = 100


def bad_request(message: str) -> AwsError:
    """AWS: EFS API Reference, Common errors of the actions, BadRequest."""
    return AwsError("BadRequest", message)


def new_id(prefix: str) -> str:
    """An id in the form that EFS gives: 17 hexadecimal digits."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"


def find(state: State, account: str, region: str, reference: str) -> FileSystem | None:
    """The file system of an account and region that an id or ARN names."""
    here = state.file_systems.at(account, region)
    found = here.get(reference.rsplit("/", 1)[-1])
    return found if found and reference in (found.id, found.arn) else None


def named(call: Call, reference: str) -> FileSystem:
    """The caller's file system of this id or ARN."""
    found = find(call.state, call.account, call.region, reference)
    if found is None:
        raise AwsError("FileSystemNotFound", f"File system '{reference}' does not exist.", 404)
    return found


def create(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, CreateFileSystem: a creation token is used once, and whoever repeats it learns the id."""
    params = call.params
    if params.get("Backup"):
        raise AwsError("UnsupportedOperation", "The simulator does not offer automatic backups of EFS.")
    token = params["CreationToken"]
    for known in call.state.file_systems.at(call.account, call.region).values():
        if known.token == token:
            raise AwsError(
                "FileSystemAlreadyExists",
                f"File system '{known.id}' already exists with creation token '{token}'",
                409,
                FileSystemId=known.id,
            )
    return described(add(call, params))


def add(call: Call, params: dict[str, Any]) -> FileSystem:
    """A new file system with the parameters of CreateFileSystem, which are checked."""
    zone, throughput = params.get("AvailabilityZoneName"), params.get("ThroughputMode", "bursting")
    mode, provisioned = (
        params.get("PerformanceMode", "generalPurpose"),
        params.get("ProvisionedThroughputInMibps"),
    )
    if mode == "maxIO" and (zone or throughput == "elastic"):
        raise bad_request("maxIO is not supported for One Zone file systems or elastic throughput.")
    if (throughput == "provisioned") != (provisioned is not None):
        raise bad_request("Provisioned throughput needs the mode 'provisioned' and a value.")
    if zone and zone not in zones(call.region):
        raise AwsError("UnsupportedAvailabilityZone", f"The zone {zone} is not supported.")
    made = FileSystem(
        id=new_id("fs"),
        account=call.account,
        region=call.region,
        token=params["CreationToken"],
        mode=mode,
        throughput=throughput,
        provisioned=provisioned,
        zone=zone,
        kms_key_id=_key(call, params),
        tags=_given(params.get("Tags", [])),
        settling=call.world.settling("file_system"),
    )
    return call.state.file_systems.add(made)


def _key(call: Call, params: dict[str, Any]) -> str | None:
    if not params.get("Encrypted"):
        if params.get("KmsKeyId"):
            raise bad_request("KmsKeyId is given, so Encrypted must be true.")
        return None
    if not params.get("KmsKeyId"):
        return str(kms.managed_key(call.account, call.region, KEY_ALIAS).arn)
    arn, refused = kms.resolve(call, params["KmsKeyId"], call.region)
    if refused:
        raise bad_request(f"The KMS key {params['KmsKeyId']} does not exist or cannot be used.")
    return arn


def _given(tags: list[dict[str, str]]) -> dict[str, str]:
    found = {tag["Key"]: tag["Value"] for tag in tags}
    if len(found) != len(tags):
        raise bad_request("Each tag key must be unique.")
    if len(found) > 50 or any(key.lower().startswith("aws:") for key in found):
        raise bad_request("A resource has up to 50 tags, and their keys do not begin with 'aws:'.")
    return found


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def described(one: FileSystem) -> dict[str, Any]:
    """A file system as CreateFileSystem and DescribeFileSystems show it."""
    size = sum(len(data) for data in one.content().values())
    return {
        "OwnerId": one.account, "CreationToken": one.token, "FileSystemId": one.id, "FileSystemArn": one.arn,
        "CreationTime": one.created, "LifeCycleState": one.state, "Name": one.tags.get("Name"),
        "NumberOfMountTargets": len(one.targets),
        "SizeInBytes": {"Value": size, "Timestamp": now(), "ValueInStandard": size, "ValueInIA": 0},
        "PerformanceMode": one.mode, "Encrypted": one.kms_key_id is not None, "KmsKeyId": one.kms_key_id,
        "ThroughputMode": one.throughput, "ProvisionedThroughputInMibps": one.provisioned,
        "AvailabilityZoneName": one.zone, "Tags": _listed(one.tags),
    }  # fmt: skip


def describe(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, DescribeFileSystems: an id or token that stands for nothing is FileSystemNotFound."""
    token, reference = call.params.get("CreationToken"), call.params.get("FileSystemId")
    here = call.state.file_systems.at(call.account, call.region).values()
    shown = [
        one
        for one in here
        if not call.hidden(one.created)
        and token in (None, one.token)
        and reference in (None, one.id, one.arn)
    ]
    if not shown and (token or reference):
        raise AwsError("FileSystemNotFound", f"File system '{reference or token}' does not exist.", 404)
    shown, following = page(call, shown)
    return {
        "Marker": call.params.get("Marker"),
        "FileSystems": [described(one) for one in shown],
        "NextMarker": following,
    }


def page(call: Call, items: list[FileSystem]) -> tuple[list[FileSystem], str | None]:
    """One page of at most a hundred, by MaxItems and Marker."""
    size = min(call.params.get("MaxItems", MOST_ITEMS), MOST_ITEMS)
    asked = {"NextToken": call.params.get("Marker"), "MaxResults": size}
    try:
        return listing.page(items, asked, "", least=1)
    except AwsError as wrong:
        raise bad_request(wrong.message) from wrong


def delete(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, DeleteFileSystem."""
    found = named(call, call.params["FileSystemId"])
    if found.targets:
        raise AwsError("FileSystemInUse", f"File system '{found.id}' has mount targets.", 409)
    call.state.file_systems.remove(found)
    return {}


def tag(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, TagResource."""
    found = named(call, call.params["ResourceId"])
    wanted = {**found.tags, **_given(call.params["Tags"])}
    _given(_listed(wanted))
    found.tags = wanted
    return {}


def untag(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, UntagResource: keys that are not there are no error."""
    found = named(call, call.params["ResourceId"])
    for key in call.params["TagKeys"]:
        found.tags.pop(key, None)
    return {}


def list_tags(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, ListTagsForResource; one page holds the at most 50 tags."""
    return {"Tags": _listed(named(call, call.params["ResourceId"]).tags)}


ACTIONS = {
    "CreateFileSystem": create,
    "DescribeFileSystems": describe,
    "DeleteFileSystem": delete,
    "TagResource": tag,
    "UntagResource": untag,
    "ListTagsForResource": list_tags,
}
