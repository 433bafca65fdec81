"""Tests of worker configurations: what they find out, where they run, and that each of them ends."""

import os
import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.aws import gateway
from cpm.aws.proxy import Proxy
from cpm.flows.identities import encrypt_secret, identity_of
from cpm.flows.table import ENGINE
from cpm.flows.workers import worker_check, worker_proxy
from cpm.jobs import leases, queue, runner
from cpm.lib.states import FleetKind, WorkerTestStatus
from cpm.models import Account, FleetMember, Job, LogLine, Region, WorkerConfiguration, WorkerTest
from cpm.services import proxy, worker_configurations
from tests import factories, loopback_proxy
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT

PLACE = f"{DEFAULT_ACCOUNT}:us-east-1"
PASSWORD = "planted worker:pass/word"

Network = dict[str, str]


@pytest.fixture
def network(world: World) -> Network:
    """The default VPC of the simulated account, as a configuration names it."""
    ec2 = world.aws.client("ec2")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    return {
        "aws_vpc": vpc,
        "aws_subnet": ec2.describe_subnets(Filters=here)["Subnets"][0]["SubnetId"],
        "aws_security_group": ec2.describe_security_groups(Filters=here)["SecurityGroups"][0]["GroupId"],
    }


@pytest.fixture
def near(world: World) -> FleetMember:
    """This process is a worker of the place."""
    return FleetMember.objects.create(
        name="near", kind=FleetKind.WORKER, queues=[f"s3@{PLACE}"], host=socket.gethostname(), pid=os.getpid()
    )


def configuration(world: World, network: Network, **fields) -> WorkerConfiguration:
    return factories.worker_configuration(world.account, **{**network, **fields})


def started(world: World, row: WorkerConfiguration) -> WorkerTest:
    return worker_configurations.start_test(actor=world.actor, configuration=row, now=timezone.now())


def tried(world: World, row: WorkerConfiguration) -> WorkerTest:
    """A test of the configuration, run to its end by whom it is for."""
    test = started(world, row)
    runner.drain(f"s3@{PLACE}", engine=ENGINE)
    world.run()
    test.refresh_from_db()
    assert test.end_time is not None
    return test


def log(test: WorkerTest) -> list[str]:
    lines = LogLine.objects.filter(subject_type="worker_test", subject_id=test.pk).order_by("id")
    return list(lines.values_list("message", flat=True))


def test_a_good_configuration_passes_every_check_on_a_worker_of_its_place(world, network, near):
    world.aws.client("ec2").create_key_pair(KeyName="ops")

    test = tried(world, configuration(world, network, aws_key_pair="ops"))

    assert (test.status, test.details, test.worker_id) == (WorkerTestStatus.SUCCEEDED, "", near.pk)
    assert log(test) == [f"{name}: works." for name in ("Proxy", "STS", "EC2", "EBS direct", "S3")]


def test_without_a_worker_of_the_place_the_result_says_that_another_one_ran_it(world, network):
    test = tried(world, configuration(world, network))

    assert (test.status, test.worker_id) == (WorkerTestStatus.SUCCEEDED, None)
    assert test.details.startswith(f"No worker runs at {PLACE}")
    assert f"cpm worker --place {PLACE}" in test.details


def test_snapshots_and_repositories_that_are_there_are_looked_into(world, network, near):
    volume = world.aws.volume()
    world.back_up(world.policy(volume), status="B")
    factories.bucket(world.aws, "backups")
    factories.s3_repository(world.account)
    since = world.aws.last_call()

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.SUCCEEDED, test.details
    called = {call["action"] for call in world.aws.calls(since)}
    assert {"GetCallerIdentity", "DescribeSecurityGroups", "DescribeSubnets", "ListSnapshotBlocks"} <= called


@pytest.mark.parametrize(
    ("field", "id", "said"),
    [
        ("aws_security_group", "sg-0123456789abcdef0", "InvalidGroup"),
        ("aws_subnet", "subnet-0123456789abcdef0", "InvalidSubnetID"),
        ("aws_key_pair", "nobody's", "InvalidKeyPair"),
    ],
)
def test_what_does_not_exist_is_named(world, network, near, field, id, said):
    test = tried(world, configuration(world, {**network, field: id}))

    assert test.status == WorkerTestStatus.FAILED
    assert test.details.startswith("EC2: ") and said in test.details
    assert "EBS direct: works." in log(test)


def test_what_lies_in_another_vpc_is_named(world, network, near):
    other = world.aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]

    test = tried(world, configuration(world, {**network, "aws_vpc": other}))

    assert test.status == WorkerTestStatus.FAILED
    assert f"{network['aws_security_group']} is in {network['aws_vpc']}, not in {other}" in test.details


def test_a_subnet_of_another_vpc_is_named(world, network, near):
    ec2 = world.aws.client("ec2")
    other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]

    test = tried(world, configuration(world, {**network, "aws_subnet": subnet}))

    assert f"subnet {subnet} is in {other}, not in {network['aws_vpc']}" in test.details


def test_wrong_credentials_end_the_test_at_once(world, network, near):
    Account.objects.update(access_key="AKIANOBODYSKEY000000", secret_key=encrypt_secret("x" * 40))

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.FAILED
    assert test.details.startswith("STS: ") and "credentials" in test.details
    assert "\n" not in test.details


def test_credentials_of_another_account_are_noticed(world, network):
    Account.objects.update(account_number="999999999999")
    world.account.refresh_from_db()

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.FAILED
    assert f"belong to {DEFAULT_ACCOUNT}, not to 999999999999" in test.details


def test_a_secret_that_cannot_be_opened_is_said(world, network, near):
    Account.objects.update(secret_key="cpm1:nonsense")

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.FAILED
    assert "secret" in test.details.lower()


def test_a_right_that_is_missing_for_a_snapshot_is_named(world, network, near):
    world.back_up(world.policy(world.aws.volume()), status="B")
    world.aws.fault(action="ListSnapshotBlocks", error="AccessDeniedException", status=403, count=1)

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.FAILED
    assert test.details.startswith("EBS direct: ") and "ebs:ListSnapshotBlocks" in test.details


def test_without_a_snapshot_any_answer_shows_that_ebs_is_reached(world, network, near):
    world.aws.fault(action="ListSnapshotBlocks", error="AccessDeniedException", status=403, count=1)

    assert tried(world, configuration(world, network)).status == WorkerTestStatus.SUCCEEDED


def test_a_repository_whose_bucket_is_gone_is_named(world, network, near):
    factories.s3_repository(world.account, "no-such-bucket", name="main")

    test = tried(world, configuration(world, network))

    assert test.status == WorkerTestStatus.FAILED
    assert test.details.startswith("S3: repository main: ") and "NoSuchBucket" in test.details


def test_all_that_is_wrong_is_said_at_once(world, network, near):
    factories.s3_repository(world.account, "no-such-bucket", name="main")

    test = tried(world, configuration(world, {**network, "aws_subnet": "subnet-0123456789abcdef0"}))

    assert [line.partition(":")[0] for line in test.details.splitlines()] == ["EC2", "S3"]


def test_a_server_that_the_worker_cannot_reach_is_said(world, network, near, settings):
    test = started(world, configuration(world, network))
    settings.REDIS_URL = "redis://127.0.0.1:9/0"

    runner.drain(f"s3@{PLACE}", engine=ENGINE)

    test.refresh_from_db()
    assert (test.status, test.details.partition(":")[0]) == (WorkerTestStatus.FAILED, "Server")
    assert "CPM_REDIS_URL" in test.details


def with_proxy(served: loopback_proxy.LoopbackProxy, **more) -> dict[str, object]:
    return {
        "requires_http_proxy": True, "http_proxy_address": served.address, "http_proxy_port": served.port,
        "http_proxy_user_name": "worker", "http_proxy_password": encrypt_secret(PASSWORD), **more,
    }  # fmt: skip


def test_the_calls_of_a_test_go_through_the_proxy_of_the_configuration_and_no_others(world, network, near):
    with loopback_proxy.running(credentials=f"worker:{PASSWORD}") as served:
        test = tried(world, configuration(world, network, **with_proxy(served)))
        passed = len(served.passed)
        gateway.regions_enabled(identity_of(world.account, session="cpm-test"))

    assert test.status == WorkerTestStatus.SUCCEEDED, test.details
    # The test of the proxy itself, STS, two of EC2, EBS direct, S3.
    assert passed >= 6
    assert len(served.passed) == passed


def test_a_proxy_that_does_not_take_the_password_ends_the_test(world, network, near):
    with loopback_proxy.running(credentials="worker:other") as served:
        test = tried(world, configuration(world, network, **with_proxy(served)))

    assert test.status == WorkerTestStatus.FAILED
    assert test.details.startswith("Proxy: ") and "407" in test.details
    assert PASSWORD not in test.details + str(log(test))


def test_a_check_that_gets_no_answer_says_what_to_look_at(world, network, near, monkeypatch):
    monkeypatch.setattr(worker_check, "CALL_SECONDS", 0.2)
    world.aws.fault(action="DescribeSecurityGroups", latency_seconds=1.0, count=1)

    test = tried(world, configuration(world, network))

    assert test.details.startswith("EC2: ")
    for what in (network["aws_subnet"], network["aws_vpc"], network["aws_security_group"]):
        assert what in test.details


def test_a_check_that_takes_too_long_is_left_behind(world, network, near, monkeypatch):
    monkeypatch.setattr(worker_check, "CHECK_SECONDS", 0.2)
    world.aws.fault(action="DescribeSecurityGroups", latency_seconds=1.0, count=1)

    test = tried(world, configuration(world, network))

    assert test.details.startswith("EC2: there was no answer within")


def test_a_test_whose_worker_is_killed_is_run_again(world, network):
    test = started(world, configuration(world, network))
    [lease] = leases.claim_ready("s3", "killed", 1)
    leases.keeper.release(lease)
    world.expire_leases()

    world.run()

    test.refresh_from_db()
    assert test.status == WorkerTestStatus.SUCCEEDED


def test_a_test_that_is_aborted_or_too_late_has_failed(world, network):
    row = configuration(world, network)
    aborted, late = started(world, row), started(world, row)
    queue.request_abort(Job.objects.get(subject_id=aborted.pk).pk)
    Job.objects.filter(subject_id=late.pk).update(deadline=timezone.now() - timedelta(seconds=1))

    world.run()

    for test, said in ((aborted, "aborted"), (late, "time limit")):
        test.refresh_from_db()
        assert test.status == WorkerTestStatus.FAILED
        assert said in test.details


def test_a_test_that_nobody_begins_is_given_up(world, network):
    row = configuration(world, network)
    test, fresh = started(world, row), started(world, row)
    WorkerTest.objects.filter(pk=test.pk).update(start_time=timezone.now() - worker_check.TIME_LIMIT * 2)

    assert worker_configurations.give_up_untaken_tests(now=timezone.now()) == 1

    test.refresh_from_db()
    fresh.refresh_from_db()
    assert (test.status, fresh.status) == (WorkerTestStatus.FAILED, WorkerTestStatus.IN_PROGRESS)
    assert "cpm worker" in test.details
    world.run()
    test.refresh_from_db()
    assert test.details == worker_check.UNTAKEN


def test_a_test_that_somebody_works_on_is_not_given_up(world, network):
    test = started(world, configuration(world, network))
    WorkerTest.objects.update(start_time=timezone.now() - worker_check.TIME_LIMIT * 2)
    [lease] = leases.claim_ready("s3", "slow", 1)

    assert worker_configurations.give_up_untaken_tests(now=timezone.now()) == 0

    runner.run_leases([lease], engine=ENGINE)
    test.refresh_from_db()
    assert test.status == WorkerTestStatus.SUCCEEDED


def test_a_deleted_configuration_takes_its_running_test_along(world, network):
    row = configuration(world, network)
    started(world, row)
    worker_configurations.delete(actor=world.actor, configuration=row)

    world.run()

    assert not WorkerTest.objects.exists()
    assert Job.objects.get(kind="worker_test").state == "succeeded"


def test_a_worker_of_a_place_reaches_aws_through_the_proxy_of_its_configuration(world, network, settings):
    with loopback_proxy.running() as served:
        configuration(world, network, **with_proxy(served))
        own = Proxy(served.address, served.port, "worker", PASSWORD)

        assert proxy.in_force() is None
        settings.CPM_WORKER_PLACE = PLACE
        assert proxy.in_force() == own
        settings.CPM_WORKER_PLACE = f"{DEFAULT_ACCOUNT}:us-west-2"
        assert proxy.in_force() is None


def test_the_oldest_configuration_of_a_place_counts(world, network):
    other = factories.account(account_number=DEFAULT_ACCOUNT)
    region = Region.objects.get_or_create(aws_region="us-east-1")[0]
    plain = {"requires_http_proxy": True, "http_proxy_port": 3128, "region": region}
    configuration(world, network, **plain, http_proxy_address="first.example.com")
    factories.worker_configuration(other, **plain, http_proxy_address="second.example.com")

    assert worker_proxy.at(PLACE) == Proxy("first.example.com", 3128)
