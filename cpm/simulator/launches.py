"""RunInstances: everything is checked first, then interfaces come from moto and volumes from snapshots."""

import base64
import ipaddress
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.utils import filter_iam_instance_profiles

from cpm.simulator import block_devices, images, tags, volumes
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.timing import now
from cpm.simulator.volume_rules import zones
from cpm.simulator.world import Attachment, Image, Launch

ALLOWED_TAGS = ("instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu")


def run(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, RunInstances. The answer is made by the caller from the reservation's id."""
    return call.once(lambda: {"ReservationId": _launch(call)})


def _launch(call: Call) -> str:
    params = call.params
    if not params.get("ImageId"):
        raise missing("ImageId")
    image = images.find(call, params["ImageId"])
    if image.state != "available":
        raise AwsError("InvalidAMIID.Unavailable", f"The image id '[{image.id}]' is no longer available")
    kind = params.get("InstanceType") or "m1.small"
    _check_type(kind, image)
    count = _count(params)
    zone = _check_network(call, count)
    _check_names(call)
    mappings = block_devices.merged(call, image)
    labels = {
        name: tags.specified(call, name, ALLOWED_TAGS) for name in ("instance", "volume", "network-interface")
    }
    backend = ec2_backends[call.account][call.region]
    reservation = backend.run_instances(
        image.id, count, user_data(params), [], **_moto_arguments(call, kind, zone, labels["instance"])
    )
    for instance in reservation.instances:
        _finish(call, instance, image, mappings, labels)
    return str(reservation.id)


def _count(params: dict[str, Any]) -> int:
    least, most = params.get("MinCount", 1), params.get("MaxCount", 1)
    if least < 1 or most < least:
        raise invalid(f"Value ({most}) for parameter maxCount is invalid.")
    if most > 1 and (params.get("PrivateIpAddress") or any("NetworkInterfaceId" in n for n in _nics(params))):
        raise AwsError(
            "InvalidParameterCombination", "Several instances cannot have the same address or interface"
        )
    return int(most)


def _nics(params: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = params.get("NetworkInterfaces", [])
    return found


def _check_type(kind: str, image: Image) -> None:
    known = INSTANCE_TYPES.get(kind)
    if known is None:
        raise invalid(f"Invalid value '{kind}' for InstanceType.")
    supported = known.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if image.architecture not in supported:
        raise invalid(
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the"
            f" architecture '{image.architecture}' of the specified AMI."
        )
    if image.virtualization not in known.get("SupportedVirtualizationTypes", [image.virtualization]):
        raise AwsError("InvalidParameterCombination", f"Non-{image.virtualization} AMIs only for type {kind}")
    if known.get("NetworkInfo", {}).get("EnaSupport") == "required" and not image.ena:
        raise AwsError(
            "InvalidParameterCombination",
            f"Enhanced networking with the Elastic Network Adapter is required for '{kind}'.",
        )


def _check_network(call: Call, count: int) -> str:
    """Checks subnet, addresses, groups and zone; answers the zone of the launch."""
    params = call.params
    nics = _nics(params)
    if nics and (params.get("SubnetId") or params.get("SecurityGroupIds") or params.get("PrivateIpAddress")):
        raise AwsError(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        )
    indexes = [nic.get("DeviceIndex") for nic in nics]
    if nics and (None in indexes or 0 not in indexes or len(set(indexes)) != len(indexes)):
        raise invalid("Network interfaces need different device indexes, one of them 0")
    backend = ec2_backends[call.account][call.region]
    wanted = params.get("Placement", {}).get("AvailabilityZone")
    if wanted and wanted not in zones(call.region):
        raise invalid(f"Invalid availability zone: [{wanted}]")
    subnet_zones = set()
    for nic in nics or [params]:
        if subnet_zone := _check_interface(call, backend, nic):
            subnet_zones.add(subnet_zone)
    if len(subnet_zones | ({wanted} if wanted else set())) > 1:
        raise invalid("The zone of the placement and of the subnets must be the same")
    for group in params.get("SecurityGroupIds", []) + [g for nic in nics for g in nic.get("Groups", [])]:
        if backend.get_security_group_from_id(group) is None:
            raise AwsError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    return str(next(iter(subnet_zones), wanted or f"{call.region}a"))


def _check_interface(call: Call, backend: Any, nic: dict[str, Any]) -> str | None:
    if "NetworkInterfaceId" in nic:
        eni = backend.enis.get(nic["NetworkInterfaceId"])
        if eni is None:
            raise AwsError(
                "InvalidNetworkInterfaceID.NotFound",
                f"The networkInterface ID '{nic['NetworkInterfaceId']}' does not exist",
            )
        if eni.status != "available":
            raise AwsError("InvalidNetworkInterface.InUse", f"Interface {eni.id} is currently in use.")
        return str(eni.subnet.availability_zone)
    if not nic.get("SubnetId"):
        return None
    subnet = backend.get_subnet(nic["SubnetId"])
    groups = nic.get("Groups", nic.get("SecurityGroupIds", []))
    for group_id in groups:
        group = backend.get_security_group_from_id(group_id)
        if group is not None and group.vpc_id != subnet.vpc_id:
            raise AwsError(
                "InvalidParameter",
                f"Security group {group_id} and subnet {subnet.id} belong to different networks.",
            )
    addresses = [nic.get("PrivateIpAddress")] + [
        a["PrivateIpAddress"] for a in nic.get("PrivateIpAddresses", [])
    ]
    for address in addresses:
        if address:
            _check_address(backend, subnet, address)
    return str(subnet.availability_zone)


def _check_address(backend: Any, subnet: Any, address: str) -> None:
    """AWS: VPC User Guide, Subnet sizing: the first four addresses and the last are reserved."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as malformed:
        raise AwsError(
            "InvalidParameterValue", f"invalid value for parameter address: [{address}]"
        ) from malformed
    network = ipaddress.ip_network(subnet.cidr_block)
    if ip not in network:
        raise invalid(f"Address {address} does not fall within the subnet's address range")
    if int(ip) - int(network.network_address) < 4 or ip == network.broadcast_address:
        raise invalid(f"Address {address} is in subnet's reserved address range")
    for eni in backend.enis.values():
        used = {a.get("PrivateIpAddress") for a in eni.private_ip_addresses} | {eni.private_ip_address}
        if eni.subnet.id == subnet.id and address in used:
            raise AwsError("InvalidIPAddress.InUse", f"Address {address} is in use.")


def _check_names(call: Call) -> None:
    params = call.params
    backend = ec2_backends[call.account][call.region]
    if params.get("KeyName") and params["KeyName"] not in backend.key_pairs:
        raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{params['KeyName']}' does not exist")
    group = params.get("Placement", {}).get("GroupName")
    if group and group not in placement_groups(call):
        raise AwsError("InvalidPlacementGroup.Unknown", f"The placement group '{group}' is unknown.")
    tenancy = params.get("Placement", {}).get("Tenancy", "default")
    if tenancy not in ("default", "dedicated", "host"):
        raise invalid(f"Invalid tenancy: {tenancy}")
    behaviour = params.get("InstanceInitiatedShutdownBehavior", "stop")
    if behaviour not in ("stop", "terminate"):
        raise invalid(f"Value ({behaviour}) for parameter instanceInitiatedShutdownBehavior is invalid.")
    profile = params.get("IamInstanceProfile")
    if profile:
        try:
            filter_iam_instance_profiles(
                call.account,
                partition="aws",
                iam_instance_profile_arn=profile.get("Arn"),
                iam_instance_profile_name=profile.get("Name"),
            )
        except ServiceException as absent:
            name = profile.get("Name") or profile.get("Arn")
            raise invalid(
                f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
            ) from absent


def placement_groups(call: Call) -> dict[str, dict[str, Any]]:
    """Placement groups of the caller's account and region; see ``placements``."""
    return call.state.placement_groups.setdefault((call.account, call.region), {})


def user_data(params: dict[str, Any]) -> Any:
    """User data as moto keeps it; AWS limits it to 16 KB before encoding."""
    text = params.get("UserData")
    if text is None:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as broken:
        raise invalid("Invalid BASE64 encoding of user data.") from broken
    if len(raw) > 16384:
        raise invalid("User data is limited to 16384 bytes")
    return text


# -- what moto makes, and what it does not ----------------------------------------------------------------


def _moto_arguments(call: Call, kind: str, zone: str, labels: dict[str, str]) -> dict[str, Any]:
    params = call.params
    profile = params.get("IamInstanceProfile") or {}
    return {
        "instance_type": kind,
        "is_instance_type_default": False,
        "placement": zone,
        "placement_hostid": params.get("Placement", {}).get("HostId"),
        "region_name": call.region,
        "subnet_id": None if _nics(params) else params.get("SubnetId") or _default_subnet(call, zone),
        "key_name": params.get("KeyName"),
        "security_group_ids": list(params.get("SecurityGroupIds", [])) or _default_group(call),
        "nics": [_with_subnet(call, nic, zone) for nic in _nics(params)],
        "private_ip": params.get("PrivateIpAddress"),
        "associate_public_ip": None,
        "tags": {"instance": labels},
        "ebs_optimized": params.get("EbsOptimized", False),
        "disable_api_stop": params.get("DisableApiStop", False),
        "disable_api_termination": params.get("DisableApiTermination", False),
        "instance_initiated_shutdown_behavior": params.get("InstanceInitiatedShutdownBehavior", "stop"),
        "iam_instance_profile_name": profile.get("Name"),
        "iam_instance_profile_arn": profile.get("Arn"),
        "monitoring_state": "enabled" if params.get("Monitoring", {}).get("Enabled") else "disabled",
        "metadata_options": params.get("MetadataOptions", {}),
        "client_token": params.get("ClientToken", ""),
        # An empty list keeps moto from making a root volume of its own.
        "block_device_mappings": [],
    }


def _with_subnet(call: Call, nic: dict[str, Any], zone: str) -> dict[str, Any]:
    if "NetworkInterfaceId" in nic or "SubnetId" in nic:
        return nic
    return {**nic, "SubnetId": _default_subnet(call, zone)}


def _default_subnet(call: Call, zone: str) -> str:
    """The default VPC's subnet in a zone (AWS: VPC User Guide, Default subnets)."""
    found = ec2_backends[call.account][call.region].get_default_subnets().get(zone)
    if found is None:
        raise AwsError("MissingInput", f"No default subnet for availability zone: '{zone}'.")
    return str(found.id)


def _default_group(call: Call) -> list[str]:
    """The default group of the launch's VPC, which AWS takes when none is named."""
    if _nics(call.params):
        return []
    backend = ec2_backends[call.account][call.region]
    subnet_id = call.params.get("SubnetId")
    vpc = (
        backend.get_subnet(subnet_id).vpc_id if subnet_id else getattr(backend.get_default_vpc(), "id", None)
    )
    if vpc is None:
        raise AwsError("VPCIdNotSpecified", "No default VPC for this user.")
    group = backend.get_default_security_group(vpc)
    return [group.id] if group is not None else []


def _finish(
    call: Call,
    instance: Instance,
    image: Image,
    mappings: list[dict[str, Any]],
    labels: dict[str, dict[str, str]],
) -> None:
    params = call.params
    backend = ec2_backends[call.account][call.region]
    instance.architecture, instance.platform = image.architecture, image.platform
    instance.virtualization_type, instance.root_device_name = image.virtualization, image.root_device
    launch = Launch(
        instance_id=instance.id,
        account=call.account,
        region=call.region,
        settling=call.world.settling("instance"),
        ephemeral=[mapping for mapping in mappings if "Ebs" not in mapping],
        placement=params.get("Placement", {}),
        client_token=params.get("ClientToken"),
    )
    call.state.launches[instance.id] = launch
    for mapping in mappings:
        if "Ebs" in mapping:
            _attach_new(call, instance, image, mapping, labels["volume"])
    for nic in instance.nics.values():
        if labels["network-interface"]:
            backend.create_tags([nic.id], labels["network-interface"])
        # AWS: an interface that the launch makes goes with the instance, unless told otherwise.
        asked = next((n for n in _nics(params) if n.get("DeviceIndex") == nic.device_index), {})
        nic.delete_on_termination = asked.get("DeleteOnTermination", "NetworkInterfaceId" not in asked)
    profile = params.get("IamInstanceProfile")
    if profile:
        backend.associate_iam_instance_profile(
            instance_id=instance.id,
            iam_instance_profile_name=profile.get("Name"),
            iam_instance_profile_arn=profile.get("Arn"),
        )


def _attach_new(
    call: Call, instance: Instance, image: Image, mapping: dict[str, Any], labels: dict[str, str]
) -> None:
    ebs = mapping["Ebs"]
    snapshot = call.state.snapshots.by_id.get(ebs.get("SnapshotId", ""))
    shared = snapshot is not None and not snapshot.visible_to(call.account)
    if snapshot is not None and shared:
        snapshot.shared_with.add(call.account)
    try:
        volume = volumes.make(call, str(instance.placement.zone), ebs)
    finally:
        if snapshot is not None and shared:
            snapshot.shared_with.discard(call.account)
    goes = ebs.get("DeleteOnTermination", mapping["DeviceName"] == image.root_device or "SnapshotId" in ebs)
    volume.attachment = Attachment(instance.id, mapping["DeviceName"], now(), bool(goes))
    tags.put(call, volume, labels)
