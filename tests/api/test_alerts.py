import pytest

from cpm.lib.states import Role
from cpm.models import Alert
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
