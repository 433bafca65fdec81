"""Additional network interfaces of a recovered instance: existing ones are attached, lost ones made again.

They are attached after the launch, because EC2 refuses a public address for a launch with several interfaces.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cpm.aws.gateway import AwsClient
from cpm.flows import polling, tags
from cpm.flows.recoveries.recover_base import (
    QUEUE,
    Place,
    aws,
    client_token,
    ec2,
    made,
    marked,
    marks,
    refused,
)
from cpm.flows.recoveries.recover_instance_network import Network
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec


def plan(
    context: StepContext, target: Place, details: Mapping[str, Any], request: Mapping[str, Any], network: Network
) -> list[StepSpec]:
    """One step per instance and interface; raises PreconditionFailed for an interface that cannot be had."""
    wanted, count = request.get("additional_nics") or [], request["num_instances_to_recover"]
    if not wanted:
        return []
    client = aws(context, target)
    filters = [{"Name": "network-interface-id", "Values": list(wanted)}]
    nics = client.paginate("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=filters)
    shown = {nic["NetworkInterfaceId"]: nic for nic in nics}
    ways = [_way(client, one, shown.get(one), details, network, count) for one in wanted]
    return [
        StepSpec(
            "recover.nic",
            {
                "name": f"nic-{number}-{index}",
                "account": target.account,
                "region": target.region,
                "number": number,
                "index": index,
                **way,
            },
            key=f"nic-{number}-{index}",
            # One after the other: each takes the next free device index.
            after=("up", f"nic-{number}-{index - 1}") if index > 1 else ("up",),
        )
        for number in range(count)
        for index, way in enumerate(ways, 1)
    ]


def _way(
    client: AwsClient,
    nic_id: str,
    shown: Mapping[str, Any] | None,
    details: Mapping[str, Any],
    network: Network,
    count: int,
) -> dict[str, Any]:
    """Attach the interface itself if it is free, else make one like the original's."""
    if shown is not None and shown["Status"] == "available" and count == 1:
        if network.zone and shown["AvailabilityZone"] != network.zone:
            raise refused(f"The interface {nic_id} is in {shown['AvailabilityZone']}, the instance in {network.zone}.")
        return {"nic": nic_id}
    original = next((one for one in details.get("network_interfaces", ()) if one["id"] == nic_id), None)
    if original is None and shown is not None:
        raise refused(f"The interface {nic_id} is {shown['Status']}; only an available one can be attached, once.")
    if original is None:
        raise refused(f"There is no interface {nic_id} in {client.region}, and the original instance had none of that id.")
    filters = [{"Name": "subnet-id", "Values": [original["subnet"]]}]
    subnets = list(client.paginate("DescribeSubnets", "Subnets", Filters=filters))
    if not subnets or (network.zone and subnets[0]["AvailabilityZone"] != network.zone):
        raise refused(
            f"The interface {nic_id} cannot be made again: its subnet {original['subnet']} is not in zone"
            f" {network.zone or '(any)'} of the target. Give the id of an available interface instead."
        )
    groups = list(client.paginate("DescribeSecurityGroups", "SecurityGroups"))
    here = {one["GroupId"] for one in groups if one.get("VpcId") == subnets[0]["VpcId"]}
    return {"subnet": original["subnet"], "groups": [one for one in original["groups"] if one in here]}


def attach(context: StepContext) -> Outcome:
    """Payload: number of the instance, device index, and either `nic` or `subnet` and `groups`."""
    client, payload = ec2(context), context.payload
    launched = made(context, "up") or []
    if payload["number"] >= len(launched) or not launched[payload["number"]]["up"]:
        return Done("There is no instance to attach it to.")
    instance_id = launched[payload["number"]]["id"]
    nic_id = payload.get("nic") or _make(context, client)
    nic = next(iter(_described(client, nic_id)), None)
    if nic is None:
        return polling.again(context.now, message=f"Waiting for {nic_id} to appear.")
    held = nic.get("Attachment")
    if held and held.get("InstanceId") != instance_id:
        return Failed(f"The interface {nic_id} was attached elsewhere meanwhile.")
    if not held:
        client.call(
            "AttachNetworkInterface", NetworkInterfaceId=nic_id, InstanceId=instance_id, DeviceIndex=payload["index"]
        )
        return polling.again(context.now, message=f"{nic_id} is being attached.")
    if "nic" not in payload:
        # An interface that was made for the instance goes with it.
        change = {"AttachmentId": held["AttachmentId"], "DeleteOnTermination": True}
        client.call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=nic_id, Attachment=change)
    context.log(f"Attached interface {nic_id} to {instance_id}.")
    return Done()


def _described(client: AwsClient, nic_id: str) -> Sequence[dict[str, Any]]:
    filters = [{"Name": "network-interface-id", "Values": [nic_id]}]
    return list(client.paginate("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=filters))


def _make(context: StepContext, client: AwsClient) -> str:
    payload = context.payload

    def create() -> str:
        answer = client.call(
            "CreateNetworkInterface",
            ClientToken=client_token(context),
            SubnetId=payload["subnet"],
            Description=f"CPM recovery {context.subject_id}",
            TagSpecifications=[tags.specification("network-interface", marks(context))],
            **({"Groups": payload["groups"]} if payload["groups"] else {}),
        )
        return str(answer["NetworkInterface"]["NetworkInterfaceId"])

    def find() -> list[str]:
        pages = client.paginate("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=marked(context.step_id))
        return [nic["NetworkInterfaceId"] for nic in pages]

    def discard(extra: str) -> None:
        client.call("DeleteNetworkInterface", NetworkInterfaceId=extra)

    return str(context.once(create=create, find=find, discard=discard))


KINDS = (StepKind("recover.nic", QUEUE, attach),)
