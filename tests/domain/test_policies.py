import pytest

from cpm.lib import errors
from cpm.lib.states import BackupStatus, Role
from cpm.models import Actor, Backup, Policy, Region
from cpm.services import policies
from tests import factories
from tests.factories import NOW

pytestmark = pytest.mark.django_db


def create(owner, actor=None, **fields):
    account = fields.pop("account", None) or factories.account(owner).pk
    actor = actor or Actor.of(owner)
    return policies.create(actor=actor, **{"account": account, "name": "nightly", "now": NOW, **fields})


def region(id=9001, **fields):
    return Region.objects.create(id=id, aws_region=f"mars-{id}", disp_name="Mars", **fields).pk


def refused(change, *args, **fields):
    with pytest.raises(errors.ValidationFailed) as error:
        change(*args, **fields)
    return {name: [code for _, code in pairs] for name, pairs in error.value.errors.items()}


def test_a_policy_belongs_to_the_owner_of_its_account():
    managed = factories.user(Role.MANAGED)

    policy = create(managed, actor=Actor.of(factories.root()))

    assert policy.user == managed
    assert (policy.enabled, policy.generations, policy.auto_remove_resource) == (True, 30, "N")


def test_accounts_out_of_reach_and_dr_accounts_are_refused():
    owner = factories.user()

    with pytest.raises(errors.NotFound) as foreign:
        create(owner, account=factories.account().pk)
    dr = refused(create, owner, account=factories.account(owner, is_dr_account=True).pk)

    assert foreign.value.field == "account"
    assert dr == {"account": ["dr_account"]}


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [({"name": "a b"}, "name"), ({"generations": 0}, "generations"), ({"generations": 2**31}, "generations")],
)
def test_nonsense_is_refused_by_name(fields, blamed):
    assert blamed in refused(create, factories.user(), **fields)


def test_the_name_of_the_servers_own_policy_is_roots():
    root = factories.root()
    delegate = factories.delegate(root, allow_backup_changes=True)
    account = factories.account(root).pk

    with pytest.raises(errors.PermissionDenied):
        create(root, actor=Actor.of(delegate), account=account, name="cpmdata")
    with pytest.raises(errors.PermissionDenied):
        create(factories.user(), name="cpmdata")
    policy = create(root, account=account, name="cpmdata")

    assert refused(policies.update, actor=Actor.of(root), policy=policy, now=NOW, name="other") == {
        "name": ["invalid"]
    }
    with pytest.raises(errors.NotFound):
        policies.set_options(actor=Actor.of(root), policy=policy, number_of_retries=1)


def test_no_policy_is_renamed_to_the_reserved_name():
    root = factories.root()
    policy = create(root)

    assert refused(policies.update, actor=Actor.of(root), policy=policy, now=NOW, name="cpmdata")


def test_schedules_are_the_owners_and_replaced_as_a_whole():
    owner = factories.user()
    first, second, foreign = factories.schedule(owner), factories.schedule(owner), factories.schedule()
    policy = create(owner, schedules=[first.pk, first.pk])
    actor = Actor.of(owner)

    policies.update(actor=actor, policy=policy, now=NOW, description="schedules kept")
    kept = list(policy.schedules.all())
    policies.update(actor=actor, policy=policy, now=NOW, schedules=[second.pk])
    with pytest.raises(errors.NotFound) as error:
        policies.update(actor=actor, policy=policy, now=NOW, schedules=[foreign.pk])

    assert kept == [first]
    assert list(policy.schedules.all()) == [second]
    assert error.value.field == "schedules"


def test_names_are_unique_per_owner():
    owner = factories.user()
    create(owner)

    with pytest.raises(errors.Conflict) as error:
        create(owner)

    assert error.value.field == "name"


def test_options_keep_what_they_do_not_name_and_refuse_nonsense():
    owner = factories.user()
    actor, policy = Actor.of(owner), create(owner)

    policies.set_options(actor=actor, policy=policy, number_of_retries=7)
    changed = policies.set_options(actor=actor, policy=policy, considered_successful="A")
    problems = refused(
        policies.set_options, actor=actor, policy=policy, agent_script_timeout=0, num_failures_for_alert=0
    )

    assert (changed.number_of_retries, changed.considered_successful) == (7, "A")
    assert set(problems) == {"agent_script_timeout", "num_failures_for_alert"}
    assert Policy.objects.get(pk=policy.pk).agent_script_timeout == 30


def test_dr_needs_somewhere_to_copy_to():
    owner = factories.user()
    actor, policy = Actor.of(owner), create(owner)
    dr = factories.account(owner, is_dr_account=True)

    nowhere = refused(policies.set_dr, actor=actor, policy=policy, dr_enabled=True)
    account_only = refused(policies.set_dr, actor=actor, policy=policy, dr_enabled=True, dr_account=dr.pk)
    giving_up = refused(
        policies.set_dr,
        actor=actor,
        policy=policy,
        dr_enabled=True,
        dr_regions=[region()],
        dr_keep_original_snapshots=False,
    )

    assert nowhere == {"dr_regions": ["required"]}
    assert account_only == {"cross_account_dr.dr_account_regions": ["required"]}
    assert giving_up == {"cross_account_dr.dr_keep_original_snapshots": ["no_dr_account"]}


def test_dr_goes_to_enabled_regions_and_the_owners_dr_account():
    owner = factories.user()
    actor, policy = Actor.of(owner), create(owner)
    here, off = region(), region(9002, enabled=False)
    dr = factories.account(owner, is_dr_account=True)

    changed = policies.set_dr(
        actor=actor,
        policy=policy,
        dr_enabled=True,
        dr_regions=[here, here],
        dr_account=dr.pk,
        copy_to_snapshot_original_region=True,
        dr_keep_original_snapshots=False,
        dr_frequency=3,
    )

    assert (changed.dr_regions, changed.dr_account, changed.dr_frequency) == ([here], dr, 3)
    for account in (factories.account(is_dr_account=True).pk, 10**12):
        with pytest.raises(errors.NotFound):
            policies.set_dr(actor=actor, policy=policy, dr_account=account)
    with pytest.raises(errors.NotFound) as error:
        policies.set_dr(actor=actor, policy=policy, dr_regions=[off])
    assert error.value.field == "dr_regions"
    assert refused(policies.set_dr, actor=actor, policy=policy, dr_account=policy.account_id) == {
        "cross_account_dr.dr_account": ["not_dr_account"]
    }


def test_dr_keeps_what_it_does_not_name():
    owner = factories.user()
    actor, policy = Actor.of(owner), create(owner)
    dr = factories.account(owner, is_dr_account=True)
    policies.set_dr(actor=actor, policy=policy, dr_account=dr.pk, dr_account_regions=[region()])

    kept = policies.set_dr(actor=actor, policy=policy, dr_timeout_hours=5)
    cleared = policies.set_dr(actor=actor, policy=policy, dr_account=None)

    assert (kept.dr_account, kept.dr_timeout_hours) == (dr, 5)
    assert cleared.dr_account is None


def test_custom_tags_come_and_go():
    owner = factories.user()
    actor, policy = Actor.of(owner), create(owner)

    tag = policies.add_custom_tag(
        actor=actor, policy=policy, tag_name="env", tag_value="prod", name_is_prefix=True
    )
    with pytest.raises(errors.ValidationFailed):
        policies.add_custom_tag(actor=actor, policy=policy, tag_name="  ")
    policies.delete_custom_tag(actor=actor, tag=tag)

    assert not policy.custom_tags.exists()
    with pytest.raises(errors.NotFound):
        policies.delete_custom_tag(actor=actor, tag=tag)


def test_deleting_a_policy_marks_its_backups_for_deletion_but_not_the_frozen_ones():
    owner = factories.user()
    policy = create(owner)
    kept, frozen = factories.backup(policy), factories.backup(policy, is_freezer_item=True, name="frozen")

    policies.delete(actor=Actor.of(owner), policy=policy)

    assert not Policy.objects.filter(pk=policy.pk).exists()
    assert Backup.objects.get(pk=kept.pk).marked_for_deletion
    assert not Backup.objects.get(pk=frozen.pk).marked_for_deletion


def test_a_policy_with_a_running_backup_is_not_deleted():
    owner = factories.user()
    policy = create(owner)
    factories.backup(policy, status=BackupStatus.IN_PROGRESS, end_time=None)

    with pytest.raises(errors.PreconditionFailed):
        policies.delete(actor=Actor.of(owner), policy=policy)

    assert Policy.objects.filter(pk=policy.pk).exists()


def test_changes_need_the_right_and_the_reach():
    owner = factories.user()
    policy = create(owner)

    for change in (policies.delete, policies.set_dr, policies.set_options):
        with pytest.raises(errors.PermissionDenied):
            change(actor=Actor.of(factories.delegate(owner)), policy=policy)
        with pytest.raises(errors.NotFound):
            change(actor=Actor.of(factories.user()), policy=policy)
