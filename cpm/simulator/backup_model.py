"""What the simulator keeps of AWS Backup: vaults, recovery points with their files, and three kinds of jobs."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from cpm.simulator.efs_model import Files
from cpm.simulator.timing import Settling, now


@dataclass
class Vault:
    """``id`` is the ARN."""

    id: str
    account: str
    region: str
    name: str
    key_arn: str
    request_id: str | None
    tags: dict[str, str]
    created: datetime
    policy: str | None = None
    serial: int = 0


@dataclass
class RecoveryPoint:
    """``id`` is the ARN. ``created`` is the moment that the files are of, which a copy shares with its source."""

    id: str
    account: str
    region: str
    vault_arn: str
    resource_arn: str
    resource_name: str
    role_arn: str
    key_arn: str
    created: datetime
    settling: Settling
    lifecycle: dict[str, Any]
    day_seconds: float
    files: Files
    tags: dict[str, str]
    source_vault_arn: str | None = None
    serial: int = 0

    @property
    def status(self) -> str:
        return "COMPLETED" if self.settling.done() else "CREATING"

    @property
    def size(self) -> int:
        return sum(len(data) for data in self.files.values())

    def _after(self, name: str) -> datetime | None:
        days = self.lifecycle.get(name, -1)
        return None if days < 0 else self.created + timedelta(seconds=days * self.day_seconds)

    @property
    def delete_at(self) -> datetime | None:
        return self._after("DeleteAfterDays")

    @property
    def cold_at(self) -> datetime | None:
        return self._after("MoveToColdStorageAfterDays")

    @property
    def expired(self) -> bool:
        """AWS deletes a recovery point when its time has come, and so it is gone."""
        return self.delete_at is not None and now() >= self.delete_at

    @property
    def cold(self) -> bool:
        return self.cold_at is not None and now() >= self.cold_at


@dataclass
class Job:
    """A span that ends well or, when ``failure`` says why, badly."""

    FIRST: ClassVar[str] = "CREATED"

    id: str
    account: str
    region: str
    resource_arn: str
    role_arn: str
    size: int
    settling: Settling
    failure: str | None
    serial: int = field(default=0, kw_only=True)
    stopped: datetime | None = field(default=None, kw_only=True)

    @property
    def created(self) -> datetime:
        return self.settling.start

    @property
    def state(self) -> str:
        if self.stopped:
            return "ABORTED"
        if self.settling.done():
            return "FAILED" if self.failure else "COMPLETED"
        # AWS shows a job as waiting for a while before it runs.
        return self.FIRST if self.settling.percent() < 10 else "RUNNING"

    @property
    def ended(self) -> datetime | None:
        return self.stopped or (self.settling.end if self.settling.done() else None)

    @property
    def message(self) -> str | None:
        return self.failure if self.state == "FAILED" else None

    @property
    def percent(self) -> str:
        return f"{0 if self.stopped else self.settling.percent():.1f}"


@dataclass
class BackupJob(Job):
    vault_arn: str
    point_arn: str
    key_arn: str
    lifecycle: dict[str, Any]
    resource_name: str


@dataclass
class CopyJob(Job):
    source_vault_arn: str
    source_point_arn: str
    vault_arn: str
    point_arn: str
    lifecycle: dict[str, Any]
    resource_name: str


@dataclass
class RestoreJob(Job):
    FIRST: ClassVar[str] = "PENDING"

    vault_arn: str
    point_arn: str
    point_created: datetime
    created_arn: str | None
    metadata: dict[str, str]
