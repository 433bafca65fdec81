"""Many policies that fall due in one moment: `python -m tests.system.in_django tests.system.due_at_once …`."""

import json
import os
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from cpm.lib.states import ScheduleUnit
from cpm.models import Backup, Job, Policy, PolicySchedule, Schedule, Step, Target
from tests import factories
from tests.domain.world import World
from tests.system.company import simulated, unfinished

# Soon enough to be quick, late enough for all planners to be at work when it comes.
DUE_IN = timedelta(seconds=2)


def main(arguments: list[str]) -> int:
    """`POLICIES SECONDS FOLDER`: writes FOLDER/report.json with what is wrong."""
    count, seconds, folder = int(arguments[0]), float(arguments[1]), Path(arguments[2])
    world = World(simulated(os.environ["CPM_AWS_ENDPOINT_URL"]))
    volume = world.aws.volume()
    slot = timezone.now() + DUE_IN
    schedule = factories.schedule(world.user, start_date=slot, every_how_many=1, every_unit=ScheduleUnit.DAYS)
    _protect(world, volume, schedule, count)
    since = world.aws.last_call()
    ends = time.monotonic() + seconds
    while Backup.objects.filter(status="B").count() < count or Job.objects.filter(finished_at=None).exists():
        if time.monotonic() > ends:
            raise SystemExit(f"not done: {json.dumps(unfinished(), default=str, indent=1)}")
        time.sleep(0.2)
    problems = _problems(world, slot, count, since)
    (folder / "report.json").write_text(json.dumps({"problems": problems, "steps": Step.objects.count()}))
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _protect(world: World, volume: str, schedule: Schedule, count: int) -> None:
    policies = Policy.objects.bulk_create(
        Policy(user=world.user, account=world.account, name=f"due {number}") for number in range(count)
    )
    Target.objects.bulk_create(
        Target(policy=policy, resource_type="volumes", aws_region="us-east-1", aws_resource_id=volume)
        for policy in policies
    )
    PolicySchedule.objects.bulk_create(
        PolicySchedule(policy=policy, schedule=schedule, next_run_at=schedule.start_date) for policy in policies
    )


def _problems(world: World, slot: object, count: int, since: int) -> list[str]:
    runs = Counter(Backup.objects.values_list("policy_id", flat=True))
    found = [f"policy {policy} ran {times} times" for policy, times in runs.items() if times != 1]
    if Backup.objects.filter(slot=slot, status="B").count() != count or len(runs) != count:
        found.append(f"{len(runs)} of {count} policies ran")
    if Policy.objects.exclude(missed_runs=0).exists():
        found.append("the planner counts runs as missed")
    made = sum(
        call["action"] in {"CreateSnapshot", "CreateSnapshots"} and not call["error"]
        for call in world.aws.calls(since)
    )
    if made != count or world.aws.objects()["counts"]["snapshots"] != count:
        found.append(f"{made} snapshots were asked for, {world.aws.objects()['counts']['snapshots']} exist")
    return found
