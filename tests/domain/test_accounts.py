from pathlib import Path

import pytest
from django.conf import settings

from cpm.aws.identity import AssumedRole, Keys, ServerRole
from cpm.flows.identities import decrypt_secret, identity_of
from cpm.lib import errors
from cpm.lib.secrets import add_key_to_file
from cpm.lib.states import Authentication, Role
from cpm.models import Account, Actor
from cpm.services import accounts
from tests import factories

pytestmark = pytest.mark.django_db

ACCESS_KEY = "AKIAEXAMPLE000000001"
SECRET = "a-secret-that-nobody-may-see-0123456789"
KEYS = {"authentication": Authentication.KEYS, "aws_access_key": ACCESS_KEY, "aws_secret_key": SECRET}


def create(actor, owner, **fields):
    return accounts.create(
        actor=actor, **{"user": owner.pk, "is_dr_account": False, "name": "main", **KEYS, **fields}
    )


def refused(actor, owner, **fields):
    with pytest.raises(errors.ValidationFailed) as error:
        create(actor, owner, **fields)
    return {name: [code for _, code in pairs] for name, pairs in error.value.errors.items()}


def test_the_secret_key_is_encrypted_and_opens_for_the_identity():
    owner = factories.user()

    account = create(Actor.of(owner), owner)

    stored = Account.objects.get(pk=account.pk)
    assert SECRET not in stored.secret_key
    assert decrypt_secret(stored.secret_key) == SECRET
    assert identity_of(stored, session="test") == Keys(ACCESS_KEY, SECRET)


def test_a_secret_survives_a_new_key_in_the_key_file():
    owner = factories.user()
    account = create(Actor.of(owner), owner)

    add_key_to_file(Path(settings.CPM_FIELD_KEYS_FILE))

    assert identity_of(account, session="test") == Keys(ACCESS_KEY, SECRET)


def test_what_an_authentication_needs_is_asked_for():
    owner = factories.user()
    actor = Actor.of(owner)

    keys = refused(actor, owner, aws_access_key="", aws_secret_key="")
    role = refused(actor, owner, authentication=Authentication.ASSUME_ROLE)

    assert keys == {"aws_access_key": ["required"], "aws_secret_key": ["required"]}
    assert role == {
        "account_number": ["required"],
        "role_name": ["required"],
        "assume_from_account": ["required"],
    }


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"name": "two words"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"account_number": "12345"}, "account_number"),
        ({"account_number": "١٢٣٤٥٦٧٨٩٠١٢"}, "account_number"),
        ({"aws_access_key": "short"}, "aws_access_key"),
        ({"role_name": "arn:aws:iam::123456789012:role/x", "authentication": "A"}, "role_name"),
        ({"role_name": "no spaces", "authentication": "A"}, "role_name"),
        ({"external_id": "?", "authentication": "A"}, "external_id"),
    ],
)
def test_values_that_aws_would_refuse_are_refused_by_name(fields, blamed):
    owner = factories.user()

    assert blamed in refused(Actor.of(owner), owner, **fields)


def test_a_role_is_assumed_from_an_account_of_the_same_owner():
    owner, root = factories.user(Role.MANAGED), factories.root()
    actor = Actor.of(root)
    role = {
        "authentication": Authentication.ASSUME_ROLE,
        "account_number": "123456789012",
        "role_name": "team/cpm",
    }
    source = create(actor, owner)
    foreign = factories.account(root)

    account = create(actor, owner, name="second", assume_from_account=source.pk, external_id="xyz", **role)
    with pytest.raises(errors.NotFound) as error:
        create(actor, owner, name="third", assume_from_account=foreign.pk, **role)

    identity = identity_of(account, session="cpm-job-1")
    assert identity == AssumedRole(
        Keys(ACCESS_KEY, SECRET), "arn:aws:iam::123456789012:role/team/cpm", "xyz", "cpm-job-1"
    )
    assert error.value.field == "assume_from_account"


def test_accounts_cannot_assume_their_roles_in_a_circle():
    owner = factories.user()
    first = factories.account(owner)
    second = factories.account(owner, assume_from_account=first)

    with pytest.raises(errors.ValidationFailed) as error:
        accounts.update(actor=Actor.of(owner), account=first, assume_from_account=second.pk)

    assert error.value.errors["assume_from_account"][0][1] == "cycle"


def test_only_root_and_its_delegates_use_the_servers_role():
    root, owner = factories.root(), factories.user()
    flags = {"allow_backup_changes": True, "allow_account_changes": True}
    of_root, of_owner = factories.delegate(root, **flags), factories.delegate(owner, **flags)
    role = {"authentication": Authentication.SERVER_ROLE}

    account = create(Actor.of(of_root), root, name="by-delegate", **role)
    create(Actor.of(root), root, name="by-root", **role)

    for user in (owner, of_owner):
        with pytest.raises(errors.PermissionDenied):
            create(Actor.of(user), owner, **role)
    assert identity_of(account, session="x") == ServerRole()
    assert account.access_key == account.secret_key == ""


def test_delegates_need_both_flags_and_create_for_their_original_user():
    owner = factories.user()
    one_flag = factories.delegate(owner, allow_account_changes=True)
    both = factories.delegate(owner, allow_account_changes=True, allow_backup_changes=True)

    account = create(Actor.of(both), owner)

    assert account.user == owner
    with pytest.raises(errors.PermissionDenied):
        create(Actor.of(one_flag), owner, name="second")


def test_an_owner_out_of_reach_does_not_exist():
    independent, managed = factories.user(), factories.user(Role.MANAGED)
    root = Actor.of(factories.root())

    create(root, managed)

    for actor, owner in ((root, independent), (Actor.of(independent), managed)):
        with pytest.raises(errors.NotFound) as error:
            create(actor, owner, name="other")
        assert error.value.field == "user"


def test_an_update_keeps_what_it_does_not_name():
    owner = factories.user()
    actor = Actor.of(owner)
    account = create(actor, owner, capture_vpcs=False)

    changed = accounts.update(
        actor=actor, account=account, name="renamed", authentication=Authentication.KEYS
    )

    assert changed.name == "renamed"
    assert changed.capture_vpcs is False
    assert decrypt_secret(changed.secret_key) == SECRET


def test_a_new_access_key_needs_its_own_secret():
    owner = factories.user()
    account = create(Actor.of(owner), owner)

    with pytest.raises(errors.ValidationFailed) as error:
        accounts.update(actor=Actor.of(owner), account=account, aws_access_key="AKIAEXAMPLE000000002")

    assert list(error.value.errors) == ["aws_secret_key"]
    assert Account.objects.get(pk=account.pk).access_key == ACCESS_KEY


def test_names_are_unique_per_owner():
    owner = factories.user()
    create(Actor.of(owner), owner)
    create(Actor.of(other := factories.user()), other)

    with pytest.raises(errors.Conflict) as error:
        create(Actor.of(owner), owner)

    assert (error.value.field, error.value.error_code()) == ("name", "unique")


def test_an_account_in_use_is_not_deleted_and_says_by_what():
    owner = factories.user()
    account, dr = factories.account(owner), factories.account(owner, is_dr_account=True)
    factories.policy(account, name="nightly", dr_account=dr)
    factories.account(owner, name="chained", assume_from_account=account)

    with pytest.raises(errors.InUse) as used:
        accounts.delete(actor=Actor.of(owner), account=account)
    with pytest.raises(errors.InUse) as used_for_dr:
        accounts.delete(actor=Actor.of(owner), account=dr)

    assert used.value.by == ["policy nightly", "account chained"]
    assert used_for_dr.value.by == ["DR of policy nightly"]


def test_deleting_an_account_leaves_the_records_of_its_backups():
    owner = factories.user()
    account = factories.account(owner)
    backup = factories.backup(factories.policy(account))
    backup.policy.delete()

    accounts.delete(actor=Actor.of(owner), account=account)

    backup.refresh_from_db()
    assert backup.account is None
    assert backup.account_name == account.name


def test_foreign_accounts_are_not_found_for_changes():
    account = factories.account()

    for act in (accounts.delete, accounts.update):
        with pytest.raises(errors.NotFound):
            act(actor=Actor.of(factories.user()), account=account)


def test_a_user_has_no_more_accounts_than_allowed():
    owner = factories.user(max_accounts=1)
    create(Actor.of(owner), owner)

    with pytest.raises(errors.LimitExceeded):
        create(Actor.of(owner), owner, name="second")


def test_unknown_regions_to_scan_are_refused():
    owner = factories.user()

    with pytest.raises(errors.NotFound) as error:
        create(Actor.of(owner), owner, scan_regions=[987654])

    assert error.value.field == "scan_regions"
