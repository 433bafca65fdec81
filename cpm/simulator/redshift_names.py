"""How Redshift names, finds and lists its things, and what it answers when one is missing or taken."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.redshift_model import FOREVER, Cluster, ClusterSnapshot, Held, SubnetGroup
from cpm.simulator.world import Shelf

T = TypeVar("T", bound=Held)

# AWS: Redshift API Reference, CreateCluster, ClusterIdentifier, and the same of snapshots.
NAME = re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """A kind of thing: where it is kept, its part of an ARN, its word in messages, and its error codes."""

    shelf: str
    resource: str
    label: str
    missing: tuple[str, int]
    exists: str
    longest: int


CLUSTER = Kind(
    "redshift_clusters", "cluster", "Cluster", ("ClusterNotFound", 404), "ClusterAlreadyExists", 63
)
SNAPSHOT = Kind(
    "redshift_snapshots", "snapshot", "Snapshot", ("ClusterSnapshotNotFound", 404), "ClusterSnapshotAlreadyExists",
    255,
)  # fmt: skip
SUBNET_GROUP = Kind(
    "redshift_subnet_groups", "subnetgroup", "ClusterSubnetGroup", ("ClusterSubnetGroupNotFoundFault", 400),
    "ClusterSubnetGroupAlreadyExists", 255,
)  # fmt: skip
KINDS = (CLUSTER, SNAPSHOT, SUBNET_GROUP)


def combination(message: str) -> AwsError:
    """AWS: Redshift, Common errors, InvalidParameterCombination."""
    return AwsError("InvalidParameterCombination", message)


def missing(kind: Kind, name: str) -> AwsError:
    code, status = kind.missing
    return AwsError(code, f"{kind.label} {name} not found.", status)


def wrong_cluster_state(cluster: Cluster) -> AwsError:
    return AwsError(
        "InvalidClusterState", f"Cluster {cluster.name} is {cluster.status}; this action is not possible now."
    )


def wrong_snapshot_state(snapshot: ClusterSnapshot, why: str) -> AwsError:
    return AwsError("InvalidClusterSnapshotState", f"Snapshot {snapshot.name} {why}.")


def arn(kind: Kind, account: str, region: str, path: str) -> str:
    return f"arn:aws:redshift:{region}:{account}:{kind.resource}:{path}"


def shelf(call: Call, kind: Kind) -> Shelf[Any]:
    found: Shelf[Any] = getattr(call.state, kind.shelf)
    return found


def living(call: Call, kind: Kind, account: str | None = None, region: str | None = None) -> list[Any]:
    """What an account has in a region, by default the caller's; what has come to its end goes now."""
    here = list(shelf(call, kind).at(account or call.account, region or call.region).values())
    for item in here:
        if item.gone:
            forget(call, kind, item)
    return [item for item in here if not item.gone and (kind is not SNAPSHOT or item.begun)]


def clusters(call: Call) -> list[Cluster]:
    return living(call, CLUSTER)


def subnet_groups(call: Call) -> list[SubnetGroup]:
    return living(call, SUBNET_GROUP)


def snapshots(call: Call, account: str | None = None) -> list[ClusterSnapshot]:
    """The snapshots of an account that have begun; those of clusters that are gone by now have gone with them."""
    living(call, CLUSTER, account)
    return living(call, SNAPSHOT, account)


def forget(call: Call, kind: Kind, item: Held) -> None:
    """Takes it and its content out of the world; a cluster takes its automated snapshots along.

    AWS: Redshift API Reference, CopyClusterSnapshot: automated snapshots are deleted with their cluster.
    """
    shelf(call, kind).remove(item)
    call.state.contents.drop(item.id)
    if kind is not CLUSTER:
        return
    for snapshot in list(shelf(call, SNAPSHOT).at(item.account, item.region).values()):
        automated = snapshot.type == "automated" and snapshot.source_region is None
        if automated and snapshot.cluster == item.name:
            forget(call, SNAPSHOT, snapshot)


def free_name(call: Call, kind: Kind, given: str) -> str:
    """The name as Redshift stores it; raises when it is malformed or taken."""
    name = given.lower() if kind is not CLUSTER else given
    if len(name) > kind.longest or not NAME.fullmatch(name):
        raise invalid(
            f"The parameter {kind.label}Identifier is not a valid identifier. Identifiers begin with a letter, contain"
            " only ASCII letters, digits and hyphens, and neither end with a hyphen nor contain two in a row."
        )
    living(call, CLUSTER)
    if any(
        item.name == name and not item.gone
        for item in shelf(call, kind).at(call.account, call.region).values()
    ):
        raise AwsError(kind.exists, f"{kind.label} {name} already exists.")
    return name


def find(call: Call, kind: Kind, name: str) -> Any:
    """The caller's own thing of this name in its region, or the error that it does not exist."""
    living(call, CLUSTER)
    for item in living(call, kind):
        # AWS: Redshift API Reference, DescribeClusters: identifiers of clusters are case sensitive.
        if item.name == (name if kind is CLUSTER else name.lower()):
            return item
    raise missing(kind, name)


def snapshot_of(call: Call, name: str, cluster_name: str | None) -> ClusterSnapshot:
    """The caller's own snapshot, which must be of this cluster when one is named."""
    found: ClusterSnapshot = find(call, SNAPSHOT, name)
    if cluster_name not in (None, found.cluster):
        raise missing(SNAPSHOT, name)
    return found


def cluster(call: Call, name: str | None = None) -> Cluster:
    """The cluster that a call names."""
    found: Cluster = find(call, CLUSTER, name or call.params["ClusterIdentifier"])
    return found


def days(call: Call, parameter: str, default: int, longest: int = 3653) -> int:
    """For how long something is kept.

    AWS: Redshift API Reference, ManualSnapshotRetentionPeriod: -1 or 1 to 3,653; RetentionPeriod of copies: 1 to 35.
    """
    wanted: int = call.params.get(parameter, default)
    if not (1 <= wanted <= longest or (wanted == FOREVER and longest > 35)):
        raise AwsError("InvalidRetentionPeriodFault", f"The retention period {wanted} is not valid.")
    return wanted


def tagged(items: Iterable[T], call: Call) -> list[T]:
    """What has a tag of the wanted keys and values; each list alone, or both of the same tag."""
    keys, values = call.params.get("TagKeys"), call.params.get("TagValues")
    if not keys and not values:
        return list(items)
    return [
        item
        for item in items
        if any(
            (not keys or key in keys) and (not values or value in values) for key, value in item.tags.items()
        )
    ]


def page(call: Call, items: Iterable[T]) -> tuple[list[T], str | None]:
    """One page and the marker of the next. AWS: Redshift API Reference, MaxRecords: 20 to 100, 100 by default."""
    most = call.params.get("MaxRecords", 100)
    if not 20 <= most <= 100:
        raise invalid(f"Invalid value {most} for MaxRecords. Must be between 20 and 100")
    ordered: list[Any] = sorted(items, key=lambda item: getattr(item, "serial"))  # noqa: B009 - given by the shelf
    if marker := call.params.get("Marker"):
        after = _serial(marker)
        ordered = [item for item in ordered if item.serial > after]
    if len(ordered) <= most:
        return ordered, None
    return ordered[:most], base64.urlsafe_b64encode(f"after:{ordered[most - 1].serial}".encode()).decode()


def _serial(marker: str) -> int:
    try:
        kind, serial = base64.urlsafe_b64decode(marker.encode()).decode().split(":")
        if kind == "after":
            return int(serial)
    except ValueError:
        # Falls through to the refusal: bad base64, bad UTF-8 and bad numbers are all ValueErrors.
        kind = ""
    raise invalid("Invalid value for Marker")


def described(call: Call, kind: Kind, items: Iterable[T], asked: str | None) -> tuple[list[T], str | None]:
    """The page of a describe call, after tags and injected lag. What is hidden and was asked for does not exist yet."""
    shown = [item for item in items if not call.hidden(item.created)]
    if asked and not shown:
        raise missing(kind, asked)
    return page(call, tagged(shown, call))
