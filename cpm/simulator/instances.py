"""Instances: described, started, stopped, rebooted, terminated, and their attributes."""

from collections.abc import Iterator
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, Reservation

from cpm.simulator import instance_view, launches, volumes
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.instance_view import state_of
from cpm.simulator.listing import matching, page
from cpm.simulator.timing import now

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


def everything(call: Call) -> Iterator[tuple[Reservation, Instance]]:
    """All instances of the caller's account and region with their reservations, oldest first."""
    for reservation in ec2_backends[call.account][call.region].reservations.values():
        for instance in reservation.instances:
            yield reservation, instance


def chosen(call: Call) -> list[Instance]:
    """The instances that InstanceIds names; InvalidInstanceID.NotFound for any that is not there."""
    ids = call.params.get("InstanceIds", [])
    for instance_id in ids:
        if not instance_id.startswith("i-"):
            raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
    return [volumes.instance_of(call, instance_id) for instance_id in dict.fromkeys(ids)]


def run(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, RunInstances."""
    made = launches.run(call)["ReservationId"]
    reservation = ec2_backends[call.account][call.region].reservations[made]
    return instance_view.reservation(call, reservation, reservation.instances)


def describe(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeInstances."""
    wanted = {instance.id for instance in chosen(call)}
    views = [
        instance_view.View(call, reservation, instance, serial)
        for serial, (reservation, instance) in enumerate(everything(call), 1)
        if not wanted or instance.id in wanted
    ]
    tags_of = ec2_backends[call.account][call.region].tags
    found = matching(
        views, call.params.get("Filters", []), instance_view.LOOKUPS, lambda view: tags_of.get(view.id, {})
    )
    part, token = page(found, call.params, "InstanceIds")
    grouped: dict[str, list[Instance]] = {}
    reservations = {}
    for view in part:
        reservations[view.reservation.id] = view.reservation
        grouped.setdefault(view.reservation.id, []).append(view.instance)
    shown = [instance_view.reservation(call, reservations[key], members) for key, members in grouped.items()]
    return {"Reservations": shown, "NextToken": token}


def describe_status(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeInstanceStatus: running instances only, unless all are asked for."""
    some = chosen(call) or [instance for _, instance in everything(call)]
    if not call.params.get("IncludeAllInstances"):
        some = [instance for instance in some if state_of(call, instance) == "running"]
    statuses = []
    for instance in some:
        state = state_of(call, instance)
        health: dict[str, Any] = {"Status": "ok" if state == "running" else "not-applicable", "Details": []}
        if state == "running":
            health["Details"] = [{"Name": "reachability", "Status": "passed"}]
        statuses.append(
            {
                "InstanceId": instance.id,
                "AvailabilityZone": instance.placement.zone,
                "InstanceState": {"Code": CODES[state], "Name": state},
                "InstanceStatus": health,
                "SystemStatus": health,
            }
        )
    return {"InstanceStatuses": statuses}


def _change(instance: Instance, before: str, after: str) -> dict[str, Any]:
    return {
        "InstanceId": instance.id,
        "PreviousState": {"Code": CODES[before], "Name": before},
        "CurrentState": {"Code": CODES[after], "Name": after},
    }


def terminate(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, TerminateInstances: its DeleteOnTermination volumes and interfaces go with it."""
    some = chosen(call)
    for instance in some:
        if instance.disable_api_termination:
            raise AwsError(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance"
                " attribute and try again.",
            )
    changes = []
    for instance in some:
        before = state_of(call, instance)
        changes.append(_change(instance, before, "terminated" if before == "terminated" else "shutting-down"))
        if before != "terminated":
            _end(call, instance)
    return {"TerminatingInstances": changes}


def _end(call: Call, instance: Instance) -> None:
    for volume in volumes.of_instance(call, instance.id):
        goes = volume.attachment is not None and volume.attachment.delete_on_termination
        volume.attachment = None
        if goes:
            volumes.remove(call, volume)
    instance.terminate()
    for nic in list(instance.nics.values()):
        instance.detach_eni(nic)
    if instance.id in call.state.launches:
        call.state.launches[instance.id].ended = now()


def stop(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, StopInstances."""
    some = chosen(call)
    _refuse_states(call, some, ("terminated",))
    changes = []
    for instance in some:
        before = state_of(call, instance)
        if before == "stopped":
            changes.append(_change(instance, before, "stopped"))
        else:
            instance.stop()
            changes.append(_change(instance, before, "stopping"))
    return {"StoppingInstances": changes}


def start(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, StartInstances."""
    some = chosen(call)
    _refuse_states(call, some, ("terminated",))
    changes = []
    for instance in some:
        before = state_of(call, instance)
        if before in ("running", "pending"):
            changes.append(_change(instance, before, before))
            continue
        instance.start()
        if instance.id in call.state.launches:
            call.state.launches[instance.id].settling = call.world.settling("instance")
        changes.append(_change(instance, before, "pending"))
    return {"StartingInstances": changes}


def reboot(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, RebootInstances."""
    _refuse_states(call, chosen(call), ("terminated", "stopped"))
    return {}


def _refuse_states(call: Call, some: list[Instance], states: tuple[str, ...]) -> None:
    for instance in some:
        if instance.state in states:
            raise AwsError(
                "IncorrectInstanceState", f"The instance '{instance.id}' is in the '{instance.state}' state."
            )


# -- attributes -------------------------------------------------------------------------------------------


def describe_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeInstanceAttribute."""
    instance = volumes.instance_of(call, call.params["InstanceId"])
    attribute = call.params["Attribute"]
    values: dict[str, tuple[str, Any]] = {
        "instanceType": ("InstanceType", {"Value": instance.instance_type}),
        "userData": ("UserData", {"Value": str(instance.user_data)} if instance.user_data else {}),
        "disableApiTermination": ("DisableApiTermination", {"Value": instance.disable_api_termination}),
        "disableApiStop": ("DisableApiStop", {"Value": instance.disable_api_stop}),
        "instanceInitiatedShutdownBehavior": (
            "InstanceInitiatedShutdownBehavior",
            {"Value": instance.instance_initiated_shutdown_behavior},
        ),
        "rootDeviceName": ("RootDeviceName", {"Value": instance.root_device_name}),
        "ebsOptimized": ("EbsOptimized", {"Value": instance.ebs_optimized}),
        "sourceDestCheck": ("SourceDestCheck", {"Value": instance.source_dest_check}),
        "sriovNetSupport": ("SriovNetSupport", {}),
        "enaSupport": ("EnaSupport", {"Value": True}),
        "kernel": ("KernelId", {}),
        "ramdisk": ("RamdiskId", {}),
        "productCodes": ("ProductCodes", []),
        "groupSet": (
            "Groups",
            [{"GroupId": group.id, "GroupName": group.name} for group in instance.security_groups],
        ),
        "blockDeviceMapping": ("BlockDeviceMappings", instance_view.devices(call, instance)),
    }
    if attribute not in values:
        raise invalid(f"Value ({attribute}) for parameter attribute is invalid. Unknown attribute.")
    name, value = values[attribute]
    return {"InstanceId": instance.id, name: value}


PLAIN = {
    "InstanceInitiatedShutdownBehavior": "instance_initiated_shutdown_behavior",
    "DisableApiTermination": "disable_api_termination",
    "DisableApiStop": "disable_api_stop",
    "SourceDestCheck": "source_dest_check",
}
# AWS: EC2 User Guide. These change only while the instance is stopped.
STOPPED_ONLY = {"InstanceType": "instance_type", "EbsOptimized": "ebs_optimized", "UserData": "user_data"}


def modify_attribute(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, ModifyInstanceAttribute."""
    instance = volumes.instance_of(call, call.params["InstanceId"])
    params = dict(call.params)
    if "Attribute" in params and "Value" in params:
        name = params["Attribute"][0].upper() + params["Attribute"][1:]
        value = params["Value"]
        params[name] = {"Value": value == "true" if value in ("true", "false") else value}
    for name, attribute in {**PLAIN, **STOPPED_ONLY}.items():
        if name not in params:
            continue
        if name in STOPPED_ONLY and instance.state != "stopped":
            raise AwsError(
                "IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state."
            )
        setattr(instance, attribute, params[name].get("Value"))
    if "Groups" in params:
        backend = ec2_backends[call.account][call.region]
        backend.modify_instance_security_groups(instance.id, params["Groups"])
    attached = {
        v.attachment.device: v.attachment for v in volumes.of_instance(call, instance.id) if v.attachment
    }
    for mapping in params.get("BlockDeviceMappings", []):
        if mapping.get("DeviceName") not in attached:
            raise AwsError(
                "InvalidInstanceAttributeValue",
                f"No device is currently mapped at {mapping.get('DeviceName')}",
            )
        goes = mapping.get("Ebs", {}).get("DeleteOnTermination")
        if goes is not None:
            attached[mapping["DeviceName"]].delete_on_termination = goes
    return {}


ACTIONS = {
    "RunInstances": run,
    "DescribeInstances": describe,
    "DescribeInstanceStatus": describe_status,
    "TerminateInstances": terminate,
    "StopInstances": stop,
    "StartInstances": start,
    "RebootInstances": reboot,
    "DescribeInstanceAttribute": describe_attribute,
    "ModifyInstanceAttribute": modify_attribute,
}
