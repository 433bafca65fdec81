"""DynamoDB tables, by on-demand backups. AWS: DynamoDB Developer Guide, "Backing up and restoring DynamoDB tables".

Backups take neither client token nor tags, and their names need not be unique: a backup that an interrupted call has
made is found by its name, which carries the step. A restored table has no tags, no TTL, no streams and no
point-in-time recovery; the tags are put back, the rest is said in the log.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.errors import InUse, NotFound
from cpm.aws.iam_policy import IamAction
from cpm.lib.states import RecoveryType, SnapshotStatus
from cpm.resources.base import Described, Limit, Shown
from cpm.resources.fields import Shows, Takes
from cpm.resources.whole import (
    OURS,
    Clients,
    Growing,
    Held,
    Listed,
    Making,
    Place,
    Problems,
    Restoring,
    WholeResource,
)

NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
GIB = 1 << 30
# Up to so many tables are described one by one, which is the only way; of more only the existence is looked at.
FEW = 10
# AWS's clock and ours never differ by more, or no call would be accepted.
CLOCKS = timedelta(minutes=15)
# Without its key a table can be used by nobody; AWS archives it after a week.
LOST = frozenset({"INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVING", "ARCHIVED"})
TABLES = "arn:{partition}:dynamodb:*:*:table/*"
BACKUPS = "arn:{partition}:dynamodb:*:*:table/*/backup/*"
# Rights that a restore exercises on the new table without a call of that name (DynamoDB Developer Guide, "Using IAM with
# DynamoDB backup and restore").
RESTORE = "dynamodb:RestoreTableFromBackup"
RESTORING = ("BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "Scan", "UpdateItem")


class DynamoDbTable(WholeResource):
    """A table with its items and indexes."""

    key = "dynamodb_tables"
    noun = "DynamoDB table"
    service = "dynamodb"
    id_pattern = NAME.pattern
    id_field = "aws_resource_name"
    details = ("table_arn", "table_id", "partition_key", "sort_key", "status", "capacity", "tags")
    target_fields = (
        Shows("aws_resource_name", "aws_resource_id"),
        Shows("partition_key", "details__partition_key"),
        Shows("sort_key", "details__sort_key"),
        Shows("status", "details__status"),
        Shows("storage", "details__capacity", int),
        Shows("table_arn", "details__table_arn"),
    )
    limit = Limit("max_dynamodb_gib", "GiB of DynamoDB tables", summed="capacity")
    recovery_type = RecoveryType.DYNAMODB_TABLE
    kind = "dynamodb_tables"
    snapshot_word = "dynamodb"
    recover_takes = (Takes("aws_resource_name", required=True, help="Name of the new table."),)
    takes_tags = False
    names_repeat = True
    stages: ClassVar[Sequence[str]] = ("table", "tags")
    iam_actions = (
        IamAction("dynamodb:DescribeTable", "backup", "finds the tables of a policy and what they look like", TABLES),
        IamAction("dynamodb:ListTables", "backup", "finds which of many tables exist"),
        IamAction("dynamodb:ListTagsOfResource", "backup", "keeps the tags of a table for its recovery", TABLES),
        IamAction("dynamodb:CreateBackup", "backup", "backs up tables", TABLES),
        IamAction("dynamodb:ListBackups", "backup", "waits until backups are complete"),
        IamAction("dynamodb:DeleteBackup", "retention", "deletes outlived and aborted backups of tables", BACKUPS),
        IamAction("dynamodb:ListBackups", "catalogue", "rebuilds a lost database from the names of our backups"),
        IamAction(RESTORE, "recovery", "makes a table from a backup", (TABLES, BACKUPS)),
        IamAction("dynamodb:DescribeTable", "recovery", "waits until a recovered table can be used", TABLES),
        IamAction("dynamodb:TagResource", "recovery", "gives a recovered table its tags", TABLES),
        IamAction("dynamodb:DeleteTable", "recovery", "removes the table of an aborted recovery", TABLES),
        *(
            IamAction(
                f"dynamodb:{name}", "recovery", "DynamoDB fills a recovered table with it", TABLES, within=RESTORE
            )
            for name in RESTORING
        ),
    )

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        found: dict[str, Described] = {}
        for name in ids:
            try:
                table = client.call("DescribeTable", TableName=name)["Table"]
                if table["TableStatus"] == "DELETING":
                    continue
                labels = client.paginate("ListTagsOfResource", "Tags", ResourceArn=table["TableArn"])
                found[name] = _described(table, {tag["Key"]: tag["Value"] for tag in labels})
            except NotFound:
                continue
        return found

    def existing(self, client: AwsClient, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Described]:
        if len(known) <= FEW:
            return self.describe(client, list(known))
        names = set(client.paginate("ListTables", "TableNames"))
        return {
            name: Described(id=name, tags=details.get("tags") or {}, details=details)
            for name, details in known.items()
            if name in names
        }

    def create(self, client: AwsClient, making: Making) -> str:
        made = client.call("CreateBackup", TableName=making.resource_id, BackupName=making.name)
        return str(made["BackupDetails"]["BackupArn"])

    def find(self, client: AwsClient, making: Making) -> list[str]:
        listed = client.paginate(
            "ListBackups", "BackupSummaries", TableName=making.resource_id, BackupType="USER"
        )
        ours = [one for one in listed if one["BackupName"] == making.name and one["BackupStatus"] != "DELETED"]
        return [str(one["BackupArn"]) for one in sorted(ours, key=lambda one: str(one["BackupCreationDateTime"]))]

    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        wanted = {one.aws_id for one in held}
        if not held:
            return {}
        moments = [one.started for one in held if one.started is not None]
        since = {"TimeRangeLowerBound": min(moments) - CLOCKS} if len(moments) == len(held) else {}
        listed = client.paginate("ListBackups", "BackupSummaries", BackupType="USER", **since)
        return {one["BackupArn"]: _shown(one) for one in listed if one["BackupArn"] in wanted}

    def listed(self, client: AwsClient) -> Iterator[Listed]:
        for one in client.paginate("ListBackups", "BackupSummaries", BackupType="USER"):
            if one["BackupName"].startswith(OURS) and one["BackupStatus"] != "DELETED":
                place = one["BackupArn"].split(":")
                yield Listed(
                    aws_id=one["BackupArn"],
                    source_id=one["TableName"],
                    made=one["BackupCreationDateTime"],
                    shown=_shown(one),
                    name=one["BackupName"],
                    details={"table_arn": one.get("TableArn", ""), "table_id": one.get("TableId", "")},
                    source_region=place[3],
                    source_account=place[4],
                )

    def delete(self, client: AwsClient, held: Held) -> None:
        client.call("DeleteBackup", BackupArn=held.aws_id)

    def why_not_copied(self, held: Held, target: Place) -> str:
        return "DynamoDB keeps on-demand backups in the region and account of their table."

    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        name = str(request.get("aws_resource_name") or "")
        if not NAME.fullmatch(name):
            return {"aws_resource_name": "A table's name has 3 to 255 letters, digits, dots, dashes and underscores."}
        return {}

    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        name = request["aws_resource_name"]
        try:
            clients(self.service).call("DescribeTable", TableName=name)
        except NotFound:
            return {}
        return {"aws_resource_name": f"There is a table {name} in {place.region} already; choose another name."}

    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        name = str(restoring.request["aws_resource_name"])
        if stage == "tags":
            _give_tags(client, str(restoring.earlier["table"]), restoring)
            return name
        client.call("RestoreTableFromBackup", TargetTableName=name, BackupArn=restoring.snapshot)
        return name

    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        if stage == "tags":
            return []
        try:
            table = client.call("DescribeTable", TableName=restoring.request["aws_resource_name"])["Table"]
        except NotFound:
            return []
        # The name was free when the recovery began, so a table from this very backup is its own.
        ours = table.get("RestoreSummary", {}).get("SourceBackupArn") == restoring.snapshot
        return [str(table["TableName"])] if ours else []

    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        return {name: self._growing(client, name) for name in ids}

    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        if stage == "tags":
            return True
        try:
            clients(self.service).call("DeleteTable", TableName=id)
        except NotFound:
            return True
        except InUse:
            return False
        return True

    def _growing(self, client: AwsClient, name: str) -> Growing:
        try:
            table = client.call("DescribeTable", TableName=name)["Table"]
        except NotFound:
            return Growing(absent=True)
        if table["TableStatus"] in LOST:
            return Growing(failed=f"it is in state {table['TableStatus']}.")
        ready = table["TableStatus"] == "ACTIVE" and not table.get("RestoreSummary", {}).get("RestoreInProgress")
        return Growing(done=ready)


def _described(table: Mapping[str, Any], labels: dict[str, str]) -> Described:
    keys = {one["KeyType"]: one["AttributeName"] for one in table.get("KeySchema", ())}
    return Described(
        id=table["TableName"],
        tags={**labels},
        details={
            "table_arn": table["TableArn"],
            "table_id": table.get("TableId", ""),
            "partition_key": keys.get("HASH", ""),
            "sort_key": keys.get("RANGE", ""),
            "status": table["TableStatus"],
            "capacity": -(-table.get("TableSizeBytes", 0) // GIB),
            "tags": labels,
        },
    )


def _shown(summary: Mapping[str, Any]) -> Shown:
    states = {"CREATING": SnapshotStatus.PENDING, "AVAILABLE": SnapshotStatus.COMPLETED}
    state = states.get(summary["BackupStatus"], SnapshotStatus.ERROR)
    size = summary.get("BackupSizeBytes")
    return Shown(state, details={"size_bytes": size}, capacity=None if size is None else -(-size // GIB))


def _give_tags(client: AwsClient, name: str, restoring: Restoring) -> None:
    if not restoring.tags:
        return
    arn = client.call("DescribeTable", TableName=name)["Table"]["TableArn"]
    labels = [{"Key": key, "Value": value} for key, value in restoring.tags.items()]
    client.call("TagResource", ResourceArn=arn, Tags=labels)
