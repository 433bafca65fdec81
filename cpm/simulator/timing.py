"""How long things take, and the limits that AWS sets on doing many at once.

Both are settable through the control endpoint; a change holds for what is started after it.
"""

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from cpm.simulator.errors import AwsError


def now() -> datetime:
    """The simulator's clock is the real clock, in UTC."""
    return datetime.now(UTC)


@dataclass
class Timing:
    """Seconds from the call until the thing has settled.

    ``database_*`` are RDS, Aurora and Redshift, ``table_seconds`` a DynamoDB table or backup, ``backup_job_seconds`` a job of
    AWS Backup, ``file_system_seconds`` an EFS file system, and ``backup_day_seconds`` how long a day is of those that the
    lifecycles of AWS Backup count. ``retrieval_seconds`` is what the retrieval of an archived object takes, and ``archive_day_seconds`` how long a day
    is of those for which it then stays.
    """

    snapshot_seconds: float = 0.0
    copy_seconds: float = 0.0
    image_seconds: float = 0.0
    volume_seconds: float = 0.0
    instance_seconds: float = 0.0
    command_seconds: float = 0.0
    database_seconds: float = 0.0
    database_snapshot_seconds: float = 0.0
    table_seconds: float = 0.0
    backup_job_seconds: float = 0.0
    backup_day_seconds: float = 86400.0
    file_system_seconds: float = 0.0
    retrieval_seconds: float = 0.0
    archive_day_seconds: float = 86400.0


@dataclass
class Limits:
    """AWS's quotas.

    AWS: EBS endpoints and quotas. 20 copies at a time may run to one destination region of an account.
    ``seconds_between_snapshots`` is AWS's rate of snapshots of one volume (0 switches it off).
    AWS: RDS User Guide, Quotas and constraints, and Copying a DB snapshot, for the ``database`` ones, each of which
    counts snapshots of instances and of clusters apart.
    """

    concurrent_copies: int = 20
    seconds_between_snapshots: float = 0.0
    block_token_seconds: float = 604800.0
    manual_database_snapshots: int = 100
    concurrent_database_copies: int = 20


def change(target: Timing | Limits, wanted: dict[str, Any]) -> dict[str, Any]:
    """Sets the named fields and answers all of them; an unknown or negative one is refused."""
    known = {field.name: field.type for field in fields(target)}
    for name, value in wanted.items():
        if name not in known or not isinstance(value, int | float) or value < 0:
            raise AwsError(
                "BadControl", f"{name}={value!r} is not one of {', '.join(known)} with a number >= 0"
            )
        setattr(target, name, type(getattr(target, name))(value))
    return asdict(target)


@dataclass
class Settling:
    """A span from start to settled; state and progress follow from the clock, nothing has to run."""

    start: datetime
    seconds: float

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def done(self, moment: datetime | None = None) -> bool:
        return (moment or now()) >= self.end

    def percent(self, moment: datetime | None = None) -> int:
        """0 to 99 on the way, 100 only when settled."""
        if self.done(moment):
            return 100
        passed = ((moment or now()) - self.start).total_seconds()
        return min(99, max(0, int(100 * passed / self.seconds)))
