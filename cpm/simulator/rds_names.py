"""How RDS names, finds, filters and lists its things, and what it answers when one is missing."""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cpm.simulator import rds_live
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import Held
from cpm.simulator.world import Shelf

T = TypeVar("T", bound=Held)
Lookup = Callable[[Any], tuple[str, ...]]

# AWS: RDS API Reference, CreateDBInstance, DBInstanceIdentifier, and the same of snapshots and clusters.
NAME = re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """A kind of thing: where it is kept, its part of an ARN, its word in messages, and its error codes."""

    shelf: str
    resource: str
    label: str
    missing: str
    exists: str
    wrong_state: str
    longest: int = 63


INSTANCE = Kind(
    "db_instances", "db", "DBInstance", "DBInstanceNotFound", "DBInstanceAlreadyExists",
    "InvalidDBInstanceState",
)  # fmt: skip
CLUSTER = Kind(
    "db_clusters", "cluster", "DBCluster", "DBClusterNotFoundFault", "DBClusterAlreadyExistsFault",
    "InvalidDBClusterStateFault",
)  # fmt: skip
SNAPSHOT = Kind(
    "db_snapshots", "snapshot", "DBSnapshot", "DBSnapshotNotFound", "DBSnapshotAlreadyExists",
    "InvalidDBSnapshotState", 255,
)  # fmt: skip
CLUSTER_SNAPSHOT = Kind(
    "db_cluster_snapshots", "cluster-snapshot", "DBClusterSnapshot", "DBClusterSnapshotNotFoundFault",
    "DBClusterSnapshotAlreadyExistsFault", "InvalidDBClusterSnapshotStateFault", 255,
)  # fmt: skip
SUBNET_GROUP = Kind(
    "db_subnet_groups", "subgrp", "DBSubnetGroup", "DBSubnetGroupNotFoundFault", "DBSubnetGroupAlreadyExists",
    "InvalidDBSubnetGroupStateFault", 255,
)  # fmt: skip
EXPORT = Kind(
    "db_exports", "export-task", "ExportTask", "ExportTaskNotFound", "ExportTaskAlreadyExists",
    "InvalidExportTaskStateFault", 60,
)  # fmt: skip
KINDS = (INSTANCE, CLUSTER, SNAPSHOT, CLUSTER_SNAPSHOT, SUBNET_GROUP, EXPORT)


def combination(message: str) -> AwsError:
    """AWS: RDS, Common errors, InvalidParameterCombination."""
    return AwsError("InvalidParameterCombination", message)


def missing(kind: Kind, identifier: str) -> AwsError:
    return AwsError(kind.missing, f"{kind.label} {identifier} not found.", 404)


def wrong_state(kind: Kind, item: Held) -> AwsError:
    return AwsError(kind.wrong_state, f"{kind.label} {item.name} is in the {item.state} state.")


def shelf(call: Call, kind: Kind) -> Shelf[Any]:
    found: Shelf[Any] = getattr(call.state, kind.shelf)
    return found


def arn(call: Call, kind: Kind, name: str) -> str:
    return f"arn:aws:rds:{call.region}:{call.account}:{kind.resource}:{name}"


def living(call: Call, kind: Kind) -> list[Any]:
    """The caller's own in its region; those whose deletion has ended go now."""
    kept = shelf(call, kind)
    here = list(kept.at(call.account, call.region).values())
    for item in here:
        if item.gone:
            forget(call, kind, item)
    return [item for item in here if not item.gone]


def forget(call: Call, kind: Kind, item: Held) -> None:
    """Takes it and its content out of the world."""
    shelf(call, kind).remove(item)
    rds_live.drop(call, item.id)


def free_name(call: Call, kind: Kind, given: str) -> str:
    """The name as RDS stores it; raises when it is malformed or taken.

    AWS: RDS API Reference: identifiers are stored as lower-case strings.
    """
    name = given.lower()
    if len(name) > kind.longest or not NAME.fullmatch(name):
        raise invalid(
            f"The parameter {kind.label}Identifier is not a valid identifier. Identifiers must begin with a letter;"
            " must contain only ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two"
            " consecutive hyphens."
        )
    if any(item.name == name for item in living(call, kind)):
        raise AwsError(kind.exists, f"{kind.label} {name} already exists")
    return name


def find(call: Call, kind: Kind, identifier: str) -> Any:
    """The caller's own thing of this name or ARN in its region, or the error that it does not exist."""
    name = identifier.lower()
    for item in living(call, kind):
        if name in (item.name, item.id.lower()):
            return item
    raise missing(kind, identifier)


def named(item: Held) -> tuple[str, ...]:
    """What a filter by id compares: the identifier and the ARN."""
    return item.name, item.id.lower()


def matching(items: Iterable[T], call: Call, lookups: dict[str, Lookup]) -> list[T]:
    """The items that pass every filter; several values of one filter are alternatives."""
    filters = call.params.get("Filters", [])
    for one in filters:
        if one.get("Name") not in lookups:
            raise invalid(f"Unrecognized filter name: {one.get('Name')}")
        if not one.get("Values"):
            raise combination("At least one filter value is needed")
    wanted = [(lookups[one["Name"]], {value.lower() for value in one["Values"]}) for one in filters]
    return [item for item in items if all(values.intersection(lookup(item)) for lookup, values in wanted)]


def listed(
    call: Call, kind: Kind, items: Iterable[T], lookups: dict[str, Lookup]
) -> tuple[list[T], str | None]:
    """One page of a describe call and the marker of the next, after filters and injected lag.

    A hidden thing that was asked for by its name does not exist yet.
    """
    found = [item for item in items if not call.hidden(item.created)]
    asked = call.params.get(f"{kind.label}Identifier") or call.params.get(f"{kind.label}Name")
    if asked and not found:
        raise missing(kind, asked)
    return _page(call, sorted(matching(found, call, lookups), key=lambda item: item.serial))


def _page(call: Call, items: list[T]) -> tuple[list[T], str | None]:
    """AWS: RDS API Reference, MaxRecords: 20 to 100, 100 by default."""
    most = call.params.get("MaxRecords", 100)
    if not 20 <= most <= 100:
        raise invalid(f"Invalid value {most} for MaxRecords. Must be between 20 and 100")
    if marker := call.params.get("Marker"):
        after = _serial(marker)
        items = [item for item in items if item.serial > after]
    if len(items) <= most:
        return items, None
    return items[:most], base64.urlsafe_b64encode(f"after:{items[most - 1].serial}".encode()).decode()


def _serial(marker: str) -> int:
    try:
        kind, serial = base64.urlsafe_b64decode(marker.encode()).decode().split(":")
        if kind == "after":
            return int(serial)
    except ValueError:
        # Falls through to the refusal: bad base64, bad UTF-8 and bad numbers are all ValueErrors.
        kind = ""
    raise invalid("Invalid value for Marker")
