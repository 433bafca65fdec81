"""Clusters out of snapshots, the caller's own and those shared with it."""

from dataclasses import replace
from typing import Any

from cpm.simulator import redshift_networks as networks
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.redshift_clusters import automated_days, begin, check_node_type, shown
from cpm.simulator.redshift_model import ClusterSnapshot, Config
from cpm.simulator.redshift_names import (
    CLUSTER,
    SNAPSHOT,
    combination,
    days,
    free_name,
    missing,
    snapshot_of,
    snapshots,
    wrong_snapshot_state,
)
from cpm.simulator.redshift_snapshots import by_arn, restorable_into


def restore(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, RestoreFromClusterSnapshot. It takes no tags, and the new cluster has none."""
    params = call.params
    name = free_name(call, CLUSTER, params["ClusterIdentifier"])
    source = _source(call)
    if source.status != "available":
        raise wrong_snapshot_state(source, f"is {source.status}")
    networks.must_open(call, source.config.kms_key_id)
    config = _config(call, source.config)
    content = call.state.contents.read(source.id)
    return {"Cluster": shown(begin(call, name, config, content, source.megabytes))}


def _source(call: Call) -> ClusterSnapshot:
    """The snapshot that a call names: by identifier, with its owner when it is shared, or by ARN."""
    params = call.params
    if bool(params.get("SnapshotIdentifier")) == bool(params.get("SnapshotArn")):
        raise combination("Give either SnapshotIdentifier or SnapshotArn.")
    if "SnapshotArn" in params:
        return by_arn(call, params["SnapshotArn"])
    name = params["SnapshotIdentifier"]
    owner = params.get("OwnerAccount", call.account)
    if owner == call.account:
        return snapshot_of(call, name, params.get("SnapshotClusterIdentifier"))
    for snapshot in snapshots(call, owner):
        if snapshot.name == name.lower():
            if call.account in snapshot.shared_with:
                return snapshot
            raise AwsError(
                "AccessToSnapshotDenied", f"{owner} does not share snapshot {name} with this account."
            )
    raise missing(SNAPSHOT, name)


def _config(call: Call, source: Config) -> Config:
    """The configuration of the snapshot's cluster with what the call changes of it."""
    params = call.params
    node_type = check_node_type(params.get("NodeType", source.node_type))
    if node_type not in restorable_into(source.node_type):
        raise AwsError("InvalidRestore", f"Nodes of {source.node_type} cannot become {node_type}.", 406)
    if source.subnet_group and not params.get("ClusterSubnetGroupName"):
        # AWS: the same, ClusterSubnetGroupName: a snapshot of a cluster in a VPC is restored into a VPC only.
        raise AwsError("InvalidRestore", "Restoring into a VPC needs a cluster subnet group.", 406)
    group, vpc_id, zone = networks.place(call)
    key = networks.key_named(call, params["KmsKeyId"]) if params.get("KmsKeyId") else source.kms_key_id
    return replace(
        source,
        node_type=node_type,
        nodes=params.get("NumberOfNodes", source.nodes),
        port=networks.check_port(node_type, params["Port"]) if "Port" in params else source.port,
        zone=zone,
        kms_key_id=key,
        vpc_id=vpc_id,
        subnet_group=group,
        security_groups=networks.security_groups(call, vpc_id),
        public=params.get("PubliclyAccessible", False),
        enhanced_routing=params.get("EnhancedVpcRouting", source.enhanced_routing),
        automated_days=automated_days(
            params.get("AutomatedSnapshotRetentionPeriod", source.automated_days), node_type
        ),
        manual_days=days(call, "ManualSnapshotRetentionPeriod", source.manual_days),
        maintenance_window=params.get("PreferredMaintenanceWindow", source.maintenance_window),
        maintenance_track=params.get("MaintenanceTrackName", source.maintenance_track),
        upgrades=params.get("AllowVersionUpgrade", True),
    )


ACTIONS = {"RestoreFromClusterSnapshot": restore}
