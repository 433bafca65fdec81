"""RDS databases, by manual DB snapshots. Members of clusters are protected with their cluster.

A restored database is as the original was where it was; elsewhere those of its groups do not exist, and AWS's defaults take
their place. Copies go to another region and account in one step (RDS User Guide, "Copying a DB snapshot").
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.errors import InvalidState, NotFound
from cpm.lib.states import RecoveryType
from cpm.resources import rds_snapshots as rds
from cpm.resources.base import Described, Limit, Shown
from cpm.resources.fields import Shows, Takes
from cpm.resources.rds_actions import IAM_ACTIONS
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

STORAGE_TYPES = ("standard", "gp2", "gp3", "io1", "io2")
PROVISIONED = ("io1", "io2")
WITH_IOPS = (*PROVISIONED, "gp3")
LOOKS = (
    Shows("db_instance_class", "details__db_instance_class"),
    Shows("iops", "details__iops", int),
    Shows("multi_az", "details__multi_az", bool),
    Shows("port", "details__port", int),
    Shows("publicly_accessible", "details__publicly_accessible", bool),
    Shows("storage_type", "details__storage_type"),
    Shows("subnet_group_name", "details__subnet_group_name"),
    Shows("zone", "details__zone"),
)


class RdsDatabase(WholeResource):
    """A DB instance that is no member of a cluster."""

    key = "rds_databases"
    noun = "RDS database"
    service = "rds"
    since = "1.0.0"
    id_pattern = rds.NAME
    details = (
        "database_arn", "engine", "engine_version", "status", "zone", "db_instance_class", "port", "publicly_accessible",
        "multi_az", "storage_type", "iops", "capacity", "encrypted", "kms_key_id", "subnet_group_name", "security_groups",
        "parameter_group_name", "option_group_name", "iam_authentication", "cluster_id",
    )  # fmt: skip
    target_fields = (
        Shows("aws_resource_class", "details__db_instance_class"),
        Shows("engine", "details__engine"),
        Shows("iops", "details__iops", int),
        Shows("multi_az", "details__multi_az", bool),
        Shows("publicly_accessible", "details__publicly_accessible", bool),
        Shows("status", "details__status"),
        Shows("storage", "details__capacity", int),
        Shows("storage_type", "details__storage_type"),
        Shows("zone", "details__zone"),
    )
    report_word = "rds"
    limit = Limit("max_rds_gib", "GiB of RDS databases", summed="capacity")
    recovery_type = RecoveryType.RDS_DATABASE
    kind = "rds_databases"
    dr_kind = "dr_rds_databases"
    snapshot_word = "rds"
    snapshot_fields = LOOKS
    dr_fields = (
        Shows("dr_account", "details__dr_account"),
        Shows("original_snapshot_id", "details__original_snap"),
    )
    recover_takes = (
        Takes("aws_resource_id", required=True, help="Id of the new database."),
        Takes("db_instance_class", help="Class of the new database, as db.t3.micro."),
        Takes("iops", int, help="Provisioned IOPS; 0 for a storage type without."),
        Takes("multi_az", bool, help="Whether it has a standby in another zone."),
        Takes("port", int, help="Port on which it takes connections."),
        Takes("publicly_accessible", bool, help="Whether it gets a public address."),
        Takes("storage_type", words=STORAGE_TYPES, help="Type of its storage."),
        Takes("subnet_group_name", help="Subnet group, which decides on the VPC."),
        Takes("to_account", int, help="Id of the account to recover to."),
        Takes("zone", help="Availability zone; not together with multi_az."),
    )
    stages: ClassVar[Sequence[str]] = ("database",)
    dr = Dr.COPY
    default_key_alias = rds.DEFAULT_KEY
    iam_actions = IAM_ACTIONS

    # -- targets --------------------------------------------------------------------------------------------

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        rows = _instances(client, ids)
        return {
            name: Described(id=name, tags=rds.tags_of(row), details=_details(row))
            for name, row in rows.items()
            if row["DBInstanceStatus"] != "deleting"
        }

    def unfit(self, found: Described) -> str:
        cluster = found.details["cluster_id"]
        return f"{found.id} is a member of the cluster {cluster}: protect the cluster." if cluster else ""

    # -- snapshots ------------------------------------------------------------------------------------------

    def create(self, client: AwsClient, making: Making) -> str:
        made = client.call(
            "CreateDBSnapshot",
            DBInstanceIdentifier=making.resource_id,
            DBSnapshotIdentifier=making.name,
            Tags=rds.as_labels(making.tags),
        )
        return str(made["DBSnapshot"]["DBSnapshotIdentifier"])

    def find(self, client: AwsClient, making: Making) -> list[str]:
        rows = _snapshots(client, [making.name])
        return [name for name, row in rows.items() if rds.is_of_step(rds.tags_of(row), making.tags)]

    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        rows = _snapshots(client, [one.aws_id for one in held])
        return {name: rds.shown(row, row["DBSnapshotArn"]) for name, row in rows.items()}

    def listed(self, client: AwsClient) -> Iterator[Listed]:
        for row in client.paginate("DescribeDBSnapshots", "DBSnapshots", SnapshotType="manual"):
            if rds.may_be_ours(row, "DBSnapshotIdentifier"):
                seen = {"zone": row.get("AvailabilityZone", ""), "iops": row.get("Iops") or 0}
                yield rds.listed(row, rds.tags_of(row), seen, row.get("SourceDBSnapshotIdentifier") or "")

    def delete(self, client: AwsClient, held: Held) -> None:
        client.call("DeleteDBSnapshot", DBSnapshotIdentifier=held.aws_id)

    def mark_outdated(self, client: AwsClient, held: Held, key: str) -> bool:
        # AWS has never shown what has no ARN here.
        if arn := held.details.get("snapshot_arn"):
            client.call("AddTagsToResource", ResourceName=arn, Tags=rds.as_labels({key: "true"}))
        return bool(arn)

    # -- DR -------------------------------------------------------------------------------------------------

    def why_not_copied(self, held: Held, target: Place) -> str:
        custom = str(held.details.get("engine") or "").startswith("custom-")
        return "AWS does not copy snapshots of RDS Custom." if custom else ""

    def shared_with(self, client: AwsClient, aws_id: str) -> set[str]:
        answer = client.call("DescribeDBSnapshotAttributes", DBSnapshotIdentifier=aws_id)
        return rds.accounts(answer["DBSnapshotAttributesResult"]["DBSnapshotAttributes"])

    def share(self, client: AwsClient, aws_id: str, number: str) -> None:
        _modify_share(client, aws_id, ValuesToAdd=[number])

    def unshare(self, client: AwsClient, aws_id: str, number: str) -> None:
        _modify_share(client, aws_id, ValuesToRemove=[number])

    def copy(self, sides: Sides, held: Held, making: Making, target: Place, key_id: str) -> str:
        made = sides.target.call(
            "CopyDBSnapshot",
            SourceDBSnapshotIdentifier=held.details["snapshot_arn"],
            TargetDBSnapshotIdentifier=making.name,
            Tags=rds.as_labels(making.tags),
            **({"KmsKeyId": key_id} if key_id else {}),
            **({"SourceRegion": held.region} if held.region != target.region else {}),
        )
        return str(made["DBSnapshot"]["DBSnapshotIdentifier"])

    # -- recovery -------------------------------------------------------------------------------------------

    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        return {
            **rds.name_problem("aws_resource_id", request),
            **rds.port_problem(request),
            **_storage_problems(held, request),
            **_zone_problems(held, request),
        }

    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        client, name = clients(self.service), str(request["aws_resource_id"]).lower()
        found: Problems = {}
        if _instances(client, [name]):
            message = f"There is a database {name} in {place.region} already; choose another id."
            found["aws_resource_id"] = message
        # Of a record that was rebuilt from AWS the class may be unknown; AWS then takes the original's.
        if chosen := _wanted(held, request, "db_instance_class"):
            found |= rds.class_problems(client, held.details["engine"], chosen, request)
        return found | rds.network_problems(client, held, request, place)

    def needs_copy(self, held: Held, place: Place) -> bool:
        # AWS: RDS User Guide, "Sharing encrypted snapshots": they are restored from a copy of one's own.
        return held.region != place.region or (held.encrypted and not place.same_account)

    def shared_id(self, held: Held) -> str:
        return str(held.details["snapshot_arn"])

    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        held, request, place = restoring.held, restoring.request, restoring.place
        network = rds.network(client, held, request, place)
        made = client.call(
            "RestoreDBInstanceFromDBSnapshot",
            DBInstanceIdentifier=request["aws_resource_id"].lower(),
            DBSnapshotIdentifier=restoring.snapshot,
            Tags=rds.as_labels(restoring.tags),
            **network.parameters,
            **_as_it_was(held, request),
            **_storage(held, request),
            **_zone(held, request, network),
            **(_groups(held) if rds.at_home(held, place) else {}),
        )
        return str(made["DBInstance"]["DBInstanceIdentifier"])

    def make_empty(self, client: AwsClient, restoring: Restoring, password: str) -> str:
        """Start to make a new database like the original, for rows from elsewhere; returns its id."""
        held, request, place = restoring.held, restoring.request, restoring.place
        network = rds.network(client, held, request, place)
        home = rds.at_home(held, place)
        key = {"KmsKeyId": held.details["kms_key_id"]} if home and held.details.get("kms_key_id") else {}
        made = client.call(
            "CreateDBInstance",
            DBInstanceIdentifier=request["aws_resource_id"].lower(),
            Engine=held.details["engine"],
            EngineVersion=request.get("engine_version") or held.details["engine_version"],
            AllocatedStorage=held.capacity or held.details["capacity"],
            MasterUsername=request["master_username"],
            MasterUserPassword=password,
            Tags=rds.as_labels(restoring.tags),
            **({"StorageEncrypted": True, **key} if held.encrypted or held.details.get("encrypted") else {}),
            **network.parameters,
            **_as_it_was(held, request),
            **_storage(held, request),
            **_zone(held, request, network),
            **(_groups(held) if home else {}),
        )
        return str(made["DBInstance"]["DBInstanceIdentifier"])

    def endpoint(self, client: AwsClient, id: str) -> tuple[str, int] | None:
        """Host and port of a database; None until it has them, or when it is gone."""
        found = (_instances(client, [id]).get(id) or {}).get("Endpoint") or {}
        return (str(found["Address"]), int(found["Port"])) if found.get("Address") else None

    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        rows = _instances(client, [restoring.request["aws_resource_id"].lower()])
        return [name for name, row in rows.items() if rds.is_of_step(rds.tags_of(row), restoring.tags)]

    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        return {name: rds.growing(row["DBInstanceStatus"]) for name, row in _instances(client, ids).items()}

    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        try:
            clients(self.service).call("DeleteDBInstance", DBInstanceIdentifier=id, SkipFinalSnapshot=True)
        except NotFound:
            return True
        except InvalidState:
            return all(row["DBInstanceStatus"] == "deleting" for row in _instances(clients(self.service), [id]).values())
        return True


def _instances(client: AwsClient, ids: Sequence[str]) -> dict[str, rds.Row]:
    return {
        row["DBInstanceIdentifier"]: row
        for batch in rds.batches(ids)
        for row in client.paginate("DescribeDBInstances", "DBInstances", Filters=rds.having("db-instance-id", batch))
    }


def _snapshots(client: AwsClient, ids: Sequence[str]) -> dict[str, rds.Row]:
    return {
        row["DBSnapshotIdentifier"]: row
        for batch in rds.batches(ids)
        for row in client.paginate("DescribeDBSnapshots", "DBSnapshots", Filters=rds.having("db-snapshot-id", batch))
    }


def _modify_share(client: AwsClient, aws_id: str, **change: list[str]) -> None:
    client.call("ModifyDBSnapshotAttribute", DBSnapshotIdentifier=aws_id, AttributeName="restore", **change)


def _details(row: rds.Row) -> dict[str, Any]:
    parameters = [one["DBParameterGroupName"] for one in row.get("DBParameterGroups", ())]
    options = [one["OptionGroupName"] for one in row.get("OptionGroupMemberships", ())]
    return {
        "database_arn": row["DBInstanceArn"],
        "engine": row["Engine"],
        "engine_version": row.get("EngineVersion", ""),
        "status": row["DBInstanceStatus"],
        "zone": row.get("AvailabilityZone", ""),
        "db_instance_class": row["DBInstanceClass"],
        # Shown under Endpoint, once there is one; the other place has the port only in a Multi-AZ DB cluster.
        "port": (row.get("Endpoint") or {}).get("Port"),
        "publicly_accessible": bool(row.get("PubliclyAccessible")),
        "multi_az": bool(row.get("MultiAZ")),
        "storage_type": row.get("StorageType", ""),
        "iops": row.get("Iops") or 0,
        "capacity": row.get("AllocatedStorage"),
        "encrypted": bool(row.get("StorageEncrypted")),
        "kms_key_id": row.get("KmsKeyId", ""),
        "subnet_group_name": (row.get("DBSubnetGroup") or {}).get("DBSubnetGroupName", ""),
        "security_groups": [one["VpcSecurityGroupId"] for one in row.get("VpcSecurityGroups", ())],
        "parameter_group_name": next(iter(parameters), ""),
        "option_group_name": next(iter(options), ""),
        "iam_authentication": bool(row.get("IAMDatabaseAuthenticationEnabled")),
        "cluster_id": row.get("DBClusterIdentifier", ""),
    }


def _wanted(held: Held, request: Mapping[str, Any], name: str) -> Any:
    """What is asked for, else as it was."""
    given = request.get(name)
    return held.details.get(name) if given in (None, "") else given


def _storage_problems(held: Held, request: Mapping[str, Any]) -> Problems:
    kind, iops = _wanted(held, request, "storage_type"), request.get("iops")
    if iops and kind not in WITH_IOPS:
        return {"iops": f"Storage of type {kind} has no provisioned IOPS: leave them out, or choose {', '.join(WITH_IOPS)}."}
    if kind in PROVISIONED and not (held.details.get("iops") if iops is None else iops):
        return {"iops": f"Storage of type {kind} needs provisioned IOPS."}
    return {}


def _zone_problems(held: Held, request: Mapping[str, Any]) -> Problems:
    if request.get("zone") and _wanted(held, request, "multi_az"):
        return {"zone": "AWS chooses the zones of a Multi-AZ database: leave the zone out, or set multi_az to false."}
    return {}


def _as_it_was(held: Held, request: Mapping[str, Any]) -> dict[str, Any]:
    port, kind = _wanted(held, request, "port"), _wanted(held, request, "db_instance_class")
    return {
        **({"DBInstanceClass": kind} if kind else {}),
        "MultiAZ": bool(_wanted(held, request, "multi_az")),
        "PubliclyAccessible": bool(_wanted(held, request, "publicly_accessible")),
        "EnableIAMDatabaseAuthentication": bool(held.details.get("iam_authentication")),
        **({"Port": port} if port else {}),
    }


def _storage(held: Held, request: Mapping[str, Any]) -> dict[str, Any]:
    """AWS: RestoreDBInstanceFromDBSnapshot: IOPS left out are those of the snapshot, and 0 takes them away."""
    kind, iops = _wanted(held, request, "storage_type"), request.get("iops")
    chosen = {"StorageType": kind} if kind else {}
    if kind not in WITH_IOPS:
        return chosen | ({"Iops": 0} if held.details.get("iops") else {})
    if iops:
        return chosen | {"Iops": iops}
    moved = kind in PROVISIONED and kind != held.details.get("storage_type")
    return chosen | ({"Iops": held.details["iops"]} if moved else {})


def _zone(held: Held, request: Mapping[str, Any], network: rds.Network) -> dict[str, str]:
    """The zone that is asked for, else that of the original if it goes where the original was."""
    if _wanted(held, request, "multi_az"):
        return {}
    zone = request.get("zone") or (held.details.get("zone") if network.original else "")
    return {"AvailabilityZone": zone} if zone else {}


def _groups(held: Held) -> dict[str, str]:
    """The parameter and option groups of the original; AWS chooses default ones by itself."""
    names = {
        "DBParameterGroupName": str(held.details.get("parameter_group_name") or ""),
        "OptionGroupName": str(held.details.get("option_group_name") or ""),
    }
    return {name: group for name, group in names.items() if group and not group.startswith(("default.", "default:"))}
