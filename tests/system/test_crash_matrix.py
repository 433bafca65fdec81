"""The crash matrix: a worker is killed at every step boundary of every flow, and the flow still ends right.

For each flow a first run counts the events of a worker that lives. Then the flow runs again and again, its worker
killed at event 1, 2, 3 ... and replaced by a healthy one. Afterwards AWS holds exactly what it should: nothing twice,
nothing orphaned. The short form takes a sample of the events, CPM_CHAOS=long all of them.
"""

import math
import os
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.lib.states import AmiOption
from cpm.models import Backup, Job, LogLine, Snapshot, Step
from cpm.services import backups
from tests.domain import straying
from tests.domain.world import DR_ACCOUNT, World
from tests.system import whole_scenarios
from tests.system.dying import fork_worker, freeze_worker
from tests.system.recovery_scenarios import (
    agent_scenario,
    recover_from_s3_scenario,
    recover_instance_from_dr_scenario,
    recover_instance_scenario,
    recover_volume_scenario,
)
from tests.system.s3_scenarios import (
    rds_to_s3_scenario,
    s3_cleanup_scenario,
    s3_copy_scenario,
    s3_sync_scenario,
)
from tests.system.scenario import Scenario, ours, recorded

pytestmark = [pytest.mark.chaos, pytest.mark.django_db(transaction=True)]

LONG = os.environ.get("CPM_CHAOS") == "long"
SAMPLE, FROZEN_SAMPLE = 4, 1


@pytest.fixture(autouse=True)
def _strays_at_once(settings) -> None:
    """What was made late need not be an hour old."""
    settings.CPM_STRAY_SETTLED_SECONDS = 0


@pytest.fixture(autouse=True)
def _small_parts(settings) -> None:
    """A volume of a GiB is copied to S3 in two parts, and what has changed of it in two slices."""
    settings.CPM_S3_PART_GIB = 0.5
    settings.CPM_S3_SLICE_SECONDS = 0


def start(world: World, policy) -> None:
    backups.start(actor=world.actor, policy=policy, now=timezone.now())


def backup_scenario(world: World) -> Callable[[], Scenario]:
    instance, _ = world.aws.instance((1, 1))
    volume = world.aws.volume()
    policy = world.policy(instance, volume, generations=1000)
    ami = world.aws.instance((1,))[0]
    world.target(policy, ami, ami_backup_option=AmiOption.SINGLE)

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert last.status == "B", (last.outcome, world.log(last))
        assert ours(world) == recorded()
        log = " ".join(world.log(last))
        for row in Snapshot.objects.filter(backup=last).exclude(kind="instances"):
            assert f"Snapshot {row.aws_id} of {row.source_id} is complete" in log

    return lambda: Scenario(lambda: start(world, policy), check)


def dr_scenario(world: World) -> Callable[[], Scenario]:
    instance, _ = world.aws.instance((1, 1))
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    policy = world.policy(
        instance,
        generations=1000,
        dr_enabled=True,
        dr_regions=[world.region_id("us-west-2")],
        dr_account=dr_account,
        dr_account_regions=[world.region_id("eu-west-1")],
    )

    def check() -> None:
        last = Backup.objects.order_by("-pk")[0]
        assert (last.status, last.dr_status) == ("B", "C"), (last.dr_outcome, world.log(last))
        assert ours(world, region="us-west-2") == recorded(region="us-west-2")
        assert ours(world, DR_ACCOUNT, "eu-west-1") == recorded(region="eu-west-1")
        for row in Snapshot.objects.filter(backup=last, kind="volumes"):
            shown = world.aws.client("ec2").describe_snapshot_attribute(
                SnapshotId=row.aws_id, Attribute="createVolumePermission"
            )
            assert shown["CreateVolumePermissions"] == []

    return lambda: Scenario(lambda: start(world, policy), check)


def retention_scenario(world: World) -> Callable[[], Scenario]:
    policy = world.policy(world.aws.instance((1, 1))[0], generations=1)
    ami = world.target(policy, world.aws.instance((1,))[0], ami_backup_option=AmiOption.ONLY)
    assert ami.pk
    start(world, policy)
    world.run()

    def check() -> None:
        first, last = Backup.objects.order_by("-pk")[1], Backup.objects.order_by("-pk")[0]
        assert (first.status, last.status) == ("D", "B")
        assert ours(world) == recorded(backup=last)

    return lambda: Scenario(lambda: start(world, policy), check)


def strays_scenario(world: World) -> Callable[[], Scenario]:
    start(world, world.policy(world.aws.volume(), generations=1000))
    world.run()
    row = Snapshot.objects.get(kind="volumes")
    ec2 = world.aws.client("ec2")

    def begin() -> None:
        straying.made_again(ec2, row.aws_id)
        straying.image_again(world, *straying.image_of(world))
        straying.begin(now=timezone.now() + timedelta(days=1))

    def check() -> None:
        assert ours(world) == recorded()
        filters = [{"Name": "tag-key", "Values": ["cpm_step_id"]}]
        assert ec2.describe_images(Owners=["self"], Filters=filters)["Images"] == []

    return lambda: Scenario(begin, check)


SCENARIOS = {
    "backup": backup_scenario,
    "agent": agent_scenario,
    "dr": dr_scenario,
    "rds_to_s3": rds_to_s3_scenario,
    "retention": retention_scenario,
    "s3_cleanup": s3_cleanup_scenario,
    "s3_copy": s3_copy_scenario,
    "s3_sync": s3_sync_scenario,
    "strays": strays_scenario,
    "recover_volume": recover_volume_scenario,
    "recover_instance": recover_instance_scenario,
    "recover_instance_from_dr": recover_instance_from_dr_scenario,
    "recover_from_s3": recover_from_s3_scenario,
    **whole_scenarios.SCENARIOS,
}


@pytest.mark.timeout(3000 if LONG else 240)
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_worker_killed_at_any_boundary_leaves_no_trace(world, settings, name):
    strike_again_and_again(world, settings, SCENARIOS[name](world), fork_worker, SAMPLE)


# What a worker that wakes up too late has made is deleted again. A command that it has sent to an instance cannot
# be unsent, so a script may run twice then (DESIGN.md, "Jobs").
@pytest.mark.timeout(3000 if LONG else 240)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"agent"}))
def test_a_worker_that_wakes_up_too_late_changes_nothing(world, settings, name):
    strike_again_and_again(world, settings, SCENARIOS[name](world), freeze_worker, FROZEN_SAMPLE)


def strike_again_and_again(
    world: World,
    settings: object,
    make: Callable[[], Scenario],
    strike: Callable[[int], tuple[bool, int]],
    sample: int,
) -> None:
    """Count the events of an undisturbed run, then strike at each of them, or at a sample of random ones."""
    settings.CPM_LEASE_SECONDS = 0.4
    settings.CPM_AWS_LIST_LAG_SECONDS = 0.3
    plain = make()
    plain.begin()
    _, events = fork_worker(None)
    plain.check()
    hits = 0
    for point in range(1, events + 1) if LONG else points(sample):
        scenario = make()
        scenario.begin()
        hit, seen = strike(point if LONG else math.ceil(point * events))
        hits += hit
        # Runs differ in how often they poll.
        events = events if hit else min(events, seen)
        fork_worker(None)
        scenario.check()

    assert hits >= (1 if LONG else sample / 2)
    all_ended_well(world, plain)


def points(sample: int) -> list[float]:
    """Places in a run, between 0 and 1. The first ones are early, so that they are met however short the run."""
    return [random.uniform(0.01, 0.6) for _ in range((sample + 1) // 2)] + [
        random.uniform(0.01, 1) for _ in range(sample // 2)
    ]


def all_ended_well(world: World, scenario: Scenario) -> None:
    assert not Job.objects.filter(finished_at=None).exists()
    ends = Step.objects.exclude(state="succeeded").values_list("kind", "state")
    assert set(ends) == {(kind, "failed") for kind in scenario.failing}
    healthy = Job.objects.exclude(steps__kind__in=scenario.failing)
    assert not healthy.exclude(state="succeeded").exists()
    secrets = [world.account.secret_key, world.aws.credentials()[1]]
    assert not any(
        secret in line for secret in secrets for line in LogLine.objects.values_list("message", flat=True)
    )
