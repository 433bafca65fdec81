"""DynamoDB backups that take their time, and the tables that are restored from them."""

import copy
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.dynamodb.models import Table, dynamodb_backends

from cpm.simulator import dynamodb_tables as tables
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import Settling

MOST_LISTED = 100


@dataclass
class Backup:
    """A table as it was; ``id`` is the ARN. Backups of one name are told apart by nothing else."""

    id: str
    account: str
    region: str
    name: str
    table: Table
    settling: Settling
    # Until then the newest restore from it runs.
    restoring: Settling
    serial: int = 0

    @property
    def created(self) -> datetime:
        # DynamoDB counts milliseconds.
        moment = self.settling.start
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    @property
    def status(self) -> str:
        return "AVAILABLE" if self.settling.done() else "CREATING"


def _utc(moment: datetime) -> datetime:
    """moto's times are in UTC and do not say so."""
    return moment.replace(tzinfo=UTC)


def _bytes(table: Table) -> int:
    return sum(item.size() for item in table.all_items())


def _find(call: Call, arn: str) -> Backup:
    backup: Backup | None = call.state.table_backups.at(call.account, call.region).get(arn)
    if backup is None:
        raise AwsError("BackupNotFoundException", f"Backup not found: {arn}")
    return backup


def create(call: Call) -> dict[str, Any]:
    """AWS: DynamoDB API Reference, CreateBackup.

    A backup has no state in which it has failed (BackupStatus: CREATING, DELETED, AVAILABLE), so one that shall fail
    is refused with the error that the reference gives for AWS's own trouble.
    """
    wanted = call.params["TableName"]
    table = tables.find(call, wanted)
    if table is None:
        raise AwsError("TableNotFoundException", f"Table not found: {wanted}")
    if not tables.active(table):
        raise AwsError("TableInUseException", f"Table is being created: {table.name}")
    if call.fails(table.name):
        raise AwsError("InternalServerError", "Internal server error", 500)
    settling = call.world.settling("table")
    stamp = int(settling.start.timestamp() * 1000)
    backup = Backup(
        id=f"{table.table_arn}/backup/{stamp:014d}-{secrets.token_hex(4)}",
        account=call.account,
        region=call.region,
        name=call.params["BackupName"],
        table=copy.deepcopy(table),
        settling=settling,
        restoring=Settling(settling.start, 0.0),
    )
    call.state.table_backups.add(backup)
    return {"BackupDetails": _details(backup)}


def describe(call: Call) -> dict[str, Any]:
    """AWS: DynamoDB API Reference, DescribeBackup."""
    return {"BackupDescription": _description(_find(call, call.params["BackupArn"]))}


def delete(call: Call) -> dict[str, Any]:
    """AWS: DynamoDB API Reference, DeleteBackup: not while it is created or restored."""
    backup = _find(call, call.params["BackupArn"])
    if backup.status == "CREATING" or not backup.restoring.done():
        raise AwsError("BackupInUseException", f"Backup is being created or restored: {backup.id}")
    call.state.table_backups.remove(backup)
    description = _description(backup)
    description["BackupDetails"]["BackupStatus"] = "DELETED"
    return {"BackupDescription": description}


def listing(call: Call) -> dict[str, Any]:
    """AWS: DynamoDB API Reference, ListBackups: the lower bound of time is included, the upper one is not.

    The reference names no order. Here it is that of the ARNs: by table, and by time within one.
    """
    params = call.params
    limit = params.get("Limit", MOST_LISTED)
    if not 1 <= limit <= MOST_LISTED:
        raise AwsError("ValidationException", f"Limit must be between 1 and {MOST_LISTED}")
    if params.get("BackupType", "USER") not in ("USER", "ALL"):
        return {"BackupSummaries": []}
    earliest, latest = params.get("TimeRangeLowerBound", 0), params.get("TimeRangeUpperBound")
    named, after = params.get("TableName"), params.get("ExclusiveStartBackupArn", "")
    found = [
        backup
        for arn, backup in sorted(call.state.table_backups.at(call.account, call.region).items())
        if named in (None, backup.table.name, backup.table.table_arn)
        and earliest <= backup.created.timestamp()
        and (latest is None or backup.created.timestamp() < latest)
        and arn > after
        and not call.hidden(backup.created)
    ]
    answer: dict[str, Any] = {"BackupSummaries": [_summary(backup) for backup in found[:limit]]}
    if len(found) > limit:
        answer["LastEvaluatedBackupArn"] = found[limit - 1].id
    return answer


def _details(backup: Backup) -> dict[str, Any]:
    return {
        "BackupArn": backup.id,
        "BackupName": backup.name,
        "BackupSizeBytes": _bytes(backup.table),
        "BackupStatus": backup.status,
        "BackupType": "USER",
        "BackupCreationDateTime": backup.created,
    }


def _source(backup: Backup) -> dict[str, str]:
    known = tables.life(backup.table)
    of_it = {"TableName": backup.table.name, "TableArn": backup.table.table_arn}
    return {**of_it, "TableId": known.id} if known else of_it


def _summary(backup: Backup) -> dict[str, Any]:
    return {**_source(backup), **_details(backup)}


def _description(backup: Backup) -> dict[str, Any]:
    table = backup.table
    features: dict[str, Any] = {"TimeToLiveDescription": table.ttl}
    if table.indexes:
        features["LocalSecondaryIndexes"] = [index.describe() for index in table.indexes]
    if table.global_indexes:
        kept = ("IndexName", "KeySchema", "Projection", "ProvisionedThroughput")
        features["GlobalSecondaryIndexes"] = [
            {name: value for name, value in index.describe().items() if name in kept}
            for index in table.global_indexes
        ]
    if table.stream_specification and table.stream_specification.get("StreamEnabled"):
        features["StreamDescription"] = table.stream_specification
    details = {
        **_source(backup),
        "TableSizeBytes": _bytes(table),
        "KeySchema": table.schema,
        "TableCreationDateTime": _utc(table.created_at),
        "ProvisionedThroughput": _throughput(table),
        "ItemCount": len(table),
        "BillingMode": table.billing_mode or "PROVISIONED",
    }
    return {
        "BackupDetails": _details(backup),
        "SourceTableDetails": details,
        "SourceTableFeatureDetails": features,
    }


def _throughput(table: Table) -> dict[str, int]:
    return {name: table.throughput[name] for name in ("ReadCapacityUnits", "WriteCapacityUnits")}


# -- restoring --------------------------------------------------------------------------------------------


def restore(call: Call) -> dict[str, Any]:
    """AWS: DynamoDB API Reference, RestoreTableFromBackup: tags, streams and TTL must be set up again by hand."""
    backend = dynamodb_backends[call.account][call.region]
    name = call.params["TargetTableName"]
    backup = _find(call, call.params["BackupArn"])
    if backup.status == "CREATING":
        raise AwsError("BackupInUseException", f"Backup is being created: {backup.id}")
    existing = backend.tables.get(name)
    if existing is not None and not tables.active(existing):
        raise AwsError("TableInUseException", f"Table is being created or deleted: {name}")
    if existing is not None:
        raise AwsError("TableAlreadyExistsException", f"Table already exists: {name}")
    table = _restored(call, backup, name)
    settling = call.world.settling("table")
    tables.begin(
        table, tables.Life(settling, tables.Restore(backup.id, backup.table.table_arn, backup.created))
    )
    if settling.end > backup.restoring.end:
        backup.restoring = settling
    shown = table.describe()
    shown["TableDescription"]["CreationDateTime"] = _utc(table.created_at)
    return shown


def _restored(call: Call, backup: Backup, name: str) -> Table:
    source, params = backup.table, call.params
    local = _chosen(source.indexes, params.get("LocalSecondaryIndexOverride"))
    everywhere = _chosen(source.global_indexes, params.get("GlobalSecondaryIndexOverride"))
    table: Table = dynamodb_backends[call.account][call.region].create_table(
        name,
        schema=copy.deepcopy(source.schema),
        throughput=dict(params.get("ProvisionedThroughputOverride") or _throughput(source)),
        attr=copy.deepcopy(source.attr),
        global_indexes=None,
        indexes=None,
        streams=None,
        billing_mode=params.get("BillingModeOverride") or source.billing_mode or "PROVISIONED",
        sse_specification=params.get("SSESpecificationOverride"),
        tags=[],
        deletion_protection_enabled=False,
        warm_throughput=None,
    )
    table.indexes, table.global_indexes, table.items = local, everywhere, copy.deepcopy(source.items)
    return table


def _chosen(indexes: list[Any], wanted: list[dict[str, Any]] | None) -> list[Any]:
    """Some or all of the backup's indexes; others cannot be asked for."""
    if wanted is None:
        return copy.deepcopy(indexes)
    known = {index.name: index for index in indexes}
    for one in wanted:
        index = known.get(one["IndexName"])
        if index is None or index.schema != one["KeySchema"]:
            raise AwsError("ValidationException", f"The backup has no such index: {one['IndexName']}")
    return [copy.deepcopy(known[one["IndexName"]]) for one in wanted]


ACTIONS = {
    "CreateBackup": create,
    "DeleteBackup": delete,
    "DescribeBackup": describe,
    "ListBackups": listing,
    "RestoreTableFromBackup": restore,
}
