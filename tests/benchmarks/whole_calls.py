"""How many AWS calls the backup of 500 resources of one account, region and type costs, for each type, counted at the simulator.

Snapshots take 60 seconds of the simulator's time; the steps run in this process, as workers would run them.
`whole_calls KEY …` measures only these types.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence

from django.core.management import call_command

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate
from cpm.flows.identities import identity_of
from cpm.models import Backup, Target
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.services import backups
from tests import simulated_aws
from tests.domain.whole_examples import EXAMPLES
from tests.domain.whole_examples.base import REGION
from tests.domain.world import World

RESOURCES = 500
OTHERS = 40
SECONDS = {"database_snapshot_seconds": 60, "table_seconds": 60, "backup_job_seconds": 60}


def main(arguments: Sequence[str]) -> None:
    """Build the resources of each type, run the backup, print the calls by action."""
    call_command("migrate", verbosity=0)
    with tempfile.TemporaryDirectory() as folder:
        aws = simulated_aws.start(folder)
        try:
            world = world_of(aws)
            for key in arguments or EXAMPLES:
                count(world, key)
        finally:
            aws.stop()


def world_of(aws: simulated_aws.SimulatedAws) -> World:
    rates = {family: Rate(100_000, 100_000) for family in DEFAULT_RATES}
    gateway.configure(gateway.GatewayConfig(endpoint_url=aws.url, rates=rates))
    world = World(aws)
    world.region_id(REGION)
    return world


def count(world: World, key: str) -> None:
    kind, example = WHOLE_BY_KEY[key], EXAMPLES[key]
    world.aws.reset()
    world.aws.limits(manual_database_snapshots=10 * RESOURCES)
    ids = [example.make(world, f"number-{number}") for number in range(RESOURCES)]
    client = gateway.client(identity_of(world.account, session="benchmark"), kind.service, REGION)
    policy = world.policy(name=f"many-{key}".replace("_", "-"))
    defaults = {one.name: one.default for one in kind.target_takes} | example.options()
    Target.objects.bulk_create(
        Target(policy=policy, resource_type=key, aws_region=REGION, aws_resource_id=id, details=dict(found.details), options=defaults)
        for id, found in kind.describe(client, ids).items()
    )
    world.aws.timing(**SECONDS)
    since, began = world.aws.last_call(), time.monotonic()

    backup = backups.start(actor=world.actor, policy=policy, now=world.now())
    while Backup.objects.get(pk=backup.pk).status in "IP":
        if not world.work():
            time.sleep(0.1)

    world.aws.timing(**dict.fromkeys(SECONDS, 0))
    actions = Counter(call["action"] for call in world.aws.calls(since))
    creates = actions.pop(example.creates, 0)
    status, others = Backup.objects.get(pk=backup.pk).status, sum(actions.values())
    print(f"{key}: {RESOURCES} resources, status {status}, {time.monotonic() - began:.0f} s")
    print(f"  creates {creates} (goal at most {RESOURCES})   other calls {others} (goal at most {OTHERS})")
    print("  " + ", ".join(f"{action} {times}" for action, times in actions.most_common()), flush=True)
