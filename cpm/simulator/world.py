"""All state of the simulator that moto does not keep: block storage, images, identities, faults, the call log.

Networks, instances' interfaces, keys, roles and commands' documents stay in moto's own backends.
"""

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from moto.ec2.models import ec2_backends

from cpm.simulator import redshift_model
from cpm.simulator.backup_model import BackupJob, CopyJob, RecoveryPoint, RestoreJob, Vault
from cpm.simulator.blocks import GIB, BlockMap, BlockStore
from cpm.simulator.calls import CallLog
from cpm.simulator.contents import Contents
from cpm.simulator.efs_model import FileSystem
from cpm.simulator.faults import Faults
from cpm.simulator.identity import Identities
from cpm.simulator.postgres_clusters import Clusters
from cpm.simulator.rds_model import DatabaseSnapshot, DBCluster, DBInstance, ExportTask, Live, SubnetGroup
from cpm.simulator.timing import Limits, Settling, Timing, now


@dataclass
class Attachment:
    instance_id: str
    device: str
    attach_time: datetime
    delete_on_termination: bool


@dataclass
class Volume:
    id: str
    account: str
    region: str
    zone: str
    size: int
    type: str
    iops: int | None
    throughput: int | None
    encrypted: bool
    kms_key_id: str | None
    snapshot_id: str | None
    settling: Settling
    blocks: BlockMap
    attachment: Attachment | None = None
    failed: bool = False
    serial: int = 0
    last_snapshot: datetime | None = None

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def state(self) -> str:
        if not self.settling.done():
            return "creating"
        if self.failed:
            return "error"
        return "in-use" if self.attachment else "available"

    @property
    def bytes(self) -> int:
        return self.size * GIB


@dataclass
class Snapshot:
    id: str
    account: str
    region: str
    volume_id: str
    size: int
    description: str
    encrypted: bool
    kms_key_id: str | None
    settling: Settling
    blocks: BlockMap
    shared_with: set[str] = field(default_factory=set)
    public: bool = False
    failure: str | None = None
    serial: int = 0
    copy: bool = False
    open_for_writing: bool = False
    writes: int = 0
    touched: set[int] = field(default_factory=set)
    parent_id: str | None = None
    lineage: set[str] = field(default_factory=set)

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def state(self) -> str:
        if self.open_for_writing or not self.settling.done():
            return "pending"
        return "error" if self.failure else "completed"

    @property
    def progress(self) -> str:
        if self.open_for_writing:
            return "0%"
        percent = self.settling.percent()
        # AWS: DescribeSnapshots. A failed snapshot keeps the progress it had reached.
        return f"{min(percent, 99) if self.failure else percent}%"

    @property
    def bytes(self) -> int:
        return self.size * GIB

    def visible_to(self, account: str) -> bool:
        return account == self.account or self.public or account in self.shared_with


@dataclass
class Image:
    id: str
    account: str
    region: str
    name: str
    description: str
    architecture: str
    root_device: str
    virtualization: str
    ena: bool
    platform: str | None
    boot_mode: str | None
    mappings: list[dict[str, Any]]
    settling: Settling
    shared_with: set[str] = field(default_factory=set)
    public: bool = False
    failure: str | None = None
    serial: int = 0
    source_instance: str | None = None
    source_image: str | None = None
    source_region: str | None = None
    sriov: str | None = None
    imds: str | None = None

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def state(self) -> str:
        if not self.settling.done():
            return "pending"
        return "failed" if self.failure else "available"

    def snapshot_ids(self) -> list[str]:
        return [m["Ebs"]["SnapshotId"] for m in self.mappings if "SnapshotId" in m.get("Ebs", {})]

    def visible_to(self, account: str) -> bool:
        return account == self.account or self.public or account in self.shared_with


@dataclass
class Launch:
    """What moto's instance does not keep of how it was launched."""

    instance_id: str
    account: str
    region: str
    settling: Settling
    ephemeral: list[dict[str, Any]] = field(default_factory=list)
    placement: dict[str, Any] = field(default_factory=dict)
    client_token: str | None = None
    ended: datetime | None = None


class Placed(Protocol):
    """What has an id, an owner, a region and a place in the order of creation."""

    @property
    def id(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def serial(self) -> int: ...


class Shelved(Placed, Protocol):
    serial: int  # given by the shelf


T = TypeVar("T", bound=Shelved)


class Shelf(Generic[T]):
    """Objects by id and by account and region, in order of creation."""

    def __init__(self) -> None:
        self.by_id: dict[str, T] = {}
        self.by_place: dict[tuple[str, str], dict[str, T]] = {}
        self.serial = 0

    def add(self, item: T) -> T:
        self.serial += 1
        item.serial = self.serial
        self.by_id[item.id] = item
        self.by_place.setdefault((item.account, item.region), {})[item.id] = item
        return item

    def remove(self, item: T) -> None:
        del self.by_id[item.id]
        del self.by_place[item.account, item.region][item.id]

    def at(self, account: str, region: str) -> dict[str, T]:
        return self.by_place.get((account, region), {})

    def in_region(self, region: str) -> Iterator[T]:
        for (_, place), items in self.by_place.items():
            if place == region:
                yield from items.values()


@dataclass
class State:
    """The part of the world that survives a restart."""

    volumes: Shelf[Volume] = field(default_factory=Shelf)
    snapshots: Shelf[Snapshot] = field(default_factory=Shelf)
    images: Shelf[Image] = field(default_factory=Shelf)
    launches: dict[str, Launch] = field(default_factory=dict)
    # By ARN.
    db_instances: Shelf[DBInstance] = field(default_factory=Shelf)
    db_clusters: Shelf[DBCluster] = field(default_factory=Shelf)
    db_snapshots: Shelf[DatabaseSnapshot] = field(default_factory=Shelf)
    db_cluster_snapshots: Shelf[DatabaseSnapshot] = field(default_factory=Shelf)
    db_subnet_groups: Shelf[SubnetGroup] = field(default_factory=Shelf)
    db_exports: Shelf[ExportTask] = field(default_factory=Shelf)
    live: Live = field(default_factory=Live)
    # (account, region, action, client token) -> (parameters, answer)
    tokens: dict[tuple[str, str, str, str], tuple[str, Any]] = field(default_factory=dict)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: dict[str, Any] = field(default_factory=dict)
    # SNS topics by ARN, and the status of SES addresses by account and region.
    topics: dict[str, Any] = field(default_factory=dict)
    mail_identities: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    # Of Redshift, by ARN.
    redshift_clusters: Shelf[redshift_model.Cluster] = field(default_factory=Shelf)
    redshift_snapshots: Shelf[redshift_model.ClusterSnapshot] = field(default_factory=Shelf)
    redshift_subnet_groups: Shelf[redshift_model.SubnetGroup] = field(default_factory=Shelf)
    file_systems: Shelf[FileSystem] = field(default_factory=Shelf)
    backup_vaults: Shelf[Vault] = field(default_factory=Shelf)
    recovery_points: Shelf[RecoveryPoint] = field(default_factory=Shelf)
    backup_jobs: Shelf[BackupJob] = field(default_factory=Shelf)
    copy_jobs: Shelf[CopyJob] = field(default_factory=Shelf)
    restore_jobs: Shelf[RestoreJob] = field(default_factory=Shelf)
    # Of DynamoDB; the tables themselves are moto's.
    table_backups: Shelf[Any] = field(default_factory=Shelf)
    placement_groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    disabled_regions: dict[str, str] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    identities: Identities = field(default_factory=Identities)
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # What was saved before a field existed has none of it.
        self.__dict__.update({**State().__dict__, **saved})


class World:
    """Everything there is. ``lock`` guards all of it but block data, which has its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.blocks = BlockStore(folder / "blocks")
        self.postgres = Clusters(folder)
        self.faults = Faults()
        self.calls = CallLog()
        self.state = State()
        self.token_key = secrets.token_bytes(16)
        # Counts changes; what the last saved file holds is ``saved``.
        self.changes = self.saved = 0

    def tags(self, item: Placed) -> dict[str, str]:
        """The tags of one object, kept where moto's DescribeTags finds them."""
        found: dict[str, str] = ec2_backends[item.account][item.region].tags[item.id]
        return found

    def forget_tags(self, item: Placed) -> None:
        ec2_backends[item.account][item.region].tags.pop(item.id, None)

    def settling(self, kind: str) -> Settling:
        """A span that starts now and lasts as long as the timing says for this kind of thing."""
        return Settling(now(), getattr(self.state.timing, f"{kind}_seconds"))


def new_id(prefix: str) -> str:
    """A fresh id in AWS's long form."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"
