"""What a scenario of the crash matrix is, and what AWS and the records hold of its snapshots."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cpm.models import Snapshot
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT, REGION


@dataclass
class Scenario:
    """`begin` starts the work that a worker is to be killed in, `check` looks at what has become of it.

    `failing` are the kinds of steps that fail also without any kill.
    """

    begin: Callable[[], None]
    check: Callable[[], None]
    failing: frozenset[str] = frozenset()


def ours(world: World, account: str = DEFAULT_ACCOUNT, region: str = REGION) -> list[str]:
    """The ids of all snapshots that carry our tags."""
    ec2 = world.aws.client("ec2", region, account)
    filters = [{"Name": "tag-key", "Values": ["cpm_step_id"]}]
    found = ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    return sorted(snapshot["SnapshotId"] for snapshot in found)


def recorded(**filters: Any) -> list[str]:
    """The ids of the snapshots that our records say exist."""
    rows = Snapshot.objects.filter(status="completed", **filters).exclude(kind="instances")
    ids = [i for row in rows for i in (row.details.get("snapshot_ids") or [row.aws_id])]
    return sorted(ids)
