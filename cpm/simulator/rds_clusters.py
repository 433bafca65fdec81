"""DB clusters of Aurora, DocumentDB and Neptune. Their instances are made one by one, see ``rds_instances``."""

from typing import Any

from cpm.simulator import rds_engines, rds_keys, rds_networks, rds_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_instances import (
    DEFAULTS,
    check_deletable,
    members,
    resource_id,
    settings,
    shown_networks,
)
from cpm.simulator.rds_model import DBCluster
from cpm.simulator.rds_names import CLUSTER, arn, find, free_name, listed, living, named, shelf, wrong_state
from cpm.simulator.volume_rules import zones


def create(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CreateDBCluster."""
    params = call.params
    offered = rds_engines.cluster_engine(params["Engine"])
    if "MasterUsername" not in params and params["Engine"] != "neptune":
        raise AwsError("InvalidParameterValue", "The parameter MasterUsername must be provided.")
    made = place(
        call,
        engine=params["Engine"],
        version=params.get("EngineVersion", offered.version),
        port=rds_engines.check_port(params.get("Port", offered.port)),
        key=rds_keys.of_new(call),
        username=params.get("MasterUsername", "admin"),
        database_name=params.get("DatabaseName"),
        storage=1,
        storage_type=params.get("StorageType", offered.storage[0]),
        settings=settings(call, {**DEFAULTS, "LicenseModel": offered.license}),
    )
    call.state.contents.write(made.id, b"")
    return {"DBCluster": shown(call, made)}


def place(call: Call, **fields: Any) -> DBCluster:
    """A new cluster where the call wants it: its name, zones, subnets, security groups and tags come from there."""
    name = free_name(call, CLUSTER, call.params["DBClusterIdentifier"])
    rds_engines.check_storage(fields["engine"], fields["storage_type"], fields["storage"], None)
    wanted = call.params.get("AvailabilityZones", [])
    if unknown := set(wanted) - zones(call.region):
        raise invalid(f"Invalid availability zone: {', '.join(sorted(unknown))}")
    group = rds_networks.group_for(call, call.params.get("DBSubnetGroupName"))
    covered = sorted(set(group.subnets.values())) if group else []
    made = DBCluster(
        id=arn(call, CLUSTER, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=call.world.settling("database"),
        tags=rds_tags.given(call),
        resource_id=resource_id("cluster"),
        zones=wanted or covered[:3],
        subnet_group=group.name if group else None,
        security_groups=rds_networks.security_groups(call, group),
        iops=None,
        **fields,
    )
    shelf(call, CLUSTER).add(made)
    return made


def shown(call: Call, cluster: DBCluster) -> dict[str, Any]:
    """A cluster as DescribeDBClusters shows it."""
    host = f"{cluster.resource_id[8:20].lower()}.{cluster.region}.rds.amazonaws.com"
    kept = {name: value for name, value in cluster.settings.items() if name in CLUSTER_SETTINGS}
    return {
        "DBClusterIdentifier": cluster.name,
        "DBClusterArn": cluster.id,
        "DbClusterResourceId": cluster.resource_id,
        "Status": cluster.state,
        "PercentProgress": str(cluster.settling.percent()),
        "Engine": cluster.engine,
        "EngineVersion": cluster.version,
        "EngineMode": "provisioned",
        "MasterUsername": cluster.username,
        "DatabaseName": cluster.database_name,
        "AllocatedStorage": cluster.storage,
        "StorageType": cluster.storage_type,
        "StorageEncrypted": cluster.key is not None,
        "KmsKeyId": cluster.key,
        "AvailabilityZones": cluster.zones,
        "DBSubnetGroup": cluster.subnet_group,
        "VpcSecurityGroups": shown_networks(call, cluster)["VpcSecurityGroups"],
        "Endpoint": f"{cluster.name}.cluster-{host}",
        "ReaderEndpoint": f"{cluster.name}.cluster-ro-{host}",
        "Port": cluster.port,
        "MultiAZ": len(members(call, cluster)) > 1,
        "ClusterCreateTime": cluster.created,
        "DBClusterMembers": [
            {
                "DBInstanceIdentifier": one.name,
                "IsClusterWriter": one.writer,
                "DBClusterParameterGroupStatus": "in-sync",
                "PromotionTier": one.settings.get("PromotionTier", 1),
            }
            for one in members(call, cluster)
        ],
        "TagList": rds_tags.listed(cluster.tags),
        **kept,
    }


# A cluster shows no license and none of what is its instances' alone.
CLUSTER_SETTINGS = frozenset(DEFAULTS) | {"MonitoringInterval"}

LOOKUPS = {
    "db-cluster-id": named,
    "db-cluster-resource-id": lambda one: (one.resource_id.lower(),),
    "engine": lambda one: (one.engine,),
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeDBClusters."""
    name = call.params.get("DBClusterIdentifier")
    chosen = [find(call, CLUSTER, name)] if name else living(call, CLUSTER)
    part, marker = listed(call, CLUSTER, chosen, LOOKUPS)
    return {"DBClusters": [shown(call, one) for one in part], "Marker": marker}


def delete(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DeleteDBCluster: only when all its instances are gone or going."""
    cluster = find(call, CLUSTER, call.params["DBClusterIdentifier"])
    if cluster.state == "deleting":
        raise wrong_state(CLUSTER, cluster)
    if any(one.state != "deleting" for one in members(call, cluster)):
        raise AwsError(
            CLUSTER.wrong_state,
            "Cluster cannot be deleted, it still contains DB instances in non-deleting state.",
        )
    check_deletable(call, cluster, needs_final=True)
    cluster.begin("deleting", call.world.settling("database"))
    answer = shown(call, cluster)
    living(call, CLUSTER)
    return {"DBCluster": {**answer, "Status": "deleting"}}


ACTIONS = {"CreateDBCluster": create, "DescribeDBClusters": describe, "DeleteDBCluster": delete}
