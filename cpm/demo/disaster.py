"""Losing things: the source, its region's snapshots, and a worker in the middle of its work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from cpm.demo.aws import SimulatedAws, own_snapshots
from cpm.demo.errors import DemoFailed
from cpm.demo.waiting import Patience
from cpm.demo.world import World
from cpm.embedded.supervisor import Supervisor

# The answer to CreateSnapshots is held back that long, so that the worker that asked can be found and killed.
HELD_BACK_SECONDS = 9
INTERRUPTED = "CreateSnapshots"


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


def destroy_region(world: World) -> int:
    """Deletes every image and snapshot in the home region, behind CPM's back. Answers how many snapshots there were."""
    ec2 = world.home
    for image in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=image["ImageId"])
    found = own_snapshots(ec2)
    for snapshot in found:
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    return len(found)


class Killer:
    """Kills, with SIGKILL, the worker that waits for the answer to CreateSnapshots."""

    def __init__(
        self, aws: SimulatedAws, supervisor: Supervisor, environment: Mapping[str, str], patience: Patience
    ) -> None:
        self.killed = ""
        self._aws, self._supervisor = aws, supervisor
        self._environment, self._patience = environment, patience
        self._since = 0

    def lie_in_wait(self) -> None:
        """AWS will be slow to answer the next CreateSnapshots."""
        self._since = self._aws.last_call()
        self._aws.control(
            "POST", "/faults", {"action": INTERRUPTED, "count": 1, "latency_seconds": HELD_BACK_SECONDS}
        )

    def strike(self) -> None:
        """Waits for the call, finds out who made it, and kills that one."""
        call = self._patience.until(
            f"the call of {INTERRUPTED}",
            lambda: self._aws.calls(self._since, INTERRUPTED),
            within=150,
            every=0.2,
        )[0]
        worker = self._at_work()
        pid = self._supervisor.pid(worker)
        if pid is None or time.time() > call["time"] + HELD_BACK_SECONDS:
            raise DemoFailed(f"{worker} was found too late to be killed in the middle of its work")
        # A worker leads a group of its own: its pool dies with it.
        os.killpg(pid, signal.SIGKILL)
        self.killed = worker

    def _at_work(self) -> str:
        """The worker that has been at a step for longest, as the fleet tells any operator who asks."""
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "workers.app",
            "inspect",
            "active",
            "--json",
            "--timeout",
            "1",
        ]
        answer = subprocess.run(  # noqa: S603 - our own command line
            command, env=dict(self._environment), capture_output=True, text=True, timeout=60, check=False
        )
        busy = [
            (task["time_start"], name.partition("@")[0])
            for name, tasks in json.loads(answer.stdout or "{}").items()
            for task in tasks
            if task["name"] == "workers.run_step"
        ]
        if not busy:
            raise DemoFailed(f"no worker is at work: {answer.stderr[-1000:]}")
        return min(busy)[1]
