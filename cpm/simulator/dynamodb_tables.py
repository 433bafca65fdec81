"""DynamoDB tables that take their time to come into being; their items and everything else of them are moto's."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.dynamodb.models import DynamoDBBackend, Table, dynamodb_backends

from cpm.simulator import protocol
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import Settling
from cpm.simulator.world import World

_moto_describes = Table.describe
_moto_creates = DynamoDBBackend.create_table


@dataclass
class Restore:
    """What a restored table tells of its origin."""

    backup: str
    table: str
    moment: datetime


@dataclass
class Life:
    """What moto's table does not know of itself; kept in the table's attribute ``life``."""

    settling: Settling
    restore: Restore | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def patch(world: World) -> None:
    """Lets moto's tables be CREATING as long as this world's timing says."""

    def create(backend: DynamoDBBackend, *arguments: Any, **named: Any) -> Table:
        return begin(_moto_creates(backend, *arguments, **named), Life(world.settling("table")))

    setattr(DynamoDBBackend, "create_table", create)  # noqa: B010 - mypy forbids the plain assignment
    setattr(Table, "describe", _described)  # noqa: B010


def begin(table: Table, life: Life) -> Table:
    """The table, which from now on is created."""
    vars(table)["life"] = life
    return table


def life(table: Table) -> Life | None:
    """None for what moto alone has made, such as the table of an import."""
    found: Life | None = vars(table).get("life")
    return found


def active(table: Table) -> bool:
    """Whether a table is there to be used."""
    known = life(table)
    return known is None or known.settling.done()


def find(call: Call, name: str) -> Table | None:
    """A table of the caller's in its region, by name or ARN."""
    tables = dynamodb_backends[call.account][call.region].tables
    known: Table | None = tables.get(name)
    return known or next((table for table in tables.values() if table.table_arn == name), None)


def _described(table: Table, base_key: str = "TableDescription") -> dict[str, Any]:
    shown: dict[str, Any] = _moto_describes(table, base_key)
    known = life(table)
    if known is None:
        return shown
    status = "ACTIVE" if known.settling.done() else "CREATING"
    about = shown[base_key]
    about.update(TableId=known.id, TableStatus=status)
    for index in about["GlobalSecondaryIndexes"]:
        index["IndexStatus"] = status
    if known.restore is not None:
        about["RestoreSummary"] = {
            "SourceBackupArn": known.restore.backup,
            "SourceTableArn": known.restore.table,
            "RestoreDateTime": known.restore.moment,
            "RestoreInProgress": status == "CREATING",
        }
    return shown


# -- what a table refuses that is not there yet -----------------------------------------------------------

DATA = frozenset(
    {
        "BatchGetItem", "BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "Scan",
        "TransactGetItems", "TransactWriteItems", "UpdateItem",
    }
)  # fmt: skip
CHANGES = frozenset({"DeleteTable", "TagResource", "UntagResource", "UpdateTable", "UpdateTimeToLive"})


def guard(call: Call) -> None:
    """Refuses what AWS refuses and moto does not, before moto answers a call.

    AWS: DynamoDB API Reference, PutItem and its like: ResourceNotFoundException when the status is not ACTIVE;
    DeleteTable and its like: ResourceInUseException; TagResource: tables have tags, backups have none.
    """
    if call.action not in DATA | CHANGES:
        return
    for name in _tables_named(protocol.parse(call.service, call.action, {}, call.body)):
        table = find(call, name)
        if table is None and call.action in ("TagResource", "UntagResource"):
            raise _unknown(f"ResourceArn: {name} not found")
        if table is None or active(table):
            continue
        if call.action in DATA:
            raise _unknown("")
        raise AwsError(
            "ResourceInUseException", f"Attempt to change a resource which is still in use: Table: {name}"
        )


def _unknown(what: str) -> AwsError:
    return AwsError("ResourceNotFoundException", f"Requested resource not found: {what}".rstrip(": "))


def _tables_named(params: dict[str, Any]) -> Iterator[str]:
    if named := params.get("TableName") or params.get("ResourceArn"):
        yield named
    yield from params.get("RequestItems", {})
    for one in params.get("TransactItems", []):
        yield from (part["TableName"] for part in one.values())
