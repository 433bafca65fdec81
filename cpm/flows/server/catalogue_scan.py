"""Reading from AWS what backups of this server have made: the snapshots and images with our tags, and their meaning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from cpm.aws.gateway import AwsClient
from cpm.flows import tags, whole
from cpm.flows.cleanup.deletion import IMAGES
from cpm.flows.server import catalogue_tags
from cpm.lib.names import SERVER_DATA
from cpm.lib.states import SnapshotKind, SnapshotStatus
from cpm.models import Account
from cpm.resources.registry import DR_KINDS, WHOLE
from cpm.resources.whole import Listed, WholeResource

# What a DR copy is a copy of.
NATIVE: Mapping[str, str] = {
    SnapshotKind.DR_VOLUME: SnapshotKind.VOLUME,
    SnapshotKind.DR_INITIAL_AMI: SnapshotKind.INITIAL_AMI,
    SnapshotKind.ONLY_DR_AMI: SnapshotKind.ONLY_AMI,
    **{kind.dr_kind: kind.kind for kind in WHOLE if kind.dr_kind},
}
_SNAPSHOT_STATES = {"completed": SnapshotStatus.COMPLETED, "pending": SnapshotStatus.PENDING}
_IMAGE_STATES = {"available": SnapshotStatus.COMPLETED, "pending": SnapshotStatus.PENDING}


@dataclass(frozen=True)
class Found:
    """One snapshot or image of a backup, as AWS shows it: `described` in EC2's words, or `listed` by its type."""

    account: Account
    region: str
    aws_id: str
    kind: str
    state: SnapshotStatus
    start: datetime
    labels: Mapping[str, str]
    described: Mapping[str, Any] = field(repr=False, default_factory=dict)
    listed: Listed | None = None

    @property
    def backup(self) -> int:
        return int(self.labels[tags.BACKUP])

    @property
    def copy(self) -> bool:
        return self.kind in DR_KINDS

    @property
    def native_kind(self) -> str:
        return NATIVE.get(self.kind, self.kind)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What `catalogue_tags` has kept; empty when there is none."""
        return catalogue_tags.unpack(self.labels) or {}

    @property
    def source_id(self) -> str:
        """What it was made of."""
        if self.listed:
            return self.listed.source_id
        if self.kind == SnapshotKind.VOLUME and self.labels.get(tags.SOURCE) != SERVER_DATA:
            return str(self.described.get("VolumeId", ""))
        return self.labels.get(tags.SOURCE, "")

    @property
    def source_region(self) -> str:
        known = self.listed.source_region if self.listed else ""
        return str(self.configuration.get("region") or known or self.region)

    @property
    def source(self) -> tuple[str, str, str]:
        """What tells its source from others of the same backup: ids of EC2 are unique everywhere, names are in their region."""
        return (self.native_kind, self.source_id, self.source_region if self.listed else "")

    @property
    def instance_id(self) -> str:
        """The instance that it belongs to; empty for a volume that was backed up on its own, and for what is no part of one."""
        if self.listed:
            return ""
        source = self.labels.get(tags.SOURCE, "")
        return str(self.configuration.get("id") or (source if source.startswith("i-") else ""))

    @property
    def target_id(self) -> str:
        """The target of the policy."""
        return self.instance_id or self.source_id

    @property
    def guessed(self) -> bool:
        """Whether only words of the policy's name are known."""
        return tags.POLICY_ID not in self.labels


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


def scan_whole(
    client: AwsClient, kind: WholeResource, account: Account, *, server_id: str, protected: str
) -> Iterator[Found]:
    """Like `scan`, for one type that AWS snapshots as a whole."""
    server = UUID(server_id)
    for one in kind.listed(client):
        labels = whole.labels_of(kind, one, server)
        said = labels.get(tags.KIND)
        ours = labels.get(tags.SERVER) == server_id and number_of(labels, tags.BACKUP) is not None
        if not ours or said not in {kind.kind, kind.dr_kind} or tags.OUTDATED in labels:
            continue
        name = kind.dr_kind if one.copy and kind.dr_kind else str(said)
        found = Found(account, client.region, one.aws_id, name, one.shown.state, one.made, labels, listed=one)
        if _belongs(found, protected):
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
