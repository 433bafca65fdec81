import pytest

from cpm.lib.states import Role
from cpm.models import Alert, Notification
from tests import factories
from tests.api import facts
from tests.api.caller import Caller

pytestmark = pytest.mark.django_db


def test_alerts_are_listed_newest_first_read_and_dismissed():
    owner = factories.user()
    policy = factories.policy(factories.account(owner))
    old = factories.alert(owner, policy=policy)
    new = factories.alert(owner, alert_time="2030-01-01T00:00:00Z")
    call = Caller(owner)

    _, rows = call("GET", "alerts/")
    _, one = call("GET", f"alerts/{old.pk}/")

    facts.check("6.1", rows)
    facts.check("6.3", one)
    assert [row["id"] for row in rows] == [new.pk, old.pk]
    assert one["policy"] == policy.pk
    assert call("DELETE", f"alerts/{old.pk}/") == (204, b"")
    assert call("DELETE", "alerts/") == (204, b"")
    assert call("GET", "alerts/?page=1")[1]["count"] == 0


def wants_managed(user) -> None:
    Notification.objects.create(user=user, authentication="C", region="us-east-1", include_managed_user_alerts=True)


def listed(user) -> set[int]:
    return {row["id"] for row in Caller(user)("GET", "alerts/")[1]}


def test_notification_settings_can_show_root_the_alerts_of_managed_users():
    root, independent, managed = factories.root(), factories.user(), factories.user(Role.MANAGED)
    own, theirs, _ = factories.alert(root), factories.alert(managed), factories.alert(independent)
    wants_managed(root)

    assert listed(root) == listed(factories.delegate(root)) == {own.pk, theirs.pk}
    assert listed(managed) == {theirs.pk}
    assert Caller(root)("GET", f"alerts/{theirs.pk}/")[0] == 200


def test_notification_settings_can_show_independent_users_the_alerts_of_those_applied_to_them():
    owner, applied, other = factories.user(), factories.user(Role.MANAGED), factories.user(Role.MANAGED)
    owner.applied_managed_users.add(applied)
    own, theirs, _ = factories.alert(owner), factories.alert(applied), factories.alert(other)
    assert listed(owner) == {own.pk}
    wants_managed(owner)

    assert listed(owner) == {own.pk, theirs.pk}


def test_alerts_of_managed_users_that_are_shown_are_still_theirs_to_dismiss():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    theirs = factories.alert(managed)
    wants_managed(root)
    call = Caller(root)

    assert call("DELETE", f"alerts/{theirs.pk}/")[0] == 404
    assert call("DELETE", "alerts/")[0] == 204
    assert Alert.objects.get() == theirs


def test_a_managed_user_never_sees_the_alerts_of_others_whatever_its_settings():
    managed = factories.user(Role.MANAGED)
    factories.alert(factories.user(Role.MANAGED))
    wants_managed(managed)

    assert listed(managed) == set()


def test_root_sees_its_own_alerts_only():
    root = factories.root()
    seen = {factories.alert(root).pk}
    hidden, other = factories.alert(factories.user(Role.MANAGED)), factories.alert(factories.user())
    call = Caller(root)

    _, rows = call("GET", "alerts/")
    call("DELETE", "alerts/")

    assert {row["id"] for row in rows} == seen
    assert set(Alert.objects.all()) == {hidden, other}
    assert call("DELETE", f"alerts/{hidden.pk}/")[0] == 404
