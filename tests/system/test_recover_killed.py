"""Recoveries whose worker is killed with SIGKILL: what comes back is right, and nothing is made twice or left over."""

import os
import random

import pytest

from tests.domain.conftest import aws, simulator, world  # noqa: F401 (fixtures)
from tests.domain.recovering import ids, left_over, log, shared_with, start, volume_row, volumes_of
from tests.domain.test_recover_instance import Machine
from tests.domain.world import DR_ACCOUNT
from tests.system.dying import fork_worker

pytestmark = pytest.mark.django_db(transaction=True)

LONG = os.environ.get("CPM_CHAOS") == "long"
SAMPLE = 6
REGION = "us-west-2"


@pytest.fixture
def fast(settings):
    settings.CPM_LEASE_SECONDS = 0.4
    settings.CPM_AWS_LIST_LAG_SECONDS = 0.3


def points(events: int) -> list[int]:
    everything = list(range(1, events + 1))
    return everything if LONG else sorted(random.sample(everything, min(SAMPLE, events)))


@pytest.mark.timeout(3000 if LONG else 240)
@pytest.mark.parametrize("asked", ["S", "I"])
def test_an_instance_comes_back_once_in_another_region(world, aws, fast, asked):  # noqa: F811
    machine = Machine(world, aws)
    machine.destroy()
    request = {"to_region": world.region_id(REGION), "restore_from": asked}
    if asked == "I":
        request["image_id"] = aws.image((1,), region=REGION)
    start(world, machine.row, **request)
    _, events = fork_worker(None)

    for point in points(events):
        before = set(left_over(world, region=REGION))
        recovery = start(world, machine.row, **request)
        fork_worker(point)
        fork_worker(None)

        recovery.refresh_from_db()
        assert recovery.status == "R", (point, recovery.outcome, log(recovery))
        [made] = ids(recovery)
        machine.assert_bytes(made, REGION)
        volumes = {volume["VolumeId"] for volume in volumes_of(world, made, REGION).values()}
        assert set(left_over(world, region=REGION)) == before | {made, *volumes}, point


@pytest.mark.timeout(3000 if LONG else 240)
def test_a_volume_comes_back_once_in_another_account(world, aws, fast):  # noqa: F811
    volume = aws.volume()
    aws.write(volume, b"as it was" * 1000)
    row = volume_row(world.back_up(world.policy(volume), status="B"))
    other = world.add_account(DR_ACCOUNT)
    start(world, row, to_account=other.pk)
    _, events = fork_worker(None)

    for point in points(events):
        before = set(left_over(world, account=DR_ACCOUNT))
        recovery = start(world, row, to_account=other.pk)
        fork_worker(point)
        fork_worker(None)

        recovery.refresh_from_db()
        assert recovery.status == "R", (point, recovery.outcome, log(recovery))
        assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
        assert set(left_over(world, account=DR_ACCOUNT)) == before | set(ids(recovery)), point
        assert shared_with(world, row.aws_id) == [], point
