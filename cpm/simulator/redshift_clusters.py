"""Redshift's clusters: made, described, paused, resumed, deleted."""

import re
import secrets
import uuid
from typing import Any

from cpm.simulator import redshift_networks as networks
from cpm.simulator import redshift_taking as taking
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.redshift_model import FOREVER, Cluster, Config
from cpm.simulator.redshift_names import (
    CLUSTER,
    SNAPSHOT,
    arn,
    cluster,
    clusters,
    combination,
    days,
    described,
    free_name,
    shelf,
    wrong_cluster_state,
)
from cpm.simulator.redshift_tags import given, listed
from cpm.simulator.timing import Settling, now
from cpm.simulator.volume_rules import zones

# AWS: Redshift API Reference, CreateCluster, NodeType.
NODE_TYPES = (
    "dc2.large", "dc2.8xlarge", "rg.large", "rg.xlarge", "rg.4xlarge", "rg.12xlarge",
    "ra3.large", "ra3.xlplus", "ra3.4xlarge", "ra3.16xlarge",
)  # fmt: skip
# AWS: Redshift Management Guide, Clusters and nodes, storage quota of a node of several, in GiB.
NODE_GIB = {
    "dc2.large": 160, "dc2.8xlarge": 2560, "ra3.large": 8192, "ra3.xlplus": 32768, "ra3.4xlarge": 131072,
    "ra3.16xlarge": 131072,
}  # fmt: skip
# AWS: Redshift API Reference, CreateCluster, MasterUserPassword.
PASSWORD = re.compile(r"(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])[!-~]{8,64}")
FORBIDDEN = frozenset("'\"\\/@")
VERSION = "1.0"
MOST_AUTOMATED_DAYS = 35


def create(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, CreateCluster. Without a key named, AWS's own key encrypts."""
    params = call.params
    name = free_name(call, CLUSTER, params["ClusterIdentifier"])
    node_type = check_node_type(params["NodeType"])
    _check_password(params)
    if params.get("Encrypted") is False:
        raise invalid("A cluster cannot be made without encryption.")
    group, vpc_id, zone = networks.place(call)
    config = Config(
        node_type=node_type,
        nodes=_nodes(params),
        db_name=params.get("DBName", "dev"),
        username=params["MasterUsername"],
        port=networks.check_port(node_type, params.get("Port", 5439)),
        zone=zone,
        cluster_created=now(),
        encrypted=True,
        kms_key_id=networks.key_named(call, params["KmsKeyId"]) if params.get("KmsKeyId") else None,
        vpc_id=vpc_id,
        subnet_group=group,
        security_groups=networks.security_groups(call, vpc_id),
        public=params.get("PubliclyAccessible", False),
        enhanced_routing=params.get("EnhancedVpcRouting", False),
        automated_days=automated_days(params.get("AutomatedSnapshotRetentionPeriod", 1), node_type),
        manual_days=days(call, "ManualSnapshotRetentionPeriod", FOREVER),
        maintenance_window=params.get("PreferredMaintenanceWindow", Config.maintenance_window),
        maintenance_track=params.get("MaintenanceTrackName", Config.maintenance_track),
        upgrades=params.get("AllowVersionUpgrade", True),
    )
    return {"Cluster": shown(begin(call, name, config, b""))}


def begin(call: Call, name: str, config: Config, content: bytes, restored: float | None = None) -> Cluster:
    """A cluster that comes into being with this content; ``restored`` is the size of the snapshot it comes from."""
    until = call.world.settling("database")
    config.cluster_created = until.start
    made = Cluster(
        id=arn(CLUSTER, call.account, call.region, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=until,
        tags=given(call),
        config=config,
        phase="creating",
        until=until,
        host=f"{name}.{secrets.token_hex(6)}.{call.region}.redshift.amazonaws.com",
        namespace=f"arn:aws:redshift:{call.region}:{call.account}:namespace:{uuid.uuid4()}",
        restored_megabytes=restored,
    )
    shelf(call, CLUSTER).add(made)
    call.state.contents.write(made.id, content)
    if config.automated_days:
        taking.take_automated(call.world, made, until.end)
    return made


def check_node_type(node_type: str) -> str:
    if node_type not in NODE_TYPES:
        raise invalid(f"Invalid node type: {node_type}")
    return node_type


def automated_days(wanted: int, node_type: str) -> int:
    """AWS: Redshift API Reference, CreateCluster, AutomatedSnapshotRetentionPeriod."""
    least = 0 if node_type.startswith("dc2.") else 1
    if not least <= wanted <= MOST_AUTOMATED_DAYS:
        raise AwsError("InvalidRetentionPeriodFault", f"The retention period {wanted} is not valid.")
    return wanted


def _check_password(params: dict[str, Any]) -> None:
    password, managed = params.get("MasterUserPassword"), params.get("ManageMasterPassword", False)
    if (password is None) != managed:
        raise combination("Give either MasterUserPassword or ManageMasterPassword.")
    if password is not None and (not PASSWORD.fullmatch(password) or FORBIDDEN & set(password)):
        raise invalid("The parameter MasterUserPassword is not a valid password.")


def _nodes(params: dict[str, Any]) -> int:
    kind, number = params.get("ClusterType"), params.get("NumberOfNodes")
    if kind not in (None, "single-node", "multi-node"):
        raise invalid(f"Invalid cluster type: {kind}")
    if kind == "multi-node" and (number is None or number < 2):
        raise combination("Number of nodes for cluster type multi-node must be greater than or equal to 2")
    if kind == "single-node" and number not in (None, 1):
        raise combination("Number of nodes for cluster type single-node must be 1")
    if number is not None and not 1 <= number <= 100:
        raise invalid(f"Invalid number of nodes: {number}")
    return number or 1


def shown(item: Cluster) -> dict[str, Any]:
    """A cluster as DescribeClusters shows it."""
    config, status = item.config, item.status
    result: dict[str, Any] = {
        "ClusterIdentifier": item.name,
        "NodeType": config.node_type,
        "ClusterStatus": status,
        "ClusterAvailabilityStatus": "Available" if status == "available" else "Unavailable",
        "MasterUsername": config.username,
        "DBName": config.db_name,
        "ClusterCreateTime": item.created,
        "AutomatedSnapshotRetentionPeriod": config.automated_days,
        "ManualSnapshotRetentionPeriod": config.manual_days,
        "VpcSecurityGroups": [
            {"VpcSecurityGroupId": group, "Status": "active"} for group in config.security_groups
        ],
        "ClusterSubnetGroupName": config.subnet_group,
        "VpcId": config.vpc_id,
        "AvailabilityZone": config.zone,
        "PreferredMaintenanceWindow": config.maintenance_window,
        "ClusterVersion": VERSION,
        "AllowVersionUpgrade": config.upgrades,
        "NumberOfNodes": config.nodes,
        "TotalStorageCapacityInMegaBytes": config.nodes * NODE_GIB.get(config.node_type, 0) * 1024 or None,
        "PubliclyAccessible": config.public,
        "Encrypted": config.encrypted,
        "KmsKeyId": config.kms_key_id,
        "EnhancedVpcRouting": config.enhanced_routing,
        "MaintenanceTrackName": config.maintenance_track,
        "ClusterNamespaceArn": item.namespace,
        "Tags": listed(item.tags),
    }
    if status != "creating":
        result["Endpoint"] = {"Address": item.host, "Port": config.port}
    if item.restored_megabytes is not None:
        result["RestoreStatus"] = {"Status": "completed" if item.settling.done() else "restoring"}
    if item.copies is not None:
        result["ClusterSnapshotCopyStatus"] = {
            "DestinationRegion": item.copies.region,
            "RetentionPeriod": item.copies.automated_days,
            "ManualSnapshotRetentionPeriod": item.copies.manual_days,
        }
    return result


def describe(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DescribeClusters."""
    asked = call.params.get("ClusterIdentifier")
    part, marker = described(call, CLUSTER, [cluster(call)] if asked else clusters(call), asked)
    return {"Clusters": [shown(one) for one in part], "Marker": marker}


def delete(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DeleteCluster: a final snapshot must be taken or refused."""
    item, name = cluster(call), call.params.get("FinalClusterSnapshotIdentifier")
    if bool(name) == call.params.get("SkipFinalClusterSnapshot", False):
        raise combination("FinalClusterSnapshotIdentifier is needed unless SkipFinalClusterSnapshot is set.")
    if item.status not in ("available", "paused"):
        raise wrong_cluster_state(item)
    seconds = call.state.timing.database_seconds
    if name:
        kept = days(call, "FinalClusterSnapshotRetentionPeriod", FOREVER)
        snapshot = taking.take(call.world, item, free_name(call, SNAPSHOT, name), kept, {})
        item.final_snapshot = snapshot.settling
        seconds += snapshot.settling.seconds
    item.phase, item.until = "deleting", Settling(now(), seconds)
    answer = shown(item)
    # What takes no time at all is deleted in the answer, too.
    answer["ClusterStatus"] = "deleting" if item.gone else item.status
    return {"Cluster": answer}


def pause(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, PauseCluster."""
    return _turn(call, "available", "pausing")


def resume(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, ResumeCluster."""
    return _turn(call, "paused", "resuming")


def _turn(call: Call, needed: str, phase: str) -> dict[str, Any]:
    item = cluster(call)
    if item.status != needed:
        raise wrong_cluster_state(item)
    item.phase, item.until = phase, call.world.settling("database")
    return {"Cluster": {**shown(item), "ClusterStatus": phase}}


def orderable(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DescribeOrderableClusterOptions; one page holds all."""
    wanted, version = call.params.get("NodeType"), call.params.get("ClusterVersion", VERSION)
    here = [{"Name": zone} for zone in sorted(zones(call.region))]
    return {
        "OrderableClusterOptions": [
            {
                "ClusterVersion": VERSION,
                "ClusterType": kind,
                "NodeType": node_type,
                "AvailabilityZones": here,
            }
            for node_type in NODE_TYPES
            if wanted in (None, node_type) and version == VERSION
            for kind in ("multi-node", "single-node")
        ]
    }


ACTIONS = {
    "CreateCluster": create,
    "DeleteCluster": delete,
    "DescribeClusters": describe,
    "DescribeOrderableClusterOptions": orderable,
    "PauseCluster": pause,
    "ResumeCluster": resume,
}
