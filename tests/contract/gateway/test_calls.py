"""What the gateway does with answers, refusals and broken connections, over real connections."""

import logging
import socket
import time
import traceback

import pytest

from cpm.aws import errors, gateway
from cpm.aws.identity import Keys
from cpm.aws.throttle import Rate
from tests.contract.gateway.fake_aws import Reply, caller, ec2_error, query_error, snapshot_created

KEYS = Keys("AKIAEXAMPLE", "planted-secret-key", account_number="111122223333")
NEW = {"VolumeId": "vol-0123456789abcdef0"}

UNSAFE = [
    ("CreateSnapshot", {"VolumeId": "vol-1"}),
    ("CreateSnapshots", {"InstanceSpecification": {"InstanceId": "i-1"}}),
    ("CopySnapshot", {"SourceRegion": "us-east-1", "SourceSnapshotId": "snap-1"}),
    ("CreateImage", {"InstanceId": "i-1", "Name": "name"}),
    ("RegisterImage", {"Name": "name"}),
    ("AllocateAddress", {}),
]


@pytest.mark.parametrize(("action", "params"), UNSAFE)
@pytest.mark.parametrize(
    "lost",
    [Reply(drop=True), ec2_error("InternalError", status=500), Reply("no XML", 502), Reply("<html", 200)],
)
def test_a_create_without_token_is_asked_once_when_its_answer_is_lost(fake, action, params, lost):
    fake.responders[action] = lambda request, before: lost

    with pytest.raises(errors.Unreachable) as caught:
        gateway.client(KEYS, "ec2", "eu-west-1").call(action, **params)

    assert caught.value.maybe_done
    assert len(fake.asked(action)) == 1


def test_a_create_with_token_is_repeated_with_the_same_token(fake):
    done = Reply("<CreateVolumeResponse><volumeId>vol-1</volumeId></CreateVolumeResponse>")
    fake.responders["CreateVolume"] = lambda request, before: done if before else Reply(drop=True)

    answer = gateway.client(KEYS, "ec2", "eu-west-1").call(
        "CreateVolume", AvailabilityZone="eu-west-1a", Size=1
    )

    tokens = {request.params["ClientToken"] for request in fake.asked("CreateVolume")}
    assert answer["VolumeId"] == "vol-1"
    assert len(fake.asked("CreateVolume")) == 2 and len(tokens) == 1


def test_reading_is_repeated_after_a_dropped_connection(fake):
    done = Reply("<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>")
    fake.responders["DescribeVolumes"] = lambda request, before: done if before == 2 else Reply(drop=True)

    answer = gateway.client(KEYS, "ec2", "eu-west-1").call("DescribeVolumes")

    assert answer["Volumes"] == []
    assert len(fake.asked("DescribeVolumes")) == 3


def test_even_a_create_is_repeated_when_it_was_throttled(fake):
    throttled = ec2_error("RequestLimitExceeded", status=503)
    fake.responders["CreateSnapshot"] = lambda request, before: snapshot_created() if before else throttled

    answer = gateway.client(KEYS, "ec2", "eu-west-1").call("CreateSnapshot", **NEW)

    assert answer["SnapshotId"] == "snap-0123456789abcdef0"
    assert len(fake.asked("CreateSnapshot")) == 2


def test_the_rate_of_one_volume_is_left_to_the_caller(fake):
    refused = ec2_error("SnapshotCreationPerVolumeRateExceeded")
    fake.responders["CreateSnapshot"] = lambda request, before: refused

    with pytest.raises(errors.Throttled) as caught:
        gateway.client(KEYS, "ec2", "eu-west-1").call("CreateSnapshot", **NEW)

    assert caught.value.retry_after == 15
    assert len(fake.asked("CreateSnapshot")) == 1


def test_a_refused_connection_is_repeated_and_known_to_have_done_nothing():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        gateway.configure(gateway.GatewayConfig(endpoint_url=url, attempts=2))

        with gateway.recording() as calls, pytest.raises(errors.Unreachable) as caught:
            gateway.client(KEYS, "ec2", "eu-west-1").call("CreateSnapshot", **NEW)

    assert not caught.value.maybe_done
    assert calls == [("ec2", "CreateSnapshot")] * 2


def test_a_silent_server_times_out_as_maybe_done():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        gateway.configure(gateway.GatewayConfig(endpoint_url=url, read_timeout=0.2))

        with gateway.recording() as calls, pytest.raises(errors.Unreachable) as caught:
            gateway.client(KEYS, "ec2", "eu-west-1").call("CreateSnapshot", **NEW)

    assert caught.value.maybe_done
    assert len(calls) == 1


def test_a_call_whose_turn_is_too_far_off_fails_as_throttled_without_being_sent(fake):
    config = gateway.GatewayConfig(
        endpoint_url=fake.url, rates={"ec2-snapshot": Rate(1, 0.01)}, longest_wait=1
    )
    gateway.configure(config)
    fake.responders["CreateSnapshot"] = lambda request, before: snapshot_created()
    client = gateway.client(KEYS, "ec2", "eu-west-1")
    client.call("CreateSnapshot", **NEW)

    with pytest.raises(errors.Throttled) as caught:
        client.call("CreateSnapshot", **NEW)

    assert caught.value.retry_after > 90
    assert len(fake.asked("CreateSnapshot")) == 1


def test_bad_credentials_in_one_region_only_mean_that_it_is_disabled(fake):
    fake.responders["DescribeVolumes"] = lambda request, before: ec2_error("AuthFailure", status=401)
    fake.responders["GetCallerIdentity"] = lambda request, before: caller()

    with pytest.raises(errors.RegionDisabled) as caught:
        gateway.client(KEYS, "ec2", "ap-east-1").call("DescribeVolumes")

    assert "ap-east-1" in caught.value.explain() and "not enabled" in caught.value.explain()
    assert caught.value.request_id == "req-fake"


def test_credentials_that_work_nowhere_are_bad(fake):
    fake.responders["DescribeVolumes"] = lambda request, before: ec2_error("AuthFailure", status=401)
    fake.responders["GetCallerIdentity"] = lambda request, before: query_error(
        "InvalidClientTokenId", status=403
    )

    with pytest.raises(errors.BadCredentials):
        gateway.client(KEYS, "ec2", "ap-east-1").call("DescribeVolumes")


def test_a_dry_run_that_would_succeed_is_an_answer(fake):
    fake.responders["DeleteSnapshot"] = lambda request, before: ec2_error("DryRunOperation", status=412)

    answer = gateway.client(KEYS, "ec2", "eu-west-1").call("DeleteSnapshot", SnapshotId="snap-1", DryRun=True)

    assert answer == {"DryRun": True}


def page(request, before):
    token = "" if before == 2 else f"<nextToken>t{before}</nextToken>"
    item = f"<item><snapshotId>snap-{before}</snapshotId></item>"
    return Reply(
        f"<DescribeSnapshotsResponse><snapshotSet>{item}</snapshotSet>{token}</DescribeSnapshotsResponse>"
    )


def test_pages_are_fetched_as_they_are_consumed(fake):
    fake.responders["DescribeSnapshots"] = page
    items = gateway.client(KEYS, "ec2", "eu-west-1").paginate("DescribeSnapshots", "Snapshots", MaxResults=5)

    first = next(items)
    asked = len(fake.asked("DescribeSnapshots"))
    rest = [item["SnapshotId"] for item in items]

    assert first["SnapshotId"] == "snap-0" and asked == 1
    assert rest == ["snap-1", "snap-2"]
    assert [request.params.get("NextToken") for request in fake.asked("DescribeSnapshots")] == [
        None,
        "t0",
        "t1",
    ]


def test_an_error_on_a_later_page_is_never_a_short_list(fake):
    fake.responders["DescribeSnapshots"] = lambda request, before: (
        ec2_error("UnauthorizedOperation", status=403) if before else page(request, before)
    )

    with pytest.raises(errors.Denied):
        list(gateway.client(KEYS, "ec2", "eu-west-1").paginate("DescribeSnapshots", "Snapshots"))


def test_a_list_that_repeats_its_page_ends_in_an_error(fake):
    fake.responders["DescribeSnapshots"] = lambda request, before: page(request, 0)

    with pytest.raises(errors.Unknown, match="repeats"):
        list(gateway.client(KEYS, "ec2", "eu-west-1").paginate("DescribeSnapshots", "Snapshots"))


def test_an_unknown_action_or_parameter_never_leaves_the_process(fake):
    client = gateway.client(KEYS, "ec2", "eu-west-1")

    with pytest.raises(ValueError):
        client.call("DescribeUnicorns")
    with pytest.raises(errors.Invalid):
        client.call("CreateSnapshot", Unicorn=1)
    assert fake.requests == []


def test_no_secret_shows_in_errors_logs_or_names(fake, caplog):
    caplog.set_level(logging.DEBUG)
    gateway.configure(gateway.GatewayConfig(endpoint_url=fake.url))
    echoed = ec2_error(
        "SignatureDoesNotMatch", "x-amz-security-token:planted-token with planted-secret-key", 403
    )
    fake.responders["CreateSnapshot"] = lambda request, before: echoed
    fake.responders["GetCallerIdentity"] = lambda request, before: query_error("ExpiredToken", status=403)
    client = gateway.client(Keys("AKIAEXAMPLE", "planted-secret-key", "planted-token"), "ec2", "eu-west-1")

    with pytest.raises(errors.BadCredentials) as caught:
        client.call("CreateSnapshot", **NEW)

    shown = "".join(traceback.format_exception(caught.value)) + repr(client) + caplog.text
    assert "planted" not in shown
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_waiting_for_a_turn_spaces_calls_out(fake):
    gateway.configure(gateway.GatewayConfig(endpoint_url=fake.url, rates={"ec2-snapshot": Rate(1, 20)}))
    fake.responders["CreateSnapshot"] = lambda request, before: snapshot_created()
    client = gateway.client(KEYS, "ec2", "eu-west-1")

    started = time.monotonic()
    for _ in range(5):
        client.call("CreateSnapshot", **NEW)

    assert time.monotonic() - started >= 4 / 20 - 0.01
