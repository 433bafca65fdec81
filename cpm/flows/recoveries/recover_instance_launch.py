"""Launching recovered instances: the parameters of RunInstances, the launch itself, and waiting until they run."""

import base64
from collections.abc import Mapping
from typing import Any

from cpm.aws.errors import Denied, NotFound
from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.recoveries import recover_sources
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    aws,
    began_at,
    ec2,
    lists_lag,
    made,
    marks,
    recovery_of,
    refused,
    resolve,
    token_once,
)
from cpm.flows.recoveries.recover_instance_network import Network
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind

Details = Mapping[str, Any]


def as_original(request: Details, field: str, details: Details, key: str, default: Any = None) -> Any:
    """What the request says, else what the original had."""
    value = request.get(field)
    return details.get(key, default) if value is None else value


def parameters(
    context: StepContext, target: Place, details: Details, request: Details, network: Network, *, moved: bool
) -> dict[str, Any]:
    """RunInstances but for image, block devices, user data and tags."""
    client = aws(context, target)
    placement = {"Tenancy": as_original(request, "tenancy", details, "tenancy") or "default"}
    if network.group:
        placement["GroupName"] = network.group
    chosen: dict[str, Any] = {
        "InstanceType": as_original(request, "instance_type", details, "aws_instance_type"),
        "MinCount": 1,
        "MaxCount": request["num_instances_to_recover"],
        "Placement": placement,
        "Monitoring": {"Enabled": bool(as_original(request, "monitored", details, "aws_monitored"))},
        "EbsOptimized": bool(as_original(request, "ebs_optimized", details, "ebs_optimized")),
        "DisableApiTermination": bool(
            as_original(request, "disable_api_termination", details, "aws_disable_api_termination")
        ),
        "InstanceInitiatedShutdownBehavior": as_original(
            request, "shutdown_behaviour", details, "aws_shutdown_behaviour"
        )
        or "stop",
        **_interface(request, network),
    }
    key = _key_pair(context, client, details, request)
    profile = _profile(context, target, details, request, moved=moved)
    return chosen | ({"KeyName": key} if key else {}) | ({"IamInstanceProfile": {"Arn": profile}} if profile else {})


def _interface(request: Details, network: Network) -> dict[str, Any]:
    """Subnet, groups and address. Only a full interface specification can say whether it gets a public address."""
    public = request.get("auto_assign_public_ip") or "default"
    address = {"PrivateIpAddress": network.address} if network.address else {}
    subnet = {"SubnetId": network.subnet} if network.subnet else {}
    groups = network.security_groups
    if public == "default":
        return {**subnet, **address, **({"SecurityGroupIds": groups} if groups else {})}
    nic: dict[str, Any] = {"DeviceIndex": 0, "AssociatePublicIpAddress": public == "enable", **subnet, **address}
    return {"NetworkInterfaces": [nic | ({"Groups": groups} if groups else {}) | {"DeleteOnTermination": True}]}


def _key_pair(context: StepContext, client: AwsClient, details: Details, request: Details) -> str:
    wanted, original = request.get("key_pair"), details.get("aws_key_name", "")
    if wanted is None and not original:
        return ""
    if wanted == "":
        return ""
    known = {pair["KeyName"] for pair in client.call("DescribeKeyPairs")["KeyPairs"]}
    if wanted and wanted not in known:
        raise refused(f"There is no key pair {wanted} in {client.region} of the account to recover to.")
    if not wanted and original not in known:
        context.warn(f"The original key pair {original} does not exist in {client.region}; none is set.")
        return ""
    return str(wanted or original)


def _profile(context: StepContext, target: Place, details: Details, request: Details, *, moved: bool) -> str:
    wanted = request.get("instance_profile_arn")
    if wanted is not None:
        return str(wanted)
    original = str(details.get("instance_profile_arn", ""))
    if not original:
        return ""
    owner = original.split(":")[4] if original.count(":") >= 5 else ""
    iam = aws(context, target, "iam")
    try:
        profile = iam.call("GetInstanceProfile", InstanceProfileName=original.rsplit("/", 1)[-1])["InstanceProfile"]
    except NotFound:
        context.warn(f"The original instance profile {original} does not exist in the account; none is set.")
        return ""
    except Denied:
        return "" if moved and owner else original  # not allowed to look; EC2 says if it is missing
    return str(profile["Arn"])


def user_data(details: Details, request: Details) -> bytes | None:
    """The user data of the launch: the original's unless the request says otherwise."""
    enabled = request.get("enable_user_data")
    if enabled is False:
        return None
    if request.get("user_data") is not None:
        return str(request["user_data"]).encode()
    kept = details.get("aws_user_data")
    return base64.b64decode(kept) if kept else None


def launch(context: StepContext) -> Outcome:
    """RunInstances, once. Payload: image, parameters, devices, labels."""
    client, payload, recovery = ec2(context), context.payload, recovery_of(context)
    assert recovery.snapshot is not None
    data = user_data(recovery.snapshot.details, recovery.request)

    def call(token: str) -> list[str]:
        ours = marks(context)
        answer = client.call(
            "RunInstances",
            ClientToken=token,
            ImageId=resolve(context, payload["image"]),
            BlockDeviceMappings=[recover_sources.mapping(context, one) for one in payload["devices"]],
            TagSpecifications=[
                tags.specification("instance", tags.with_source(ours, payload["labels"])),
                tags.specification("volume", ours),
            ],
            **payload["parameters"],
            **({"UserData": data} if data is not None else {}),
        )
        return sorted(instance["InstanceId"] for instance in answer["Instances"])

    launched = token_once(context, call)
    context.log(f"Launched {', '.join(launched)} in {client.region}.")
    return Done()


def up(context: StepContext) -> Outcome:
    """Wait until the launched instances run or have given up, and give their volumes the originals' tags."""
    client, payload = ec2(context), context.payload
    if context.cursor is None:
        context.save_cursor({"began": context.now.isoformat()})
    ids: list[str] = made(context, "launch")
    shown = _all_instances(client, ids)
    if set(ids) - set(shown) and lists_lag(context, began_at(context)):
        return polling.again(context.now, message="Waiting for the instances to appear.")
    waiting = [i for i, one in shown.items() if one["State"]["Name"] == "pending"]
    if waiting:
        return polling.again(context.now, message=f"{', '.join(waiting)} starting.")
    result = [_state(i, shown.get(i)) for i in ids]
    for one in result:
        if one["up"]:
            _label_volumes(client, shown[one["id"]], payload["volume_labels"])
        else:
            context.error(f"{one['id']} did not start: {one['why']}")
    context.remember(result)
    if not any(one["up"] for one in result):
        return Failed(f"No instance started. {result[0]['why']}")
    if len(result) < payload["count"]:
        context.warn(f"AWS launched {len(result)} of {payload['count']} instances.")
    return Done()


def _all_instances(client: AwsClient, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Instances in whatever state."""
    filters = [{"Name": "instance-id", "Values": ids}]
    reservations = client.paginate("DescribeInstances", "Reservations", Filters=filters)
    return {one["InstanceId"]: one for reservation in reservations for one in reservation["Instances"]}


def _state(instance_id: str, shown: dict[str, Any] | None) -> dict[str, Any]:
    if shown is None:
        return {"id": instance_id, "zone": "", "up": False, "why": "It no longer exists."}
    running = shown["State"]["Name"] in {"running", "stopping", "stopped"}
    reason = shown.get("StateReason", {}).get("Message") or f"It is {shown['State']['Name']}."
    zone = shown.get("Placement", {}).get("AvailabilityZone", "")
    return {"id": instance_id, "zone": zone, "up": running, "why": "" if running else reason}


def _label_volumes(client: AwsClient, instance: Mapping[str, Any], labels: Mapping[str, Mapping[str, str]]) -> None:
    for mapping in instance.get("BlockDeviceMappings", ()):
        wanted = labels.get(mapping["DeviceName"])
        if wanted and "Ebs" in mapping:
            client.call("CreateTags", Resources=[mapping["Ebs"]["VolumeId"]], Tags=tags.as_list(wanted))


KINDS = (StepKind("recover.launch", QUEUE, launch), StepKind("recover.up", QUEUE, up))
