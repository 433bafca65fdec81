"""Resource types that AWS snapshots as a whole: databases, clusters, tables, file systems.

Each backup of such a resource is one snapshot record. A type says how AWS makes, shows, shares, copies, deletes and
restores its snapshots; the flows (`backup_whole`, `dr_whole`, `recover_whole`, `deletion`) do it for all types alike: once
only, in batches, resumed after any death. Nothing here waits: what takes time is started and asked about later.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.lib.states import RecoveryType
from cpm.resources.base import Described, Limit, ResourceType, Shown
from cpm.resources.fields import Shows, Takes

OURS = "cpm-"
"""What CPM makes is named so, where names can be given."""
Problems = dict[str, str]
"""What is wrong with a request, by field; empty when nothing is."""
Clients = Callable[[str], AwsClient]
"""The client of a service, by its boto name, in one account and region."""


class Dr(StrEnum):
    """What DR of a type consists of."""

    NONE = "none"
    COPY = "copy"
    """A copy of its own in another region or account."""
    GRANT = "grant"
    """The right to restore the snapshot, given to the DR account."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Clients of the place that a copy comes from and of the one that it goes to."""

    source: AwsClient
    target: AwsClient


@dataclass(frozen=True, slots=True)
class Place:
    """A region of an account; `same_account` says whether that is the account that was backed up."""

    account_number: str
    region: str
    same_account: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """What the record of a snapshot knows."""

    aws_id: str
    source_id: str
    region: str
    account_number: str
    details: Mapping[str, Any]
    encrypted: bool = False
    capacity: int | None = None
    started: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A snapshot or copy of ours as AWS shows it to who has no record of it. `source_region` and `source_account` say where its
    source is or was, empty where AWS does not tell; `made` when it was begun, `details` and `encrypted` what AWS shows of the
    resource with it, `name` its name where it has no tags, and `copy` that it surely is a copy in another place."""

    aws_id: str
    source_id: str
    made: datetime
    shown: Shown
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    encrypted: bool = False
    source_region: str = ""
    source_account: str = ""
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Making:
    """A snapshot, or a copy of one, that is to be made. `name` and `token` are the same at every attempt of one step and
    different from every other step's; `since` is when the first attempt began, `place` where it is to be, and `details` what
    the record keeps of the resource."""

    resource_id: str
    name: str
    token: str
    tags: Mapping[str, str]
    since: datetime
    options: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restoring:
    """A resource that is to be made from a snapshot.

    `snapshot` is what to restore from (an id, or the ARN of a shared one), `request` the body of the recovery, `tags` what
    the new resource is to carry, `earlier` the ids of what the stages before have made, `token` the same at every attempt; `since`
    is when the stage first began.
    """

    snapshot: str
    held: Held
    request: Mapping[str, Any]
    place: Place
    tags: Mapping[str, str]
    token: str
    earlier: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Growing:
    """How far a resource is that is being restored. `failed` tells why it never will be; `id` is its id where the
    restoring call could not know it yet; `absent` that AWS does not show it."""

    done: bool = False
    failed: str = ""
    progress: int | None = None
    id: str = ""
    absent: bool = False


class WholeResource(ResourceType):
    """A type whose backup is one snapshot of the whole resource."""

    since: ClassVar[str] = "1.1.0"
    """The version of the API that first had its targets; `since_snapshots` and `dr_since` are of those and their recovery."""
    since_snapshots: ClassVar[str] = "1.1.0"
    dr_since: ClassVar[str] = "1.1.0"
    target_fields: ClassVar[Sequence[Shows]]
    """What the API shows of a target beyond its id, region, type and whether it is tagged."""
    target_takes: ClassVar[Sequence[Takes]] = ()
    """What may be chosen for a target, when it is made and later."""
    report_word: ClassVar[str] = ""
    """What the report of protected resources calls it, if not by its key."""
    limit: ClassVar[Limit | None] = None

    recovery_type: ClassVar[RecoveryType]
    snapshot_service: ClassVar[str] = ""
    """The boto name of the service that has its snapshots, if it is another one."""
    kind: ClassVar[str]
    """The list under a backup's snapshots in which the API shows them."""
    dr_kind: ClassVar[str] = ""
    """The list that shows its DR copies; empty where there are none."""
    snapshot_word: ClassVar[str]
    """What reports call such a snapshot; a copy has `_copy` after it."""
    snapshot_fields: ClassVar[Sequence[Shows]] = ()
    """What the API shows of a snapshot beyond what all snapshots show."""
    dr_fields: ClassVar[Sequence[Shows]] = ()
    recover_takes: ClassVar[Sequence[Takes]]
    takes_tags: ClassVar[bool] = True
    """Whether its snapshots carry tags; without them all that they tell is in their names."""
    names_repeat: ClassVar[bool] = False
    """Whether AWS makes a second snapshot of the same name or token, so that a late attempt may leave one behind."""
    stages: ClassVar[Sequence[str]] = ("resource",)
    """What a recovery makes, in this order; the first is what was asked for."""
    dr: ClassVar[Dr] = Dr.NONE
    shared: ClassVar[bool] = True
    """Whether another account must be let use a snapshot before it can be copied there."""
    default_key_alias: ClassVar[str] = ""
    """The AWS managed key of the service; what it encrypts cannot be shared. Empty where copies take no key."""

    def service_of(self, stage: str) -> str:
        """The boto name of the service that makes what a stage of recovery makes."""
        return self.service

    @property
    def snapshots_in(self) -> str:
        """The boto name of the service that has the snapshots."""
        return self.snapshot_service or self.service

    # -- targets --------------------------------------------------------------------------------------------

    def unfit(self, found: Described) -> str:
        """Why this very resource cannot be a target of this type, and what can; empty if it can."""
        return ""

    def option_problems(self, options: Mapping[str, Any]) -> Problems:
        """What is wrong with what was chosen for a target, all of it together."""
        return {}

    # -- snapshots ------------------------------------------------------------------------------------------

    @abstractmethod
    def create(self, client: AwsClient, making: Making) -> str:
        """Start a snapshot; returns its AWS id."""

    @abstractmethod
    def find(self, client: AwsClient, making: Making) -> list[str]:
        """Ids of what earlier attempts of the same step have made, oldest first."""

    @abstractmethod
    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        """What AWS shows of these snapshots now, by `aws_id`; one that does not exist is missing from the answer. Asks in
        batches."""

    @abstractmethod
    def listed(self, client: AwsClient) -> Iterator[Listed]:
        """All snapshots and copies in the client's account and region that may be ours by their names, and are no other type's;
        whether they are is for their tags or names to say. Not those that are on their way out, nor those that will be
        known by another id."""

    @abstractmethod
    def delete(self, client: AwsClient, held: Held) -> None:
        """Delete a snapshot or a copy. Raises `NotFound` if it is gone already."""

    def outlives_policy(self, held: Held, now: datetime) -> bool:
        """Whether the user chose a lifetime of its own for it that is not over: retention leaves it then."""
        return False

    def mark_outdated(self, client: AwsClient, held: Held, key: str) -> bool:
        """Tag a copy that may not be deleted; False where AWS has no tags for it."""
        return False

    # -- DR -------------------------------------------------------------------------------------------------

    def why_not_copied(self, held: Held, target: Place) -> str:
        """Why DR to that place is left out; empty if it is possible."""
        return f"AWS cannot copy snapshots of a {self.noun}."

    def shared_with(self, client: AwsClient, aws_id: str) -> set[str]:
        """The numbers of the accounts that may use the snapshot."""
        raise NotImplementedError(f"{self.key} is not shared")

    def share(self, client: AwsClient, aws_id: str, number: str) -> None:
        """Let the account of this number use the snapshot. Sharing again changes nothing."""
        raise NotImplementedError(f"{self.key} is not shared")

    def unshare(self, client: AwsClient, aws_id: str, number: str) -> None:
        """Take it back. Taking it back again changes nothing."""
        raise NotImplementedError(f"{self.key} is not shared")

    def copy(self, sides: Sides, held: Held, making: Making, target: Place, key_id: str) -> str:
        """Start a copy for that place; returns its id. `key_id` is empty for what is not encrypted."""
        raise NotImplementedError(f"{self.key} is not copied")

    def copies(self, sides: Sides, held: Sequence[Held]) -> dict[str, Shown]:
        """Like `snapshots`, for copies that are being made."""
        return self.snapshots(sides.target, held)

    def find_copies(self, sides: Sides, held: Held, making: Making) -> list[str]:
        """Like `find`, for copies."""
        return self.find(sides.target, making)

    def cancel_copy(self, sides: Sides, held: Held) -> None:
        """Remove a copy that is not complete. Raises `NotFound` if there is none (any more), `InvalidState` or `InUse` while
        AWS is not ready for that."""
        self.delete(sides.target, held)

    # -- recovery -------------------------------------------------------------------------------------------

    @abstractmethod
    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        """What cannot be as asked for, told without asking AWS."""

    @abstractmethod
    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        """What AWS has, or lacks, that makes the recovery impossible: a name that is taken, a class that does not exist."""

    def needs_copy(self, held: Held, place: Place) -> bool:
        """Whether a snapshot of another account must be copied before it can be restored there."""
        return False

    def shared_id(self, held: Held) -> str:
        """The id of the snapshot for other accounts."""
        return held.aws_id

    @abstractmethod
    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        """Start to make what the stage makes; returns its id."""

    @abstractmethod
    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        """Ids of what earlier attempts of the same stage have made: only what surely is theirs, by its tags, its token or
        the snapshot that it comes from. Empty also where making it again changes nothing."""

    @abstractmethod
    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        """How far these are, by the ids that `restore` returned."""

    def stays(self, id: str, stage: str, request: Mapping[str, Any]) -> str:
        """What of a stage stays though the recovery did not succeed, in words for the log; empty if it is to be undone."""
        return ""

    @abstractmethod
    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        """Remove what a recovery has made and could not finish; False while AWS is not ready for that. Absent: True."""
