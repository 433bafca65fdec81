import pytest
from moto.server import ThreadedMotoServer

from cpm.aws import gateway
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
