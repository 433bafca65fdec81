"""DB instances: made, shown, changed, stopped, started, deleted. Restored ones come from ``rds_restores``."""

import secrets
from typing import Any

from cpm.simulator import rds_engines, rds_keys, rds_live, rds_networks, rds_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.rds_model import Database, DBCluster, DBInstance
from cpm.simulator.rds_names import (
    CLUSTER,
    INSTANCE,
    arn,
    combination,
    find,
    forget,
    free_name,
    listed,
    living,
    named,
    shelf,
    wrong_state,
)
from cpm.simulator.rds_snapshots import take
from cpm.simulator.volume_rules import zones

# What RDS shows of a database whether it was given or not.
DEFAULTS: dict[str, Any] = {
    "BackupRetentionPeriod": 1,
    "PreferredBackupWindow": "05:00-05:30",
    "PreferredMaintenanceWindow": "sun:06:00-sun:06:30",
    "AutoMinorVersionUpgrade": True,
    "CopyTagsToSnapshot": False,
    "DeletionProtection": False,
    "NetworkType": "IPV4",
}
KEPT = (*DEFAULTS, "LicenseModel", "PromotionTier", "MonitoringInterval", "MaxAllocatedStorage", "Timezone")


def settings(call: Call, before: dict[str, Any]) -> dict[str, Any]:
    """What is kept only to be shown again: as given, else as it was before."""
    return {**before, **{name: call.params[name] for name in KEPT if name in call.params}}


def resource_id(prefix: str) -> str:
    """An id that no other database ever has, unlike its name."""
    return f"{prefix}-{secrets.token_hex(13).upper()}"


def create(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CreateDBInstance: on its own, or as a member of a cluster."""
    cluster_name = call.params.get("DBClusterIdentifier")
    offered = rds_engines.engine(call.params["Engine"])
    if offered.clustered and not cluster_name:
        raise combination(f"The engine {call.params['Engine']} needs the parameter DBClusterIdentifier.")
    version = call.params.get("EngineVersion", offered.version)
    rds_engines.check_class(call.params["DBInstanceClass"], call.params["Engine"], version)
    live = rds_live.wanted(call, call.params["Engine"])
    made = _member(call, find(call, CLUSTER, cluster_name)) if cluster_name else _single(call, version)
    call.state.contents.write(made.id, b"")
    if live:
        try:
            rds_live.create(call, made)
        except AwsError:
            forget(call, INSTANCE, made)
            raise
    return {"DBInstance": shown(call, made)}


def _single(call: Call, version: str) -> DBInstance:
    params = call.params
    offered = rds_engines.engine(params["Engine"])
    for name in ("AllocatedStorage", "MasterUsername"):
        if name not in params:
            raise missing(name)
    storage_type = params.get("StorageType") or ("io1" if params.get("Iops") else "gp2")
    rds_engines.check_storage(params["Engine"], storage_type, params["AllocatedStorage"], params.get("Iops"))
    return place(
        call,
        port=rds_engines.check_port(params.get("Port", offered.port)),
        engine=params["Engine"],
        version=version,
        key=rds_keys.of_new(call),
        username=params["MasterUsername"],
        database_name=params.get("DBName"),
        storage=params["AllocatedStorage"],
        storage_type=storage_type,
        iops=params.get("Iops"),
        throughput=params.get("StorageThroughput"),
        instance_class=params["DBInstanceClass"],
        settings=settings(call, {**DEFAULTS, "LicenseModel": offered.license}),
    )


def _member(call: Call, cluster: DBCluster) -> DBInstance:
    """AWS: RDS API Reference, RestoreDBClusterFromSnapshot: instances can be made once the cluster is available."""
    params = call.params
    if cluster.engine != params["Engine"]:
        raise combination(
            f"The engine name requested for your DB instance ({params['Engine']}) doesn't match the engine name of"
            f" your DB cluster ({cluster.engine})."
        )
    if cluster.state in ("creating", "deleting"):
        raise wrong_state(CLUSTER, cluster)
    if params.get("MultiAZ") or "AllocatedStorage" in params or "KmsKeyId" in params:
        raise combination("MultiAZ, AllocatedStorage and KmsKeyId are those of the DB cluster.")
    return place(
        call,
        port=cluster.port,
        engine=cluster.engine,
        version=cluster.version,
        key=cluster.key,
        username=cluster.username,
        database_name=cluster.database_name,
        storage=cluster.storage,
        storage_type=cluster.storage_type,
        iops=None,
        throughput=None,
        instance_class=params["DBInstanceClass"],
        settings=settings(call, {**DEFAULTS, "LicenseModel": cluster.settings["LicenseModel"]}),
        cluster=cluster,
    )


def place(call: Call, *, cluster: DBCluster | None = None, **fields: Any) -> DBInstance:
    """A new instance where the call wants it: its name, zone, subnets, security groups and tags come from there."""
    params = call.params
    name = free_name(call, INSTANCE, params["DBInstanceIdentifier"])
    multi_az, wanted = bool(params.get("MultiAZ")), params.get("AvailabilityZone")
    if multi_az and wanted:
        raise combination("Requesting a specific availability zone is not valid for Multi-AZ instances.")
    if wanted and wanted not in zones(call.region):
        raise invalid(f"Invalid availability zone: {wanted}")
    group = rds_networks.group_for(call, cluster.subnet_group if cluster else params.get("DBSubnetGroupName"))
    made = DBInstance(
        id=arn(call, INSTANCE, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=call.world.settling("database"),
        tags=rds_tags.given(call),
        resource_id=resource_id("db"),
        zone=rds_networks.zone_for(group, wanted, multi_az),
        multi_az=multi_az,
        public=bool(params.get("PubliclyAccessible")),
        subnet_group=group.name if group else None,
        security_groups=cluster.security_groups if cluster else rds_networks.security_groups(call, group),
        cluster=cluster.name if cluster else None,
        writer=cluster is not None and not members(call, cluster),
        **fields,
    )
    shelf(call, INSTANCE).add(made)
    return made


def members(call: Call, cluster: DBCluster) -> list[DBInstance]:
    """The instances of a cluster, in order of creation."""
    return [one for one in living(call, INSTANCE) if one.cluster == cluster.name]


def shown_networks(call: Call, database: Database) -> dict[str, Any]:
    """Where a database runs, as instances show it."""
    group = rds_networks.of_name(call, database.subnet_group)
    return {
        "DBSubnetGroup": rds_networks.shown(group) if group else None,
        "VpcSecurityGroups": [
            {"VpcSecurityGroupId": one, "Status": "active"} for one in database.security_groups
        ],
    }


def shown(call: Call, instance: DBInstance) -> dict[str, Any]:
    """An instance as DescribeDBInstances shows it; its address is there once it has been made.

    A live one shows where it is really reached, which is another port than it was given.
    """
    host = f"{instance.name}.{instance.resource_id[3:15].lower()}.{instance.region}.rds.amazonaws.com"
    address = rds_live.endpoint(call, instance) or {"Address": host, "Port": instance.port}
    return {
        "DBInstanceIdentifier": instance.name,
        "DBInstanceArn": instance.id,
        "DbiResourceId": instance.resource_id,
        "DBInstanceStatus": instance.state,
        "DBInstanceClass": instance.instance_class,
        "Engine": instance.engine,
        "EngineVersion": instance.version,
        "MasterUsername": instance.username,
        "DBName": instance.database_name,
        "AllocatedStorage": instance.storage,
        "StorageType": instance.storage_type,
        "Iops": instance.iops,
        "StorageThroughput": instance.throughput,
        "StorageEncrypted": instance.key is not None,
        "KmsKeyId": instance.key,
        "AvailabilityZone": instance.zone if instance.state != "creating" else None,
        "MultiAZ": instance.multi_az,
        "PubliclyAccessible": instance.public,
        "DBClusterIdentifier": instance.cluster,
        "DbInstancePort": 0,
        "InstanceCreateTime": instance.created if instance.state != "creating" else None,
        "Endpoint": address if instance.state != "creating" else None,
        "PendingModifiedValues": {},
        "TagList": rds_tags.listed(instance.tags),
        **shown_networks(call, instance),
        **instance.settings,
    }


LOOKUPS = {
    "db-instance-id": named,
    "db-cluster-id": lambda one: (one.cluster, one.id.rsplit(":db:", 1)[0] + f":cluster:{one.cluster}"),
    "dbi-resource-id": lambda one: (one.resource_id.lower(),),
    "engine": lambda one: (one.engine,),
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeDBInstances."""
    name = call.params.get("DBInstanceIdentifier")
    chosen = [find(call, INSTANCE, name)] if name else living(call, INSTANCE)
    part, marker = listed(call, INSTANCE, chosen, LOOKUPS)
    return {"DBInstances": [shown(call, one) for one in part], "Marker": marker}


CHANGES = {
    "AllocatedStorage": "storage",
    "DBInstanceClass": "instance_class",
    "MultiAZ": "multi_az",
    "EngineVersion": "version",
    "Iops": "iops",
    "StorageType": "storage_type",
    "StorageThroughput": "throughput",
    "DBPortNumber": "port",
    "PubliclyAccessible": "public",
}
# Taken without effect on what the simulator keeps; the password is changed where there is a live database.
UNSEEN = {"DBInstanceIdentifier", "ApplyImmediately", "MasterUserPassword", "AllowMajorVersionUpgrade"}


def modify(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, ModifyDBInstance. Changes are made at once: there is no maintenance window here."""
    instance = find(call, INSTANCE, call.params["DBInstanceIdentifier"])
    if instance.state != "available":
        raise wrong_state(INSTANCE, instance)
    unknown = set(call.params) - {*CHANGES, *KEPT, *UNSEEN, "VpcSecurityGroupIds"}
    if unknown:
        raise AwsError("UnsupportedOperation", f"The simulator does not change {', '.join(sorted(unknown))}.")
    wanted = {attribute: call.params[name] for name, attribute in CHANGES.items() if name in call.params}
    new = {name: wanted.get(name, getattr(instance, name)) for name in CHANGES.values()}
    rds_engines.check_class(new["instance_class"], instance.engine, new["version"])
    rds_engines.check_storage(instance.engine, new["storage_type"], new["storage"], new["iops"])
    rds_engines.check_port(new["port"])
    rds_live.check_new_password(call, instance)
    if new["storage"] < instance.storage:
        raise invalid("Invalid storage size: it cannot be less than the current one")
    if "VpcSecurityGroupIds" in call.params:
        group = rds_networks.of_name(call, instance.subnet_group)
        instance.security_groups = rds_networks.security_groups(call, group)
    for attribute, value in wanted.items():
        setattr(instance, attribute, value)
    instance.settings = settings(call, instance.settings)
    rds_live.change_password(call, instance)
    instance.begin("modifying", call.world.settling("database"))
    return {"DBInstance": shown(call, instance)}


def stop(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, StopDBInstance."""
    return _turned(call, "available", "stopping", "stopped")


def start(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, StartDBInstance."""
    return _turned(call, "stopped", "starting", "available")


def _turned(call: Call, needed: str, doing: str, rest: str) -> dict[str, Any]:
    instance = find(call, INSTANCE, call.params["DBInstanceIdentifier"])
    if instance.state != needed or instance.cluster:
        raise wrong_state(INSTANCE, instance)
    rds_live.turn(call, instance, on=rest == "available")
    instance.begin(doing, call.world.settling("database"), rest)
    return {"DBInstance": shown(call, instance)}


def delete(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DeleteDBInstance: with a last snapshot, unless that is to be skipped."""
    instance = find(call, INSTANCE, call.params["DBInstanceIdentifier"])
    if instance.state == "deleting":
        raise wrong_state(INSTANCE, instance)
    check_deletable(call, instance, needs_final=instance.cluster is None)
    instance.begin("deleting", call.world.settling("database"))
    answer = shown(call, instance)
    living(call, INSTANCE)
    return {"DBInstance": {**answer, "DBInstanceStatus": "deleting"}}


def check_deletable(call: Call, database: DBInstance | DBCluster, *, needs_final: bool) -> None:
    """Raises for what is protected or asked for in contradictions; takes the last snapshot."""
    final, skip = call.params.get("FinalDBSnapshotIdentifier"), call.params.get("SkipFinalSnapshot")
    if database.settings.get("DeletionProtection"):
        raise combination(
            "Cannot delete protected DB Instance, please disable deletion protection and try again."
        )
    if skip and final:
        raise combination(
            "FinalDBSnapshotIdentifier can not be specified when SkipFinalSnapshot is specified"
        )
    if final and not needs_final:
        raise combination("FinalDBSnapshotIdentifier can not be specified when deleting a cluster instance")
    if needs_final and not skip:
        if not final:
            raise combination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")
        take(call, database, final, {})


ACTIONS = {
    "CreateDBInstance": create,
    "DescribeDBInstances": describe,
    "ModifyDBInstance": modify,
    "StopDBInstance": stop,
    "StartDBInstance": start,
    "DeleteDBInstance": delete,
}
