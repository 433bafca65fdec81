"""DB subnet groups, and the security groups of databases. Subnets and groups themselves are moto's."""

from typing import Any

from moto.ec2.exceptions import InvalidSubnetIdError
from moto.ec2.models import ec2_backends

from cpm.simulator import rds_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import SubnetGroup
from cpm.simulator.rds_names import (
    CLUSTER,
    INSTANCE,
    SUBNET_GROUP,
    arn,
    combination,
    find,
    forget,
    listed,
    living,
    missing,
    shelf,
)
from cpm.simulator.timing import Settling, now

DEFAULT = "default"


def _made(call: Call, name: str, description: str, subnets: dict[str, str], vpc_id: str) -> SubnetGroup:
    group = SubnetGroup(
        id=arn(call, SUBNET_GROUP, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=Settling(now(), 0),
        description=description,
        vpc_id=vpc_id,
        subnets=subnets,
        tags=rds_tags.given(call) if name != DEFAULT else {},
    )
    shelf(call, SUBNET_GROUP).add(group)
    return group


def create(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CreateDBSubnetGroup: subnets of one VPC in at least two zones."""
    name = str(call.params["DBSubnetGroupName"]).lower()
    if name == DEFAULT or not 1 <= len(name) <= 255:
        raise invalid(f"The parameter DBSubnetGroupName is not a valid name: {name}")
    if any(group.name == name for group in living(call, SUBNET_GROUP)):
        raise AwsError(SUBNET_GROUP.exists, f"The DB subnet group '{name}' already exists.")
    backend = ec2_backends[call.account][call.region]
    try:
        subnets = [backend.get_subnet(subnet_id) for subnet_id in call.params["SubnetIds"]]
    except InvalidSubnetIdError as unknown:
        raise AwsError("InvalidSubnet", "Some input subnets are invalid.") from unknown
    vpcs = {subnet.vpc_id for subnet in subnets}
    if len(vpcs) != 1:
        raise AwsError("InvalidSubnet", "The subnets must belong to one VPC.")
    zones = {subnet.id: subnet.availability_zone for subnet in subnets}
    _check_coverage(zones)
    group = _made(call, name, call.params["DBSubnetGroupDescription"], zones, vpcs.pop())
    return {"DBSubnetGroup": shown(group)}


def _check_coverage(zones: dict[str, str]) -> None:
    covered = sorted(set(zones.values()))
    if len(covered) < 2:
        raise AwsError(
            "DBSubnetGroupDoesNotCoverEnoughAZs",
            "The DB subnet group doesn't meet Availability Zone (AZ) coverage requirement. Current AZ coverage:"
            f" {', '.join(covered)}. Add subnets to cover at least 2 AZs.",
        )


def shown(group: SubnetGroup) -> dict[str, Any]:
    return {
        "DBSubnetGroupName": group.name,
        "DBSubnetGroupDescription": group.description,
        "VpcId": group.vpc_id,
        "SubnetGroupStatus": group.state,
        "Subnets": [
            {"SubnetIdentifier": subnet, "SubnetAvailabilityZone": {"Name": zone}, "SubnetStatus": "Active"}
            for subnet, zone in group.subnets.items()
        ],
        "DBSubnetGroupArn": group.id,
        "SupportedNetworkTypes": ["IPV4"],
    }


def describe(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeDBSubnetGroups; no filter is supported."""
    name = call.params.get("DBSubnetGroupName")
    chosen = [find(call, SUBNET_GROUP, name)] if name else living(call, SUBNET_GROUP)
    part, marker = listed(call, SUBNET_GROUP, chosen, {})
    return {"DBSubnetGroups": [shown(group) for group in part], "Marker": marker}


def delete(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DeleteDBSubnetGroup: not the default one, and none that a database is in."""
    group = find(call, SUBNET_GROUP, call.params["DBSubnetGroupName"])
    used = [
        item for kind in (INSTANCE, CLUSTER) for item in living(call, kind) if item.subnet_group == group.name
    ]
    if used or group.name == DEFAULT:
        raise AwsError(
            SUBNET_GROUP.wrong_state,
            f"Cannot delete the subnet group '{group.name}' because at least one database instance:"
            f" {used[0].name if used else '(default)'} is still using it.",
        )
    forget(call, SUBNET_GROUP, group)
    return {}


def group_for(call: Call, name: str | None) -> SubnetGroup | None:
    """The subnet group that a new database goes into: the named one, else the one of the default VPC if there is one."""
    if name and name.lower() != DEFAULT:
        found: SubnetGroup = find(call, SUBNET_GROUP, name)
        return found
    kept: SubnetGroup | None = shelf(call, SUBNET_GROUP).by_id.get(arn(call, SUBNET_GROUP, DEFAULT))
    if kept is not None:
        return kept
    backend = ec2_backends[call.account][call.region]
    vpc = backend.get_default_vpc()
    if vpc is None:
        raise missing(SUBNET_GROUP, DEFAULT)
    subnets = {
        subnet.id: subnet.availability_zone
        for subnet in backend.describe_subnets()
        if subnet.vpc_id == vpc.id and subnet.default_for_az
    }
    return _made(call, DEFAULT, DEFAULT, subnets, vpc.id)


def of_name(call: Call, name: str | None) -> SubnetGroup | None:
    """The group that a database is in."""
    return shelf(call, SUBNET_GROUP).by_id.get(arn(call, SUBNET_GROUP, name)) if name else None


def zone_for(group: SubnetGroup | None, wanted: str | None, multi_az: bool) -> str:
    """The zone of a new instance; raises when the group has no subnet there, or not enough for two zones."""
    covered = sorted(set(group.subnets.values())) if group else []
    if multi_az and group:
        _check_coverage(group.subnets)
    if wanted and wanted not in covered:
        raise AwsError(
            "InvalidVPCNetworkStateFault",
            f"The DB subnet group {group.name if group else DEFAULT} has no subnet in {wanted}."
            f" It covers {', '.join(covered)}.",
        )
    if not covered:
        raise AwsError("DBSubnetGroupDoesNotCoverEnoughAZs", "The DB subnet group has no subnets.")
    return wanted or covered[0]


def security_groups(call: Call, group: SubnetGroup | None) -> list[str]:
    """The security groups of a new database: those named, which must be of its VPC, else the VPC's default one."""
    backend = ec2_backends[call.account][call.region]
    vpc_id = group.vpc_id if group else None
    wanted = call.params.get("VpcSecurityGroupIds")
    if not wanted:
        default = backend.get_default_security_group(vpc_id)
        return [default.id] if default else []
    for group_id in wanted:
        found = backend.get_security_group_from_id(group_id)
        if found is None:
            raise invalid(f"Invalid security group , groupId= {group_id}, groupName=")
        if found.vpc_id != vpc_id:
            raise combination(
                "The DB instance and EC2 security group are in different VPCs. The DB instance is in"
                f" {vpc_id} and the EC2 security group is in {found.vpc_id}"
            )
    return list(wanted)


ACTIONS = {"CreateDBSubnetGroup": create, "DescribeDBSubnetGroups": describe, "DeleteDBSubnetGroup": delete}
