import os
from collections.abc import Iterator

import pytest

from cpm.aws import gateway
from cpm.flows.identities import encrypt_secret
from cpm.lib.states import DeletionStatus, Role
from cpm.models import Job, S3Repository
from tests import factories, simulated_aws
from tests.api import facts
from tests.api.caller import Caller, codes
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield running
    running.stop()


@pytest.fixture
def aws(simulator: SimulatedAws) -> SimulatedAws:
    simulator.reset()
    gateway.configure(
        gateway.GatewayConfig(endpoint_url=simulator.url, redis_url=os.environ["CPM_REDIS_URL"])
    )
    factories.bucket(simulator, "backups")
    return simulator


def account(aws: SimulatedAws, owner):
    access_key, secret_key = aws.credentials(DEFAULT_ACCOUNT)
    return factories.account(
        owner, authentication="C", access_key=access_key, secret_key=encrypt_secret(secret_key), role_name=""
    )


def body(of, **fields):
    return {
        "name": "main", "account": of.pk, "aws_bucket_name": "backups", "aws_region": "us-east-1", **fields,
    }  # fmt: skip


def test_a_repository_is_made_read_changed_and_deleted(aws):
    owner = factories.user()
    call, of = Caller(owner), account(aws, owner)

    created, made = call("POST", "s3_repositories/", body(of, description="Copies"))
    address = f"s3_repositories/{made['id']}/"
    policy = factories.policy(of, s3_repository=S3Repository.objects.get())
    changed, put = call("PUT", address, {"description": "Other", "name": "x", "aws_region": "us-west-2"})

    assert (created, changed) == (201, 200)
    for operation, content in (
        ("20.1", made),
        ("20.2", call("GET", "s3_repositories/")[1]),
        ("20.3", call("GET", address)[1]),
        ("20.4", put),
    ):
        facts.check(operation, content)
    assert made | {"id": 0} == {
        "account": of.pk, "aws_bucket_name": "backups", "aws_region": "us-east-1", "deletion_status": "N",
        "description": "Copies", "id": 0, "name": "main", "related_policies": [], "user": owner.pk,
    }  # fmt: skip
    assert put == {**made, "description": "Other", "related_policies": [policy.pk]}
    assert call("GET", f"accounts/{of.pk}/")[1]["associated_repositories"] == [made["id"]]
    used, refusal = call("DELETE", address)
    assert (used, codes(refusal)) == (400, {"non_field_errors": ["in_use"]})
    policy.delete()
    assert call("DELETE", address) == (204, b"")
    assert call("GET", address)[1]["deletion_status"] == "I"
    assert Job.objects.get(kind="repository").subject_id == made["id"]


def test_the_newer_address_reaches_the_same(aws):
    owner = factories.user()
    call, of = Caller(owner), account(aws, owner)

    status, made = call("POST", "aws/s3_repositories/", body(of))

    assert status == 201
    assert call("GET", f"aws/s3_repositories/{made['id']}/") == call("GET", f"s3_repositories/{made['id']}/")
    assert call("DELETE", f"aws/s3_repositories/{made['id']}/force/") == (204, b"")
    assert S3Repository.objects.get().deletion_forced


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "two words"}, {"name": ["invalid_name"]}),
        ({"name": ""}, {"name": ["blank"]}),
        ({"account": 10**15}, {"account": ["not_found"]}),
        ({"account": "x"}, {"account": ["invalid"]}),
        ({"aws_bucket_name": "UPPER"}, {"aws_bucket_name": ["invalid_bucket"]}),
        ({"aws_bucket_name": "no-such-bucket"}, {"aws_bucket_name": ["aws_not_found"]}),
        ({"aws_region": "mars-1"}, {"aws_region": ["unknown_region"]}),
        ({"aws_region": "us-west-2"}, {"aws_region": ["wrong_region"]}),
        ({"aws_bucket_name": "a\x00b"}, {"aws_bucket_name": ["control_characters"]}),
    ],
)
def test_nonsense_is_refused_by_name(aws, fields, expected):
    owner = factories.user()

    status, content = Caller(owner)("POST", "s3_repositories/", body(account(aws, owner), **fields))

    assert (status, codes(content)) == (400, expected)
    assert not S3Repository.objects.exists()


def test_credentials_that_do_not_work_are_blamed_on_the_account(aws):
    owner = factories.user()
    of = factories.account(
        owner, authentication="C", access_key="AKIANOBODYKNOWSTHIS1", secret_key=encrypt_secret("wrong")
    )

    status, content = Caller(owner)("POST", "s3_repositories/", body(of))

    assert (status, codes(content)) == (400, {"account": ["aws_bad_credentials"]})


def test_a_name_is_taken_once(aws):
    owner = factories.user()
    call, of = Caller(owner), account(aws, owner)
    call("POST", "s3_repositories/", body(of))

    status, content = call("POST", "s3_repositories/", body(of))

    assert (status, codes(content)) == (400, {"name": ["unique"]})


def test_lists_are_filtered_searched_and_ordered():
    owner = factories.user()
    one, two = factories.account(owner, name="b"), factories.account(owner, name="a")
    factories.s3_repository(one, "zebra", name="first", description="about horses")
    factories.s3_repository(two, "aardvark", name="second")
    call = Caller(owner)

    def names(query: str) -> list[str]:
        return [row["name"] for row in call("GET", f"s3_repositories/?{query}")[1]]

    assert names(f"account={one.pk}") == ["first"]
    assert names(f"user={owner.pk}&ordering=aws_bucket_name") == ["second", "first"]
    assert names("ordering=-name") == ["second", "first"]
    assert names("ordering=account") == ["second", "first"]
    assert names("search=horses") == ["first"]


def test_others_repositories_do_not_exist_and_their_accounts_neither(aws):
    theirs = account(aws, factories.user())
    row = factories.s3_repository(theirs)
    call = Caller(factories.user())

    assert call("GET", "s3_repositories/") == (200, [])
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("DELETE", "force/")):
        sent = {"description": "x"} if method == "PUT" else None
        assert call(method, f"s3_repositories/{row.pk}/{path}", sent)[0] == 404
    status, content = call("POST", "s3_repositories/", body(theirs))
    assert (status, codes(content)) == (400, {"account": ["not_found"]})
    row.refresh_from_db()
    assert row.deletion_status == DeletionStatus.NONE


def test_delegates_need_the_flag_for_accounts(aws):
    owner = factories.user()
    of = account(aws, owner)
    without = Caller(factories.delegate(owner, allow_backup_changes=True))
    allowed = Caller(factories.delegate(owner, allow_account_changes=True))

    assert without("POST", "s3_repositories/", body(of))[0] == 403
    status, made = allowed("POST", "s3_repositories/", body(of))

    assert (status, made["user"]) == (201, owner.pk)
    assert without("GET", f"s3_repositories/{made['id']}/")[0] == 200
    assert without("DELETE", f"s3_repositories/{made['id']}/force/")[0] == 403


def test_root_makes_them_for_managed_users_only(aws):
    call = Caller(factories.root())
    managed, independent = factories.user(Role.MANAGED), factories.user()

    assert call("POST", "s3_repositories/", body(account(aws, managed)))[0] == 201
    assert call("POST", "s3_repositories/", body(account(aws, independent), name="b"))[0] == 400
    assert S3Repository.objects.get().user == managed
