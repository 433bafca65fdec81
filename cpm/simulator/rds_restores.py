"""Databases out of snapshots: RestoreDBInstanceFromDBSnapshot and RestoreDBClusterFromSnapshot."""

from typing import Any

from cpm.simulator import rds_clusters, rds_engines, rds_instances, rds_keys, rds_live
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.rds_model import DatabaseSnapshot, DBCluster, DBInstance
from cpm.simulator.rds_names import CLUSTER_SNAPSHOT, SNAPSHOT, Kind, combination, wrong_state
from cpm.simulator.rds_snapshots import seen


def _source(call: Call, kind: Kind, identifier: str) -> DatabaseSnapshot:
    """The available snapshot to restore.

    AWS: RDS User Guide, Restoring to a DB instance: not from a snapshot that is both shared and encrypted; that is
    to be copied first. And whoever restores must be able to use the key.
    """
    snapshot = seen(call, kind, identifier)
    if snapshot.state != "available":
        raise wrong_state(kind, snapshot)
    if snapshot.key and snapshot.account != call.account:
        raise AwsError(
            "KMSKeyNotAccessibleFault",
            "Restoring from a snapshot that is both shared and encrypted is not supported. Copy the snapshot first.",
        )
    rds_keys.must_open(call, snapshot.key)
    return snapshot


def instance(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, RestoreDBInstanceFromDBSnapshot.

    Left out, the class, the port, the engine and the IOPS are those of the snapshot; the storage is gp3 unless
    there are IOPS; one zone; the default subnet group.
    """
    params = call.params
    if "DBClusterSnapshotIdentifier" in params:
        raise AwsError("UnsupportedOperation", "The simulator restores no Multi-AZ DB clusters to instances.")
    if "DBSnapshotIdentifier" not in params:
        raise missing("DBSnapshotIdentifier")
    snapshot = _source(call, SNAPSHOT, params["DBSnapshotIdentifier"])
    of = snapshot.of
    assert isinstance(of, DBInstance)
    if params.get("Engine", of.engine) != of.engine:
        raise combination(f"The snapshot is of the engine {of.engine}, not {params['Engine']}.")
    instance_class = params.get("DBInstanceClass", of.instance_class)
    rds_engines.check_class(instance_class, of.engine, of.version)
    storage = params.get("AllocatedStorage", of.storage)
    if storage < of.storage:
        raise invalid("Invalid storage size: it cannot be less than that of the snapshot")
    kind, iops = _storage(params, of)
    rds_engines.check_storage(of.engine, kind, storage, iops)
    made = rds_instances.place(
        call,
        port=rds_engines.check_port(params.get("Port", of.port)),
        engine=of.engine,
        version=of.version,
        key=snapshot.key,
        username=of.username,
        database_name=params.get("DBName", of.database_name),
        storage=storage,
        storage_type=kind,
        iops=iops,
        throughput=params.get("StorageThroughput", of.throughput) if kind == "gp3" else None,
        instance_class=instance_class,
        settings=rds_instances.settings(call, {**of.settings, "DeletionProtection": False}),
    )
    rds_live.copy(call, snapshot.id, made.id)
    return {"DBInstance": rds_instances.shown(call, made)}


def _storage(params: dict[str, Any], of: DBInstance) -> tuple[str, int | None]:
    """Storage type and IOPS of a restored instance. AWS: RDS API Reference, the parameters StorageType and Iops."""
    wanted, iops = params.get("StorageType"), params.get("Iops")
    if iops == 0:
        return wanted or "gp3", None
    if wanted:
        kept = of.iops if wanted in (*rds_engines.PROVISIONED, "gp3") else None
        return wanted, iops if iops is not None else kept
    if iops is not None:
        return "io1", iops
    return (of.storage_type, of.iops) if of.iops else ("gp3", None)


def cluster(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, RestoreDBClusterFromSnapshot: the cluster only, without instances."""
    params = call.params
    snapshot = _source(call, CLUSTER_SNAPSHOT, params["SnapshotIdentifier"])
    of = snapshot.of
    assert isinstance(of, DBCluster)
    if params["Engine"] != of.engine:
        raise combination(f"The snapshot is of the engine {of.engine}, not {params['Engine']}.")
    made = rds_clusters.place(
        call,
        engine=of.engine,
        version=params.get("EngineVersion", of.version),
        port=rds_engines.check_port(params.get("Port", of.port)),
        key=rds_keys.named(call, params["KmsKeyId"]) if "KmsKeyId" in params else snapshot.key,
        username=of.username,
        database_name=params.get("DatabaseName", of.database_name),
        storage=of.storage,
        storage_type=params.get("StorageType", of.storage_type),
        settings=rds_instances.settings(call, {**of.settings, "DeletionProtection": False}),
    )
    call.state.contents.copy(snapshot.id, made.id)
    return {"DBCluster": rds_clusters.shown(call, made)}


ACTIONS = {"RestoreDBInstanceFromDBSnapshot": instance, "RestoreDBClusterFromSnapshot": cluster}
