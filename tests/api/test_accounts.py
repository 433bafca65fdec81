import pytest

from cpm.lib.states import Role
from cpm.models import Account
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

SECRET = "a-secret-that-nobody-may-see-0123456789"
KEYS = {"authentication": "C", "aws_access_key": "AKIAEXAMPLE000000001", "aws_secret_key": SECRET}


def body(owner, **fields):
    return {"name": "main", "user": owner.pk, **KEYS, **fields}


@pytest.mark.parametrize(
    ("kind", "create", "read", "update", "listing"),
    [
        ("backup", "4.2", "4.4", "4.5", "4.3"),
        ("dr", "4.12", "4.14", "4.15", "4.13"),
    ],
)
def test_an_account_is_made_read_changed_and_deleted(kind, create, read, update, listing):
    owner = factories.user()
    call = Caller(owner)

    status, made = call("POST", f"accounts/{kind}/", body(owner))
    address = f"accounts/{kind}/{made['id']}/"
    answers = {
        create: (status, made),
        read: call("GET", address),
        update: call("PUT", address, {"name": "renamed", "authentication": "C"}),
        listing: call("GET", f"accounts/{kind}/"),
    }
    deleted = call("DELETE", address)

    assert [status for status, _ in answers.values()] == [201, 200, 200, 200]
    for operation, (_, content) in answers.items():
        facts.check(operation, content)
        assert SECRET not in str(content)
    assert answers[update][1]["name"] == "renamed"
    assert deleted == (204, b"")
    assert call("GET", address)[0] == 404


def test_both_kinds_are_listed_together_and_each_under_its_own_address():
    owner = factories.user()
    backup, dr = factories.account(owner), factories.account(owner, is_dr_account=True)
    policy = factories.policy(backup, dr_account=dr)
    call = Caller(owner)

    _, both = call("GET", "accounts/?ordering=-name")
    _, one = call("GET", f"accounts/{dr.pk}/")

    facts.check("4.1", both)
    facts.check("4.20", one)
    assert {row["id"] for row in both} == {backup.pk, dr.pk}
    assert [row["related_policies"] for row in both] == [[policy.pk], [policy.pk]]
    assert call("GET", f"accounts/backup/{dr.pk}/")[0] == 404
    assert call("DELETE", f"accounts/dr/{backup.pk}/")[0] == 404


def test_an_account_of_the_other_kind_is_refused():
    owner = factories.user()

    status, content = Caller(owner)("POST", "accounts/dr/", body(owner, is_dr_account=False))

    assert (status, codes(content)) == (400, {"is_dr_account": ["wrong_kind"]})


def test_errors_name_the_fields_of_the_body():
    owner = factories.user()
    call = Caller(owner)

    shape = call("POST", "accounts/backup/", {"name": "x", "authentication": "Z", "scan_regions": ["a"]})
    meaning = call("POST", "accounts/backup/", body(owner, aws_secret_key="", scan_regions=[]))
    somebody = call("POST", "accounts/backup/", body(factories.user()))

    assert shape[0] == meaning[0] == somebody[0] == 400
    assert codes(shape[1]) == {
        "authentication": ["invalid_choice"],
        "scan_regions.0": ["invalid"],
        "user": ["required"],
    }
    assert codes(meaning[1]) == {"aws_secret_key": ["required"]}
    assert codes(somebody[1]) == {"user": ["not_found"]}


def test_the_servers_role_and_missing_flags_are_forbidden():
    owner = factories.user()

    role = Caller(owner)("POST", "accounts/backup/", {"name": "x", "user": owner.pk, "authentication": "R"})
    flag = Caller(factories.delegate(owner))("POST", "accounts/backup/", body(owner))

    assert (role[0], flag[0]) == (403, 403)


def test_an_account_in_use_stays():
    account = factories.policy(name="nightly").account

    status, content = Caller(account.user)("DELETE", f"accounts/{account.pk}/")

    assert (status, codes(content)) == (400, {"non_field_errors": ["in_use"]})
    assert "nightly" in str(content)
    assert Account.objects.filter(pk=account.pk).exists()


def test_root_sees_managed_users_accounts_and_filters_by_user():
    managed, independent = factories.user(Role.MANAGED), factories.user()
    mine, theirs = factories.account(managed), factories.account(independent)
    call = Caller(factories.root())

    _, everything = call("GET", "accounts/")
    _, filtered = call("GET", f"accounts/?user={independent.pk}")
    _, searched = call("GET", f"accounts/?search={mine.name}&ordering=authentication,-user")

    assert [row["id"] for row in everything] == [mine.pk]
    assert filtered == []
    assert [row["id"] for row in searched] == [mine.pk]
    assert call("GET", f"accounts/{theirs.pk}/")[0] == 404


@pytest.mark.parametrize("kind", ["", "backup/", "dr/"])
def test_snapshots_of_an_account_are_deleted(kind):
    owner = factories.user()
    account = factories.account(owner, is_dr_account=kind == "dr/")
    backup = factories.backup(factories.policy(factories.account(owner) if kind == "dr/" else account))
    factories.snapshot(backup, account=account)

    status, _ = Caller(owner)("DELETE", f"accounts/{kind}{account.pk}/snapshots/")

    backup.refresh_from_db()
    assert status == 204
    assert backup.marked_for_deletion is (kind != "dr/")


def test_addresses_are_older_than_some_versions():
    owner = factories.user()
    old = Caller(owner, accept="application/json; version=1.0.0")

    assert old("GET", "accounts/backup/")[0] == 200
    assert old("GET", "accounts/")[0] == 404
