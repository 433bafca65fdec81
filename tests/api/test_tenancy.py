"""Nothing of one tenant reaches another, in the ways that the matrix of roles does not try."""

import pytest

from api import authentication
from cpm.lib.errors import AuthenticationFailed
from cpm.lib.states import Role
from cpm.models import Account, Alert, Policy, PolicySchedule, Recovery, Schedule, Target, User
from tests import factories
from tests.api.caller import Caller, codes
from tests.domain.fake_aws import FakeEc2, instance

pytestmark = pytest.mark.django_db

FLAGS = {"allow_account_changes": True, "allow_backup_changes": True, "allow_recovery": True}
WEB = "i-0000000000000000a"


@pytest.fixture
def mine() -> User:
    return factories.user()


@pytest.fixture
def theirs() -> User:
    return factories.user()


@pytest.fixture
def call(mine: User) -> Caller:
    return Caller(mine)


@pytest.fixture
def ec2(monkeypatch) -> FakeEc2:
    fake = FakeEc2()
    fake.instances = [instance(WEB)]
    monkeypatch.setattr("cpm.aws.gateway.client", fake.client)
    return fake


def policy_body(account: Account, **fields: object) -> dict[str, object]:
    return {"name": "p", "account": account.pk, **fields}


def test_a_policy_takes_no_account_or_schedule_of_another_tenant(mine, theirs, call):
    account, foreign = factories.account(mine), factories.account(theirs)
    schedule, policy = factories.schedule(theirs), factories.policy(account)

    with_account = call("POST", "policies/", policy_body(foreign))
    with_schedule = call("POST", "policies/", policy_body(account, schedules=[schedule.pk]))
    changed = call("PUT", f"policies/{policy.pk}/", {"name": policy.name, "schedules": [schedule.pk]})

    assert [status for status, _ in (with_account, with_schedule, changed)] == [400] * 3
    assert codes(with_account[1]) == {"account": ["not_found"]}
    assert codes(with_schedule[1]) == codes(changed[1]) == {"schedules": ["not_found"]}
    assert list(Policy.objects.all()) == [policy]
    assert not PolicySchedule.objects.exists()


def test_root_mixes_its_own_things_with_no_managed_users_things():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    call, account = Caller(root), factories.account(root)
    schedule, dr_account = factories.schedule(managed), factories.account(managed, is_dr_account=True)
    policy = factories.policy(account)

    with_schedule = call("POST", "policies/", policy_body(account, schedules=[schedule.pk]))
    dr = {"cross_account_dr": {"dr_account": dr_account.pk}}
    with_dr = call("PUT", f"policies/{policy.pk}/dr/", dr)
    assumed = {
        "user": root.pk, "name": "a", "authentication": "A", "account_number": "123456789012", "role_name": "r",
        "assume_from_account": factories.account(managed).pk,
    }  # fmt: skip
    with_source = call("POST", "accounts/backup/", assumed)

    assert [status for status, _ in (with_schedule, with_dr, with_source)] == [400] * 3
    assert codes(with_source[1]) == {"assume_from_account": ["not_found"]}


def test_a_recovery_goes_to_no_account_of_another_tenant(mine, theirs, call):
    snapshot = factories.snapshot(factories.backup(factories.policy(factories.account(mine))), capacity=1)
    foreign = factories.account(theirs)
    address = f"backups/{snapshot.backup_id}/snapshots/volumes/{snapshot.pk}/recover/"

    answers = [
        call("POST", address, {"zone": "us-east-1a", "to_account": account})
        for account in (foreign.pk, 2**40)
    ]

    assert [status for status, _ in answers] == [400, 400]
    assert codes(answers[0][1]) == codes(answers[1][1]) == {"to_account": ["not_found"]}
    assert str(answers[0][1]).replace(str(foreign.pk), "?") == str(answers[1][1]).replace(str(2**40), "?")
    assert not Recovery.objects.exists()


def test_a_target_joins_no_policy_of_another_tenant_and_none_is_moved_to_it(mine, theirs, call, ec2):
    own, foreign = (factories.policy(factories.account(user)) for user in (mine, theirs))
    target = factories.target(foreign, aws_resource_id=WEB)
    body = {"aws_region": "us-east-1", "aws_resource_id": WEB}

    added = call("POST", f"policies/{foreign.pk}/targets/instances/", body)
    answers = [
        call(method, f"policies/{policy.pk}/targets/instances/{target.pk}/", {"ami_backup_option": "O"})
        for policy in (own, foreign)
        for method in ("GET", "PUT", "DELETE")
    ]

    assert added[0] == 404
    assert [status for status, _ in answers] == [404] * 6
    assert list(Target.objects.all()) == [target]
    assert not ec2.asked


@pytest.mark.parametrize("role", [Role.ROOT, Role.INDEPENDENT, Role.MANAGED])
def test_a_delegate_sees_its_original_users_own_things_and_nothing_else(role, theirs):
    owner = factories.root() if role == Role.ROOT else factories.user(role)
    everybody = [owner, theirs, factories.user(Role.MANAGED), factories.root()]
    policies = {user.pk: factories.policy(factories.account(user)) for user in set(everybody)}
    for policy in policies.values():
        factories.backup(policy)
        factories.alert(policy.user)
    call = Caller(factories.delegate(owner, **FLAGS))

    for path in ("accounts/", "policies/", "backups/", "alerts/"):
        assert {row["user"] for row in call("GET", path)[1]} == {owner.pk}
    assert [row["id"] for row in call("GET", "policies/")[1]] == [policies[owner.pk].pk]


def test_what_a_delegate_makes_belongs_to_its_original_user(mine):
    delegate = factories.delegate(mine, **FLAGS)
    call, account = Caller(delegate), factories.account(mine)
    snapshot = factories.snapshot(factories.backup(factories.policy(account)), capacity=1)
    address = f"backups/{snapshot.backup_id}/snapshots/volumes/{snapshot.pk}/recover/"

    _, policy = call("POST", "policies/", policy_body(account))
    started, _ = call("POST", address, {"zone": "us-east-1a"})
    in_own_name = call("POST", "schedules/", {"user": delegate.pk, "name": "s", "every_how_many": 1})

    assert policy["user"] == Policy.objects.get(pk=policy["id"]).user_id == mine.pk
    assert started == 202
    assert Recovery.objects.get().user == mine
    assert in_own_name[0] == 400
    assert codes(in_own_name[1]) == {"user": ["not_found"]}
    assert not Schedule.objects.exists()


def test_dismissing_all_alerts_leaves_those_of_others(mine, theirs):
    root, managed = factories.root(), factories.user(Role.MANAGED)
    for user in (mine, theirs, root, managed):
        factories.alert(user)

    assert Caller(mine)("DELETE", "alerts/")[0] == 204
    assert Caller(root)("DELETE", "alerts/")[0] == 204

    assert {alert.user for alert in Alert.objects.all()} == {theirs, managed}


def test_a_name_that_another_tenant_has_is_free(mine, theirs, call):
    account = factories.account(mine)
    factories.policy(factories.account(theirs), name="same")

    status, made = call("POST", "policies/", policy_body(account, name="same"))

    assert (status, made["name"]) == (201, "same")


def test_words_of_another_tenants_schedules_and_policies_find_nothing(mine, theirs, call):
    own = factories.policy(factories.account(mine), (factories.schedule(mine, name="nightly"),))
    factories.policy(factories.account(theirs, name="acme"), (factories.schedule(theirs, name="acme"),))

    found = {word: call("GET", f"policies/?search={word}")[1] for word in ("nightly", "acme")}

    assert [row["id"] for row in found["nightly"]] == [own.pk]
    assert found["acme"] == []
    assert call("GET", "accounts/?name=acme")[1] == call("GET", "schedules/?search=acme")[1] == []


def test_ordering_by_related_names_neither_adds_nor_loses_rows():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    schedules = tuple(factories.schedule(root) for _ in range(3))
    for user in (root, managed):
        factories.policy(factories.account(user), schedules if user == root else ())
    call = Caller(root)

    for order in ("username", "-username", "name,-username", "account"):
        assert len(call("GET", f"policies/?ordering={order}")[1]) == 2
        assert call("GET", f"policies/?ordering={order}&page=1&page_size=1")[1]["count"] == 2


def test_a_repeated_request_under_anothers_key_gets_no_answer_of_theirs(mine, theirs):
    own, foreign = (
        factories.snapshot(factories.backup(factories.policy(factories.account(user))), capacity=1)
        for user in (mine, theirs)
    )

    def recover(user: User, snapshot) -> tuple[int, dict[str, object]]:
        path = f"backups/{snapshot.backup_id}/snapshots/volumes/{snapshot.pk}/recover/"
        return Caller(user)("POST", path, {"zone": "us-east-1a"}, **{"Idempotency-Key": "same"})

    first = recover(theirs, foreign)
    second = recover(mine, own)
    stolen = recover(mine, foreign)

    assert (first[0], second[0]) == (202, 202)
    assert first[1]["id"] != second[1]["id"]
    assert stolen[0] in (400, 404)
    assert Recovery.objects.count() == 2


def test_a_refusal_comes_before_what_the_body_says_and_what_things_are_like(mine):
    policy = factories.policy(factories.account(mine))
    snapshot = factories.snapshot(factories.backup(policy, status="F"), capacity=1)
    address = f"backups/{snapshot.backup_id}/snapshots/volumes/{snapshot.pk}/recover/"
    garbage = {"zone": {"no": "text"}}
    delegate, other, owner = (Caller(user) for user in (factories.delegate(mine), factories.user(), mine))

    statuses = [
        owner("POST", address, garbage, Authorization="Bearer nothing")[0],
        *(call("POST", address, garbage)[0] for call in (delegate, other, owner)),
        owner("POST", address, {"zone": "us-east-1a"})[0],
    ]

    assert statuses == [401, 403, 404, 400, 412]


def test_a_token_ends_with_its_tenants_environment(mine):
    delegate = factories.delegate(mine)
    call = Caller(delegate)
    assert call("GET", "policies/")[0] == 200

    User.objects.filter(pk=mine.pk).update(is_active=False)

    assert call("GET", "policies/")[0] == 401
    with pytest.raises(AuthenticationFailed):
        authentication.obtain(factories.api_key(delegate))
