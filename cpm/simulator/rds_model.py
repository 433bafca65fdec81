"""What the simulator keeps of RDS, Aurora, DocumentDB and Neptune: databases, their snapshots, subnet groups, exports."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cpm.simulator.timing import Settling


@dataclass(kw_only=True)
class Held:
    """Something with an ARN (its id here) and a name that is unique in its account and region."""

    id: str
    name: str
    account: str
    region: str
    settling: Settling
    doing: str = "creating"
    rest: str = "available"
    tags: dict[str, str] = field(default_factory=dict)
    created: datetime = field(init=False)
    serial: int = 0

    def __post_init__(self) -> None:
        self.created = self.settling.start

    @property
    def state(self) -> str:
        return self.rest if self.settling.done() else self.doing

    @property
    def gone(self) -> bool:
        """Whether its deletion has come to its end."""
        return self.doing == "deleting" and self.settling.done()

    def begin(self, doing: str, settling: Settling, rest: str = "available") -> None:
        """From now on it does this, and rests afterwards."""
        self.doing, self.settling, self.rest = doing, settling, rest


@dataclass(kw_only=True)
class Database(Held):
    """What an instance and a cluster have in common. ``key`` is the ARN of what encrypts it, None for plain storage."""

    resource_id: str
    engine: str
    version: str
    port: int
    key: str | None
    username: str
    database_name: str | None
    subnet_group: str | None
    security_groups: list[str]
    storage: int
    storage_type: str
    iops: int | None
    # What is kept only to be shown again, by the name that the API gives it.
    settings: dict[str, Any]


@dataclass(kw_only=True)
class DBInstance(Database):
    instance_class: str
    zone: str
    multi_az: bool = False
    public: bool = False
    throughput: int | None = None
    cluster: str | None = None
    writer: bool = False


@dataclass(kw_only=True)
class DBCluster(Database):
    zones: list[str]


@dataclass(kw_only=True)
class DatabaseSnapshot(Held):
    """A snapshot of an instance or of a cluster; ``of`` is that database as it was at the moment."""

    of: DBInstance | DBCluster
    key: str | None
    failure: str | None = None
    shared_with: set[str] = field(default_factory=set)
    public: bool = False
    source_arn: str | None = None
    original_created: datetime | None = None

    @property
    def state(self) -> str:
        if not self.settling.done():
            return self.doing
        return "failed" if self.failure else "available"

    @property
    def pending(self) -> bool:
        return not self.settling.done()

    @property
    def percent(self) -> int:
        percent = self.settling.percent()
        return min(percent, 99) if self.failure else percent

    def visible_to(self, account: str) -> bool:
        return account == self.account or self.public or account in self.shared_with


@dataclass(kw_only=True)
class SubnetGroup(Held):
    description: str
    vpc_id: str
    # subnet id -> availability zone
    subnets: dict[str, str]

    @property
    def state(self) -> str:
        return "Complete"


@dataclass
class Live:
    """Which PostgreSQL cluster stands behind an instance or a snapshot, by ARN; see ``rds_live``. Ports: of instances."""

    on: bool = False
    clusters: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class ExportTask(Held):
    source_arn: str
    source_time: datetime
    source_kind: str
    bucket: str
    prefix: str
    role_arn: str
    key: str
    only: list[str]
    # By path below the folder of the export, and what its lists say of each table.
    files: dict[str, bytes]
    tables: list[dict[str, Any]]
    warning: str | None = None
    canceled: bool = False
    failure: str | None = None
    written: bool = False

    @property
    def bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def state(self) -> str:
        if self.canceled:
            return "CANCELED"
        if self.settling.done():
            return "FAILED" if self.failure else "COMPLETE"
        return "IN_PROGRESS" if self.settling.percent() >= 10 else "STARTING"
