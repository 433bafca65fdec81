import pytest

from cpm.lib import errors
from cpm.lib.states import Role
from cpm.models import Actor, Alert, ServerSettings
from cpm.services import alerts, settings
from tests import factories

pytestmark = pytest.mark.django_db

CLEANUP = {
    "cleanup_interval": 12,
    "keep_deleted_backup_records": 30,
    "keep_user_audit_logs_days": 60,
    "keep_resource_control_records": 61,
    "days_until_single_ami_rotation": 62,
}


def test_deleting_all_alerts_stays_within_reach():
    root, managed, independent = factories.root(), factories.user(Role.MANAGED), factories.user()
    for user in (root, managed, independent):
        factories.alert(user)

    dismissed = alerts.delete_all(actor=Actor.of(root))

    assert dismissed == 1
    assert set(Alert.objects.values_list("user", flat=True)) == {managed.pk, independent.pk}


def test_foreign_alerts_are_not_found_and_delegates_need_the_flag():
    owner = factories.user()
    alert = factories.alert(owner)

    with pytest.raises(errors.NotFound):
        alerts.delete(actor=Actor.of(factories.user()), alert=alert)
    with pytest.raises(errors.PermissionDenied):
        alerts.delete(actor=Actor.of(factories.delegate(owner)), alert=alert)
    alerts.delete(actor=Actor.of(factories.delegate(owner, allow_backup_changes=True)), alert=alert)

    assert not Alert.objects.exists()


def test_settings_are_made_on_first_use_and_keep_their_server_id():
    first = ServerSettings.current()

    assert ServerSettings.current().server_id == first.server_id
    assert ServerSettings.objects.count() == 1


def test_root_changes_the_cleanup_settings():
    changed = settings.change_cleanup(actor=Actor.of(factories.root()), **CLEANUP)

    assert {name: getattr(changed, name) for name in CLEANUP} == CLEANUP
    assert ServerSettings.current().cleanup_interval == 12


def test_nonsense_settings_are_refused_by_name_and_change_nothing():
    actor = Actor.of(factories.root())
    before = ServerSettings.current().keep_user_audit_logs_days

    with pytest.raises(errors.ValidationFailed) as error:
        settings.change_cleanup(
            actor=actor, **{**CLEANUP, "cleanup_interval": 0, "keep_deleted_backup_records": 10**6}
        )

    assert set(error.value.errors) == {"cleanup_interval", "keep_deleted_backup_records"}
    assert ServerSettings.current().keep_user_audit_logs_days == before


def test_only_root_changes_settings():
    delegate = factories.delegate(factories.root(), allow_settings_changes=True)

    for user in (delegate, factories.user()):
        with pytest.raises(errors.PermissionDenied):
            settings.change_security(actor=Actor.of(user), encryption_key_detection="D")
    changed = settings.change_security(actor=Actor.of(factories.root()), encryption_key_detection="A")

    assert changed.encryption_key_detection == "A"
