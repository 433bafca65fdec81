"""How many AWS calls the backup of 1,000 volumes of one account and region costs, counted at the simulator.

Snapshots take 60 seconds of the simulator's time; the steps run in this process, as workers would run them.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence

from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate
from cpm.models import Backup, Target
from cpm.services import backups
from tests import simulated_aws
from tests.domain.world import World

VOLUMES = 1000
SNAPSHOT_SECONDS = 60


def main(arguments: Sequence[str]) -> None:
    """Build the volumes, run the backup, print the calls by action."""
    call_command("migrate", verbosity=0)
    settings.CPM_JOBS_WAKE = "cpm.jobs.queue.no_wake"
    with tempfile.TemporaryDirectory() as folder:
        aws = simulated_aws.start(folder)
        try:
            count(aws)
        finally:
            aws.stop()


def count(aws: simulated_aws.SimulatedAws) -> None:
    rates = {family: Rate(100_000, 100_000) for family in DEFAULT_RATES}
    gateway.configure(gateway.GatewayConfig(endpoint_url=aws.url, rates=rates))
    world = World(aws)
    policy = world.policy()
    Target.objects.bulk_create(
        Target(policy=policy, resource_type="volumes", aws_region="us-east-1", aws_resource_id=aws.volume())
        for _ in range(VOLUMES)
    )
    aws.timing(snapshot_seconds=SNAPSHOT_SECONDS)
    since, began = aws.last_call(), time.monotonic()

    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    while Backup.objects.get(pk=backup.pk).status in "IP":
        if not world.work():
            time.sleep(0.1)

    actions = Counter(call["action"] for call in aws.calls(since))
    creates = actions.pop("CreateSnapshot", 0)
    print(f"{VOLUMES} volumes: status {Backup.objects.get(pk=backup.pk).status}, {time.monotonic() - began:.0f} s")
    print(f"creates {creates} (goal at most {VOLUMES})   other calls {sum(actions.values())} (goal at most 60)")
    for action, times in actions.most_common():
        print(f"  {action:24} {times}")
