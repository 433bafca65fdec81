"""One simulator process for all these tests; each test starts from an empty world."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from botocore.exceptions import ClientError

from tests import simulated_aws
from tests.simulated_aws import SimulatedAws


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("simulator"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def aws(simulator: SimulatedAws) -> SimulatedAws:
    simulator.reset()
    return simulator


Refusal = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refusal:
    """A block in which AWS must refuse with this error code."""

    @contextmanager
    def expect(code: str) -> Iterator[None]:
        with pytest.raises(ClientError) as caught:
            yield
        assert caught.value.response["Error"]["Code"] == code, caught.value

    return expect
