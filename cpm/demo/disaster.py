"""Losing things: the source, its region's snapshots, and a worker in the middle of its work."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from cpm.demo.aws import SimulatedAws, own_snapshots
from cpm.demo.errors import DemoFailed
from cpm.demo.waiting import Patience
from cpm.demo.world import World
from cpm.embedded.supervisor import Supervisor

# The answer to CreateSnapshots is held back that long, so that the worker that asked can be found and killed.
HELD_BACK_SECONDS = 7
INTERRUPTED = "CreateSnapshots"
AT_WORK = """
SELECT lease_owner FROM cpm_step
WHERE state = 'running' AND intent_at IS NOT NULL AND token IS NULL AND payload ? 'instance'
ORDER BY intent_at DESC LIMIT 1
"""


def destroy_source(world: World, patience: Patience) -> None:
    """Terminates the instance and deletes every volume."""
    ec2 = world.home
    ec2.terminate_instances(InstanceIds=[world.instance])
    patience.until("the instance's end", lambda: _state(ec2, world.instance) == "terminated", within=60)
    for volume in ec2.describe_volumes()["Volumes"]:
        ec2.delete_volume(VolumeId=volume["VolumeId"])


def _state(ec2: Any, instance: str) -> str:
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return str(shown["State"]["Name"])


def destroy_snapshots(ec2: Any) -> int:
    """Deletes every image and snapshot of an account in a region, behind CPM's back. Answers how many snapshots there were."""
    for image in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=image["ImageId"])
    found = own_snapshots(ec2)
    for snapshot in found:
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    return len(found)


class Killer:
    """Kills, with SIGKILL, the worker that waits for the answer to CreateSnapshots."""

    def __init__(
        self,
        aws: SimulatedAws,
        supervisor: Supervisor,
        workers: Sequence[str],
        database_url: str,
        patience: Patience,
    ) -> None:
        self.killed = ""
        self._aws, self._supervisor, self._workers = aws, supervisor, workers
        self._database_url, self._patience = database_url, patience
        self._since = 0

    def lie_in_wait(self) -> None:
        """AWS will be slow to answer the next CreateSnapshots."""
        self._since = self._aws.last_call()
        self._aws.control(
            "POST", "/faults", {"action": INTERRUPTED, "count": 1, "latency_seconds": HELD_BACK_SECONDS}
        )

    def strike(self) -> None:
        """Waits for the call, finds out who made it, and kills that one. Raises DemoFailed when it is too late."""
        call = self._patience.until(
            f"the call of {INTERRUPTED}",
            lambda: self._aws.calls(self._since, INTERRUPTED),
            within=150,
            every=0.1,
        )[0]
        leader = self._worker_at_work()
        # A worker leads a group of its own: its pool dies with it.
        os.killpg(leader, signal.SIGKILL)
        if time.time() > call["time"] + HELD_BACK_SECONDS:
            raise DemoFailed("the worker was found too late to be killed in the middle of its work")
        self.killed = next(name for name in self._workers if self._supervisor.pid(name) == leader)

    def _worker_at_work(self) -> int:
        """Pid of the worker whose step has called AWS and has no answer yet.

        The only look behind the public interfaces: no API tells which process does what.
        """
        with psycopg.connect(self._database_url, connect_timeout=5) as link:
            row = link.execute(AT_WORK).fetchone()
        if row is None:
            raise DemoFailed(f"no worker waits for the answer to {INTERRUPTED}")
        return os.getpgid(int(row[0].rpartition(":")[2]))
