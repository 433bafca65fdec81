"""A simulated AWS for flow tests, and CPM set up to use it."""

import os
from collections.abc import Iterator

import pytest

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate
from tests import simulated_aws
from tests.domain.world import World
from tests.simulated_aws import SimulatedAws


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield running
    running.stop()


@pytest.fixture
def aws(simulator: SimulatedAws) -> SimulatedAws:
    """An empty AWS in which things take no time."""
    simulator.reset()
    return simulator


@pytest.fixture
def world(aws: SimulatedAws, transactional_db: None, settings) -> World:
    """CPM with one account of the simulated AWS, its jobs run in this process."""
    settings.CPM_POLL_SECONDS = 0.05
    settings.CPM_AWS_LIST_LAG_SECONDS = 0.5
    settings.CPM_RETRY_BASE_SECONDS = 0.05
    gateway.configure(
        gateway.GatewayConfig(
            endpoint_url=aws.url,
            redis_url=os.environ["CPM_REDIS_URL"],
            rates={family: Rate(100_000, 100_000) for family in DEFAULT_RATES},
        )
    )
    return World(aws)
