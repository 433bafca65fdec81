"""Keys, the server's role and chains of assumed roles, over real connections."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from cpm.aws import errors, gateway
from cpm.aws.identity import AssumedRole, Keys, ServerRole
from tests.contract.gateway.fake_aws import Reply, assumed, caller, query_error

KEYS = Keys("AKIAEXAMPLE", "planted-secret-key")
EMPTY = Reply("<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>")


def in_seconds(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def signer(request):
    return request.authorization.split("Credential=")[1].split("/")[0]


def region(request):
    return request.authorization.split("Credential=")[1].split("/")[2]


@pytest.fixture
def sts(fake):
    fake.responders["AssumeRole"] = lambda request, before: assumed(before, in_seconds(3600))
    fake.responders["DescribeVolumes"] = lambda request, before: EMPTY
    fake.responders["GetCallerIdentity"] = lambda request, before: caller()
    return fake


def test_a_chain_of_roles_signs_each_link_with_the_one_before(sts):
    hub = AssumedRole.of(KEYS, "111122223333", "Hub", session="cpm job 7")
    leaf = AssumedRole.of(hub, "444455556666", "Backup", external_id="ext-1", session="cpm job 7")

    gateway.client(leaf, "ec2", "eu-west-1").call("DescribeVolumes")

    first, second = sts.asked("AssumeRole")
    [used] = sts.asked("DescribeVolumes")
    assert first.params["RoleArn"] == "arn:aws:iam::111122223333:role/Hub"
    assert first.params["RoleSessionName"] == "cpm-job-7"
    assert "ExternalId" not in first.params
    assert second.params["RoleArn"] == "arn:aws:iam::444455556666:role/Backup"
    assert second.params["ExternalId"] == "ext-1"
    assert (signer(first), signer(second), signer(used)) == ("AKIAEXAMPLE", "ASIAROLE0", "ASIAROLE1")
    assert (second.token, used.token) == ("token-0", "token-1")
    assert region(first) == "us-east-1" and region(used) == "eu-west-1"


def test_one_role_is_assumed_once_for_all_regions_services_and_threads(sts):
    role = AssumedRole.of(KEYS, "111122223333", "Backup")
    start = threading.Barrier(6)

    def work(number):
        start.wait(10)
        gateway.client(role, "ec2", ("eu-west-1", "us-west-2")[number % 2]).call("DescribeVolumes")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    assert len(sts.asked("AssumeRole")) == 1
    assert len(sts.asked("DescribeVolumes")) == 6


def test_a_role_about_to_expire_is_assumed_again_before_the_next_call(sts):
    sts.responders["AssumeRole"] = lambda request, before: assumed(
        before, in_seconds(60 if before == 0 else 3600)
    )
    role = AssumedRole.of(KEYS, "111122223333", "Backup")
    client = gateway.client(role, "ec2", "eu-west-1")

    # botocore refuses to keep credentials that arrive already inside the last sixth of their life.
    client.call("DescribeVolumes")
    client.call("DescribeVolumes")

    assert [signer(request) for request in sts.asked("DescribeVolumes")][-1] == "ASIAROLE1"
    assert len(sts.asked("AssumeRole")) == 2


def test_the_shortest_session_is_not_renewed_at_every_call(sts):
    sts.responders["AssumeRole"] = lambda request, before: assumed(before, in_seconds(900))
    client = gateway.client(AssumedRole.of(KEYS, "111122223333", "Backup", duration=900), "ec2", "eu-west-1")

    for _ in range(3):
        client.call("DescribeVolumes")

    assert len(sts.asked("AssumeRole")) == 1
    assert sts.asked("AssumeRole")[0].params["DurationSeconds"] == "900"


def test_a_role_that_may_not_be_assumed_names_the_missing_permission(sts):
    text = (
        "User: arn:aws:iam::111122223333:user/cpm is not authorized to perform: sts:AssumeRole on "
        "resource: arn:aws:iam::444455556666:role/Backup"
    )
    sts.responders["AssumeRole"] = lambda request, before: query_error("AccessDenied", text, 403)

    role = AssumedRole.of(KEYS, "444455556666", "Backup")

    with pytest.raises(errors.Denied) as caught:
        gateway.client(role, "ec2", "eu-west-1").call("DescribeVolumes")

    assert caught.value.missing_action == "sts:AssumeRole"
    assert "role/Backup" in caught.value.explain()
    assert sts.asked("DescribeVolumes") == []


def test_the_server_role_comes_from_the_surroundings_and_keys_do_not(sts, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASERVER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "server-secret")

    gateway.client(ServerRole(), "ec2", "eu-west-1").call("DescribeVolumes")
    gateway.client(KEYS, "ec2", "eu-west-1").call("DescribeVolumes")

    assert [signer(request) for request in sts.asked("DescribeVolumes")] == ["AKIASERVER", "AKIAEXAMPLE"]


def test_a_server_without_role_says_so(sts, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))

    with pytest.raises(errors.BadCredentials):
        gateway.client(ServerRole(), "ec2", "us-east-1").call("DescribeVolumes")


def test_endpoints_come_from_settings_only(sts, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    config = gateway.GatewayConfig(
        endpoint_url="http://127.0.0.1:9", endpoint_urls={"ec2": sts.url + "/{region}"}
    )
    gateway.configure(config)

    gateway.client(KEYS, "ec2", "eu-west-1").call("DescribeVolumes")

    assert len(sts.asked("DescribeVolumes")) == 1
    assert config.endpoint("ec2", "eu-west-1") == sts.url + "/eu-west-1"


def test_clients_are_shared_until_too_many_others_were_wanted(sts):
    gateway.configure(gateway.GatewayConfig(endpoint_url=sts.url, max_clients=2))

    first = gateway.client(KEYS, "ec2", "eu-west-1")
    again = gateway.client(Keys("AKIAEXAMPLE", "planted-secret-key"), "ec2", "eu-west-1")
    for name in ("us-east-1", "us-west-2"):
        gateway.client(KEYS, "ec2", name)

    assert again is first
    assert gateway.client(KEYS, "ec2", "eu-west-1") is not first


def test_a_changed_secret_gets_a_client_of_its_own(sts):
    assert gateway.client(KEYS, "ec2", "eu-west-1") is not gateway.client(
        Keys("AKIAEXAMPLE", "other"), "ec2", "eu-west-1"
    )
