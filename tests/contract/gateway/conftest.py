import pytest
from moto.server import ThreadedMotoServer

from cpm.aws import gateway
from cpm.aws.throttle import DEFAULT_RATES, Rate
from tests import simulated_aws
from tests.contract.gateway.fake_aws import serve


@pytest.fixture
def fake():
    server, fake = serve()
    gateway.configure(gateway.GatewayConfig(endpoint_url=fake.url, connect_timeout=5, read_timeout=5))
    yield fake
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def moto_url():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def moto(moto_url):
    gateway.configure(gateway.GatewayConfig(endpoint_url=moto_url))
    return moto_url


@pytest.fixture(scope="session")
def block_simulator(tmp_path_factory):
    running = simulated_aws.start(tmp_path_factory.mktemp("blocks"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def aws(block_simulator):
    """The simulator, empty, with the gateway pointed at it."""
    block_simulator.reset()
    rates = {family: Rate(100_000, 100_000) for family in DEFAULT_RATES}
    gateway.configure(gateway.GatewayConfig(endpoint_url=block_simulator.url, read_timeout=10, rates=rates))
    return block_simulator
