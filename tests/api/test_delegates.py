"""Delegates over REST: root makes them for others and says what they may do."""

import pytest

from cpm.lib.states import Role
from cpm.models import User
from tests import factories
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

PASSWORD = "correct-horse-battery"
FLAGS = ("allow_account_changes", "allow_backup_changes", "allow_recovery", "allow_settings_changes")


@pytest.fixture
def root() -> Caller:
    return Caller(factories.root())


def body(original_user: int, **flags: bool) -> dict[str, object]:
    return {"username": "deputy", "password": PASSWORD, "profile": {"original_user": original_user, **flags}}


def test_a_delegate_is_made_and_may_only_look(root):
    owner = factories.user()

    status, made = root("POST", "delegates/", body(owner.pk))

    assert status == 201
    assert made == {
        "email": "", "id": made["id"], "num_accounts": 0, "num_frozen_items": 0, "num_policies": 0,
        "profile": {
            **dict.fromkeys(FLAGS, False),
            "domain_name": "", "is_external_authentication": False, "original_user": owner.pk,
        },
        "user_type": "delegate", "username": "deputy",
    }  # fmt: skip
    row = User.objects.get(pk=made["id"])
    assert (row.environment, row.check_password(PASSWORD)) == (owner, True)


def test_flags_are_granted_and_taken_away_one_by_one(root):
    delegate = factories.delegate(factories.user(), allow_recovery=True, allow_backup_changes=True)

    status, changed = root(
        "PUT",
        f"delegates/{delegate.pk}/",
        {"email": "d@example.org", "profile": {"allow_recovery": False, "allow_account_changes": True}},
    )

    assert (status, changed["email"]) == (200, "d@example.org")
    assert [changed["profile"][flag] for flag in FLAGS] == [True, True, False, False]


def test_a_delegate_keeps_its_original_user(root):
    delegate, other = factories.delegate(factories.user()), factories.user()

    root("PUT", f"delegates/{delegate.pk}/", {"profile": {"original_user": other.pk}})

    assert User.objects.get(pk=delegate.pk).original_user_id == delegate.original_user_id


@pytest.mark.parametrize(
    ("original", "code"),
    [
        (lambda: 2**40, "not_found"),
        (lambda: factories.delegate(factories.root()).pk, "invalid"),
        (lambda: factories.user(domain_name="example.org").pk, "external_user"),
    ],
    ids=["nobody", "a delegate", "of an identity provider"],
)
def test_not_everybody_has_delegates(root, original, code):
    status, answer = root("POST", "delegates/", body(original()))

    assert (status, codes(answer)) == (400, {"profile.original_user": [code]})


def test_the_original_user_must_be_named(root):
    status, answer = root("POST", "delegates/", {**body(1), "profile": {}})

    assert (status, codes(answer)) == (400, {"profile.original_user": ["required"]})


def test_delegates_of_an_identity_provider_are_not_changed(root):
    delegate = factories.delegate(factories.user(), domain_name="example.org")

    change = root("PUT", f"delegates/{delegate.pk}/", {"profile": {"allow_recovery": True}})
    reset = root("POST", f"delegates/{delegate.pk}/reset_password/", {"new_password": PASSWORD})

    assert [change[0], reset[0]] == [403, 403]


def test_delegates_are_found_by_their_original_user(root):
    anna, berta = factories.user(username="anna"), factories.user(Role.MANAGED, username="berta")
    for number, owner in enumerate((berta, anna, anna)):
        factories.delegate(owner, username=f"d{number}")

    def names(query: str) -> list[str]:
        return [row["username"] for row in root("GET", f"delegates/?{query}")[1]]

    assert names(f"original_user={anna.pk}") == ["d1", "d2"]
    assert names(f"original_user={anna.pk},{berta.pk}&ordering=-username") == ["d2", "d1", "d0"]
    assert names("search=ert") == ["d0"]
    assert names("search=d2") == ["d2"]
    assert names("search=anna+d1") == ["d1"]
    assert names("ordering=original_user") == ["d1", "d2", "d0"]
    assert names("ordering=-original_user,username") == ["d0", "d1", "d2"]
    assert codes(root("GET", "delegates/?original_user=x")[1]) == {"original_user": ["invalid"]}


def test_users_are_no_delegates(root):
    user = factories.user()
    address = f"delegates/{user.pk}/"

    answers = [
        root("GET", address), root("DELETE", address), root("PUT", address, {"profile": {}}),
        root("POST", f"{address}reset_password/", {"new_password": PASSWORD}),
    ]  # fmt: skip

    assert {status for status, _ in answers} == {404}
    assert User.objects.filter(pk=user.pk).exists()


def test_a_deleted_delegate_leaves_its_users_things_alone(root):
    policy = factories.policy()
    delegate = factories.delegate(policy.user)
    factories.api_key(delegate)

    assert root("DELETE", f"delegates/{delegate.pk}/") == (204, b"")

    assert not User.objects.filter(pk=delegate.pk).exists()
    policy.refresh_from_db()
    assert root("DELETE", f"users/{policy.user_id}/")[0] == 204


def test_a_delegates_password_is_reset(root):
    delegate = factories.delegate(factories.root())

    assert root("POST", f"delegates/{delegate.pk}/reset_password/", {"new_password": PASSWORD}) == (201, b"")

    delegate.refresh_from_db()
    assert delegate.check_password(PASSWORD)
