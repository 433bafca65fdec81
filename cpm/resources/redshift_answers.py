"""What Redshift's answers say of clusters and snapshots, and what its calls are asked with, in the terms of resource types."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cpm.aws.client import AwsClient
from cpm.aws.errors import NotFound
from cpm.lib.states import SnapshotStatus
from cpm.resources.base import Described, Shown
from cpm.resources.whole import Growing, Listed, Restoring

MEBIBYTES = 1024
# What is on its way out is as good as gone: it can neither be backed up nor come back.
LEAVING = frozenset({"deleting", "final-snapshot"})
# A cluster in one of these never becomes available by itself.
BROKEN = frozenset(
    {"hardware-failure", "incompatible-hsm", "incompatible-network", "incompatible-parameters", "incompatible-restore"}
)
FAILED = frozenset({"failed", "cancelled"})
# The subnet group of clusters that were made in the default VPC without naming one; AWS keeps it and does not list it.
IMPLICIT_GROUP = "default"
MOST_TAGS = 50


def tags_of(item: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in item.get("Tags", ())}


def as_tags(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in labels.items()]


def described(cluster: Mapping[str, Any]) -> Described:
    """A cluster as targets and records keep it.

    Its capacity is the storage that it has, as AWS tells it, and not what is used of it: like that of volumes and databases.
    """
    nodes = cluster.get("NumberOfNodes") or 1
    storage = cluster.get("TotalStorageCapacityInMegaBytes")
    groups = cluster.get("ClusterParameterGroups", ())
    return Described(
        id=cluster["ClusterIdentifier"],
        tags=tags_of(cluster),
        details={
            "status": cluster.get("ClusterStatus", ""),
            "cluster_type": "multi-node" if nodes > 1 else "single-node",
            "node_type": cluster.get("NodeType", ""),
            "nodes": nodes,
            "node_storage": None if storage is None else storage // nodes // MEBIBYTES,
            "capacity": None if storage is None else -(-storage // MEBIBYTES),
            "encrypted": bool(cluster.get("Encrypted")),
            "kms_key_id": cluster.get("KmsKeyId", ""),
            "port": cluster.get("Endpoint", {}).get("Port"),
            "publicly_accessible": bool(cluster.get("PubliclyAccessible")),
            "zone": cluster.get("AvailabilityZone", ""),
            "multi_az": _on(cluster.get("MultiAZ")),
            "relocation": _on(cluster.get("AvailabilityZoneRelocationStatus")),
            "vpc_id": cluster.get("VpcId", ""),
            "subnet_group_name": cluster.get("ClusterSubnetGroupName", ""),
            "security_groups": [one["VpcSecurityGroupId"] for one in cluster.get("VpcSecurityGroups", ())],
            "enhanced_vpc_routing": bool(cluster.get("EnhancedVpcRouting")),
            "parameter_group": next((one["ParameterGroupName"] for one in groups), ""),
            "iam_roles": [one["IamRoleArn"] for one in cluster.get("IamRoles", ())],
            "default_iam_role": cluster.get("DefaultIamRoleArn", ""),
            "db_name": cluster.get("DBName", ""),
            "master_username": cluster.get("MasterUsername", ""),
            "copied_to": cluster.get("ClusterSnapshotCopyStatus", {}).get("DestinationRegion", ""),
        },
    )


def _on(said: str | None) -> bool:
    # AWS documents texts of true and false, and shows Enabled and Disabled.
    return (said or "").lower() in {"true", "enabled"}


def shown(snapshot: Mapping[str, Any]) -> Shown:
    state = SnapshotStatus.PENDING
    if snapshot["Status"] == "available":
        state = SnapshotStatus.COMPLETED
    elif snapshot["Status"] in FAILED:
        state = SnapshotStatus.ERROR
    size = snapshot.get("TotalBackupSizeInMegaBytes")
    details = {
        "snapshot_arn": snapshot.get("SnapshotArn", ""),
        "kms_key_id": snapshot.get("KmsKeyId", ""),
        "size_bytes": None if size is None else int(size * MEBIBYTES * MEBIBYTES),
    }
    return Shown(state, progress=_progress(snapshot), details=details)


def listed(snapshot: Mapping[str, Any]) -> Listed:
    """A snapshot for who has no record of it."""
    nodes = snapshot.get("NumberOfNodes") or 1
    seen = {
        "cluster_type": "multi-node" if nodes > 1 else "single-node",
        "node_type": snapshot.get("NodeType", ""),
        "nodes": nodes,
        "encrypted": bool(snapshot.get("Encrypted")),
        "port": snapshot.get("Port"),
        "zone": snapshot.get("AvailabilityZone", ""),
        "vpc_id": snapshot.get("VpcId", ""),
        "enhanced_vpc_routing": bool(snapshot.get("EnhancedVpcRouting")),
        "db_name": snapshot.get("DBName", ""),
        "master_username": snapshot.get("MasterUsername", ""),
    }
    allowed = snapshot.get("AccountsWithRestoreAccess") or ()
    granted = sorted(one["AccountId"] for one in allowed if one.get("AccountId"))
    found = shown(snapshot)
    return Listed(
        aws_id=snapshot["SnapshotIdentifier"],
        source_id=snapshot["ClusterIdentifier"],
        made=snapshot["SnapshotCreateTime"],
        shown=replace(found, details={**found.details, "granted_to": granted}) if granted else found,
        tags=tags_of(snapshot),
        details=seen,
        encrypted=bool(snapshot.get("Encrypted")),
        source_account=snapshot.get("OwnerAccount", ""),
    )


def _progress(snapshot: Mapping[str, Any]) -> int:
    """By the time that AWS still expects, else by what is transferred: of that AWS tells the size of the whole, although
    only what has changed is transferred."""
    passed, left = snapshot.get("ElapsedTimeInSeconds") or 0, snapshot.get("EstimatedSecondsToCompletion") or 0
    if left > 0:
        return int(100 * passed // (passed + left))
    done, whole = snapshot.get("BackupProgressInMegaBytes") or 0, snapshot.get("TotalBackupSizeInMegaBytes") or 0
    return min(100, int(100 * done / whole)) if whole > 0 else 0


def growing(cluster: Mapping[str, Any]) -> Growing:
    """How far a cluster is that is made from a snapshot.

    An available one can be used although Redshift still brings blocks from the snapshot to its nodes.
    """
    status, restore = cluster["ClusterStatus"], cluster.get("RestoreStatus") or {}
    if status in LEAVING:
        return Growing(absent=True)
    if status in BROKEN or restore.get("Status") == "failed":
        return Growing(failed=f"its state is {status}, that of its restore {restore.get('Status', 'not known')}.")
    moved, size = restore.get("ProgressInMegaBytes") or 0, restore.get("SnapshotSizeInMegaBytes") or 0
    return Growing(done=status.startswith("available"), progress=min(99, int(100 * moved / size)) if size > 0 else None)


def subnet_group(client: AwsClient, name: str) -> Mapping[str, Any] | None:
    """The subnet group of this name, None if there is none."""
    try:
        found: list[Mapping[str, Any]] = client.call("DescribeClusterSubnetGroups", ClusterSubnetGroupName=name)[
            "ClusterSubnetGroups"
        ]
    except NotFound:
        return None
    return found[0] if found else None


def zones_of(group: Mapping[str, Any]) -> set[str]:
    return {subnet["SubnetAvailabilityZone"]["Name"] for subnet in group.get("Subnets", ())}


def chosen(request: Mapping[str, Any], details: Mapping[str, Any], name: str) -> Any:
    """What is asked for, else what the original had."""
    return details.get(name) if request.get(name) in (None, "") else request[name]


def restore_parameters(restoring: Restoring, group: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a restore is asked with. Node type, number of nodes, port and key are those of the snapshot unless said otherwise.

    What the original had and the new place cannot have is left to AWS: its zone where the subnet group does not cover it, its
    security groups in another VPC.
    """
    request, details, held = restoring.request, restoring.held.details, restoring.held
    zone, cover = request.get("zone"), zones_of(group) if group else set()
    if not zone and not details.get("multi_az") and (group is None or details.get("zone") in cover):
        zone = details.get("zone")
    same_vpc = group is None or group.get("VpcId") == details.get("vpc_id")
    parameter_group = details.get("parameter_group") or ""
    wanted: dict[str, Any] = {
        "ClusterIdentifier": request["aws_resource_id"],
        "SnapshotIdentifier": restoring.snapshot,
        "OwnerAccount": "" if restoring.place.same_account else held.account_number,
        "Port": request.get("port"),
        "AvailabilityZone": zone,
        "ClusterSubnetGroupName": chosen(request, details, "subnet_group_name"),
        "VpcSecurityGroupIds": details.get("security_groups") if same_vpc else [],
        "ClusterParameterGroupName": "" if parameter_group.startswith("default.") else parameter_group,
        "IamRoles": details.get("iam_roles"),
        "DefaultIamRoleArn": details.get("default_iam_role"),
        "MultiAZ": details.get("multi_az"),
        "AvailabilityZoneRelocation": details.get("relocation"),
    }
    settled = {"PubliclyAccessible": bool(chosen(request, details, "publicly_accessible"))}
    settled["EnhancedVpcRouting"] = bool(details.get("enhanced_vpc_routing"))
    return {name: value for name, value in wanted.items() if value} | settled
