"""Redshift's snapshots: taken, described, kept, deleted, shared. What they hold is told in ``redshift_taking``."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from cpm.simulator import redshift_networks as networks
from cpm.simulator import redshift_taking as taking
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.redshift_clusters import NODE_TYPES, VERSION
from cpm.simulator.redshift_model import FOREVER, ClusterSnapshot
from cpm.simulator.redshift_names import (
    CLUSTER,
    SNAPSHOT,
    cluster,
    clusters,
    combination,
    days,
    described,
    find,
    forget,
    free_name,
    missing,
    snapshot_of,
    snapshots,
    wrong_cluster_state,
    wrong_snapshot_state,
)
from cpm.simulator.redshift_tags import given, listed
from cpm.simulator.timing import now

# AWS: Redshift Management Guide, Sharing a snapshot.
MOST_ACCOUNTS = 20
SUPPORT = "amazon-redshift-support"


def create(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, CreateClusterSnapshot: of an available cluster."""
    item = cluster(call)
    name = free_name(call, SNAPSHOT, call.params["SnapshotIdentifier"])
    if item.status != "available":
        raise wrong_cluster_state(item)
    kept, labels = days(call, "ManualSnapshotRetentionPeriod", item.config.manual_days), given(call)
    return _begun(call, taking.take(call.world, item, name, kept, labels, failed=call.fails(item.name)))


def copy(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, CopyClusterSnapshot: makes a manual snapshot of an automated one, here."""
    params = call.params
    source = snapshot_of(
        call, params["SourceSnapshotIdentifier"], params.get("SourceSnapshotClusterIdentifier")
    )
    if source.type != "automated" or source.status != "available":
        raise wrong_snapshot_state(source, "is not an available automated snapshot")
    name = free_name(call, SNAPSHOT, call.params["TargetSnapshotIdentifier"])
    kept = days(call, "ManualSnapshotRetentionPeriod", FOREVER)
    return _begun(call, taking.made_manual(call.world, source, name, kept, failed=call.fails(source.cluster)))


def _begun(call: Call, made: ClusterSnapshot) -> dict[str, Any]:
    # AWS: Redshift API Reference, Snapshot, Status: these two actions always answer "creating".
    return {"Snapshot": {**shown(call, made), "Status": "creating"}}


def restorable_into(node_type: str) -> list[str]:
    """AWS: Redshift API Reference, RestoreFromClusterSnapshot, NodeType: DC nodes restore into the same type only."""
    if node_type.startswith("dc2."):
        return [node_type]
    return [other for other in NODE_TYPES if not other.startswith("dc2.")]


def shown(call: Call, item: ClusterSnapshot) -> dict[str, Any]:
    """A snapshot as DescribeClusterSnapshots shows it; tags and sharing are for its owner's eyes only."""
    config = item.config
    result: dict[str, Any] = {
        "SnapshotIdentifier": item.name,
        "SnapshotArn": item.id,
        "ClusterIdentifier": item.cluster,
        "SnapshotCreateTime": item.created,
        "SnapshotRetentionStartTime": item.created,
        "Status": item.status,
        "Port": config.port,
        "AvailabilityZone": config.zone,
        "ClusterCreateTime": config.cluster_created,
        "MasterUsername": config.username,
        "ClusterVersion": VERSION,
        "SnapshotType": item.type,
        "NodeType": config.node_type,
        "NumberOfNodes": config.nodes,
        "DBName": config.db_name,
        "VpcId": config.vpc_id,
        "Encrypted": config.encrypted,
        "KmsKeyId": config.kms_key_id,
        "EncryptedWithHSM": False,
        "OwnerAccount": item.account,
        "SourceRegion": item.source_region,
        "RestorableNodeTypes": restorable_into(config.node_type),
        "EnhancedVpcRouting": config.enhanced_routing,
        "MaintenanceTrackName": config.maintenance_track,
        **_progress(item),
    }
    if item.type == "manual":
        result["ManualSnapshotRetentionPeriod"] = item.days
        if item.days != FOREVER:
            left = item.created + timedelta(days=item.days) - now()
            result["ManualSnapshotRemainingDays"] = max(0, math.ceil(left / timedelta(days=1)))
    if item.account == call.account:
        result["Tags"] = listed(item.tags)
        if item.shared_with:
            result["AccountsWithRestoreAccess"] = [
                {"AccountAlias" if account == SUPPORT else "AccountId": account}
                for account in sorted(item.shared_with)
            ]
    return result


def _progress(item: ClusterSnapshot) -> dict[str, Any]:
    """AWS: Redshift API Reference, Snapshot: rate and estimate are 0 once it is complete. Before the first bytes there
    is nothing to estimate from, which is shown as -1."""
    percent, seconds = item.settling.percent(), item.settling.seconds
    done = percent == 100
    moved = min(percent, 99) if item.failed else percent
    passed = seconds if done else (now() - item.created).total_seconds()
    return {
        "TotalBackupSizeInMegaBytes": item.megabytes,
        "ActualIncrementalBackupSizeInMegaBytes": item.megabytes * moved / 100,
        "BackupProgressInMegaBytes": item.megabytes * moved / 100,
        "CurrentBackupRateInMegaBytesPerSecond": 0.0 if done or not percent else item.megabytes / seconds,
        "EstimatedSecondsToCompletion": 0 if done else math.ceil(seconds - passed) if percent else -1,
        "ElapsedTimeInSeconds": int(passed),
    }


def visible(call: Call) -> list[ClusterSnapshot]:
    """What DescribeClusterSnapshots may show: the caller's own, or those that the named owner shares with it."""
    owner = call.params.get("OwnerAccount", call.account)
    if owner == call.account:
        return snapshots(call)
    return [one for one in snapshots(call, owner) if call.account in one.shared_with]


def describe(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DescribeClusterSnapshots. Shared ones are shown when their owner is named."""
    params = call.params
    asked, of_cluster, arn = (
        params.get(name) for name in ("SnapshotIdentifier", "ClusterIdentifier", "SnapshotArn")
    )
    chosen = [by_arn(call, arn)] if arn else visible(call)
    if params.get("TagKeys") or params.get("TagValues"):
        chosen = [one for one in chosen if one.account == call.account]
    if of_cluster:
        known = {one.name for one in clusters(call)} | {one.cluster for one in chosen}
        if of_cluster not in known:
            raise missing(CLUSTER, of_cluster)
        chosen = [one for one in chosen if one.cluster == of_cluster]
    chosen = _of_existing(call, chosen)
    if kind := params.get("SnapshotType"):
        chosen = [one for one in chosen if one.type == kind]
    if start := params.get("StartTime"):
        chosen = [one for one in chosen if one.created >= _moment(start)]
    if end := params.get("EndTime"):
        chosen = [one for one in chosen if one.created <= _moment(end)]
    if asked:
        chosen = [one for one in chosen if one.name == asked.lower()]
    part, marker = described(call, SNAPSHOT, chosen, asked or arn)
    return {"Snapshots": [shown(call, one) for one in part], "Marker": marker}


def _of_existing(call: Call, chosen: list[ClusterSnapshot]) -> list[ClusterSnapshot]:
    wanted = call.params.get("ClusterExists")
    if wanted is None:
        return chosen
    if wanted and not call.params.get("ClusterIdentifier"):
        raise combination("ClusterExists needs ClusterIdentifier when it is true.")
    existing = {one.name for one in clusters(call)}
    return [one for one in chosen if (one.cluster in existing) == wanted]


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as malformed:
        raise invalid(f"Invalid time: {text}") from malformed
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def by_arn(call: Call, arn: str) -> ClusterSnapshot:
    """A snapshot of the caller's own, or one shared with it."""
    parts = arn.split(":", 6)
    here = snapshots(call, parts[4]) if len(parts) == 7 and parts[3] == call.region else []
    for one in here:
        if one.id == arn and (one.account == call.account or call.account in one.shared_with):
            return one
    raise missing(SNAPSHOT, arn)


def delete(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DeleteClusterSnapshot: manual, settled, and shared with nobody."""
    params = call.params
    item = snapshot_of(call, params["SnapshotIdentifier"], params.get("SnapshotClusterIdentifier"))
    if item.type != "manual":
        raise wrong_snapshot_state(item, "is automated")
    if item.status == "creating":
        raise wrong_snapshot_state(item, "is still being created")
    if item.shared_with:
        raise wrong_snapshot_state(item, "is still shared with other accounts")
    forget(call, SNAPSHOT, item)
    return {"Snapshot": {**shown(call, item), "Status": "deleted"}}


def change(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, ModifyClusterSnapshot: how long a manual snapshot is kept."""
    item = find(call, SNAPSHOT, call.params["SnapshotIdentifier"])
    if item.type != "manual":
        raise wrong_snapshot_state(item, "is automated")
    item.days = days(call, "ManualSnapshotRetentionPeriod", item.days)
    return {"Snapshot": shown(call, item)}


# -- sharing ----------------------------------------------------------------------------------------------


def _shareable(call: Call) -> tuple[ClusterSnapshot, str]:
    params = call.params
    if bool(params.get("SnapshotIdentifier")) == bool(params.get("SnapshotArn")):
        raise combination("Give either SnapshotIdentifier or SnapshotArn.")
    account = params["AccountWithRestoreAccess"]
    # AWS: Redshift Management Guide, Sharing a snapshot: the owner is always authorized, and cannot be named.
    if account == call.account or not (account == SUPPORT or (len(account) == 12 and account.isdigit())):
        raise invalid(f"Invalid account: {account}")
    if name := params.get("SnapshotIdentifier"):
        return snapshot_of(call, name, params.get("SnapshotClusterIdentifier")), account
    found = by_arn(call, params["SnapshotArn"])
    if found.account != call.account:
        raise missing(SNAPSHOT, found.id)
    return found, account


def authorize(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, AuthorizeSnapshotAccess; KMS Developer Guide, AWS managed keys: the policy of
    ``aws/redshift`` admits no other account, so what it encrypts is refused."""
    item, account = _shareable(call)
    if item.type != "manual" or item.status != "available":
        raise wrong_snapshot_state(item, "is not an available manual snapshot")
    if networks.is_default_key(item.config.kms_key_id):
        raise AwsError("UnsupportedOperation", "Snapshots encrypted with the default key cannot be shared.")
    if account in item.shared_with:
        raise AwsError("AuthorizationAlreadyExists", f"{account} is already authorized.")
    if len(item.shared_with) >= MOST_ACCOUNTS:
        raise AwsError("AuthorizationQuotaExceeded", f"At most {MOST_ACCOUNTS} accounts can be authorized.")
    item.shared_with.add(account)
    return {"Snapshot": shown(call, item)}


def revoke(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, RevokeSnapshotAccess: a restore that runs runs on."""
    item, account = _shareable(call)
    if account not in item.shared_with:
        raise AwsError("AuthorizationNotFound", f"{account} is not authorized.", 404)
    item.shared_with.discard(account)
    return {"Snapshot": shown(call, item)}


ACTIONS = {
    "AuthorizeSnapshotAccess": authorize,
    "CopyClusterSnapshot": copy,
    "CreateClusterSnapshot": create,
    "DeleteClusterSnapshot": delete,
    "DescribeClusterSnapshots": describe,
    "ModifyClusterSnapshot": change,
    "RevokeSnapshotAccess": revoke,
}
