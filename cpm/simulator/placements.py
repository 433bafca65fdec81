"""Placement groups and regions, which moto lacks or shows wrongly."""

from typing import Any

from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.launches import placement_groups
from cpm.simulator.world import new_id


def create_group(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CreatePlacementGroup."""
    name, strategy = call.params.get("GroupName"), call.params.get("Strategy", "cluster")
    groups = placement_groups(call)
    if not name:
        raise AwsError("MissingParameter", "The request must contain the parameter groupName")
    if strategy not in ("cluster", "spread", "partition"):
        raise invalid(f"Invalid strategy: {strategy}")
    if name in groups:
        raise AwsError("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
    groups[name] = {"GroupName": name, "GroupId": new_id("pg"), "State": "available", "Strategy": strategy}
    return {"PlacementGroup": groups[name]}


def describe_groups(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribePlacementGroups."""
    groups = placement_groups(call)
    names, ids = call.params.get("GroupNames", []), call.params.get("GroupIds", [])
    for name in names:
        if name not in groups:
            raise AwsError("InvalidPlacementGroup.Unknown", f"The placement group '{name}' is unknown.")
    shown = [
        g
        for g in groups.values()
        if (not names or g["GroupName"] in names) and (not ids or g["GroupId"] in ids)
    ]
    return {"PlacementGroups": shown}


def delete_group(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DeletePlacementGroup."""
    if placement_groups(call).pop(call.params["GroupName"], None) is None:
        raise AwsError(
            "InvalidPlacementGroup.Unknown", f"The placement group '{call.params['GroupName']}' is unknown."
        )
    return {}


def describe_regions(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, DescribeRegions: disabled regions only with AllRegions."""
    everything = call.params.get("AllRegions", False)
    wanted = call.params.get("RegionNames")
    shown = []
    for region in RegionsAndZonesBackend.regions:
        disabled = region.name in call.state.disabled_regions
        if (wanted and region.name not in wanted) or (disabled and not everything):
            continue
        status = "not-opted-in" if disabled else "opt-in-not-required"
        shown.append(
            {"RegionName": region.name, "Endpoint": f"ec2.{region.name}.amazonaws.com", "OptInStatus": status}
        )
    missing = set(wanted or []) - {region["RegionName"] for region in shown}
    if missing:
        raise invalid(f"Invalid region(s): {', '.join(sorted(missing))}")
    for one in call.params.get("Filters", []):
        key = {"region-name": "RegionName", "endpoint": "Endpoint", "opt-in-status": "OptInStatus"}.get(
            one["Name"]
        )
        if key is None:
            raise invalid(f"The filter '{one['Name']}' is invalid")
        shown = [region for region in shown if region[key] in one["Values"]]
    return {"Regions": shown}


ACTIONS = {
    "CreatePlacementGroup": create_group,
    "DescribePlacementGroups": describe_groups,
    "DeletePlacementGroup": delete_group,
    "DescribeRegions": describe_regions,
}
