"""Users over REST: what root sees and changes of them, and everybody's own password."""

import pytest

from cpm.lib.states import Role
from cpm.models import AuditRecord, User
from tests import factories
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

PASSWORD = "correct-horse-battery"
LIMITS = (
    "max_accounts", "max_controlled_entities", "max_dynamodb_gib", "max_independent_ebs_gib", "max_instances",
    "max_rds_gib", "max_redshift_gib",
)  # fmt: skip


@pytest.fixture
def root() -> Caller:
    return Caller(factories.root())


def body(**profile) -> dict[str, object]:
    return {"username": "anna", "password": PASSWORD, "email": "anna@example.org", "profile": profile}


def test_a_user_is_made_with_its_profile(root):
    managed = factories.user(Role.MANAGED)
    limits = {name: number for number, name in enumerate(LIMITS)}

    status, made = root(
        "POST",
        "users/",
        body(allow_cost_explorer=False, applied_managed_users=[managed.pk], is_managed_user=False, **limits),
    )

    assert status == 201
    profile = made.pop("profile")
    assert made == {
        "email": "anna@example.org", "id": made["id"], "num_accounts": 0, "num_frozen_items": 0, "num_policies": 0,
        "user_type": "independent", "username": "anna",
    }  # fmt: skip
    assert profile == {
        "allow_cost_explorer": False, "allow_file_level_recovery": True, "applied_managed_users": [managed.pk],
        "domain_name": "", "is_external_authentication": False, "is_managed_user": False, **limits,
    }  # fmt: skip
    assert User.objects.get(pk=made["id"]).check_password(PASSWORD)


def test_a_managed_user_is_made_by_its_flag(root):
    _, made = root("POST", "users/", body(is_managed_user=True))

    assert (made["user_type"], made["profile"]["is_managed_user"]) == ("managed", True)
    assert [made["profile"][name] for name in LIMITS] == [None] * len(LIMITS)


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"username": "no spaces"}, {"username": ["invalid_name"]}),
        ({"username": "x" * 129}, {"username": ["max_length"]}),
        ({"password": "short"}, {"password": ["password_too_short"]}),
        ({"password": "password123"}, {"password": ["password_too_common"]}),
        ({"email": "nowhere"}, {"email": ["invalid"]}),
        ({"profile": {"applied_managed_users": [2**40]}}, {"profile.applied_managed_users": ["not_found"]}),
        ({"profile": {"max_accounts": -1}}, {"profile.max_accounts": ["min_value"]}),
    ],
)
def test_nonsense_is_refused_by_field(root, change, blamed):
    status, answer = root("POST", "users/", {**body(), **change})

    assert (status, codes(answer)) == (400, blamed)
    assert not User.objects.filter(username="anna").exists()


def test_a_name_is_given_once(root):
    factories.delegate(factories.root(), username="anna")

    status, answer = root("POST", "users/", body())

    assert (status, codes(answer)) == (400, {"username": ["unique"]})


@pytest.mark.parametrize("role", [Role.INDEPENDENT, Role.DELEGATE, Role.ROOT])
def test_only_managed_users_are_assigned(root, role):
    other = {Role.ROOT: factories.root, Role.DELEGATE: lambda: factories.delegate(factories.root())}.get(
        role, factories.user
    )()

    status, answer = root("POST", "users/", body(applied_managed_users=[other.pk]))

    assert (status, codes(answer)) == (400, {"profile.applied_managed_users": ["not_found"]})


def test_a_managed_user_looks_after_nobody(root):
    other = factories.user(Role.MANAGED)

    status, answer = root("POST", "users/", body(is_managed_user=True, applied_managed_users=[other.pk]))

    assert (status, codes(answer)) == (400, {"profile.applied_managed_users": ["not_independent"]})


def test_what_a_change_leaves_out_keeps_its_value(root):
    managed = factories.user(Role.MANAGED)
    user = factories.user(email="a@example.org", max_accounts=3, allow_cost_explorer=False)
    user.applied_managed_users.add(managed)

    status, changed = root("PUT", f"users/{user.pk}/", {"profile": {"max_instances": 5}})

    assert status == 200
    assert changed["email"] == "a@example.org"
    profile = changed["profile"]
    assert (profile["max_accounts"], profile["max_instances"]) == (3, 5)
    assert (profile["allow_cost_explorer"], profile["applied_managed_users"]) == (False, [managed.pk])


def test_limits_and_assignments_are_taken_away(root):
    user = factories.user(max_accounts=3)
    user.applied_managed_users.add(factories.user(Role.MANAGED))

    _, changed = root(
        "PUT", f"users/{user.pk}/", {"profile": {"max_accounts": None, "applied_managed_users": []}}
    )

    assert (changed["profile"]["max_accounts"], changed["profile"]["applied_managed_users"]) == (None, [])


def test_whoever_changes_sides_is_assigned_to_nobody_and_looks_after_nobody(root):
    managed, independent = factories.user(Role.MANAGED), factories.user()
    independent.applied_managed_users.add(managed)

    root("PUT", f"users/{managed.pk}/", {"profile": {"is_managed_user": False}})

    assert not independent.applied_managed_users.exists()
    independent.applied_managed_users.add(factories.user(Role.MANAGED))
    _, changed = root("PUT", f"users/{independent.pk}/", {"profile": {"is_managed_user": True}})
    assert (changed["user_type"], changed["profile"]["applied_managed_users"]) == ("managed", [])


def test_a_change_is_recorded_without_secrets(root):
    user = factories.user(max_accounts=3)

    root("PUT", f"users/{user.pk}/", {"profile": {"max_accounts": 4}})
    root("POST", f"users/{user.pk}/reset_password/", {"new_password": PASSWORD})

    changed, reset = AuditRecord.objects.filter(subject_type="user", subject_id=user.pk).order_by("pk")
    assert (changed.event_type, changed.before, changed.after) == (
        "user.updated", {"max_accounts": 3}, {"max_accounts": 4},
    )  # fmt: skip
    assert reset.event_type == "user.password_reset"
    assert PASSWORD not in f"{reset.before}{reset.after}{reset.log}"


def test_root_has_an_address_and_no_profile(root):
    me = factories.root().pk

    assert root("PUT", f"users/{me}/", {"email": "root@example.org"})[0] == 200
    status, answer = root("PUT", f"users/{me}/", {"profile": {"max_accounts": 1}})

    assert (status, codes(answer)) == (400, {"profile": ["root_has_no_profile"]})
    assert factories.root().max_accounts is None
    assert root("GET", f"users/{me}/")[1]["email"] == "root@example.org"


def test_users_of_an_identity_provider_are_shown_and_not_changed(root):
    user = factories.user(domain_name="example.org")

    answers = [
        root("PUT", f"users/{user.pk}/", {"profile": {"max_accounts": 1}}),
        root("POST", f"users/{user.pk}/reset_password/", {"new_password": PASSWORD}),
        Caller(user)("POST", "users/me/change_password/", {"old_password": "x", "new_password": PASSWORD}),
    ]

    assert [(status, codes(answer)) for status, answer in answers] == [
        (403, {"non_field_errors": ["external_user"]})
    ] * 3
    profile = root("GET", f"users/{user.pk}/")[1]["profile"]
    assert (profile["domain_name"], profile["is_external_authentication"]) == ("example.org", True)


def test_delegates_are_no_users(root):
    delegate = factories.delegate(factories.root())
    address = f"users/{delegate.pk}/"

    assert {root("GET", address)[0], root("DELETE", address)[0]} == {404}
    assert root("PUT", address, {"profile": {}})[0] == 404
    assert delegate.pk not in [row["id"] for row in root("GET", "users/")[1]]


def test_root_neither_deletes_itself_nor_resets_its_password(root):
    me = factories.root().pk

    assert root("DELETE", f"users/{me}/")[0] == 404
    assert root("POST", f"users/{me}/reset_password/", {"new_password": PASSWORD})[0] == 404


@pytest.mark.parametrize(
    "of",
    [
        factories.user,
        lambda: factories.user(Role.MANAGED),
        lambda: factories.delegate(
            factories.root(),
            allow_account_changes=True,
            allow_backup_changes=True,
            allow_settings_changes=True,
        ),
    ],
    ids=["independent", "managed", "root's delegate"],
)
def test_nobody_else_sees_or_changes_users(of):
    caller = of()
    address = f"users/{caller.pk}/"
    call = Caller(caller)

    answers = [
        call("GET", "users/"), call("GET", address), call("POST", "users/", body()), call("DELETE", address),
        call("PUT", address, {"profile": {}}), call("POST", f"{address}reset_password/", {"new_password": PASSWORD}),
        call("GET", "delegates/"),
    ]  # fmt: skip

    assert {status for status, _ in answers} == {403}


def test_numbers_count_what_the_user_has(root):
    account = factories.account()
    policy = factories.policy(account)
    for is_frozen in (True, True, False):
        factories.backup(policy, is_freezer_item=is_frozen)
    factories.account(account.user, is_dr_account=True)
    factories.policy()

    shown = root("GET", f"users/{account.user_id}/")[1]

    assert [shown[f"num_{name}"] for name in ("accounts", "policies", "frozen_items")] == [2, 1, 2]


@pytest.mark.parametrize(
    "order",
    [
        "delegate_users", "is_external_authentication", "managed", "managed_users", "num_accounts",
        "num_frozen_items", "num_policies", "user_type", "username",
    ],
)  # fmt: skip
def test_every_documented_order_orders(root, order):
    """One user is ahead of the others in everything."""
    top = factories.user(username="zz-top", domain_name="example.org")
    policy = factories.policy(factories.account(top))
    factories.backup(policy, is_freezer_item=True)
    factories.delegate(top)
    managed = factories.user(Role.MANAGED, username="mm")
    top.applied_managed_users.add(managed)
    first = {"managed": managed.pk, "user_type": factories.root().pk}.get(order, top.pk)

    rows = root("GET", f"users/?ordering=-{order}")[1]
    turned = root("GET", f"users/?ordering={order}")[1]
    pages = [
        root("GET", f"users/?ordering=-{order}&page={n}&page_size=1")[1]["results"][0] for n in (1, 2, 3)
    ]

    assert rows[0]["id"] == turned[-1]["id"] == first
    assert pages == rows


def test_a_list_costs_the_same_however_many_users(root, django_assert_max_num_queries):
    for _ in range(3):
        owner = factories.user()
        owner.applied_managed_users.add(factories.user(Role.MANAGED))
        factories.policy(factories.account(owner))

    with django_assert_max_num_queries(3):
        assert root("GET", "users/?page=1&page_size=5")[1]["count"] == 7


def test_people_change_their_own_password(root):
    delegate = factories.delegate(factories.user())
    delegate.set_password("the-old-password")
    delegate.save()
    change = {"old_password": "the-old-password", "new_password": PASSWORD}

    status, answer = Caller(delegate)("POST", "users/me/change_password/", change)

    delegate.refresh_from_db()
    assert (status, answer) == (201, b"")
    assert delegate.check_password(PASSWORD)


def test_a_weak_new_password_is_blamed_and_does_not_count():
    user = factories.user()
    user.set_password("the-old-password")
    user.save()
    call = Caller(user)
    weak = {"old_password": "the-old-password", "new_password": "short"}

    assert codes(call("POST", "users/me/change_password/", weak)[1]) == {
        "new_password": ["password_too_short"]
    }
    assert call("POST", "users/me/change_password/", {**weak, "new_password": PASSWORD})[0] == 201


def test_a_reset_password_works_and_the_old_tokens_do_not(root):
    user = factories.user()
    before = Caller(user)

    status, answer = root("POST", f"users/{user.pk}/reset_password/", {"new_password": PASSWORD})

    user.refresh_from_db()
    assert (status, answer) == (201, b"")
    assert user.check_password(PASSWORD)
    assert before("GET", "policies/")[0] == 401
    assert Caller(user)("GET", "policies/")[0] == 200
    weak = root("POST", f"users/{user.pk}/reset_password/", {"new_password": "short"})[1]
    assert codes(weak) == {"new_password": ["password_too_short"]}


def test_a_deleted_user_is_gone_with_its_things(root):
    policy = factories.policy()

    assert root("DELETE", f"users/{policy.user_id}/") == (204, b"")
    assert root("GET", f"users/{policy.user_id}/")[0] == 404
    assert root("DELETE", f"users/{policy.user_id}/")[0] == 404


def test_a_user_with_delegates_stays(root):
    user = factories.user()
    factories.delegate(user, username="deputy")

    status, answer = root("DELETE", f"users/{user.pk}/")

    assert (status, codes(answer)) == (403, {"non_field_errors": ["has_delegates"]})
    assert "deputy" in str(answer)
