"""Backup, DR, retention and recovery of every type that AWS snapshots as a whole, for the crash matrix."""

from collections.abc import Callable
from itertools import count

from cpm.models import Backup, Recovery, Snapshot
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from cpm.resources.whole import Dr
from cpm.services import backups, recoveries
from tests.domain.whole_examples import EXAMPLES
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCOUNT
from tests.system.scenario import Scenario

DR_REGION = "eu-west-1"


def recorded(key: str, kind: str, **which: object) -> set[str]:
    """The ids of the snapshots of a type that our records say exist."""
    rows = Snapshot.objects.filter(resource_type=key, kind=kind, status="completed", **which)
    return set(rows.values_list("aws_id", flat=True))


def whole_backup_scenario(world: World) -> Callable[[], Scenario]:
    """One resource of each type is backed up, and what is older than the one generation that is kept goes."""
    policy = world.policy(generations=1)
    for key, example in EXAMPLES.items():
        example.protect(world, example.make(world, f"crash-{key}"[:30].replace("_", "-")), policy)
    world.back_up(policy, status="B")

    def check() -> None:
        first, last = Backup.objects.order_by("-pk")[1], Backup.objects.order_by("-pk")[0]
        assert (first.status, last.status) == ("D", "B"), (last.outcome, world.log(last))
        for key, example in EXAMPLES.items():
            kind = WHOLE_BY_KEY[key].kind
            assert example.snapshots(world) == recorded(key, kind) == recorded(key, kind, backup=last)

    return lambda: Scenario(lambda: _start(world, policy), check)


def whole_dr_scenario(world: World) -> Callable[[], Scenario]:
    """Each type of which AWS makes copies is copied to another region and to another account."""
    fields = {"dr_enabled": True, "dr_regions": [world.region_id(DR_REGION)]}
    fields |= {"dr_account": world.add_account(DR_ACCOUNT, is_dr_account=True)}
    fields |= {"dr_account_regions": [world.region_id(DR_REGION)]}
    policy = world.policy(generations=1, **fields)
    copied = {key: example for key, example in EXAMPLES.items() if WHOLE_BY_KEY[key].dr is Dr.COPY}
    for key, example in copied.items():
        example.prepare_dr(world)
        example.protect(world, example.make(world, f"crash-{key}"[:30].replace("_", "-")), policy)

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert (last.status, last.dr_status) == ("B", "C"), (last.dr_outcome, world.log(last))
        for key, example in copied.items():
            kind = WHOLE_BY_KEY[key].dr_kind
            for number in (DEFAULT_ACCOUNT, DR_ACCOUNT):
                there = example.snapshots(world, DR_REGION, number)
                assert there == recorded(key, kind, aws_account_number=number, region=DR_REGION), key
            assert example.snapshots(world) == recorded(key, WHOLE_BY_KEY[key].kind), key

    return lambda: Scenario(lambda: _start(world, policy), check)


def whole_recover_scenario(world: World) -> Callable[[], Scenario]:
    """One resource of each type comes back under a new name, with its content, once."""
    policy = world.policy(generations=1000)
    sources = {key: example.make(world, f"crash-{key}"[:30].replace("_", "-")) for key, example in EXAMPLES.items()}
    for key, source in sources.items():
        EXAMPLES[key].protect(world, source, policy)
    world.back_up(policy, status="B")
    rows = {kind.key: Snapshot.objects.get(kind=kind.kind) for kind in WHOLE}
    held = {key: EXAMPLES[key].resources(world) for key in EXAMPLES}
    numbers = count(1)

    def begin() -> None:
        number = next(numbers)
        for key, row in rows.items():
            request = EXAMPLES[key].request(f"again-{key.replace('_', '-')}-{number}")
            recoveries.recover_whole(
                actor=world.actor, snapshot=row, request=request, credentials=None, now=world.now()
            )

    def check() -> None:
        for recovery in Recovery.objects.order_by("-pk")[: len(rows)]:
            assert recovery.status == "R", recovery.outcome
            assert recovery.snapshot is not None
            key = recovery.snapshot.resource_type
            example = EXAMPLES[key]
            made = example.recovered(recovery.recovered_resource_ids)
            held[key].add(made)
            assert example.content(world, made) == example.content(world, sources[key]), key
            assert example.resources(world) == held[key]

    return lambda: Scenario(begin, check)


def _start(world: World, policy: object) -> None:
    backups.start(actor=world.actor, policy=policy, now=world.now())


SCENARIOS = {
    "whole_backup": whole_backup_scenario,
    "whole_dr": whole_dr_scenario,
    "whole_recover": whole_recover_scenario,
}
