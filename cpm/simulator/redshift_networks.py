"""Where Redshift's clusters are: subnet groups, zones, ports, keys. Subnets and keys themselves are moto's."""

from typing import Any

from moto.ec2.exceptions import InvalidSubnetIdError
from moto.ec2.models import ec2_backends
from moto.kms.models import Key, kms_backends

from cpm.simulator import kms, redshift_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.redshift_model import SubnetGroup
from cpm.simulator.redshift_names import (
    SUBNET_GROUP,
    arn,
    clusters,
    described,
    find,
    forget,
    missing,
    shelf,
    subnet_groups,
)
from cpm.simulator.timing import Settling, now
from cpm.simulator.volume_rules import zones

MANAGED_ALIAS = "alias/aws/redshift"


def create(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, CreateClusterSubnetGroup: one or more subnets of one VPC."""
    name = call.params["ClusterSubnetGroupName"].lower()
    # AWS: the same, ClusterSubnetGroupName: must not be "default".
    if name == "default" or not 1 <= len(name) <= 255:
        raise invalid(f"The name of a subnet group cannot be {name}")
    if any(group.name == name for group in subnet_groups(call)):
        raise AwsError(SUBNET_GROUP.exists, f"The cluster subnet group {name} already exists.")
    backend = ec2_backends[call.account][call.region]
    try:
        subnets = [backend.get_subnet(subnet_id) for subnet_id in call.params["SubnetIds"]]
    except InvalidSubnetIdError as unknown:
        raise AwsError("InvalidSubnet", "Some input subnets are invalid.") from unknown
    if len({subnet.vpc_id for subnet in subnets}) != 1:
        raise AwsError("InvalidSubnet", "The subnets must belong to one VPC.")
    group = SubnetGroup(
        id=arn(SUBNET_GROUP, call.account, call.region, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=Settling(now(), 0.0),
        tags=redshift_tags.given(call),
        description=call.params["Description"],
        vpc_id=subnets[0].vpc_id,
        subnets={subnet.id: subnet.availability_zone for subnet in subnets},
    )
    shelf(call, SUBNET_GROUP).add(group)
    return {"ClusterSubnetGroup": _shown(group)}


def _shown(group: SubnetGroup) -> dict[str, Any]:
    return {
        "ClusterSubnetGroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc_id,
        "SubnetGroupStatus": "Complete",
        "Subnets": [
            {"SubnetIdentifier": subnet, "SubnetAvailabilityZone": {"Name": zone}, "SubnetStatus": "Active"}
            for subnet, zone in group.subnets.items()
        ],
        "Tags": redshift_tags.listed(group.tags),
        "SupportedClusterIpAddressTypes": ["ipv4"],
    }


def describe(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DescribeClusterSubnetGroups."""
    asked = call.params.get("ClusterSubnetGroupName")
    chosen = [find(call, SUBNET_GROUP, asked)] if asked else subnet_groups(call)
    part, marker = described(call, SUBNET_GROUP, chosen, asked)
    return {"ClusterSubnetGroups": [_shown(group) for group in part], "Marker": marker}


def delete(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DeleteClusterSubnetGroup: none that a cluster is in."""
    group = find(call, SUBNET_GROUP, call.params["ClusterSubnetGroupName"])
    if any(cluster.config.subnet_group == group.name for cluster in clusters(call)):
        raise AwsError(
            "InvalidClusterSubnetGroupStateFault", f"The cluster subnet group {group.name} is in use."
        )
    forget(call, SUBNET_GROUP, group)
    return {}


def place(call: Call) -> tuple[str | None, str | None, str]:
    """The subnet group, VPC and zone of a cluster to be made, as the call names them."""
    name, wanted = call.params.get("ClusterSubnetGroupName"), call.params.get("AvailabilityZone")
    known = zones(call.region)
    if wanted and wanted not in known:
        raise invalid(f"Invalid availability zone: {wanted}")
    if not name:
        vpc = ec2_backends[call.account][call.region].get_default_vpc()
        return None, vpc.id if vpc else None, wanted or min(known)
    group = next((one for one in subnet_groups(call) if one.name == name.lower()), None)
    if group is None:
        raise missing(SUBNET_GROUP, name)
    covered = set(group.subnets.values())
    if wanted and wanted not in covered:
        raise AwsError(
            "InvalidVPCNetworkStateFault",
            f"The cluster subnet group {group.name} has no subnet in {wanted}; it covers {', '.join(sorted(covered))}.",
        )
    return group.name, group.vpc_id, wanted or min(covered)


def security_groups(call: Call, vpc_id: str | None) -> list[str]:
    """The VPC security groups of a cluster to be made: those named, else the VPC's default one."""
    backend = ec2_backends[call.account][call.region]
    wanted: list[str] = call.params.get("VpcSecurityGroupIds", [])
    for group_id in wanted:
        found = backend.get_security_group_from_id(group_id)
        if found is None or found.vpc_id != vpc_id:
            raise invalid(f"Invalid security group: {group_id}")
    if wanted or vpc_id is None:
        return wanted
    default = backend.get_default_security_group(vpc_id)
    return [default.id] if default else []


def check_port(node_type: str, port: int) -> int:
    """AWS: Redshift API Reference, CreateCluster, Port: the ranges depend on the family of the nodes."""
    ranges = [(1150, 65535)] if node_type.startswith("dc2.") else [(5431, 5455), (8191, 8215)]
    if not any(least <= port <= most for least, most in ranges):
        raise invalid(f"Invalid port {port} for {node_type}")
    return port


# -- keys -------------------------------------------------------------------------------------------------


def key_named(call: Call, reference: str) -> str:
    """The ARN of the key that a call names; one that cannot be used is refused."""
    if reference == MANAGED_ALIAS:
        return _managed(call.account, call.region).arn
    found, refused = kms.resolve(call, reference, call.region)
    if refused:
        raise _unusable(reference)
    return found


def must_open(call: Call, key: str | None) -> None:
    """Raises unless the caller can read what this key encrypts; AWS's own key (None) opens for everybody allowed."""
    if key and kms.caller_can_use(call, key):
        raise _unusable(key)


def _unusable(reference: str) -> AwsError:
    # Which error Redshift gives for a key is not documented; this is the one among those of the actions that fits.
    return AwsError("UnauthorizedOperation", f"The KMS key {reference} is not accessible.")


def is_default_key(key: str | None) -> bool:
    """Whether a key is an account's ``aws/redshift``, whose policy nobody can change."""
    if key is None:
        return False
    _, _, _, region, account, _ = key.split(":", 5)
    return _managed(account, region).arn == key


def _managed(account: str, region: str) -> Key:
    backend = kms_backends[account][region]
    key = backend.keys[backend.any_id_to_key_id(MANAGED_ALIAS)]
    key.key_manager = "AWS"
    return key


ACTIONS = {
    "CreateClusterSubnetGroup": create,
    "DeleteClusterSubnetGroup": delete,
    "DescribeClusterSubnetGroups": describe,
}
