"""What a resource type declares. Everything that differs between AWS resources is in its class, nothing elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.iam_policy import IamAction
from cpm.lib.states import SnapshotStatus


@dataclass(frozen=True, slots=True)
class Described:
    """One existing resource, as AWS described it a moment ago. `details` is what a target keeps of it."""

    id: str
    tags: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The `Name` tag, which is what AWS's console shows as the name."""
        return self.tags.get("Name", "")

    @property
    def tagged(self) -> bool:
        """Whether the resource carries the tag that tag scans look for."""
        return any(key.lower() in SCAN_TAGS for key in self.tags)


@dataclass(frozen=True, slots=True)
class Shown:
    """What AWS says of one snapshot, image or copy: its state in our words, progress, and details worth keeping.

    `capacity` is that of the resource at the moment of its snapshot, which may have grown since it was described. `aws_id`
    is the id under which it is known from now on, where that differs from the one that it was started under.
    """

    state: SnapshotStatus
    progress: int = 0
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    capacity: int | None = None
    aws_id: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a user's profile: its field, what it counts, and what adds up: a key of the details, or targets."""

    field: str
    what: str
    summed: str = ""


SCAN_TAGS = frozenset({"cpm backup", "cpm_backup"})


class ResourceType(ABC):
    """One kind of AWS resource that a policy can protect. Subclasses are listed in `cpm.resources.registry`."""

    key: ClassVar[str]
    """The segment of the routes under a policy's targets, and `resource_type` of targets and snapshots."""
    noun: ClassVar[str]
    """What one of them is called in messages, after "the" or "no"."""
    id_field: ClassVar[str] = "aws_resource_id"
    """The field of a request that names the resource."""
    service: ClassVar[str]
    """The boto name of the AWS service that has it."""
    id_pattern: ClassVar[str]
    """A regular expression for its ids in AWS."""
    details: ClassVar[Sequence[str]]
    """The keys of `Described.details`, all always present."""
    iam_actions: ClassVar[Sequence[IamAction]]
    """What describing it needs; the flows declare their own."""
    policy: ClassVar[str] = "backup-account"
    """The policy of deploy/iam that has these actions."""

    @abstractmethod
    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        """The resources of these ids that exist now; one that is missing from the answer does not exist.

        Costs one call per 200 ids. Raises `AwsError` for everything else.
        """

    def existing(self, client: AwsClient, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Described]:
        """The resources of these ids that exist now, for a backup of all of them; `known` has the details of their
        targets by id, which stand in for what would cost a call each to ask again."""
        return self.describe(client, list(known))
