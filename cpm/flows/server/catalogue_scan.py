"""Reading from AWS what backups of this server have made: the snapshots and images with our tags, and their meaning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cpm.aws.gateway import AwsClient
from cpm.flows import tags
from cpm.flows.cleanup.deletion import IMAGES
from cpm.flows.server import catalogue_tags
from cpm.lib.names import SERVER_DATA
from cpm.lib.states import SnapshotKind, SnapshotStatus
from cpm.models import Account
from cpm.resources.registry import DR_KINDS

# What a DR copy is a copy of.
NATIVE = {
    SnapshotKind.DR_VOLUME: SnapshotKind.VOLUME,
    SnapshotKind.DR_INITIAL_AMI: SnapshotKind.INITIAL_AMI,
    SnapshotKind.ONLY_DR_AMI: SnapshotKind.ONLY_AMI,
}
_SNAPSHOT_STATES = {"completed": SnapshotStatus.COMPLETED, "pending": SnapshotStatus.PENDING}
_IMAGE_STATES = {"available": SnapshotStatus.COMPLETED, "pending": SnapshotStatus.PENDING}


@dataclass(frozen=True)
class Found:
    """One snapshot or image of a backup, as AWS shows it."""

    account: Account
    region: str
    aws_id: str
    kind: SnapshotKind
    state: SnapshotStatus
    start: datetime
    labels: Mapping[str, str]
    described: Mapping[str, Any] = field(repr=False)

    @property
    def backup(self) -> int:
        return int(self.labels[tags.BACKUP])

    @property
    def copy(self) -> bool:
        return self.kind in DR_KINDS

    @property
    def native_kind(self) -> SnapshotKind:
        return NATIVE.get(self.kind, self.kind)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What `catalogue_tags` has kept; empty when there is none."""
        return catalogue_tags.unpack(self.labels) or {}

    @property
    def source_id(self) -> str:
        """The volume or instance that it was made of."""
        if self.kind == SnapshotKind.VOLUME and self.labels.get(tags.SOURCE) != SERVER_DATA:
            return str(self.described.get("VolumeId", ""))
        return self.labels.get(tags.SOURCE, "")

    @property
    def source_region(self) -> str:
        return str(self.configuration.get("region") or self.region)

    @property
    def instance_id(self) -> str:
        """The instance that it belongs to; empty for a volume that was backed up on its own."""
        source = self.labels.get(tags.SOURCE, "")
        return str(self.configuration.get("id") or (source if source.startswith("i-") else ""))

    @property
    def target_id(self) -> str:
        """The target of the policy."""
        return self.instance_id or self.source_id


def number_of(labels: Mapping[str, str], key: str) -> int | None:
    """A tag that holds a positive number, or None for what somebody else has written there."""
    text = labels.get(key, "")
    return int(text) if text.isdecimal() and 0 < int(text) < 2**62 else None


def scan(
    ec2: AwsClient, account: Account, *, server_id: str, protected: str
) -> Iterator[Found]:
    """Everything in one region of one account that backups of the `protected` account have made. Raises AwsError.

    What recoveries made, what retention has given up, and the snapshots inside images are not in the answer.
    """
    filters = [
        {"Name": f"tag:{tags.SERVER}", "Values": [server_id]},
        {"Name": "tag-key", "Values": [tags.BACKUP]},
    ]
    for one in ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters):
        found = _found(account, ec2.region, one, one["SnapshotId"], _SNAPSHOT_STATES, one["StartTime"])
        if found and found.kind not in IMAGES and _belongs(found, protected):
            yield found
    for one in ec2.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters):
        made = datetime.fromisoformat(one["CreationDate"])
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
        found = _found(account, ec2.region, one, one["ImageId"], _IMAGE_STATES, made)
        if found and found.kind in IMAGES and _belongs(found, protected):
            yield found


def completed(ec2: AwsClient, ids: Sequence[str], at_once: int) -> Iterator[str]:
    """Which of these snapshots the account has, complete. Raises AwsError."""
    for start in range(0, len(ids), at_once):
        filters = [
            {"Name": "snapshot-id", "Values": list(ids[start : start + at_once])},
            {"Name": "status", "Values": ["completed"]},
        ]
        for one in ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters):
            yield one["SnapshotId"]


def _found(
    account: Account,
    region: str,
    one: Mapping[str, Any],
    aws_id: str,
    states: Mapping[str, SnapshotStatus],
    start: datetime,
) -> Found | None:
    labels = tags.as_dict(one.get("Tags"))
    kind = labels.get(tags.KIND, SnapshotKind.VOLUME)
    kind = SnapshotKind.VOLUME if kind == SERVER_DATA else kind
    if kind not in set(SnapshotKind) or number_of(labels, tags.BACKUP) is None or tags.OUTDATED in labels:
        return None
    state = states.get(one["State"], SnapshotStatus.ERROR)
    return Found(account, region, aws_id, SnapshotKind(kind), state, start, labels, one)


def _belongs(found: Found, protected: str) -> bool:
    return found.labels.get(tags.ACCOUNT, "") in {"", protected}


def highest(found: Sequence[Found], key: str) -> int:
    return max((number_of(one.labels, key) or 0 for one in found), default=0)
