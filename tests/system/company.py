"""The customer of a fleet under chaos: starts backups and recoveries while it is mistreated.

Runs in a process of its own, as the API would: `python -m tests.system.in_django tests.system.company …`.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from cpm.flows.cleanup import strays as strays_flow
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import AmiOption, ScheduleUnit
from cpm.models import Backup, Job, Policy, PolicySchedule, Recovery, Snapshot, Step
from cpm.services import backups, cleanup, strays
from tests import factories
from tests.domain import recovering
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCESS_KEY, DEFAULT_ACCOUNT, DEFAULT_SECRET_KEY, SimulatedAws
from tests.system import accounts_closed

T = TypeVar("T")
DR_REGIONS = ("us-west-2", "eu-west-1")
MOST_OPEN_JOBS = 8


def patiently(ask: Callable[[], T], seconds: float = 60) -> T:
    """The answer of the database, however often it restarts meanwhile."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


def simulated(url: str) -> SimulatedAws:
    """The simulator that somebody else has started."""
    aws = SimulatedAws(cast("subprocess.Popen[bytes]", None), url)
    aws.keys[DEFAULT_ACCOUNT] = (DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY)
    return aws


class Company:
    """Two accounts, three regions, policies of every sort."""

    def __init__(self, aws: SimulatedAws, chance: random.Random) -> None:
        self.aws, self.chance, self.world = aws, chance, World(aws)
        self.started = 0
        self._protect()

    def _protect(self) -> None:
        world, aws = self.world, self.aws
        image = aws.image((1, 1))
        instances = [aws.instance(ImageId=image)[0] for _ in range(3)]
        volumes = [aws.volume() for _ in range(3)]
        for number, volume in enumerate(volumes):
            aws.write(volume, bytes([number + 1]) * 4096)
        dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
        dr = {
            "dr_enabled": True,
            "dr_regions": [world.region_id("us-west-2")],
            "dr_account": dr_account,
            "dr_account_regions": [world.region_id("eu-west-1")],
        }
        self.kept = world.policy(instances[0], volumes[0], generations=1000)
        self.copied = world.policy(instances[1], generations=1000, **dr)
        self.short = world.policy(volumes[1], generations=1)
        self.short_copied = world.policy(volumes[2], generations=1, **dr)
        self.images = world.policy(generations=2)
        world.target(self.images, instances[2], ami_backup_option=AmiOption.ONLY)
        self.mixed = world.policy(generations=3)
        world.target(self.mixed, instances[2], ami_backup_option=AmiOption.SINGLE)
        self.often = world.policy(*volumes, generations=1000)
        self.run_now = [self.kept, self.copied, self.short, self.short_copied, self.images, self.mixed]
        other = world.add_account("333333333333")
        world.back_up(self.kept, status="B")
        backup = Backup.objects.get(policy=self.kept)
        self.machine = recovering.instance_row(backup)
        self.disk = Snapshot.objects.get(backup=backup, source_id=volumes[0])
        self.recoveries: list[tuple[Snapshot, dict[str, Any]]] = [
            (self.disk, {}),
            (self.disk, {"to_account": other.pk}),
            (self.machine, {"restore_from": "S"}),
        ]

    def every_minute(self) -> None:
        """From now on one policy is run by its schedule; the first time at once."""
        schedule = factories.schedule(
            self.world.user, start_date=timezone.now(), every_how_many=1, every_unit=ScheduleUnit.MINUTES
        )
        PolicySchedule.objects.create(policy=self.often, schedule=schedule, next_run_at=schedule.start_date)

    def go_on(self) -> None:
        """Start something, unless there is enough to do."""
        if patiently(Job.objects.filter(finished_at=None).count) >= MOST_OPEN_JOBS:
            return
        policy = self.chance.choice(self.run_now)
        try:
            if self.chance.random() < 0.3:
                row, request = self.chance.choice(self.recoveries)
                recovering.start(self.world, row, **request)
            else:
                backups.start(actor=self.world.actor, policy=policy, now=timezone.now())
            self.started += 1
        except PreconditionFailed:
            return
        except (OperationalError, InterfaceError):
            # Whether it was committed is for the database to say; the checks count what it has.
            connection.close()

    def work_until(self, enough: Path, at_least: int) -> None:
        while self.started < at_least or not enough.exists():
            self.go_on()
            time.sleep(0.2)

    def come_to_rest(self, seconds: float) -> None:
        """No more schedules, everything that goes on to its end, and one last cleanup."""
        ends = time.monotonic() + seconds
        self._wait(lambda: not PolicySchedule.objects.filter(next_run_at__lte=timezone.now()).exists(), ends)
        self.slots = patiently(self._slots)
        patiently(lambda: PolicySchedule.objects.update(next_run_at=None))
        self._wait(self._idle, ends)
        patiently(lambda: cleanup.run(actor=None, now=timezone.now()))
        self._wait(self._idle, ends)
        # What a worker made in the moment before its death is found by the scan of the day.
        patiently(self._look_for_strays)
        self._wait(self._idle, ends)

    @staticmethod
    def _look_for_strays() -> None:
        time.sleep(settings.CPM_STRAY_SETTLED_SECONDS)
        Job.objects.filter(kind=strays_flow.KIND).update(created_at=timezone.now() - timedelta(days=1))
        strays.look(now=timezone.now())
        Step.objects.filter(job__kind=strays_flow.KIND, finished_at=None).update(not_before=timezone.now())

    def _slots(self) -> int:
        """How many scheduled moments have passed, as the planner sees it."""
        link = PolicySchedule.objects.select_related("schedule").filter(policy=self.often).first()
        if link is None or link.next_run_at is None:
            return 0
        return round((link.next_run_at - link.schedule.start_date) / timedelta(minutes=1))

    def _idle(self) -> bool:
        return not Job.objects.filter(finished_at=None).exists()

    def _wait(self, condition: Callable[[], bool], ends: float) -> None:
        while not patiently(condition):
            if time.monotonic() > ends:
                raise SystemExit(f"did not come to rest: {json.dumps(unfinished(), default=str, indent=1)}")
            time.sleep(0.2)

    def numbers(self) -> dict[str, int]:
        return {
            "jobs": Job.objects.count(),
            "steps": Step.objects.count(),
            "attempts": sum(Step.objects.values_list("attempts", flat=True)),
            "backups": Backup.objects.count(),
            "scheduled": Backup.objects.exclude(slot=None).count(),
            "slots": self.slots,
            "recoveries": Recovery.objects.count(),
            "snapshots": Snapshot.objects.exclude(kind="instances").count(),
        }

    def policies_with_generations(self) -> list[Policy]:
        return [self.short, self.short_copied, self.images, self.mixed]


def unfinished() -> list[dict[str, Any]]:
    fields = ("job__kind", "kind", "state", "attempts", "failures", "message", "lease_owner", "not_before")
    return list(Step.objects.filter(finished_at=None)[:20].values(*fields))


def main(arguments: list[str]) -> int:
    """`SEED DRAIN_SECONDS AT_LEAST FOLDER`: works until FOLDER/enough exists; writes FOLDER/report.json."""
    seed, seconds, at_least, folder = int(arguments[0]), float(arguments[1]), int(arguments[2]), Path(arguments[3])
    company = Company(simulated(os.environ["CPM_AWS_ENDPOINT_URL"]), random.Random(seed))
    (folder / "secrets.json").write_text(json.dumps(company.aws.keys))
    company.every_minute()
    (folder / "working").touch()
    company.work_until(folder / "enough", at_least)
    company.come_to_rest(seconds)
    problems = accounts_closed.problems(company)
    (folder / "report.json").write_text(json.dumps({"numbers": company.numbers(), "problems": problems}))
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0
