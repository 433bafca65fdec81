"""Pooled connections: what happens to a request when the network, a proxy or AWS does something else than answer."""

import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cpm.aws import errors, gateway
from cpm.aws.http_pool import Bounds, HttpPool, Patience, Request
from cpm.aws.identity import Keys
from cpm.aws.in_flight import InFlight
from cpm.aws.proxy import Proxy
from tests import certificates, loopback_proxy
from tests.contract.gateway import wire as wires
from tests.contract.gateway.wire import Say

KEYS = Keys("AKIAEXAMPLE", "planted-secret-key", "planted-session-token", account_number="111122223333")
SLOW_DOWN = Say(503, b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>")
THROTTLED = Say(
    400,
    b'{"Message": "Rate exceeded", "Reason": "ACCOUNT_THROTTLED"}',
    {"x-amzn-ErrorType": "RequestThrottledException", "x-amzn-RequestId": "req-1"},
)


def pool_to(url: str, service: str = "ebs", **settings) -> HttpPool:
    gateway.configure(gateway.GatewayConfig(endpoint_url=url, connect_timeout=3, read_timeout=2, **settings))
    pool = gateway.pool(KEYS, service, "eu-west-1")
    pool.patience = Patience(attempts=4, seconds=20, first_pause=0.01)
    return pool


def request(**more) -> Request:
    return Request("GetSnapshotBlock", "GET", "/snapshots/snap-1/blocks/1", **more)


def test_connections_are_kept_and_used_again() -> None:
    with wires.running(lambda seen, number: Say(body=b"x" * 70_000)) as wire:
        pool = pool_to(wire.url)

        bodies = [pool.send(request()).body for _ in range(5)]

    assert bodies == [b"x" * 70_000] * 5
    assert wire.connections == 1


@pytest.mark.parametrize(
    "first",
    [
        Say(reset=True),
        Say(body=b"y" * 100_000, cut=50_000),
        Say(body=b"y" * 100_000, cut=0),
        Say(500, b"<html>broken"),
        Say(body=b"y", delay=3),
    ],
    ids=["reset", "cut", "no body", "500", "too late"],
)
def test_a_lost_answer_is_asked_for_again(first: Say) -> None:
    with wires.running(lambda seen, number: Say(body=b"whole") if number else first) as wire:
        asked = request()

        answer = pool_to(wire.url).send(asked)

    assert answer.body == b"whole" and len(wire.seen) == 2
    assert asked.lost


@pytest.mark.parametrize("lost", [Say(reset=True), Say(500)], ids=["reset", "500"])
def test_what_may_not_be_done_twice_is_asked_once(lost: Say) -> None:
    with wires.running(lambda seen, number: lost) as wire:
        pool = pool_to(wire.url)

        with pytest.raises(errors.Unreachable) as caught:
            pool.send(request(repeatable=False))

    assert caught.value.maybe_done and len(wire.seen) == 1


def test_a_kept_connection_that_the_server_closed_costs_no_attempt() -> None:
    with wires.running(lambda seen, number: Say(body=b"fine", hang_up=True)) as wire:
        pool = pool_to(wire.url)
        pool.patience = Patience(attempts=1)

        for _ in range(3):
            assert pool.send(request()).body == b"fine"
            time.sleep(0.05)

    assert len(wire.seen) == 3 == wire.connections


def test_chunked_answers_are_put_together() -> None:
    body = bytes(range(256)) * 100
    with wires.running(lambda seen, number: Say(body=body, chunked=True)) as wire:
        pool = pool_to(wire.url)

        assert pool.send(request()).body == body
        assert pool.send(request()).body == body

    assert wire.connections == 1


def test_an_answer_longer_than_expected_is_not_taken_into_memory() -> None:
    with wires.running(lambda seen, number: Say(body=b"z" * (5 * 1024 * 1024))) as wire:
        pool = pool_to(wire.url)

        with pytest.raises(errors.Unreachable, match="more than"):
            pool.send(request())


def test_nothing_listening_is_unreachable_and_surely_not_done() -> None:
    with wires.running(lambda seen, number: Say()) as wire:
        url = wire.url
    pool = pool_to(url)

    with pytest.raises(errors.Unreachable) as caught:
        pool.send(request())

    assert not caught.value.maybe_done
    assert "could not be reached" in caught.value.explain()


def test_a_storm_of_refusals_is_waited_out_and_makes_it_slower() -> None:
    with wires.running(lambda seen, number: SLOW_DOWN if number < 7 else Say(body=b"at last")) as wire:
        pool = pool_to(wire.url)
        before = pool.in_flight.limit

        assert pool.send(request()).body == b"at last"

    assert len(wire.seen) == 8
    assert pool.in_flight.limit < before / 2


def test_a_refusal_for_the_rate_ends_as_throttled_with_the_words_of_aws() -> None:
    with wires.running(lambda seen, number: THROTTLED) as wire:
        pool = pool_to(wire.url)
        pool.patience = Patience(seconds=0.2, first_pause=0.01)

        with pytest.raises(errors.Throttled) as caught:
            pool.send(request())

    assert caught.value.request_id == "req-1" and caught.value.account == "111122223333"
    assert "ACCOUNT_THROTTLED: Rate exceeded" in caught.value.message
    assert len(wire.seen) > 1


def test_errors_hold_no_secrets_and_other_refusals_are_not_repeated() -> None:
    told = b"<Error><Code>AccessDenied</Code><Message>planted-session-token may not</Message></Error>"
    with wires.running(lambda seen, number: Say(403, told)) as wire:
        pool = pool_to(wire.url)

        with pytest.raises(errors.Denied) as caught:
            pool.send(request())

    assert "planted" not in str(caught.value) and "may not" in caught.value.message
    assert len(wire.seen) == 1
    assert wire.seen[0].headers["x-amz-security-token"] == "planted-session-token"


def test_sixty_four_requests_and_more_are_under_way_at_once() -> None:
    with wires.running(lambda seen, number: Say(body=b"ok", delay=0.15)) as wire:
        pool = pool_to(wire.url)

        with ThreadPoolExecutor(100) as threads:
            list(threads.map(lambda _: pool.send(request()), range(700)))

    # How many of them the server has in hand at once depends on how busy this machine is.
    assert pool.in_flight.most >= 64 and wire.most > 8
    assert pool.in_flight.now == 0 == pool.in_flight.bytes


def test_bytes_under_way_are_bounded() -> None:
    with wires.running(lambda seen, number: Say(body=b"ok", delay=0.05)) as wire:
        pool = pool_to(wire.url)
        pool.in_flight = InFlight(Bounds(first=50, largest_bytes=10_000))

        with ThreadPoolExecutor(30) as threads:
            list(threads.map(lambda _: pool.send(request(size=3_000)), range(40)))
            alone = threads.submit(pool.send, request(size=50_000)).result()

    assert wire.most == 3
    assert alone.body == b"ok"


def test_https_checks_the_certificate(tmp_path, monkeypatch) -> None:
    certificate, key = certificates.write(tmp_path)
    body = b"s" * 600_000
    with wires.running(lambda seen, number: Say(body=body), (str(certificate), str(key))) as wire:
        untrusting = pool_to(wire.url)
        with pytest.raises(errors.Unreachable) as caught:
            untrusting.send(request())
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        trusting = pool_to(wire.url)

        sent = [trusting.send(request(size=len(body))).body for _ in range(2)]
        into = bytearray(len(body))
        trusting.send(request(into=memoryview(into)))

    assert caught.value.code == "SSLError" and not caught.value.maybe_done
    assert sent == [body, body] and into == body and wire.connections == 1


def test_a_silent_tls_server_is_given_up(tmp_path, monkeypatch) -> None:
    certificate, key = certificates.write(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with wires.running(
        lambda seen, number: Say(delay=3 if not number else 0), (str(certificate), str(key))
    ) as wire:
        pool = pool_to(wire.url)

        assert pool.send(request()).status == 200

    assert len(wire.seen) == 2


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_requests_go_through_the_proxy_of_the_gateway(secure, tmp_path, monkeypatch) -> None:
    pair = None
    if secure:
        certificate, key = certificates.write(tmp_path)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        pair = (str(certificate), str(key))
    with (
        loopback_proxy.running("us er:p@ss") as proxy,
        wires.running(lambda seen, number: Say(body=b"through"), pair) as wire,
    ):
        settings = Proxy("127.0.0.1", proxy.port, "us er", "p@ss")
        pool = pool_to(wire.url, proxy=settings, proxy_loopback=True)

        assert pool.send(request()).body == b"through"
        refused = pool_to(wire.url, proxy=Proxy("127.0.0.1", proxy.port), proxy_loopback=True)
        with pytest.raises(errors.AwsError) as caught:
            refused.send(request())

    assert proxy.passed[0].authorization == proxy.expected()
    assert "407" in caught.value.explain()
    assert all("proxy-authorization" not in one.headers for one in wire.seen)


def test_the_early_refusal_of_a_large_body_is_heard() -> None:
    """S3 may answer and close while the body is still being sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        told = b"<Error><Code>AccessDenied</Code><Message>not you</Message></Error>"
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(told)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + told)
        connection.shutdown(socket.SHUT_RD)
        time.sleep(0.2)
        connection.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    with listener:
        pool = pool_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
        pool.patience = Patience(attempts=1)
        with pytest.raises(errors.AwsError) as caught:
            pool.send(Request("PutObject", "PUT", "/bucket/key", body=[bytes(50_000_000)]))
        thread.join()

    assert isinstance(caught.value, errors.Denied)


def test_bodies_in_pieces_are_sent_whole() -> None:
    with wires.running(lambda seen, number: Say(body=b"stored")) as wire:
        pool = pool_to(wire.url)
        pieces = [b"a" * 3_000_000, memoryview(b"b" * 10), bytearray(b"c" * 2_000_000)]

        pool.send(Request("PutObject", "PUT", "/bucket/key", body=pieces))

    assert wire.seen[0].body == b"".join(pieces)


def test_line_breaks_never_become_headers() -> None:
    with wires.running(lambda seen, number: Say()) as wire:
        pool = pool_to(wire.url)

        with pytest.raises(ValueError, match="line break"):
            pool.send(request(headers={"x-amz-meta-a": "one\r\nX-Evil: two"}))
        assert pool.send(request()).status == 200

    assert pool.in_flight.now == 0


def test_every_request_is_recorded_with_its_action() -> None:
    with (
        wires.running(lambda seen, number: Say() if number else Say(500)) as wire,
        gateway.recording() as calls,
    ):
        pool_to(wire.url).send(request())

    assert calls == [("ebs", "GetSnapshotBlock")] * 2


def test_many_threads_get_their_own_answers() -> None:
    def script(seen, number):
        return Say(body=hashlib.sha256(seen.path.encode()).digest() * 1000)

    with wires.running(script) as wire:
        pool = pool_to(wire.url)

        def ask(number: int) -> bool:
            path = f"/snapshots/snap-1/blocks/{number}"
            body = pool.send(Request("GetSnapshotBlock", "GET", path)).body
            return body == hashlib.sha256(path.encode()).digest() * 1000

        with ThreadPoolExecutor(20) as threads:
            right = list(threads.map(ask, range(300)))

    assert all(right) and wire.connections <= 20
    assert threading.active_count() < 200
