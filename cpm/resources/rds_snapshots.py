"""What databases and clusters of the RDS API share: names, tags, states, and what AWS must offer for a recovery.

AWS: RDS API Reference. Snapshots take no client token, but their names are unique in an account and region and carry the
step, and their tags are there from the first moment: so what an interrupted call has made is found by its name, and is
ours if it has the tag of the step.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpm.aws.client import AwsClient
from cpm.lib.states import SnapshotStatus
from cpm.resources.base import Shown
from cpm.resources.whole import OURS, Growing, Held, Listed, Place, Problems

NAME = r"[a-z](?:-?[a-z0-9]){0,62}"
"""A database or cluster; AWS stores names in small letters, and filters look for them like that."""
DEFAULT_KEY = "alias/aws/rds"
# So many rows are on a page; asking for as many at once makes one call of each batch.
BATCH = 100
PORTS = range(1150, 65536)
# A database that is described thus can be used; some of its own work may still go on behind.
READY = frozenset({"available", "backing-up", "storage-optimization", "storage-config-upgrade"})
FAILED = frozenset(
    {
        "failed", "restore-error", "cloning-failed", "migration-failed", "inaccessible-encryption-credentials",
        "inaccessible-encryption-credentials-recoverable", "incompatible-create", "incompatible-network",
        "incompatible-option-group", "incompatible-parameters", "incompatible-restore", "insufficient-capacity",
    }
)  # fmt: skip
# The tags by which a step knows its own, of those that `Making.tags` and `Restoring.tags` bring.
OF_STEP = ("cpm_server_id", "cpm_step_id")

Row = Mapping[str, Any]


def batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), BATCH):
        yield list(ids[start : start + BATCH])


def having(name: str, values: Sequence[str]) -> list[dict[str, Any]]:
    """The filter of a describe call. Values that match nothing are left out of the answer."""
    return [{"Name": name, "Values": list(values)}]


def as_labels(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as RDS takes them: it knows fewer characters than EC2, and keeps keys with `rds:` for itself."""
    return [
        {"Key": key, "Value": re.sub(r"[^\w\s.:/=+\-@]", "_", value)}
        for key, value in tags.items()
        if not key.lower().startswith("rds:")
    ]


def tags_of(row: Row) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in row.get("TagList", ())}


def is_of_step(found: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Whether what carries the tags `found` was made by the step that gives the tags `tags`."""
    return all(found.get(key) == tags[key] for key in OF_STEP)


def shown(row: Row, arn: str) -> Shown:
    """A snapshot as describe calls show it. Whatever it does beside being available or failed ends by itself."""
    states = {"available": SnapshotStatus.COMPLETED, "failed": SnapshotStatus.ERROR}
    kept = {"engine_version": row.get("EngineVersion"), "kms_key_id": row.get("KmsKeyId")}
    return Shown(
        states.get(row["Status"], SnapshotStatus.PENDING),
        progress=row.get("PercentProgress", 0),
        details={"snapshot_arn": arn, **{name: value for name, value in kept.items() if value}},
        capacity=row.get("AllocatedStorage"),
    )


def listed(row: Row, tags: Mapping[str, str], details: Mapping[str, Any], copied_from: str) -> Listed:
    """A snapshot for who has no record of it; `copied_from` is the ARN of what a copy comes from."""
    cluster = "DBClusterSnapshotArn" in row
    arn = row["DBClusterSnapshotArn" if cluster else "DBSnapshotArn"]
    encrypted = bool(row.get("StorageEncrypted" if cluster else "Encrypted"))
    home = (copied_from or arn).split(":")
    seen = {
        "engine": row["Engine"],
        "engine_version": row.get("EngineVersion", ""),
        "port": row.get("Port"),
        "storage_type": row.get("StorageType", ""),
        "capacity": row.get("AllocatedStorage"),
        "encrypted": encrypted,
        "kms_key_id": row.get("KmsKeyId", ""),
        "iam_authentication": bool(row.get("IAMDatabaseAuthenticationEnabled")),
    }
    return Listed(
        aws_id=row["DBClusterSnapshotIdentifier" if cluster else "DBSnapshotIdentifier"],
        source_id=row["DBClusterIdentifier" if cluster else "DBInstanceIdentifier"],
        made=row["SnapshotCreateTime"],
        shown=shown(row, arn),
        tags=tags,
        details={**seen, **details},
        encrypted=encrypted,
        source_region=home[3],
        source_account=home[4],
        copy=bool(copied_from),
    )


def may_be_ours(row: Row, name: str) -> bool:
    """Whether a snapshot is named as ours and stays; one that has only been asked for may have no time yet."""
    return bool(row[name].startswith(OURS) and row.get("SnapshotCreateTime") and row["Status"] != "deleting")


def growing(status: str) -> Growing:
    """How far something is that a recovery makes."""
    if status in FAILED:
        return Growing(failed=f"it is in state {status}.")
    return Growing(done=status in READY)


def accounts(attributes: Sequence[Row]) -> set[str]:
    """The accounts that may restore a snapshot, from its attributes."""
    return {value for one in attributes if one["AttributeName"] == "restore" for value in one.get("AttributeValues", ())}


def name_problem(field: str, request: Mapping[str, Any]) -> Problems:
    if re.fullmatch(NAME, str(request.get(field) or "").lower()):
        return {}
    return {
        field: "An id has 1 to 63 letters, digits and single dashes; it begins with a letter and ends with no dash."
    }


def port_problem(request: Mapping[str, Any]) -> Problems:
    port = request.get("port")
    if port is None or port in PORTS:
        return {}
    return {"port": f"A port of a database is a number from {PORTS[0]} to {PORTS[-1]}."}


def at_home(held: Held, place: Place) -> bool:
    """Whether the place is where the original is or was: groups that it was in exist only there."""
    arn = str(held.details.get("database_arn") or "").split(":")
    return arn[3:5] == [place.region, place.account_number]


@dataclass(frozen=True, slots=True)
class Network:
    """Where a database is put. Without a subnet group AWS takes the default VPC, without security groups its default.
    `original` says that it is where the original is or was."""

    subnet_group: str = ""
    security_groups: Sequence[str] = ()
    original: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        groups = {"VpcSecurityGroupIds": list(self.security_groups)} if self.security_groups else {}
        return groups | ({"DBSubnetGroupName": self.subnet_group} if self.subnet_group else {})


def network(client: AwsClient, held: Held, request: Mapping[str, Any], place: Place) -> Network:
    """Where the recovered database goes: as asked for, else as it was, as far as there is such a subnet group."""
    kept = str(held.details.get("subnet_group_name") or "")
    wanted = str(request.get("subnet_group_name") or "").lower()
    home = at_home(held, place)
    if not wanted and not home and kept not in subnet_groups(client):
        return Network()
    group = wanted or kept
    original = home and group == kept
    return Network(group, held.details.get("security_groups") or () if original else (), original)


def subnet_groups(client: AwsClient) -> dict[str, set[str]]:
    """The zones of all subnet groups by name."""
    return {
        one["DBSubnetGroupName"]: {subnet["SubnetAvailabilityZone"]["Name"] for subnet in one["Subnets"]}
        for one in client.paginate("DescribeDBSubnetGroups", "DBSubnetGroups")
    }


def network_problems(client: AwsClient, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
    """What is wrong with the subnet group that is asked for, or with the original's."""
    chosen = network(client, held, request, place).subnet_group
    known = subnet_groups(client)
    if chosen and chosen not in known:
        return {"subnet_group_name": f"There is no subnet group {chosen} in {place.region}; name another one."}
    zone = request.get("zone")
    if zone and chosen and zone not in known[chosen]:
        return {"zone": f"The subnet group {chosen} has no subnet in {zone}; it covers {', '.join(sorted(known[chosen]))}."}
    return {}


def class_problems(client: AwsClient, engine: str, chosen: str, request: Mapping[str, Any]) -> Problems:
    """Whether AWS offers the class for the engine in this region, and in the zone that is asked for."""
    answer = client.call(
        "DescribeOrderableDBInstanceOptions", Engine=engine, DBInstanceClass=chosen, MaxRecords=BATCH
    )
    options = answer["OrderableDBInstanceOptions"]
    if not options:
        return {"db_instance_class": f"AWS does not offer {chosen} for {engine} in {client.region}; choose another class."}
    zones = {zone["Name"] for option in options for zone in option["AvailabilityZones"]}
    zone = request.get("zone")
    if zone and zone not in zones:
        return {"zone": f"AWS does not offer {chosen} in {zone}; choose one of {', '.join(sorted(zones))}."}
    return {}
