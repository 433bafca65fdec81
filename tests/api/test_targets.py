import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from cpm.models import Region
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes
from tests.domain.fake_aws import FakeEc2, instance, volume

pytestmark = pytest.mark.django_db

WEB, WINDOWS = "i-0000000000000000a", "i-0000000000000000b"
DATA, FREE = "vol-00000000000000002", "vol-0000000000000000f"
HERE = {"aws_region": "us-east-1"}


@pytest.fixture
def ec2(monkeypatch):
    fake = FakeEc2()
    monkeypatch.setattr("cpm.aws.gateway.client", fake.client)
    fake.instances = [instance(WEB), instance(WINDOWS, platform="windows")]
    fake.volumes = [volume(DATA, attached_to=WEB), volume(FREE, size=20)]
    Region.objects.get_or_create(aws_region="us-east-1", defaults={"disp_name": "N. Virginia"})
    return fake


@pytest.fixture
def policy():
    return factories.policy(factories.account(authentication="R"))


@pytest.fixture
def call(policy):
    return Caller(policy.user)


def test_an_instance_is_added_read_changed_and_removed(ec2, policy, call):
    address = f"policies/{policy.pk}/targets/instances/"

    created, made = call("POST", address, {**HERE, "aws_resource_id": WEB, "which_volumes": "X"})
    one = f"{address}{made['id']}/"
    changed, put = call("PUT", one, {"ami_backup_option": "O", "aws_root_device": "/dev/sdf"})
    asked = len(ec2.asked)
    _, rows = call("GET", address)

    assert (created, changed) == (201, 200)
    for operation, content in (
        ("13.34", made),
        ("13.37", put),
        ("13.35", rows),
        ("13.36", call("GET", one)[1]),
    ):
        facts.check(operation, content)
    assert (made["aws_resource_type"], made["aws_root_device"], made["platform"]) == (
        "t3.micro",
        "/dev/xvda",
        "linux",
    )
    assert (put["which_volumes"], put["ami_backup_option"], put["aws_root_device"]) == ("X", "O", "/dev/sdf")
    assert len(ec2.asked) == asked
    assert call("DELETE", one) == (204, b"")
    assert call("GET", one)[0] == 404


def test_application_consistency_is_stored_for_windows_and_refused_for_others(ec2, policy, call):
    address = f"policies/{policy.pk}/targets/instances/"
    wanted = {"application_consistent_backup": {"enable_agent_vss": True, "agent_script_timeout": 60}}

    status, made = call("POST", address, {**HERE, "aws_resource_id": WINDOWS, **wanted})
    refused = call("POST", address, {**HERE, "aws_resource_id": WEB, **wanted})

    assert status == 201
    assert made["ami_backup_option"] == "S"
    assert made["application_consistent_backup"] == {
        "agent_script_timeout": 60,
        "collect_script_output": False,
        "enable_agent_scripts": False,
        "enable_agent_vss": True,
        "use_remote_agent": False,
        "vss_volumes": "",
    }
    assert (refused[0], codes(refused[1])) == (400, {"application_consistent_backup": ["windows_only"]})


def test_what_was_read_can_be_put_back(ec2, policy, call):
    address = f"policies/{policy.pk}/targets/instances/"
    _, made = call("POST", address, {**HERE, "aws_resource_id": WEB})

    status, put = call("PUT", f"{address}{made['id']}/", made)

    assert (status, put) == (200, made)


def test_a_volume_is_added_read_and_removed(ec2, policy, call):
    address = f"policies/{policy.pk}/targets/volumes/"

    status, made = call("POST", address, {**HERE, "aws_resource_id": FREE})
    one = f"{address}{made['id']}/"

    assert status == 201
    for operation, content in (
        ("13.60", made),
        ("13.61", call("GET", address)[1]),
        ("13.62", call("GET", one)[1]),
    ):
        facts.check(operation, content)
    assert (made["capacity"], made["status"], made["zone"]) == (20, "available", "us-east-1a")
    assert call("GET", f"policies/{policy.pk}/targets/instances/{made['id']}/")[0] == 404
    assert call("DELETE", one) == (204, b"")


def test_volumes_of_an_instance_are_selected(ec2, policy, call):
    _, target = call("POST", f"policies/{policy.pk}/targets/instances/", {**HERE, "aws_resource_id": WEB})
    address = f"policies/{policy.pk}/targets/instances/{target['id']}/volumes/"

    status, made = call("POST", address, {"aws_resource_id": DATA})
    one = f"{address}{made['id']}/"
    refused = call("POST", address, {"aws_resource_id": FREE})

    assert status == 201
    for operation, content in (
        ("13.39", made),
        ("13.40", call("GET", address)[1]),
        ("13.41", call("GET", one)[1]),
    ):
        facts.check(operation, content)
    assert codes(refused[1]) == {"aws_resource_id": ["not_attached"]}
    assert call("DELETE", one) == (204, b"")
    assert call("GET", address) == (200, [])


def test_all_targets_are_listed_together_without_asking_aws(ec2, policy, call):
    for number in range(3):
        factories.target(
            policy, resource_type="instances", details={"platform": "linux", "instance_type": "t3.micro"}
        )
        factories.target(
            policy,
            resource_type="volumes",
            aws_resource_id=f"vol-{number:017x}",
            details={"volume_type": "gp3"},
        )

    with CaptureQueriesContext(connection) as queries:
        status, rows = call("GET", f"policies/{policy.pk}/targets/")

    assert status == 200
    facts.check("13.24", rows)
    assert [(row["resource_type"], row["aws_resource_type"]) for row in rows] == [
        ("instances", "t3.micro"), ("volumes", "gp3"),
    ] * 3  # fmt: skip
    assert ec2.asked == []
    assert len([query for query in queries if "SELECT" in query["sql"]]) <= 4


def test_what_aws_does_not_know_is_a_400_with_words(ec2, policy, call):
    status, content = call(
        "POST", f"policies/{policy.pk}/targets/volumes/", {**HERE, "aws_resource_id": "vol-0123abcd"}
    )

    assert (status, codes(content)) == (400, {"aws_resource_id": ["does_not_exist"]})
    assert "AWS has no EBS volume vol-0123abcd in us-east-1" in str(content)


def test_reading_needs_no_flag_and_changing_does(ec2, policy):
    call = Caller(factories.delegate(policy.user))
    address = f"policies/{policy.pk}/targets/volumes/"

    assert call("GET", address) == (200, [])
    assert call("POST", address, {**HERE, "aws_resource_id": FREE})[0] == 403
