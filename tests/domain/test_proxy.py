"""The proxy in the settings is the one that AWS is called through, at once, with its password, which nobody sees."""

import base64
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpm.aws import gateway
from cpm.aws.errors import AwsError, Unreachable
from cpm.aws.identity import Keys
from cpm.aws.proxy import Proxy, is_loopback, proxies_for
from cpm.lib import errors
from cpm.lib.secrets import SecretUnreadable
from cpm.models import Actor, AuditRecord, ProxySettings
from cpm.services import proxy
from tests import certificates, factories, loopback_proxy
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

pytestmark = pytest.mark.django_db

PASSWORD = "planted proxy:pass/word"


@pytest.fixture
def through(aws: SimulatedAws, db: None):
    """The gateway as in a running process: proxies count for this machine too, and the settings are always asked."""

    def configure(every: float = 0.0) -> None:
        gateway.configure(
            gateway.GatewayConfig(
                endpoint_url=aws.url, redis_url=os.environ["CPM_REDIS_URL"], proxy_loopback=True, attempts=1
            ),
            gateway.Following(proxy.in_force, every),
        )

    configure()
    yield configure
    gateway.configure(gateway.GatewayConfig(endpoint_url=aws.url, redis_url=os.environ["CPM_REDIS_URL"]))


@pytest.fixture
def identity(aws: SimulatedAws) -> Keys:
    return Keys(*aws.credentials(), account_number=DEFAULT_ACCOUNT)


@pytest.fixture
def actor() -> Actor:
    return Actor.of(factories.root())


def _use(actor: Actor, served: loopback_proxy.LoopbackProxy, **more) -> None:
    proxy.change(actor=actor, **{"enabled": True, "address": served.address, "port": served.port, **more})


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_change_acts_on_the_next_call_without_a_restart(through, identity, actor, aws):
    with loopback_proxy.running() as first, loopback_proxy.running() as second:
        gateway.account_number(identity)
        _use(actor, first)
        gateway.account_number(identity)
        _use(actor, second)
        number = gateway.account_number(identity)
        proxy.change(actor=actor, enabled=False)
        gateway.account_number(identity)

    assert number == DEFAULT_ACCOUNT
    assert [passed.target for passed in first.passed] == [f"{aws.url}/"]
    assert len(second.passed) == 1


def test_the_password_reaches_the_proxy_and_neither_the_database_nor_the_log(
    through, identity, actor, capsys
):
    with loopback_proxy.running(credentials=f"backup:{PASSWORD}") as served:
        _use(actor, served, username="backup", password=PASSWORD)
        number = gateway.account_number(identity)
        _use(actor, served, password="wrong password")
        with pytest.raises(AwsError) as refused:
            gateway.account_number(identity)

    sent = served.passed[0].authorization.removeprefix("Basic ")
    logged = "".join(capsys.readouterr())
    assert number == DEFAULT_ACCOUNT
    assert base64.b64decode(sent).decode() == f"backup:{PASSWORD}"
    for text in (
        logged,
        str(refused.value),
        str(list(AuditRecord.objects.values())),
        str(ProxySettings.objects.values()),
    ):
        assert PASSWORD not in text and "wrong password" not in text and sent not in text


def test_the_settings_are_asked_at_most_every_few_seconds(through, identity, django_assert_num_queries):
    through(every=300.0)

    with django_assert_num_queries(1):
        gateway.account_number(identity)
        gateway.account_number(identity)


def test_a_proxy_that_is_down_fails_calls_as_unreachable(through, identity, actor):
    proxy.change(actor=actor, enabled=True, address="127.0.0.1", port=_free_port())

    with pytest.raises(Unreachable) as error:
        gateway.account_number(identity)

    assert not error.value.maybe_done


def test_a_password_that_cannot_be_opened_stops_calls_instead_of_going_round_the_proxy(
    through, identity, actor
):
    with loopback_proxy.running() as served:
        _use(actor, served, username="backup", password=PASSWORD)
    ProxySettings.objects.update(password="00000000:gAAAAAbroken")

    with pytest.raises(SecretUnreadable):
        gateway.account_number(identity)


def test_this_machine_and_excepted_hosts_are_reached_directly(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "vpce.example.com")
    one = Proxy("proxy.example.com", 3128, "a user", "p@ss:word/")
    all_of_it = {"http": one.url, "https": one.url}

    assert one.url == "http://a%20user:p%40ss%3Aword%2F@proxy.example.com:3128"
    assert "word" not in repr(one) + str(one)
    assert proxies_for(None, None, loopback_too=False) is None
    assert proxies_for(one, None, loopback_too=False) == all_of_it
    assert proxies_for(one, "https://ec2.example.org", loopback_too=False) == all_of_it
    assert proxies_for(one, "http://127.0.0.1:5000", loopback_too=False) == {}
    assert proxies_for(one, "http://127.0.0.1:5000", loopback_too=True) == all_of_it
    assert proxies_for(one, "https://vpce.example.com", loopback_too=False) == {}
    assert [is_loopback(f"http://{host}/") for host in ("localhost", "[::1]", "127.9.9.9", "10.0.0.1")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_what_is_left_out_keeps_its_value(actor):
    proxy.change(actor=actor, enabled=True, address="proxy", port=3128, username="backup", password=PASSWORD)
    before = ProxySettings.objects.get()

    proxy.change(actor=actor, enabled=False)

    after = ProxySettings.objects.get()
    assert not after.enabled
    for name in ("address", "port", "username", "password"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize("changed", [{"address": "other"}, {"port": 99}, {"username": "other"}])
def test_a_stored_password_is_not_carried_to_another_proxy(actor, changed):
    proxy.change(actor=actor, address="proxy", port=3128, username="backup", password=PASSWORD)

    with pytest.raises(errors.ValidationFailed) as refused:
        proxy.change(actor=actor, **changed)
    proxy.change(actor=actor, **changed, password="")

    assert set(refused.value.errors) == {"password"}
    assert ProxySettings.objects.get().password == ""


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"address": "http://proxy:3128"}, "address"),
        ({"address": "169.254.169.254"}, "address"),
        ({"address": "0.0.0.0"}, "address"),
        ({"address": "two words"}, "address"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"username": "a:b"}, "user"),
        ({"username": "ü"}, "user"),
        ({"password": "line\nbreak"}, "password"),
        ({"enabled": True}, "address"),
    ],
)
def test_nonsense_is_refused_by_name(actor, wrong, field):
    with pytest.raises(errors.ValidationFailed) as refused:
        proxy.change(actor=actor, **wrong)

    assert field in refused.value.errors
    assert not ProxySettings.objects.filter(enabled=True).exists()


def test_changes_are_recorded_without_the_password(actor):
    proxy.change(actor=actor, address="proxy", port=3128, username="backup", password=PASSWORD)

    record = AuditRecord.objects.get(event_type="proxy.updated")

    assert record.after["address"] == "proxy" and record.after["password"] == "…"
    assert PASSWORD not in str(record.__dict__)


def test_only_root_changes_and_tests_the_proxy():
    delegate = factories.delegate(factories.root(), allow_settings_changes=True)

    for user in (delegate, factories.user()):
        with pytest.raises(errors.PermissionDenied):
            proxy.change(actor=Actor.of(user), enabled=False)
        with pytest.raises(errors.PermissionDenied):
            proxy.test_connection(actor=Actor.of(user), address="127.0.0.1", port=1)


# -- the connection test ----------------------------------------------------------------------------------


def _codes(actor: Actor, **fields) -> list[str]:
    with pytest.raises(errors.ValidationFailed) as refused:
        proxy.test_connection(actor=actor, **fields)
    assert PASSWORD not in str(refused.value)
    return [code for pairs in refused.value.errors.values() for _, code in pairs]


def test_a_working_proxy_passes_and_nothing_is_stored(through, actor):
    with loopback_proxy.running(credentials=f"backup:{PASSWORD}") as served:
        place = {"address": served.address, "port": served.port}

        proxy.test_connection(actor=actor, **place, username="backup", password=PASSWORD)
        wrong = _codes(actor, **place, username="backup", password="wrong")
        none = _codes(actor, **place)

    assert wrong == none == ["proxy_authentication"]
    assert len(served.passed) == 3
    assert ProxySettings.objects.get().address == ""


def test_without_fields_the_stored_proxy_is_tested_and_its_password_goes_nowhere_else(through, actor):
    with (
        loopback_proxy.running(credentials=f"backup:{PASSWORD}") as served,
        loopback_proxy.running() as stranger,
    ):
        _use(actor, served, username="backup", password=PASSWORD, enabled=False)

        proxy.test_connection(actor=actor)
        proxy.test_connection(actor=actor, port=stranger.port)

    assert served.passed[0].authorization == served.expected()
    stray = stranger.passed[0].authorization
    assert PASSWORD not in base64.b64decode(stray.removeprefix("Basic ")).decode()


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_does_not_let_through_is_told_from_aws(through, actor, status):
    with loopback_proxy.running(answer=status) as served:
        assert _codes(actor, address=served.address, port=served.port) == ["proxy_blocked"]


def test_a_web_server_is_no_proxy(through, actor):
    with loopback_proxy.running(answer=200) as served:
        assert _codes(actor, address=served.address, port=served.port) == ["proxy_blocked"]


def test_what_is_wrong_with_the_connection_is_said(through, actor):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        assert _codes(actor, address="127.0.0.1", port=_free_port()) == ["proxy_refused"]
        assert _codes(actor, address="no-such-host.invalid", port=3128) == ["proxy_unknown"]
        assert _codes(actor, address="127.0.0.1", port=port) == ["proxy_timeout"]
    assert _codes(actor, address="") == ["required", "required"]


@contextlib.contextmanager
def _tls_server(folder: Path) -> Iterator[int]:
    """Takes one TLS connection after the other; clients do not trust it."""
    certificate, key = certificates.write(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                with contextlib.suppress(OSError):
                    context.wrap_socket(one, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_tunnels_are_tested_too(actor, tmp_path):
    """An https endpoint: what the tunnel says, and a certificate that nobody vouches for."""
    with loopback_proxy.running(credentials=f"backup:{PASSWORD}") as served:
        place = {"address": served.address, "port": served.port}
        gateway.configure(gateway.GatewayConfig(endpoint_url=f"https://127.0.0.1:{_free_port()}"))
        assert _codes(actor, **place, username="backup", password="wrong") == ["proxy_authentication"]
        assert _codes(actor, **place, username="backup", password=PASSWORD) == ["proxy_blocked"]
        with _tls_server(tmp_path) as port:
            gateway.configure(gateway.GatewayConfig(endpoint_url=f"https://localhost:{port}"))
            assert _codes(actor, **place, username="backup", password=PASSWORD) == ["proxy_tls"]
