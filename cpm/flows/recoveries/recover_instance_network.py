"""Where a recovered instance is placed: subnet, zone, placement group, address and security groups.

What the request does not say is as it was for the original. Where that does not exist (another region or
account, or deleted), the default VPC and its default group stand in, and the log says so.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cpm.aws.gateway import AwsClient
from cpm.flows.recoveries.recover_base import refused
from cpm.jobs.context import StepContext


@dataclass(slots=True)
class Network:
    """The chosen placement. `subnet` empty means that EC2 takes the default VPC."""

    subnet: str = ""
    vpc: str = ""
    zone: str = ""
    group: str = ""
    address: str = ""
    security_groups: list[str] = field(default_factory=list)


def choose(
    context: StepContext, client: AwsClient, details: Mapping[str, Any], request: Mapping[str, Any], *, moved: bool
) -> Network:
    """The placement for a launch; raises PreconditionFailed for what the target does not have."""
    subnets = list(client.paginate("DescribeSubnets", "Subnets"))
    subnet = _subnet(context, subnets, details, request, moved=moved)
    network = Network()
    if subnet is not None:
        network.subnet, network.vpc = subnet["SubnetId"], subnet["VpcId"]
        network.zone = subnet["AvailabilityZone"]
        network.address = _address(context, client, subnet, details, request)
    elif request.get("vpc_assign_ip"):
        raise refused("An address can be chosen only together with a subnet: give vpc_subnet_id.")
    network.group = _group(context, client, details, request, moved=moved)
    network.security_groups = _security_groups(context, client, network, details, request)
    return network


def _subnet(
    context: StepContext,
    subnets: list[dict[str, Any]],
    details: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    moved: bool,
) -> dict[str, Any] | None:
    placement = request.get("placement")
    original = next((one for one in subnets if one["SubnetId"] == details.get("aws_subnet_id")), None)
    if placement == "V" or (placement is None and (request.get("vpc_subnet_id") or request.get("vpc"))):
        return _by_vpc(subnets, original, request)
    if placement == "Z" or (placement is None and request.get("zone")):
        return _by_zone(context, subnets, original, details, request)
    if original is not None:
        return original
    if details.get("aws_subnet_id") and not moved:
        raise refused(f"The original subnet {details['aws_subnet_id']} no longer exists; choose one in vpc_subnet_id.")
    return _default(context, subnets, "")


def _by_vpc(
    subnets: list[dict[str, Any]], original: dict[str, Any] | None, request: Mapping[str, Any]
) -> dict[str, Any]:
    vpcs, wanted = request.get("vpc") or [], request.get("vpc_subnet_id") or []
    known = {one["SubnetId"]: one for one in subnets}
    for subnet_id in wanted:
        if subnet_id not in known:
            raise refused(f"The subnet {subnet_id} does not exist in the region and account to recover to.")
    fitting = [known[one] for one in wanted] or [one for one in subnets if not vpcs or one["VpcId"] in vpcs]
    outside = [one["SubnetId"] for one in fitting if vpcs and one["VpcId"] not in vpcs]
    if outside:
        raise refused(f"The subnet {outside[0]} is not in VPC {', '.join(vpcs)}.")
    if not wanted and not vpcs:
        fitting = [original] if original is not None else []
    if not fitting:
        raise refused(f"There is no subnet in VPC {', '.join(vpcs) or '(none given)'}; choose one in vpc_subnet_id.")
    address = request.get("vpc_assign_ip")
    holding = [one for one in fitting if address and _holds(one, address)]
    if address and not holding:
        names = ", ".join(f"{one['SubnetId']} ({one['CidrBlock']})" for one in fitting)
        raise refused(f"The address {address} is not in the subnet: {names}.")
    if original is not None and original in (holding or fitting):
        return original
    return max(holding or fitting, key=lambda one: int(one.get("AvailableIpAddressCount", 0)))


def _by_zone(
    context: StepContext,
    subnets: list[dict[str, Any]],
    original: dict[str, Any] | None,
    details: Mapping[str, Any],
    request: Mapping[str, Any],
) -> dict[str, Any]:
    """A subnet in the zone: the original one, another of its VPC, or the default one (EC2-Classic is no more)."""
    zone = request.get("zone") or details.get("zone", "")
    there = [one for one in subnets if one["AvailabilityZone"] == zone]
    if original is not None and original in there:
        return original
    same_vpc = [one for one in there if one["VpcId"] == details.get("vpc_id")]
    if same_vpc:
        return max(same_vpc, key=lambda one: int(one.get("AvailableIpAddressCount", 0)))
    return _default(context, there, zone)


def _default(context: StepContext, subnets: list[dict[str, Any]], zone: str) -> dict[str, Any]:
    found = [one for one in subnets if one.get("DefaultForAz")]
    if not found:
        where = f" in zone {zone}" if zone else ""
        raise refused(f"There is no default subnet{where} in the target; choose placement V and a vpc_subnet_id.")
    chosen = min(found, key=lambda one: one["AvailabilityZone"])
    context.warn(f"The instance goes to the default subnet {chosen['SubnetId']} in {chosen['AvailabilityZone']}.")
    return chosen


def _holds(subnet: Mapping[str, Any], address: str) -> bool:
    """Whether an address can be given out in the subnet; EC2 reserves the first four and the last."""
    network, ip = ipaddress.ip_network(subnet["CidrBlock"]), ipaddress.ip_address(address)
    return ip in network and int(ip) - int(network.network_address) >= 4 and ip != network.broadcast_address


def _address(
    context: StepContext,
    client: AwsClient,
    subnet: Mapping[str, Any],
    details: Mapping[str, Any],
    request: Mapping[str, Any],
) -> str:
    wanted = request.get("vpc_assign_ip")
    if wanted == "":
        return ""
    if wanted is None:
        address = details.get("aws_ip_address", "")
        original = subnet["SubnetId"] == details.get("aws_subnet_id")
        if not address or not original or request["num_instances_to_recover"] > 1:
            return ""
        if _taken(client, subnet, address):
            context.warn(f"The original address {address} is in use; EC2 chooses another one.")
            return ""
        return str(address)
    if not _holds(subnet, wanted):
        raise refused(f"The address {wanted} is not free for use in {subnet['SubnetId']} ({subnet['CidrBlock']}).")
    if _taken(client, subnet, wanted):
        raise refused(f"The address {wanted} is in use in {subnet['SubnetId']}; choose another or leave it empty.")
    return str(wanted)


def _taken(client: AwsClient, subnet: Mapping[str, Any], address: str) -> bool:
    filters = [{"Name": "subnet-id", "Values": [subnet["SubnetId"]]}]
    for nic in client.paginate("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=filters):
        held = {one.get("PrivateIpAddress") for one in nic.get("PrivateIpAddresses", ())}
        if address in held | {nic.get("PrivateIpAddress")}:
            return True
    return False


def _group(
    context: StepContext, client: AwsClient, details: Mapping[str, Any], request: Mapping[str, Any], *, moved: bool
) -> str:
    placement = request.get("placement")
    wanted = request.get("placement_group") if placement == "G" else ""
    inherited = details.get("placement_group", "") if placement in {None, "G"} and not moved else ""
    if not wanted and not inherited:
        return ""
    known = {one["GroupName"] for one in client.call("DescribePlacementGroups")["PlacementGroups"]}
    if wanted and wanted not in known:
        raise refused(f"There is no placement group {wanted} in the region and account to recover to.")
    if not wanted and inherited not in known:
        context.warn(f"The original placement group {inherited} no longer exists; the instance goes without.")
        return ""
    return str(wanted or inherited)


def _security_groups(
    context: StepContext,
    client: AwsClient,
    network: Network,
    details: Mapping[str, Any],
    request: Mapping[str, Any],
) -> list[str]:
    wanted = request.get("security_groups")
    if not wanted and not details.get("aws_security_groups"):
        return []
    groups = list(client.paginate("DescribeSecurityGroups", "SecurityGroups"))
    here = [one for one in groups if not network.vpc or one.get("VpcId") == network.vpc]
    by_id, by_name = {one["GroupId"] for one in here}, {one["GroupName"]: one["GroupId"] for one in here}
    if wanted:
        found = [one if one in by_id else by_name.get(one, "") for one in wanted]
        missing = [one for one, group in zip(wanted, found, strict=True) if not group]
        if missing:
            raise refused(f"The security group {missing[0]} does not exist in VPC {network.vpc or '(default)'}.")
        return found
    kept = [one for one in details["aws_security_groups"] if one in by_id]
    if len(kept) < len(details["aws_security_groups"]):
        instead = "the rest apply" if kept else "the VPC's default group applies"
        context.warn(f"Not all security groups of the original exist in VPC {network.vpc}; {instead}.")
    return kept
