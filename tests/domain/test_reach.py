"""How far rights reach, beyond what the table says: ids that came along, flags of users, options of the server."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings

from api import authentication
from cpm import permissions
from cpm.features import Feature
from cpm.lib import errors
from cpm.lib.secrets import hash_api_key
from cpm.lib.states import Authentication, Role
from cpm.models import Actor, ApiKey, User
from cpm.services import accounts, policies
from tests import factories

pytestmark = pytest.mark.django_db


def by_token(user: User) -> User:
    """The user as a request has it."""
    key = ApiKey.objects.get(key_hash=hash_api_key(factories.api_key(user)))
    found = authentication.live_user(key.pk, user.pk, obtained=0)
    assert found
    return found


@pytest.fixture
def tenants() -> dict[str, User]:
    root = factories.root()
    independent = factories.user()
    return {
        "root": root,
        "managed": factories.user(Role.MANAGED),
        "independent": independent,
        "root_delegate": factories.delegate(root),
        "delegate": factories.delegate(independent),
    }


@pytest.mark.parametrize(
    ("caller", "right", "reached"),
    [
        ("root", "policies.read", ["root", "managed"]),
        ("root", "alerts.read", ["root"]),
        ("root", "reports.usage", ["root", "managed", "independent"]),
        ("root", "users.delete", ["managed", "independent"]),
        ("root_delegate", "policies.read", ["root"]),
        ("root_delegate", "reports.backups", ["root", "managed"]),
        ("root_delegate", "reports.usage", ["root", "managed", "independent"]),
        ("independent", "reports.usage", ["independent"]),
        ("delegate", "policies.read", ["independent"]),
    ],
)
def test_ids_that_a_right_reaches_come_along_with_the_token(tenants, caller, right, reached):
    user = by_token(tenants[caller])

    with CaptureQueriesContext(connection) as queries:
        found = permissions.owners(user, right)

    assert not queries.captured_queries
    # The caller's own environment comes first where it is reached at all.
    assert (found[0] == user.environment.pk) is (right != "users.delete")
    assert sorted(found) == sorted(tenants[name].pk for name in reached)
    assert found == permissions.owners(User.objects.get(pk=user.pk), right)


def test_a_user_loses_a_flag_with_the_profile_and_a_delegate_with_its_user():
    owner = factories.user(allow_cost_explorer=False, allow_file_level_recovery=True)
    plain, recovering = factories.delegate(owner), factories.delegate(owner, allow_recovery=True)

    def holders(flag: str) -> list[bool]:
        return [permissions.holds(user, flag) for user in (factories.root(), owner, plain, recovering)]

    assert holders("allow_cost_explorer") == [True, False, False, False]
    assert holders("allow_file_level_recovery") == [True, True, False, True]
    assert holders("allow_backup_changes") == [True, True, False, False]


def test_roots_delegates_reach_the_settings_only_where_the_server_says_so(tenants):
    flagged = factories.delegate(tenants["root"], allow_settings_changes=True)
    others = [
        tenants["root_delegate"],
        factories.delegate(tenants["independent"], allow_settings_changes=True),
    ]

    assert not permissions.allowed(flagged, "settings.change")
    with override_settings(CPM_SETTINGS_BY_ROOT_DELEGATES=True):
        assert permissions.allowed(flagged, "settings.change")
        assert permissions.allowed(flagged, "settings.read")
        assert not permissions.allowed(flagged, "users.change")
        assert not any(permissions.allowed(other, "settings.change") for other in others)


@override_settings(CPM_FEATURES_OFF=frozenset({Feature.CROSS_ACCOUNT}))
def test_without_cross_account_dr_no_account_receives_copies():
    owner = factories.user()
    policy = factories.policy(factories.account(owner))
    dr_account = factories.account(owner, is_dr_account=True)
    actor = Actor.of(owner)

    with pytest.raises(errors.FeatureOff) as refused:
        accounts.create(
            actor=actor, user=owner.pk, is_dr_account=True, name="dr", authentication=Authentication.KEYS
        )
    with pytest.raises(errors.FeatureOff):
        policies.set_dr(actor=actor, policy=policy, dr_account=dr_account.pk)

    assert "cross_account" in str(refused.value)
    assert policies.set_dr(actor=actor, policy=policy, dr_frequency=2).dr_frequency == 2
