"""A real worker of a place: started with `cpm worker --place`, woken through Redis, and gone without a goodbye."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.utils import timezone

from cpm.embedded import processes, programs
from cpm.flows.table import ENGINE
from cpm.jobs import fleet, queue, runner, sweeper
from cpm.models import FleetMember, Step, WorkerTest
from cpm.services import worker_configurations
from tests import factories
from tests.domain.conftest import aws, simulator, world  # noqa: F401 (fixtures)
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT
from tests.system.fleet import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
PLACE = f"{DEFAULT_ACCOUNT}:us-east-1"


@pytest.fixture
def worker(world: World, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:  # noqa: F811
    """A worker that serves nothing but its place, on the database of this test."""
    url = urlsplit(os.environ["CPM_DATABASE_URL"])
    env = {
        **os.environ,
        **programs.import_path(os.environ),
        "CPM_DATABASE_URL": url._replace(path=f"/{connection.settings_dict['NAME']}").geturl(),
        "CPM_AWS_ENDPOINT_URL": world.aws.url,
        "CPM_DATA": str(tmp_path),
        "CPM_JOBS_WAKE": "workers.wake.send",
    }
    command = [
        *(sys.executable, "-m", "cpm.cli", "worker", "--queues", "", "--place", PLACE),
        *("--concurrency", "1", "--name", "near"),
    ]
    with (tmp_path / "worker.log").open("wb") as log:
        process = processes.spawn(command, env=env, log=log, cwd=tmp_path, death_signal=signal.SIGKILL)
    try:
        served = lambda: fleet.served_at_places() or process.poll() is not None  # noqa: E731
        wait_for(served, 60, f"the worker is there; its log: {(tmp_path / 'worker.log').read_text()[-2000:]}")
        yield process
    finally:
        processes.end_group(process)


@pytest.fixture
def woken(settings) -> Iterator[None]:
    """Messages go to the broker, as they do in a server."""
    settings.CPM_JOBS_WAKE = "workers.wake.send"
    queue._wake.cache_clear()
    yield
    queue._wake.cache_clear()


def started(world: World) -> WorkerTest:  # noqa: F811
    """A test of a configuration; whether it finds something does not matter here."""
    row = factories.worker_configuration(world.account)
    return worker_configurations.start_test(actor=world.actor, configuration=row, now=timezone.now())


def test_work_of_a_place_is_done_there_and_by_everybody_when_its_worker_is_killed(world, worker, woken):  # noqa: F811
    near = FleetMember.objects.get(queues=[f"s3@{PLACE}"])
    test = started(world)

    wait_for(lambda: WorkerTest.objects.filter(pk=test.pk).exclude(end_time=None), 60, "the test has run")

    test.refresh_from_db()
    assert test.worker_id == near.pk
    assert "No worker runs at" not in test.details

    os.killpg(worker.pid, signal.SIGKILL)
    left = worker_configurations.start_test(
        actor=world.actor, configuration=test.configuration, now=timezone.now()
    )
    assert Step.objects.get(job__subject_id=left.pk).queue == f"s3@{PLACE}"
    FleetMember.objects.update(last_seen_at=timezone.now() - timedelta(seconds=fleet.GONE_AFTER_SECONDS + 1))
    sweeper.sweep(queues=["s3"])
    runner.drain("s3", engine=ENGINE)

    left.refresh_from_db()
    assert left.end_time is not None
    assert "No worker runs at" in left.details
