"""Clusters whose instances share one storage (Aurora, DocumentDB), by manual DB cluster snapshots.

AWS: RDS API Reference; DocumentDB has the same calls, and the same IAM actions. A restored cluster has no instances: one is
made for it when it is available, as the writer of the original was.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.errors import InvalidState, NotFound
from cpm.aws.iam_policy import IamAction, tagged_as_ours, tagging_as_ours
from cpm.lib.states import RecoveryType
from cpm.resources import rds_snapshots as rds
from cpm.resources.base import Described, Shown
from cpm.resources.fields import Shows, Takes
from cpm.resources.whole import (
    Clients,
    Dr,
    Growing,
    Held,
    Listed,
    Making,
    Place,
    Problems,
    Restoring,
    Sides,
    WholeResource,
)

Tags = Callable[[rds.Row], Mapping[str, str]]
INSTANCE = "instance"
CLUSTERS = "arn:{partition}:rds:*:*:cluster:*"
DATABASES = "arn:{partition}:rds:*:*:db:*"
# What CPM makes is named so: rights on snapshots end there.
SNAPSHOTS = "arn:{partition}:rds:*:*:cluster-snapshot:cpm-*"
GROUPS = tuple("arn:{partition}:rds:*:*:" + kind + ":*" for kind in ("cluster-pg", "og", "pg", "subgrp"))
OURS = tagged_as_ours()
SHARE = "rds:ModifyDBClusterSnapshotAttribute"


class StorageCluster(WholeResource):
    """What the types of such clusters have in common."""

    id_pattern = rds.NAME
    details: ClassVar[Sequence[str]] = (
        "database_arn", "engine", "engine_version", "status", "zone", "db_instance_class", "port", "publicly_accessible",
        "capacity", "encrypted", "kms_key_id", "storage_type", "scaling", "subnet_group_name", "security_groups",
        "cluster_parameter_group_name", "parameter_group_name", "iam_authentication",
    )  # fmt: skip
    target_fields = (
        Shows("engine", "details__engine"),
        Shows("status", "details__status"),
        Shows("storage", "details__capacity", int),
        Shows("zone", "details__zone"),
    )
    recovery_type = RecoveryType.RDS_CLUSTER
    snapshot_fields = (
        Shows("cluster_id", "source_id"),
        Shows("db_instance_class", "details__db_instance_class"),
        Shows("port", "details__port", int),
        Shows("publicly_accessible", "details__publicly_accessible", bool),
        Shows("subnet_group_name", "details__subnet_group_name"),
        Shows("zone", "details__zone"),
    )
    dr_fields = (
        Shows("dr_account", "details__dr_account"),
        Shows("original_snapshot_id", "details__original_snap"),
    )
    recover_takes = (
        Takes("aws_dbinstance_id", required=True, help="Id of the first instance of the new cluster."),
        Takes("aws_resource_id", required=True, help="Id of the new cluster."),
        Takes("db_instance_class", help="Class of the first instance, as db.r6g.large."),
        Takes("instance_type", help="The same as db_instance_class."),
        Takes("subnet_group_name", help="Subnet group, which decides on the VPC."),
        Takes("to_account", int, help="Id of the account to recover to."),
        Takes("zone", help="Availability zone of the first instance."),
    )
    stages: ClassVar[Sequence[str]] = ("cluster", INSTANCE)
    dr = Dr.COPY
    default_key_alias = rds.DEFAULT_KEY
    iam_actions: ClassVar[Sequence[IamAction]] = (
        IamAction("rds:DescribeDBClusters", "backup", "finds the clusters of a policy and what they look like"),
        IamAction("rds:DescribeDBInstances", "backup", "sees what the instances of clusters look like"),
        IamAction("rds:CreateDBClusterSnapshot", "backup", "backs up clusters", (CLUSTERS, SNAPSHOTS)),
        IamAction("rds:AddTagsToResource", "backup", "tags snapshots as ours", SNAPSHOTS, tagging_as_ours()),
        IamAction("rds:DescribeDBClusterSnapshots", "backup", "waits until snapshots are complete"),
        IamAction("rds:DeleteDBClusterSnapshot", "retention", "deletes outlived and aborted snapshots", SNAPSHOTS, OURS),
        IamAction(SHARE, "dr source", "shares with the DR account for the copy", SNAPSHOTS, OURS),
        IamAction("rds:CopyDBClusterSnapshot", "dr copies", "copies snapshots to another region or account", SNAPSHOTS),
        IamAction("rds:DescribeDBClusterSnapshots", "dr copies", "waits until copies are complete"),
        IamAction("rds:AddTagsToResource", "dr copies", "tags copies as ours", SNAPSHOTS, tagging_as_ours()),
        IamAction("rds:AddTagsToResource", "dr copies", "marks outdated copies that may not be deleted", SNAPSHOTS, OURS),
        IamAction("rds:DescribeDBClusterSnapshots", "catalogue", "rebuilds a lost database from the tags of our snapshots"),
        IamAction("rds:DescribeDBClusterSnapshots", "recovery", "sees whether the snapshot is there"),
        IamAction("rds:DescribeDBClusterSnapshotAttributes", "recovery", "sees which accounts may use a snapshot already"),
        IamAction(SHARE, "recovery", "shares with the account to recover to", SNAPSHOTS, OURS),
        IamAction("rds:CopyDBClusterSnapshot", "recovery", "copies an encrypted snapshot of another account", SNAPSHOTS),
        IamAction("rds:DeleteDBClusterSnapshot", "recovery", "removes temporary copies", SNAPSHOTS, OURS),
        IamAction("rds:DescribeDBSubnetGroups", "recovery", "checks that the subnet group exists"),
        IamAction("rds:DescribeOrderableDBInstanceOptions", "recovery", "checks that the class is offered"),
        IamAction(
            "rds:RestoreDBClusterFromSnapshot", "recovery", "makes a cluster from a snapshot",
            (CLUSTERS, SNAPSHOTS, *GROUPS),
        ),
        IamAction(
            "rds:CreateDBInstance", "recovery", "makes the first instance of a recovered cluster",
            (CLUSTERS, DATABASES, *GROUPS),
        ),
        IamAction(
            "rds:AddTagsToResource", "recovery", "tags what it makes", (CLUSTERS, DATABASES, SNAPSHOTS), tagging_as_ours()
        ),
        IamAction("rds:DescribeDBClusters", "recovery", "waits until a recovered cluster can be used"),
        IamAction("rds:DescribeDBInstances", "recovery", "waits until its instance can be used"),
        IamAction("rds:DeleteDBInstance", "recovery", "removes the instance of an aborted recovery", DATABASES, OURS),
        IamAction("rds:DeleteDBCluster", "recovery", "removes the cluster of an aborted recovery", CLUSTERS, OURS),
    )  # fmt: skip

    # -- what differs ---------------------------------------------------------------------------------------

    def labels(self, client: AwsClient, row: rds.Row, arn: str) -> dict[str, str]:
        """The tags of a cluster, an instance or a snapshot."""
        return rds.tags_of(row)

    def snapshot_rows(self, client: AwsClient, ids: Sequence[str]) -> list[rds.Row]:
        """What AWS shows of the snapshots of these names that exist."""
        return [
            row
            for batch in rds.batches(ids)
            for row in client.paginate(
                "DescribeDBClusterSnapshots",
                "DBClusterSnapshots",
                Filters=rds.having("db-cluster-snapshot-id", batch),
            )
        ]

    def cluster_settings(self, held: Held) -> dict[str, Any]:
        """Parameters of a restored cluster that not all engines have."""
        return {}

    def instance_settings(self, held: Held, home: bool) -> dict[str, Any]:
        """Parameters of its first instance that not all engines have."""
        return {}

    @abstractmethod
    def has_engine(self, engine: str) -> bool:
        """Whether clusters of this engine are of this type: AWS lists the snapshots of all together."""

    # -- targets --------------------------------------------------------------------------------------------

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        return self.described(client, ids, lambda row: self.labels(client, row, row["DBClusterArn"]))

    def described(self, client: AwsClient, ids: Sequence[str], tags: Tags) -> dict[str, Described]:
        """Like `describe`, with the tags from elsewhere."""
        rows = {row["DBClusterIdentifier"]: row for row in _clusters(client, ids) if row["Status"] != "deleting"}
        writers = _writers(client, rows)
        return {
            name: Described(id=name, tags=tags(row), details=_details(row, writers.get(name, {})))
            for name, row in rows.items()
        }

    # -- snapshots ------------------------------------------------------------------------------------------

    def create(self, client: AwsClient, making: Making) -> str:
        made = client.call(
            "CreateDBClusterSnapshot",
            DBClusterIdentifier=making.resource_id,
            DBClusterSnapshotIdentifier=making.name,
            Tags=rds.as_labels(making.tags),
        )
        return str(made["DBClusterSnapshot"]["DBClusterSnapshotIdentifier"])

    def find(self, client: AwsClient, making: Making) -> list[str]:
        return [
            str(row["DBClusterSnapshotIdentifier"])
            for row in self.snapshot_rows(client, [making.name])
            if rds.is_of_step(self.labels(client, row, row["DBClusterSnapshotArn"]), making.tags)
        ]

    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        rows = self.snapshot_rows(client, [one.aws_id for one in held])
        return {row["DBClusterSnapshotIdentifier"]: rds.shown(row, row["DBClusterSnapshotArn"]) for row in rows}

    def listed(self, client: AwsClient) -> Iterator[Listed]:
        for row in client.paginate("DescribeDBClusterSnapshots", "DBClusterSnapshots", SnapshotType="manual"):
            if rds.may_be_ours(row, "DBClusterSnapshotIdentifier") and self.has_engine(row["Engine"]):
                labels = self.labels(client, row, row["DBClusterSnapshotArn"])
                yield rds.listed(row, labels, {}, row.get("SourceDBClusterSnapshotArn") or "")

    def delete(self, client: AwsClient, held: Held) -> None:
        client.call("DeleteDBClusterSnapshot", DBClusterSnapshotIdentifier=held.aws_id)

    def mark_outdated(self, client: AwsClient, held: Held, key: str) -> bool:
        # AWS has never shown what has no ARN here.
        if arn := held.details.get("snapshot_arn"):
            client.call("AddTagsToResource", ResourceName=arn, Tags=rds.as_labels({key: "true"}))
        return bool(arn)

    # -- DR -------------------------------------------------------------------------------------------------

    def why_not_copied(self, held: Held, target: Place) -> str:
        return ""

    def shared_with(self, client: AwsClient, aws_id: str) -> set[str]:
        answer = client.call("DescribeDBClusterSnapshotAttributes", DBClusterSnapshotIdentifier=aws_id)
        return rds.accounts(answer["DBClusterSnapshotAttributesResult"]["DBClusterSnapshotAttributes"])

    def share(self, client: AwsClient, aws_id: str, number: str) -> None:
        _modify_share(client, aws_id, ValuesToAdd=[number])

    def unshare(self, client: AwsClient, aws_id: str, number: str) -> None:
        _modify_share(client, aws_id, ValuesToRemove=[number])

    def copy(self, sides: Sides, held: Held, making: Making, target: Place, key_id: str) -> str:
        made = sides.target.call(
            "CopyDBClusterSnapshot",
            SourceDBClusterSnapshotIdentifier=held.details["snapshot_arn"],
            TargetDBClusterSnapshotIdentifier=making.name,
            Tags=rds.as_labels(making.tags),
            **({"KmsKeyId": key_id} if key_id else {}),
            **({"SourceRegion": held.region} if held.region != target.region else {}),
        )
        return str(made["DBClusterSnapshot"]["DBClusterSnapshotIdentifier"])

    # -- recovery -------------------------------------------------------------------------------------------

    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        found = {**rds.name_problem("aws_resource_id", request), **rds.name_problem("aws_dbinstance_id", request)}
        names = {request[name] for name in ("db_instance_class", "instance_type") if request.get(name)}
        if len(names) > 1:
            found["instance_type"] = "This means the same as db_instance_class: give one of them."
        elif not _class(held, request):
            found["db_instance_class"] = "No instance of the cluster is known from its backup: choose a class."
        return found

    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        client = clients(self.service)
        cluster, instance = (str(request[name]).lower() for name in ("aws_resource_id", "aws_dbinstance_id"))
        found: Problems = {}
        if _clusters(client, [cluster]):
            found["aws_resource_id"] = f"There is a cluster {cluster} in {place.region} already; choose another id."
        if _instances(client, [instance]):
            message = f"There is a database {instance} in {place.region} already; choose another id."
            found["aws_dbinstance_id"] = message
        found |= rds.class_problems(client, held.details["engine"], _class(held, request), request)
        return found | rds.network_problems(client, held, request, place)

    def needs_copy(self, held: Held, place: Place) -> bool:
        # AWS: Aurora User Guide, "Sharing encrypted snapshots": they are restored from a copy of one's own.
        return held.region != place.region or (held.encrypted and not place.same_account)

    def shared_id(self, held: Held) -> str:
        return str(held.details["snapshot_arn"])

    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        if stage == INSTANCE:
            return self._restore_instance(client, restoring)
        held, request, place = restoring.held, restoring.request, restoring.place
        details = held.details
        made = client.call(
            "RestoreDBClusterFromSnapshot",
            DBClusterIdentifier=request["aws_resource_id"].lower(),
            SnapshotIdentifier=restoring.snapshot,
            Engine=details["engine"],
            EngineVersion=details["engine_version"],
            Tags=rds.as_labels(restoring.tags),
            **({"Port": details["port"]} if details.get("port") else {}),
            **({"StorageType": details["storage_type"]} if details.get("storage_type") else {}),
            **({"ServerlessV2ScalingConfiguration": details["scaling"]} if details.get("scaling") else {}),
            **rds.network(client, held, request, place).parameters,
            **(_parameter_group(held) if rds.at_home(held, place) else {}),
            **self.cluster_settings(held),
        )
        return str(made["DBCluster"]["DBClusterIdentifier"])

    def _restore_instance(self, client: AwsClient, restoring: Restoring) -> str:
        held, request, place = restoring.held, restoring.request, restoring.place
        same = rds.network(client, held, request, place).original
        zone = request.get("zone") or (held.details["zone"] if same else "")
        made = client.call(
            "CreateDBInstance",
            DBInstanceIdentifier=request["aws_dbinstance_id"].lower(),
            DBClusterIdentifier=restoring.earlier["cluster"],
            DBInstanceClass=_class(held, request),
            Engine=held.details["engine"],
            Tags=rds.as_labels(restoring.tags),
            **({"AvailabilityZone": zone} if zone else {}),
            **self.instance_settings(held, rds.at_home(held, place)),
        )
        return str(made["DBInstance"]["DBInstanceIdentifier"])

    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        name = restoring.request["aws_dbinstance_id" if stage == INSTANCE else "aws_resource_id"].lower()
        rows = _instances(client, [name]) if stage == INSTANCE else _clusters(client, [name])
        arn = "DBInstanceArn" if stage == INSTANCE else "DBClusterArn"
        return [name for row in rows if rds.is_of_step(self.labels(client, row, row[arn]), restoring.tags)]

    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        if stage == INSTANCE:
            instances = _instances(client, ids)
            return {row["DBInstanceIdentifier"]: rds.growing(row["DBInstanceStatus"]) for row in instances}
        return {row["DBClusterIdentifier"]: rds.growing(row["Status"]) for row in _clusters(client, ids)}

    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        client = clients(self.service)
        try:
            if stage == INSTANCE:
                client.call("DeleteDBInstance", DBInstanceIdentifier=id, SkipFinalSnapshot=True)
            else:
                client.call("DeleteDBCluster", DBClusterIdentifier=id, SkipFinalSnapshot=True)
        except NotFound:
            return True
        except InvalidState:
            rows = _instances(client, [id]) if stage == INSTANCE else _clusters(client, [id])
            status = "DBInstanceStatus" if stage == INSTANCE else "Status"
            return all(row[status] == "deleting" for row in rows)
        return True


def _clusters(client: AwsClient, ids: Sequence[str]) -> list[rds.Row]:
    return [
        row
        for batch in rds.batches(ids)
        for row in client.paginate("DescribeDBClusters", "DBClusters", Filters=rds.having("db-cluster-id", batch))
    ]


def _instances(client: AwsClient, ids: Sequence[str], by: str = "db-instance-id") -> list[rds.Row]:
    return [
        row
        for batch in rds.batches(ids)
        for row in client.paginate("DescribeDBInstances", "DBInstances", Filters=rds.having(by, batch))
    ]


def _writers(client: AwsClient, clusters: Mapping[str, rds.Row]) -> dict[str, rds.Row]:
    """The instance that writes, by cluster; any other one where AWS names no writer."""
    writing = {
        member["DBInstanceIdentifier"]
        for row in clusters.values()
        for member in row.get("DBClusterMembers", ())
        if member.get("IsClusterWriter")
    }
    found = _instances(client, list(clusters), "db-cluster-id")
    return {
        row["DBClusterIdentifier"]: row
        for row in sorted(found, key=lambda row: row["DBInstanceIdentifier"] in writing)
    }


def _modify_share(client: AwsClient, aws_id: str, **change: list[str]) -> None:
    client.call(
        "ModifyDBClusterSnapshotAttribute", DBClusterSnapshotIdentifier=aws_id, AttributeName="restore", **change
    )


def _class(held: Held, request: Mapping[str, Any]) -> str:
    return str(
        request.get("db_instance_class") or request.get("instance_type") or held.details.get("db_instance_class") or ""
    )


def _parameter_group(held: Held) -> dict[str, str]:
    """That of the original; AWS chooses a default one by itself."""
    group = str(held.details.get("cluster_parameter_group_name") or "")
    return {"DBClusterParameterGroupName": group} if group and not group.startswith("default.") else {}


def _details(row: rds.Row, writer: rds.Row) -> dict[str, Any]:
    parameters = [one["DBParameterGroupName"] for one in writer.get("DBParameterGroups", ())]
    return {
        "database_arn": row["DBClusterArn"],
        "engine": row["Engine"],
        "engine_version": row.get("EngineVersion", ""),
        "status": row["Status"],
        "zone": writer.get("AvailabilityZone", ""),
        "db_instance_class": writer.get("DBInstanceClass", ""),
        "port": row.get("Port"),
        "publicly_accessible": bool(writer.get("PubliclyAccessible")),
        # Storage grows by itself; what AWS names is no size (Aurora: always 1), but all that there is to add up.
        "capacity": row.get("AllocatedStorage"),
        "encrypted": bool(row.get("StorageEncrypted")),
        "kms_key_id": row.get("KmsKeyId", ""),
        "storage_type": row.get("StorageType", ""),
        "scaling": row.get("ServerlessV2ScalingConfiguration"),
        "subnet_group_name": row.get("DBSubnetGroup", ""),
        "security_groups": [one["VpcSecurityGroupId"] for one in row.get("VpcSecurityGroups", ())],
        "cluster_parameter_group_name": row.get("DBClusterParameterGroup", ""),
        "parameter_group_name": next(iter(parameters), ""),
        "iam_authentication": bool(row.get("IAMDatabaseAuthenticationEnabled")),
    }
