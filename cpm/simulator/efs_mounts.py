"""EFS mount targets: one in each zone of one VPC, with a network interface in moto's EC2."""

from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from werkzeug.exceptions import HTTPException

from cpm.simulator.call import Call
from cpm.simulator.efs import bad_request, named, new_id
from cpm.simulator.efs_model import FileSystem, MountTarget
from cpm.simulator.errors import AwsError


def create(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, CreateMountTarget: its rules of state, VPC and zone."""
    params = call.params
    if params.get("IpAddressType", "IPV4_ONLY") != "IPV4_ONLY":
        raise AwsError("UnsupportedOperation", "The simulator offers mount targets with IPv4 only.")
    home = named(call, params["FileSystemId"])
    if home.state != "available":
        raise AwsError("IncorrectFileSystemLifeCycleState", f"File system '{home.id}' is {home.state}.", 409)
    subnet = _subnet(call)
    _check_place(home, subnet)
    interface = _interface(call, home, subnet)
    made = MountTarget(
        id=new_id("fsmt"),
        file_system_id=home.id,
        subnet_id=subnet.id,
        vpc_id=subnet.vpc_id,
        zone=subnet.availability_zone,
        zone_id=subnet.availability_zone_id,
        address=interface.private_ip_address,
        interface_id=interface.id,
        settling=call.world.settling("file_system"),
    )
    home.targets[made.id] = made
    return _described(home, made)


def _subnet(call: Call) -> Any:
    wanted = call.params["SubnetId"]
    for by_id in ec2_backends[call.account][call.region].subnets.values():
        if wanted in by_id:
            return by_id[wanted]
    raise AwsError("SubnetNotFound", f"The subnet ID '{wanted}' does not exist.")


def _check_place(home: FileSystem, subnet: Any) -> None:
    if home.zone and home.zone != subnet.availability_zone:
        raise AwsError("AvailabilityZonesMismatch", f"The file system is in {home.zone} only.")
    for other in home.targets.values():
        if other.vpc_id != subnet.vpc_id:
            raise AwsError("MountTargetConflict", "The file system has mount targets in another VPC.", 409)
        if other.zone == subnet.availability_zone:
            raise AwsError("MountTargetConflict", "A mount target already exists in this zone.", 409)


def _interface(call: Call, home: FileSystem, subnet: Any) -> Any:
    backend = ec2_backends[call.account][call.region]
    # AWS: EFS API Reference, CreateMountTarget, SecurityGroups: the VPC's default group when none is named.
    default = backend.get_default_security_group(subnet.vpc_id)
    groups = call.params.get("SecurityGroups") or ([default.id] if default else [])
    for group in groups:
        known = backend.get_security_group_from_id(group)
        if known is None or known.vpc_id != subnet.vpc_id:
            raise AwsError("SecurityGroupNotFound", f"The security group '{group}' is not in this VPC.")
    address = call.params.get("IpAddress") or subnet.get_available_subnet_ip(home.id)
    taken = any(
        one.private_ip_address == address for one in backend.enis.values() if one.subnet.id == subnet.id
    )
    if taken:
        raise AwsError("IpAddressInUse", f"The address {address} is in use.", 409)
    try:
        return backend.create_network_interface(
            subnet, address, group_ids=groups, description=f"EFS mount target for {home.id}"
        )
    except (ServiceException, HTTPException) as refused:
        raise bad_request(str(refused)) from refused


def _described(home: FileSystem, one: MountTarget) -> dict[str, Any]:
    return {
        "OwnerId": home.account, "MountTargetId": one.id, "FileSystemId": home.id, "SubnetId": one.subnet_id,
        "LifeCycleState": "available" if one.settling.done() else "creating", "IpAddress": one.address,
        "NetworkInterfaceId": one.interface_id, "AvailabilityZoneId": one.zone_id,
        "AvailabilityZoneName": one.zone, "VpcId": one.vpc_id,
    }  # fmt: skip


def _of(call: Call, target_id: str) -> tuple[FileSystem, MountTarget]:
    for home in call.state.file_systems.at(call.account, call.region).values():
        if target_id in home.targets:
            return home, home.targets[target_id]
    raise AwsError("MountTargetNotFound", f"Mount target '{target_id}' does not exist.", 404)


def describe(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, DescribeMountTargets: of one file system, or one by its id; one page holds all."""
    reference, target_id = call.params.get("FileSystemId"), call.params.get("MountTargetId")
    if (reference is None) == (target_id is None):
        raise bad_request("Specify exactly one of FileSystemId and MountTargetId.")
    if target_id is not None:
        return {"MountTargets": [_described(*_of(call, target_id))]}
    home = named(call, str(reference))
    shown = [one for one in home.targets.values() if not call.hidden(one.settling.start)]
    return {"MountTargets": [_described(home, one) for one in shown]}


def security_groups(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, DescribeMountTargetSecurityGroups."""
    _, target = _of(call, call.params["MountTargetId"])
    interface = ec2_backends[call.account][call.region].get_network_interface(target.interface_id)
    return {"SecurityGroups": [group.id for group in interface.group_set]}


def delete(call: Call) -> dict[str, Any]:
    """AWS: EFS API Reference, DeleteMountTarget: its network interface goes with it."""
    home, target = _of(call, call.params["MountTargetId"])
    ec2_backends[call.account][call.region].delete_network_interface(target.interface_id)
    del home.targets[target.id]
    return {}


ACTIONS = {
    "CreateMountTarget": create,
    "DescribeMountTargets": describe,
    "DescribeMountTargetSecurityGroups": security_groups,
    "DeleteMountTarget": delete,
}
