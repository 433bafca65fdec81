"""What the simulator keeps of Redshift: clusters, their snapshots, subnet groups."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cpm.simulator.timing import Settling, now

FOREVER = -1
# What a node weighs in a snapshot before anything is written; ours, AWS tells no such number.
EMPTY_NODE_MEGABYTES = 64.0


@dataclass
class Config:
    """What a snapshot keeps of its cluster and a restored cluster takes over."""

    node_type: str
    nodes: int
    db_name: str
    username: str
    port: int
    zone: str
    cluster_created: datetime
    encrypted: bool
    kms_key_id: str | None
    vpc_id: str | None
    subnet_group: str | None
    security_groups: list[str]
    public: bool = False
    enhanced_routing: bool = False
    automated_days: int = 1
    manual_days: int = FOREVER
    maintenance_window: str = "sun:05:00-sun:05:30"
    maintenance_track: str = "current"
    upgrades: bool = True


@dataclass
class Held:
    """What has an ARN, which is its ``id``, and tags."""

    id: str
    name: str
    account: str
    region: str
    settling: Settling
    tags: dict[str, str]

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def gone(self) -> bool:
        return False


@dataclass
class SubnetGroup(Held):
    description: str
    vpc_id: str
    # Zones by subnet.
    subnets: dict[str, str]
    serial: int = 0


@dataclass
class CopyAbroad:
    """Where a cluster's snapshots are copied to, and for how many days."""

    region: str
    automated_days: int
    manual_days: int


@dataclass
class Cluster(Held):
    """``phase`` is what goes on until ``until`` has settled: creating, pausing, resuming, deleting."""

    config: Config
    phase: str
    until: Settling
    host: str
    namespace: str
    restored_megabytes: float | None = None
    copies: CopyAbroad | None = None
    final_snapshot: Settling | None = None
    serial: int = 0

    @property
    def status(self) -> str:
        if self.phase == "deleting" and self.final_snapshot and not self.final_snapshot.done():
            return "final-snapshot"
        if not self.until.done():
            return self.phase
        return "paused" if self.phase == "pausing" else "available"

    @property
    def gone(self) -> bool:
        return self.phase == "deleting" and self.until.done()


@dataclass
class ClusterSnapshot(Held):
    cluster: str
    type: str
    config: Config
    megabytes: float
    # Days that it is kept; FOREVER for those that somebody must delete.
    days: int
    failed: bool = False
    shared_with: set[str] = field(default_factory=set)
    source_region: str | None = None
    serial: int = 0

    @property
    def begun(self) -> bool:
        """A copy from another region, or the first snapshot of a new cluster, is known before it begins."""
        return now() >= self.settling.start

    @property
    def status(self) -> str:
        if not self.settling.done():
            return "creating"
        return "failed" if self.failed else "available"

    @property
    def gone(self) -> bool:
        return self.days != FOREVER and now() >= self.created + timedelta(days=self.days)
