from datetime import timedelta

import pytest

from cpm.lib import errors
from cpm.lib.states import Role
from cpm.models import Actor, ApiKey, AuditRecord, User
from cpm.services import apikeys, attempts, users
from tests import factories
from tests.factories import NOW

pytestmark = pytest.mark.django_db

GOOD_PASSWORD = "a long and winding password"


def test_the_root_user_is_made_once_and_its_password_works_at_every_start():
    first, first_password = users.ensure_root(username="root")
    again, new_password = users.ensure_root(username="somebody-else")

    assert again.pk == first.pk
    assert again.username == "root"
    assert new_password != first_password
    assert again.check_password(new_password)
    assert User.objects.filter(role=Role.ROOT).count() == 1


def test_a_given_root_password_is_kept_without_a_new_hash():
    users.ensure_root(username="root", password=GOOD_PASSWORD)
    stored = User.objects.get(role=Role.ROOT).password

    _, password = users.ensure_root(username="root", password=GOOD_PASSWORD)

    assert password == GOOD_PASSWORD
    assert User.objects.get(role=Role.ROOT).password == stored


def test_only_root_creates_users():
    with pytest.raises(errors.PermissionDenied):
        users.create(
            actor=Actor.of(factories.user()), username="new", password=GOOD_PASSWORD, role=Role.MANAGED
        )


def test_a_delegate_acts_for_a_user_who_is_no_delegate():
    actor = Actor.of(factories.root())
    owner = factories.user()
    delegate = users.create(
        actor=actor,
        username="d",
        password=GOOD_PASSWORD,
        role=Role.DELEGATE,
        original_user=owner.pk,
        allow_recovery=True,
    )

    with pytest.raises(errors.ValidationFailed) as nested:
        users.create(
            actor=actor, username="dd", password=GOOD_PASSWORD, role=Role.DELEGATE, original_user=delegate.pk
        )
    with pytest.raises(errors.ValidationFailed) as alone:
        users.create(actor=actor, username="ddd", password=GOOD_PASSWORD, role=Role.DELEGATE)

    assert delegate.environment == owner
    assert delegate.allow_recovery
    assert list(nested.value.errors) == ["original_user"]
    assert alone.value.errors["original_user"][0][1] == "required"


def test_weak_passwords_and_taken_names_are_refused():
    actor = Actor.of(factories.root())
    taken = factories.user().username

    with pytest.raises(errors.ValidationFailed) as weak:
        users.create(actor=actor, username="new", password="short", role=Role.MANAGED)
    with pytest.raises(errors.Conflict) as name:
        users.create(actor=actor, username=taken, password=GOOD_PASSWORD, role=Role.MANAGED)

    assert weak.value.errors["password"][0][1] == "password_too_short"
    assert name.value.field == "username"


def test_a_minted_key_opens_the_door_and_only_its_hash_is_kept():
    user = factories.user()

    key = apikeys.mint(actor=Actor.of(user), user=user, name="script")

    row = ApiKey.objects.get(user=user)
    assert apikeys.authenticate(key=key, now=NOW).user == user
    assert key not in (row.key_hash, row.prefix, row.name)
    assert key.startswith(row.prefix)


def test_only_root_mints_keys_for_others():
    user = factories.user()

    with pytest.raises(errors.PermissionDenied):
        apikeys.mint(actor=Actor.of(factories.user()), user=user, name="script")

    assert apikeys.mint(actor=Actor.of(factories.root()), user=user, name="script")


def test_replacing_revokes_keys_of_the_same_name_and_no_others():
    user = factories.user()
    actor = Actor.of(user)
    other = apikeys.mint(actor=actor, user=user, name="other")
    old = apikeys.mint_replacing(actor=actor, user=user, name="cpm up", now=NOW)

    new = apikeys.mint_replacing(actor=actor, user=user, name="cpm up", now=NOW)

    assert apikeys.authenticate(key=new, now=NOW).user == user
    assert apikeys.authenticate(key=other, now=NOW).user == user
    with pytest.raises(errors.AuthenticationFailed):
        apikeys.authenticate(key=old, now=NOW)


def test_keys_of_inactive_users_and_of_their_delegates_do_not_work():
    owner = factories.user(is_active=False)
    keys = [factories.api_key(owner), factories.api_key(factories.delegate(owner)), "cpm_unknown"]

    for key in keys:
        with pytest.raises(errors.AuthenticationFailed):
            apikeys.authenticate(key=key, now=NOW)


def test_a_revoked_key_keeps_the_time_of_its_end():
    user = factories.user()
    key = apikeys.mint(actor=Actor.of(user), user=user, name="script")
    row = ApiKey.objects.get(user=user)

    apikeys.revoke(actor=Actor.of(user), key=row, now=NOW)
    apikeys.revoke(actor=Actor.of(user), key=row, now=NOW + timedelta(days=1))

    row.refresh_from_db()
    assert row.revoked_at == NOW
    with pytest.raises(errors.AuthenticationFailed):
        apikeys.authenticate(key=key, now=NOW)


def test_use_is_noted_at_most_once_a_minute():
    user = factories.user()
    key = factories.api_key(user)

    seen = []
    for seconds in (0, 30, 61):
        apikeys.authenticate(key=key, now=NOW + timedelta(seconds=seconds))
        seen.append((ApiKey.objects.get(user=user).last_used_at - NOW).total_seconds())

    assert seen == [0, 0, 61]


def test_a_user_is_known_by_the_letters_that_names_have():
    actor = Actor.of(factories.root())

    with pytest.raises(errors.ValidationFailed) as refused:
        users.create(actor=actor, username="no spaces", password=GOOD_PASSWORD, role=Role.MANAGED)

    assert refused.value.errors["username"][0][1] == "invalid_name"


def test_flags_of_another_kind_of_profile_are_refused():
    actor = Actor.of(factories.root())

    with pytest.raises(errors.ValidationFailed) as user:
        users.create(
            actor=actor, username="u", password=GOOD_PASSWORD, role=Role.MANAGED, allow_recovery=True
        )
    with pytest.raises(errors.ValidationFailed) as delegate:
        users.create(
            actor=actor,
            username="d",
            password=GOOD_PASSWORD,
            role=Role.DELEGATE,
            original_user=actor.user.pk,
            max_accounts=1,
        )

    assert user.value.errors["allow_recovery"][0][1] == "not_in_profile"
    assert delegate.value.errors["max_accounts"][0][1] == "not_in_profile"


def test_a_reset_password_ends_tokens_and_the_lock_out():
    user = factories.user()
    counters = attempts.by_password("203.0.113.5", user.username)
    for _ in range(10):
        with pytest.raises(errors.AuthenticationFailed), attempts.counted(counters, now=NOW):
            raise errors.AuthenticationFailed

    users.reset_password(actor=Actor.of(factories.root()), user=user, password=GOOD_PASSWORD, now=NOW)

    user.refresh_from_db()
    assert user.check_password(GOOD_PASSWORD)
    assert user.tokens_valid_from == NOW
    with attempts.counted(counters, now=NOW):
        pass


def test_only_root_resets_passwords_and_not_its_own():
    user, root = factories.user(), factories.root()

    with pytest.raises(errors.PermissionDenied):
        users.reset_password(actor=Actor.of(user), user=user, password=GOOD_PASSWORD, now=NOW)
    with pytest.raises(errors.NotFound):
        users.reset_password(actor=Actor.of(root), user=root, password=GOOD_PASSWORD, now=NOW)


def test_people_who_know_the_old_password_give_themselves_a_new_one():
    user = factories.user()
    user.set_password("the-old-password")
    user.save()
    actor = Actor.of(user)

    with pytest.raises(errors.ValidationFailed):
        users.change_own_password(actor=actor, old_password="x", new_password=GOOD_PASSWORD, now=NOW)
    users.change_own_password(
        actor=actor, old_password="the-old-password", new_password=GOOD_PASSWORD, now=NOW
    )

    user.refresh_from_db()
    assert user.check_password(GOOD_PASSWORD)
    assert user.tokens_valid_from == NOW
    assert AuditRecord.objects.get(event_type="user.password_changed").subject_id == user.pk


def test_a_deactivated_user_is_out_for_good_until_it_is_let_in_again():
    user, actor = factories.user(), Actor.of(factories.root())
    key = factories.api_key(user)

    users.set_active(actor=actor, user=user, active=False, now=NOW)
    with pytest.raises(errors.AuthenticationFailed):
        apikeys.authenticate(key=key, now=NOW)
    users.set_active(actor=actor, user=user, active=True, now=NOW)

    assert apikeys.authenticate(key=key, now=NOW).user == user
    user.refresh_from_db()
    assert user.tokens_valid_from == NOW
    with pytest.raises(errors.NotAllowed):
        users.set_active(actor=actor, user=actor.user, active=False, now=NOW)


def test_tokens_are_ended_by_their_user_and_by_root():
    user = factories.user()

    for number, actor in enumerate((Actor.of(user), Actor.of(factories.root()))):
        users.revoke_tokens(actor=actor, user=user, now=NOW + timedelta(hours=number))
        user.refresh_from_db()
        assert user.tokens_valid_from == NOW + timedelta(hours=number)
    with pytest.raises(errors.PermissionDenied):
        users.revoke_tokens(actor=Actor.of(factories.user()), user=user, now=NOW)


def test_keys_are_recorded_without_the_key():
    user = factories.user()
    key = apikeys.mint(actor=Actor.of(user), user=user, name="script")
    row = ApiKey.objects.get(user=user)
    apikeys.revoke(actor=Actor.of(user), key=row, now=NOW)

    made, revoked = AuditRecord.objects.filter(subject_type="apikey").order_by("pk")

    assert (made.event_type, revoked.event_type) == ("api_key.created", "api_key.revoked")
    assert key not in f"{made.log}{made.after}" and row.key_hash not in f"{made.after}"
    assert made.owner_id == user.pk
