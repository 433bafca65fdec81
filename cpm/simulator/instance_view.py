"""How DescribeInstances and RunInstances show an instance."""

from dataclasses import dataclass
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, Reservation

from cpm.simulator import tags, volumes
from cpm.simulator.call import Call


@dataclass
class View:
    """An instance with what its filters need."""

    call: Call
    reservation: Reservation
    instance: Instance
    serial: int

    @property
    def id(self) -> str:
        return str(self.instance.id)

    @property
    def account(self) -> str:
        return self.call.account

    @property
    def region(self) -> str:
        return self.call.region


def state_of(call: Call, instance: Instance) -> str:
    """moto's state, except that a launch or start is pending for as long as the timing says."""
    launch = call.state.launches.get(instance.id)
    if instance.state == "running" and launch is not None and not launch.settling.done():
        return "pending"
    return str(instance.state)


def reservation(call: Call, one: Reservation, members: list[Instance]) -> dict[str, Any]:
    """A reservation with some of its instances."""
    return {
        "ReservationId": one.id,
        "OwnerId": call.account,
        "Groups": [],
        "Instances": [shown(call, instance) for instance in members],
    }


def devices(call: Call, instance: Instance) -> list[dict[str, Any]]:
    """The attached volumes."""
    found = []
    for volume in volumes.of_instance(call, instance.id):
        held = volume.attachment
        assert held is not None
        ebs = {
            "VolumeId": volume.id,
            "Status": "attached",
            "AttachTime": held.attach_time,
            "DeleteOnTermination": held.delete_on_termination,
        }
        found.append({"DeviceName": held.device, "Ebs": ebs})
    return found


STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


def shown(call: Call, instance: Instance) -> dict[str, Any]:
    """One instance; a terminated one has lost its network and volumes."""
    state = state_of(call, instance)
    result: dict[str, Any] = {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "KeyName": instance.key_name,
        "LaunchTime": instance.launch_time,
        "AmiLaunchIndex": instance.ami_launch_index,
        "State": {"Code": STATES[state], "Name": state},
        "StateTransitionReason": instance.state_transition_reason or "",
        "Monitoring": {"State": instance.monitoring_state},
        "Placement": _placement(call, instance),
        "Architecture": instance.architecture,
        "Platform": instance.platform,
        "PlatformDetails": "Windows" if instance.platform else "Linux/UNIX",
        "Hypervisor": "xen",
        "VirtualizationType": instance.virtualization_type,
        "RootDeviceName": instance.root_device_name,
        "RootDeviceType": "ebs",
        "EbsOptimized": bool(instance.ebs_optimized),
        "EnaSupport": True,
        "BlockDeviceMappings": devices(call, instance),
        "ProductCodes": [],
        "SecurityGroups": [],
        "NetworkInterfaces": [],
        "MetadataOptions": _metadata(instance),
        "ClientToken": instance.client_token or "",
    }
    if instance.state_reason.code:
        result["StateReason"] = {"Code": instance.state_reason.code, "Message": instance.state_reason.message}
    if state != "terminated":
        result.update(_network(call, instance))
    result.update(_belongings(call, instance))
    return {key: value for key, value in result.items() if value is not None}


def _belongings(call: Call, instance: Instance) -> dict[str, Any]:
    """Instance profile and tags, where there are any."""
    backend = ec2_backends[call.account][call.region]
    found: dict[str, Any] = {}
    association = backend.iam_instance_profile_associations.get(instance.id)
    if association is not None:
        profile = association.iam_instance_profile
        found["IamInstanceProfile"] = {"Arn": profile.arn, "Id": profile.id}
    if labels := backend.tags.get(instance.id):
        found["Tags"] = tags.listed(labels)
    return found


def _placement(call: Call, instance: Instance) -> dict[str, Any]:
    launch = call.state.launches.get(instance.id)
    asked = launch.placement if launch else {}
    found = {
        "AvailabilityZone": instance.placement.zone,
        "GroupName": asked.get("GroupName", ""),
        "Tenancy": asked.get("Tenancy", "default"),
        "HostId": asked.get("HostId"),
        "Affinity": asked.get("Affinity"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _metadata(instance: Instance) -> dict[str, Any]:
    options = instance.metadata_options
    return {
        "State": options.state,
        "HttpTokens": options.http_tokens,
        "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
        "HttpEndpoint": options.http_endpoint,
        "HttpProtocolIpv6": options.http_protocol_ipv6,
        "InstanceMetadataTags": options.instance_metadata_tags,
    }


def _network(call: Call, instance: Instance) -> dict[str, Any]:
    nics = [_interface(call, instance.nics[index]) for index in sorted(instance.nics)]
    first = nics[0] if nics else {}
    return {
        "PrivateIpAddress": first.get("PrivateIpAddress"),
        "PrivateDnsName": instance.private_dns_name if nics else "",
        "PublicIpAddress": instance.public_ip if nics else None,
        "PublicDnsName": (instance.public_dns_name if nics else None) or "",
        "SubnetId": first.get("SubnetId"),
        "VpcId": first.get("VpcId"),
        "SourceDestCheck": instance.source_dest_check,
        "SecurityGroups": first.get("Groups", []),
        "NetworkInterfaces": nics,
    }


def _interface(call: Call, nic: Any) -> dict[str, Any]:
    groups = {group.id: group.name for group in nic.group_set}
    found: dict[str, Any] = {
        "NetworkInterfaceId": nic.id,
        "SubnetId": nic.subnet.id,
        "VpcId": nic.subnet.vpc_id,
        "OwnerId": call.account,
        "Description": nic.description,
        "Status": "in-use",
        "MacAddress": nic.mac_address,
        "PrivateIpAddress": nic.private_ip_address,
        "SourceDestCheck": nic.source_dest_check,
        "InterfaceType": "interface",
        "Groups": [{"GroupId": key, "GroupName": name} for key, name in sorted(groups.items())],
        "Ipv6Addresses": [{"Ipv6Address": address} for address in nic.ipv6_addresses],
        "Attachment": {
            "AttachmentId": nic.attachment_id,
            "DeviceIndex": nic.device_index,
            "Status": "attached",
            "AttachTime": nic.attach_time,
            "DeleteOnTermination": bool(nic.delete_on_termination),
        },
        "PrivateIpAddresses": [
            {
                "PrivateIpAddress": address["PrivateIpAddress"],
                "Primary": address["PrivateIpAddress"] == nic.private_ip_address,
            }
            for address in nic.private_ip_addresses
        ],
    }
    if nic.public_ip:
        public = {"PublicIp": nic.public_ip, "PublicDnsName": "", "IpOwnerId": "amazon"}
        found["Association"] = public
        for address in found["PrivateIpAddresses"]:
            if address["Primary"]:
                address["Association"] = public
    return found


def _attached(view: View) -> list[Any]:
    return volumes.of_instance(view.call, view.id)


LOOKUPS = {
    "instance-id": lambda v: v.id,
    "instance-state-name": lambda v: state_of(v.call, v.instance),
    "instance-state-code": lambda v: STATES[state_of(v.call, v.instance)],
    "instance-type": lambda v: v.instance.instance_type,
    "image-id": lambda v: v.instance.image_id,
    "key-name": lambda v: v.instance.key_name,
    "architecture": lambda v: v.instance.architecture,
    "platform": lambda v: v.instance.platform,
    "vpc-id": lambda v: v.instance.vpc_id,
    "subnet-id": lambda v: v.instance.subnet_id,
    "availability-zone": lambda v: v.instance.placement.zone,
    "private-ip-address": lambda v: v.instance.nics and v.instance.private_ip,
    "ip-address": lambda v: v.instance.nics and v.instance.public_ip,
    "root-device-name": lambda v: v.instance.root_device_name,
    "root-device-type": lambda v: "ebs",
    "owner-id": lambda v: v.call.account,
    "reservation-id": lambda v: v.reservation.id,
    "virtualization-type": lambda v: v.instance.virtualization_type,
    "tenancy": lambda v: _placement(v.call, v.instance)["Tenancy"],
    "placement-group-name": lambda v: _placement(v.call, v.instance)["GroupName"],
    "client-token": lambda v: v.instance.client_token,
    "monitoring-state": lambda v: v.instance.monitoring_state,
    "launch-time": lambda v: v.instance.launch_time.isoformat(),
    "instance.group-id": lambda v: [group.id for nic in v.instance.nics.values() for group in nic.group_set],
    "instance.group-name": lambda v: [
        group.name for nic in v.instance.nics.values() for group in nic.group_set
    ],
    "network-interface.network-interface-id": lambda v: [nic.id for nic in v.instance.nics.values()],
    "network-interface.subnet-id": lambda v: [nic.subnet.id for nic in v.instance.nics.values()],
    "network-interface.vpc-id": lambda v: [nic.subnet.vpc_id for nic in v.instance.nics.values()],
    "block-device-mapping.volume-id": lambda v: [volume.id for volume in _attached(v)],
    "block-device-mapping.device-name": lambda v: [volume.attachment.device for volume in _attached(v)],
}
