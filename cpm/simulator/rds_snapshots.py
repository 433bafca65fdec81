"""Manual snapshots of DB instances and of DB clusters: taken, shown, shared, deleted. Copies: ``rds_snapshot_copies``.

Both kinds behave alike; what differs is said by their ``Kind`` and by how they are shown.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from cpm.simulator import kms, rds_live, rds_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import DatabaseSnapshot, DBCluster, DBInstance
from cpm.simulator.rds_names import (
    CLUSTER,
    CLUSTER_SNAPSHOT,
    INSTANCE,
    SNAPSHOT,
    Kind,
    arn,
    combination,
    find,
    forget,
    free_name,
    listed,
    living,
    missing,
    shelf,
    wrong_state,
)

SOURCES = {SNAPSHOT.shelf: INSTANCE, CLUSTER_SNAPSHOT.shelf: CLUSTER}
# AWS: RDS User Guide, Sharing a DB snapshot.
MOST_ACCOUNTS = 20


def kind_of(database: DBInstance | DBCluster) -> Kind:
    return SNAPSHOT if isinstance(database, DBInstance) else CLUSTER_SNAPSHOT


def check_quota(call: Call, kind: Kind) -> None:
    """AWS: RDS User Guide, Quotas: manual snapshots of a region."""
    most = call.state.limits.manual_database_snapshots
    if len(living(call, kind)) >= most:
        raise AwsError("SnapshotQuotaExceeded", f"Cannot create more than {most} manual snapshots")


def take(call: Call, database: DBInstance | DBCluster, name: str, labels: dict[str, str]) -> DatabaseSnapshot:
    """The snapshot of a database at this moment. While it is being made the database is ``backing-up``."""
    kind = kind_of(database)
    made = DatabaseSnapshot(
        id=arn(call, kind, free_name(call, kind, name)),
        name=name.lower(),
        account=call.account,
        region=call.region,
        settling=call.world.settling("database_snapshot"),
        tags={**(database.tags if database.settings.get("CopyTagsToSnapshot") else {}), **labels},
        of=replace(database, tags={}),
        key=database.key,
    )
    check_quota(call, kind)
    if call.fails(database.name):
        made.failure = "injected failure"
    # ``replace`` runs __post_init__, which takes the moment of the last change for that of the creation.
    made.of.created = database.created
    rds_live.copy(call, database.id, made.id)
    shelf(call, kind).add(made)
    database.begin("backing-up", made.settling)
    return made


def create_of_instance(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CreateDBSnapshot: of an available instance that is no member of a cluster."""
    instance = find(call, INSTANCE, call.params["DBInstanceIdentifier"])
    if instance.cluster:
        raise invalid(
            "The specified instance is a member of a cluster and a snapshot cannot be created directly. Please use the"
            " CreateDBClusterSnapshot API instead."
        )
    if instance.state != "available":
        raise wrong_state(INSTANCE, instance)
    made = take(call, instance, call.params["DBSnapshotIdentifier"], rds_tags.given(call))
    return {"DBSnapshot": shown_of_instance(call, made)}


def create_of_cluster(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CreateDBClusterSnapshot."""
    cluster = find(call, CLUSTER, call.params["DBClusterIdentifier"])
    if cluster.state != "available":
        raise wrong_state(CLUSTER, cluster)
    made = take(call, cluster, call.params["DBClusterSnapshotIdentifier"], rds_tags.given(call))
    return {"DBClusterSnapshot": shown_of_cluster(call, made)}


def _shown(call: Call, snapshot: DatabaseSnapshot) -> dict[str, Any]:
    of = snapshot.of
    return {
        "SnapshotType": _type(call, snapshot),
        "Status": snapshot.state,
        "PercentProgress": snapshot.percent,
        "SnapshotCreateTime": snapshot.created,
        "Engine": of.engine,
        "EngineVersion": of.version,
        "LicenseModel": of.settings.get("LicenseModel"),
        "AllocatedStorage": of.storage,
        "StorageType": of.storage_type,
        "Port": of.port,
        "MasterUsername": of.username,
        "KmsKeyId": snapshot.key,
        # Tags are shown to their owner only.
        "TagList": rds_tags.listed(snapshot.tags if snapshot.account == call.account else {}),
    }


def _type(call: Call, snapshot: DatabaseSnapshot) -> str:
    if snapshot.account == call.account:
        return "manual"
    return "shared" if call.account in snapshot.shared_with else "public"


def shown_of_instance(call: Call, snapshot: DatabaseSnapshot) -> dict[str, Any]:
    """A snapshot as DescribeDBSnapshots shows it."""
    of = snapshot.of
    assert isinstance(of, DBInstance)
    source = snapshot.source_arn
    abroad = source is not None and source.split(":")[3] != snapshot.region
    return {
        **_shown(call, snapshot),
        "DBSnapshotIdentifier": _identifier(call, snapshot),
        "DBSnapshotArn": snapshot.id,
        "DBInstanceIdentifier": of.name,
        "DbiResourceId": of.resource_id,
        "InstanceCreateTime": of.created,
        "OriginalSnapshotCreateTime": snapshot.original_created or snapshot.created,
        "AvailabilityZone": of.zone,
        "Iops": of.iops,
        "StorageThroughput": of.throughput,
        "Encrypted": snapshot.key is not None,
        "SourceDBSnapshotIdentifier": source,
        "SourceRegion": source.split(":")[3] if source and abroad else None,
    }


def shown_of_cluster(call: Call, snapshot: DatabaseSnapshot) -> dict[str, Any]:
    """A snapshot as DescribeDBClusterSnapshots shows it."""
    of = snapshot.of
    assert isinstance(of, DBCluster)
    return {
        **_shown(call, snapshot),
        "DBClusterSnapshotIdentifier": _identifier(call, snapshot),
        "DBClusterSnapshotArn": snapshot.id,
        "DBClusterIdentifier": of.name,
        "DbClusterResourceId": of.resource_id,
        "ClusterCreateTime": of.created,
        "AvailabilityZones": of.zones,
        "StorageEncrypted": snapshot.key is not None,
        "SourceDBClusterSnapshotArn": snapshot.source_arn,
    }


def _identifier(call: Call, snapshot: DatabaseSnapshot) -> str:
    """Another account's snapshot goes by its ARN."""
    return snapshot.name if snapshot.account == call.account else snapshot.id


Shown = Callable[[Call, DatabaseSnapshot], dict[str, Any]]
SHOWN: dict[str, Shown] = {SNAPSHOT.shelf: shown_of_instance, CLUSTER_SNAPSHOT.shelf: shown_of_cluster}


def seen(call: Call, kind: Kind, identifier: str, region: str | None = None) -> DatabaseSnapshot:
    """A snapshot of the caller's own by name or ARN, or by its ARN one that another account shares with it.

    AWS: RDS API Reference, RestoreDBInstanceFromDBSnapshot and CopyDBSnapshot: shared ones are named by ARN.
    """
    if identifier.startswith("arn:"):
        found = shelf(call, kind).by_id.get(identifier)
        if (
            found is None
            or found.gone
            or not found.visible_to(call.account)
            or found.region != (region or call.region)
        ):
            raise missing(kind, identifier)
        snapshot: DatabaseSnapshot = found
        return snapshot
    own: DatabaseSnapshot = find(call, kind, identifier)
    return own


def _wanted(call: Call, kind: Kind) -> list[DatabaseSnapshot]:
    """What a describe call is about, before filters. AWS: RDS API Reference, DescribeDBSnapshots, SnapshotType."""
    wanted = call.params.get("SnapshotType")
    types = {wanted} if wanted else {"manual"}
    if wanted not in ("manual", "automated", "shared", "public", "awsbackup", None):
        raise invalid(f"Invalid snapshot type: {wanted}")
    if call.params.get("IncludeShared") and wanted in (None, "public"):
        types.add("shared")
    if call.params.get("IncludePublic") and wanted in (None, "shared"):
        types.add("public")
    own = living(call, kind) if types & {"manual", "public"} else []
    others = [
        one
        for one in shelf(call, kind).in_region(call.region)
        if one.account != call.account and one.visible_to(call.account) and not one.pending
    ]
    if wanted == "public":
        own = [one for one in own if one.public]
    return [*own, *(one for one in others if _type(call, one) in types)]


def describe(call: Call, kind: Kind) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeDBSnapshots and DescribeDBClusterSnapshots."""
    source_kind = SOURCES[kind.shelf]
    asked = call.params.get(f"{kind.label}Identifier")
    source = call.params.get(f"{source_kind.label}Identifier")
    if asked and source:
        raise combination(
            f"{kind.label}Identifier cannot be used together with {source_kind.label}Identifier."
        )
    chosen = _wanted(call, kind)
    if asked:
        name = asked.lower()
        chosen = [
            one for one in chosen if name == one.id.lower() or (name, call.account) == (one.name, one.account)
        ]
    if source:
        chosen = [one for one in chosen if source.lower() in (one.of.name, one.of.id.lower())]
    resource = call.params.get("DbiResourceId") or call.params.get("DbClusterResourceId")
    if resource:
        chosen = [one for one in chosen if one.of.resource_id.lower() == resource.lower()]
    lookups = {
        "db-snapshot-id" if kind is SNAPSHOT else "db-cluster-snapshot-id": lambda one: (
            _identifier(call, one).lower(),
        ),
        "db-instance-id" if kind is SNAPSHOT else "db-cluster-id": lambda one: (
            one.of.name,
            one.of.id.lower(),
        ),
        "snapshot-type": lambda one: (_type(call, one),),
        "engine": lambda one: (one.of.engine,),
    }
    if kind is SNAPSHOT:
        lookups["dbi-resource-id"] = lambda one: (one.of.resource_id.lower(),)
    part, marker = listed(call, kind, chosen, lookups)
    return {f"{kind.label}s": [SHOWN[kind.shelf](call, one) for one in part], "Marker": marker}


def own(call: Call, kind: Kind) -> DatabaseSnapshot:
    """The caller's own snapshot that the call names."""
    found: DatabaseSnapshot = find(call, kind, call.params[f"{kind.label}Identifier"])
    return found


def delete(call: Call, kind: Kind) -> dict[str, Any]:
    """AWS: RDS API Reference, DeleteDBSnapshot and DeleteDBClusterSnapshot.

    What is being taken cannot go; the deletion of what is being copied ends the copy, and a cluster snapshot that
    is itself being copied may go.
    """
    snapshot = own(call, kind)
    if snapshot.state == "creating":
        raise wrong_state(kind, snapshot)
    for copy in shelf(call, kind).by_id.values():
        if copy.source_arn == snapshot.id and copy.pending:
            copy.failure = "the source was deleted"
    answer = SHOWN[kind.shelf](call, snapshot)
    forget(call, kind, snapshot)
    return {kind.label: {**answer, "Status": "deleted"}}


def modify_attribute(call: Call, kind: Kind) -> dict[str, Any]:
    """AWS: RDS API Reference, ModifyDBSnapshotAttribute; RDS User Guide, Sharing encrypted snapshots.

    What the aws/rds key encrypts cannot be shared, and nothing encrypted can be made public.
    """
    snapshot = own(call, kind)
    if call.params["AttributeName"] != "restore":
        raise invalid(f"Invalid attribute name: {call.params['AttributeName']}")
    if snapshot.state != "available":
        raise wrong_state(kind, snapshot)
    add, drop = call.params.get("ValuesToAdd", []), call.params.get("ValuesToRemove", [])
    for value in add:
        _check_sharable(snapshot, value)
    shared = (snapshot.shared_with | (set(add) - {"all"})) - set(drop)
    if len(shared) > MOST_ACCOUNTS:
        raise AwsError(
            "SharedSnapshotQuotaExceeded", f"You cannot share with more than {MOST_ACCOUNTS} accounts"
        )
    snapshot.shared_with = shared
    snapshot.public = ("all" in add or snapshot.public) and "all" not in drop
    return _attributes(snapshot, kind)


def _check_sharable(snapshot: DatabaseSnapshot, value: str) -> None:
    if value != "all" and (len(value) != 12 or not value.isdigit()):
        raise invalid(f"Invalid account id: {value}")
    if value == "all" and snapshot.key:
        raise combination("Encrypted snapshots cannot be shared publicly.")
    if snapshot.key and kms.is_managed(snapshot.key):
        raise combination(
            "Snapshots encrypted with the default KMS key cannot be shared with other accounts."
        )


def _attributes(snapshot: DatabaseSnapshot, kind: Kind) -> dict[str, Any]:
    values = sorted(snapshot.shared_with) + (["all"] if snapshot.public else [])
    return {
        f"{kind.label}AttributesResult": {
            f"{kind.label}Identifier": snapshot.name,
            f"{kind.label}Attributes": [{"AttributeName": "restore", "AttributeValues": values}],
        }
    }


def describe_attributes(call: Call, kind: Kind) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeDBSnapshotAttributes and DescribeDBClusterSnapshotAttributes."""
    return _attributes(own(call, kind), kind)


ACTIONS = {
    "CreateDBSnapshot": create_of_instance,
    "CreateDBClusterSnapshot": create_of_cluster,
    "DescribeDBSnapshots": partial(describe, kind=SNAPSHOT),
    "DescribeDBClusterSnapshots": partial(describe, kind=CLUSTER_SNAPSHOT),
    "DeleteDBSnapshot": partial(delete, kind=SNAPSHOT),
    "DeleteDBClusterSnapshot": partial(delete, kind=CLUSTER_SNAPSHOT),
    "ModifyDBSnapshotAttribute": partial(modify_attribute, kind=SNAPSHOT),
    "ModifyDBClusterSnapshotAttribute": partial(modify_attribute, kind=CLUSTER_SNAPSHOT),
    "DescribeDBSnapshotAttributes": partial(describe_attributes, kind=SNAPSHOT),
    "DescribeDBClusterSnapshotAttributes": partial(describe_attributes, kind=CLUSTER_SNAPSHOT),
}
