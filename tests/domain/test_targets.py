import pytest

from cpm.aws import errors as aws
from cpm.lib import errors
from cpm.models import Actor, Region, Target
from cpm.resources.registry import BY_KEY
from cpm.services import target_limits, targets, users
from tests import factories
from tests.domain.fake_aws import FakeEc2, instance, volume
from tests.factories import NOW

pytestmark = pytest.mark.django_db

HERE = "us-east-1"
WEB, FREE = "i-0000000000000000a", "vol-0000000000000000f"


@pytest.fixture(autouse=True)
def here():
    Region.objects.get_or_create(aws_region=HERE, defaults={"disp_name": "N. Virginia"})


@pytest.fixture
def ec2(monkeypatch):
    fake = FakeEc2()
    monkeypatch.setattr("cpm.aws.gateway.client", fake.client)
    return fake


@pytest.fixture
def policy():
    owner = factories.user()
    return factories.policy(factories.account(owner, authentication="R"))


def add(policy, **fields):
    values = {"region": HERE, "resource_id": WEB, "now": NOW, **fields}
    return targets.add_instance(actor=Actor.of(policy.user), policy=policy, **values)


def add_volume(policy, resource_id=FREE):
    return targets.add_volume(
        actor=Actor.of(policy.user), policy=policy, region=HERE, resource_id=resource_id, now=NOW
    )


def refused(act, *args, **fields):
    with pytest.raises(errors.ValidationFailed) as error:
        act(*args, **fields)
    ((field, ((message, code),)),) = error.value.errors.items()
    return field, code, message


def test_an_instance_is_stored_as_aws_describes_it(ec2, policy):
    ec2.instances = [instance(WEB, ProductCodes=[{"ProductCodeId": "x"}])]

    target = add(policy)

    assert (target.name, target.aws_region, target.tagged) == ("web", HERE, False)
    assert set(target.details) == set(BY_KEY["instances"].details)
    assert target.details["platform"] == "linux"
    assert target.details["has_product_code"] is True
    assert target.details["volumes"] == {
        "vol-00000000000000001": "/dev/xvda",
        "vol-00000000000000002": "/dev/sdf",
    }
    assert target.ami_backup_option == "N"
    assert ec2.asked == [("DescribeInstances", HERE, 1)]


def test_windows_gets_an_initial_ami_unless_told_otherwise(ec2, policy):
    other = "i-0000000000000000b"
    ec2.instances = [instance(WEB, platform="windows"), instance(other, platform="windows")]

    assert add(policy).ami_backup_option == "S"
    assert add(policy, resource_id=other, ami_backup_option="N").ami_backup_option == "N"


@pytest.mark.parametrize("tag", ["cpm backup", "cpm_backup"])
def test_the_tag_of_tag_scans_is_seen(ec2, policy, tag):
    ec2.instances = [instance(WEB, Tags=[{"Key": tag, "Value": "nightly"}])]

    assert add(policy).tagged


def test_what_aws_does_not_know_cannot_be_protected(ec2, policy):
    field, code, message = refused(add, policy)

    assert (field, code) == ("aws_resource_id", "does_not_exist")
    assert WEB in message and HERE in message and policy.account.name in message
    assert not Target.objects.exists()


def test_a_terminated_instance_counts_as_gone(ec2, policy):
    ec2.instances = [instance(WEB, state="terminated")]

    assert refused(add, policy)[1] == "does_not_exist"


@pytest.mark.parametrize(
    ("kind", "field", "code"),
    [
        (aws.Denied, "non_field_errors", "aws_denied"),
        (aws.Unreachable, "non_field_errors", "aws_unreachable"),
        (aws.Throttled, "non_field_errors", "aws_throttled"),
        (aws.RegionDisabled, "aws_region", "aws_region_disabled"),
    ],
)
def test_trouble_with_aws_is_never_taken_for_absence(ec2, policy, kind, field, code):
    ec2.error = kind("Code", "words of AWS", action="DescribeInstances", service="ec2", region=HERE)

    blamed, said, message = refused(add, policy)

    assert (blamed, said) == (field, code)
    assert "words of AWS" in message


def test_ids_and_regions_that_cannot_be_are_refused_without_asking_aws(ec2, policy):
    assert refused(add, policy, resource_id="vol-00000000000000001")[:2] == ("aws_resource_id", "invalid_id")
    assert refused(add, policy, region="mars-west-1")[:2] == ("aws_region", "unknown_region")
    assert ec2.asked == []


def test_a_resource_is_in_a_policy_once(ec2, policy):
    ec2.instances = [instance(WEB)]
    add(policy)

    with pytest.raises(errors.Conflict) as error:
        add(policy)

    assert error.value.field == "aws_resource_id"


def test_application_consistency_that_could_not_act_is_refused(ec2, policy):
    other = "i-0000000000000000b"
    ec2.instances = [instance(WEB), instance(other, platform="windows")]
    linux = refused(add, policy, enable_agent_vss=True)
    some = refused(add, policy, resource_id=other, enable_agent_vss=True, which_volumes="X")
    drives = refused(add, policy, resource_id=other, enable_agent_vss=True, vss_volumes="c,d")

    chosen = refused(add, policy, resource_id=other, enable_agent_vss=True, vss_volumes="c:,d:")
    images = refused(add, policy, resource_id=other, enable_agent_vss=True, ami_backup_option="O")
    remote = refused(add, policy, resource_id=other, enable_agent_scripts=True, use_remote_agent=True)
    scripts = add(policy, enable_agent_scripts=True)
    quiesced = add(policy, resource_id=other, enable_agent_vss=True)

    assert linux[:2] == ("application_consistent_backup", "windows_only")
    assert some[:2] == ("application_consistent_backup", "vss_needs_all_volumes")
    assert drives[0] == "application_consistent_backup.vss_volumes"
    assert chosen[:2] == ("application_consistent_backup.vss_volumes", "vss_needs_all_volumes")
    assert images[:2] == ("application_consistent_backup", "vss_needs_snapshots")
    assert remote[:2] == ("application_consistent_backup.use_remote_agent", "no_remote_agent")
    assert scripts.enable_agent_scripts and quiesced.enable_agent_vss


def test_an_update_keeps_what_it_does_not_name(ec2, policy):
    ec2.instances = [instance(WEB)]
    target = add(policy, which_volumes="X", ami_reboot_option=True)

    changed = targets.update_instance(
        actor=Actor.of(policy.user), target=target, ami_backup_option="O", aws_root_device="/dev/sdf"
    )

    assert (changed.which_volumes, changed.ami_reboot_option, changed.ami_backup_option) == ("X", True, "O")
    assert changed.options == {"aws_root_device": "/dev/sdf"}
    assert refused(
        targets.update_instance, actor=Actor.of(policy.user), target=target, aws_root_device="/dev/none"
    )[:2] == ("aws_root_device", "unknown_device")


def test_a_volume_is_stored_as_aws_describes_it(ec2, policy):
    ec2.volumes = [volume(FREE, size=20)]

    target = add_volume(policy)

    assert set(target.details) == set(BY_KEY["volumes"].details)
    assert (target.details["capacity"], target.details["iops"], target.details["zone"]) == (
        20,
        3000,
        "us-east-1a",
    )


def test_volumes_of_an_instance_are_selected_when_attached_to_it(ec2, policy):
    ec2.instances = [instance(WEB)]
    ec2.volumes = [volume("vol-00000000000000002", attached_to=WEB), volume(FREE)]
    target, actor = add(policy), Actor.of(policy.user)

    selected = targets.add_instance_volume(actor=actor, target=target, resource_id="vol-00000000000000002")
    with pytest.raises(errors.Conflict):
        targets.add_instance_volume(actor=actor, target=target, resource_id="vol-00000000000000002")
    elsewhere = refused(targets.add_instance_volume, actor=actor, target=target, resource_id=FREE)

    assert selected.details["device"] == "/dev/sdf"
    assert elsewhere[:2] == ("aws_resource_id", "not_attached")
    targets.remove_instance_volume(actor=actor, volume=selected)
    assert not target.volumes.exists()


def test_instances_are_limited_and_count_once(ec2, policy):
    policy.user.max_instances = 1
    policy.user.save()
    other = "i-0000000000000000b"
    ec2.instances = [instance(WEB), instance(other)]
    add(policy)

    add(factories.policy(policy.account))
    with pytest.raises(errors.LimitExceeded):
        add(policy, resource_id=other)


def test_gib_of_independent_volumes_are_limited(ec2, policy):
    policy.user.max_independent_ebs_gib = 30
    policy.user.save()
    big = "vol-0000000000000000b"
    ec2.volumes = [volume(FREE, size=20), volume(big, size=11)]
    add_volume(policy)

    with pytest.raises(errors.LimitExceeded) as error:
        add_volume(policy, big)

    assert "30" in str(error.value)


def test_a_volume_that_has_grown_since_counts_once_with_its_size_of_now(ec2, policy):
    policy.user.max_independent_ebs_gib = 30
    policy.user.save()
    small, smaller = "vol-0000000000000000b", "vol-0000000000000000c"
    ec2.volumes = [volume(FREE, size=5), volume(small, size=10), volume(smaller, size=1)]
    add_volume(policy)
    ec2.volumes[0] = volume(FREE, size=20)
    add_volume(factories.policy(policy.account))

    add_volume(policy, small)
    with pytest.raises(errors.LimitExceeded):
        add_volume(policy, smaller)


def test_every_limit_of_a_type_of_target_is_one_of_profiles():
    for key, limit in target_limits.LIMITS.items():
        assert key in BY_KEY
        assert limit.field in users.LIMITS


def test_changes_need_the_right_and_the_reach(ec2, policy):
    ec2.instances = [instance(WEB)]
    target = add(policy)

    with pytest.raises(errors.PermissionDenied):
        targets.remove(actor=Actor.of(factories.delegate(policy.user)), target=target)
    with pytest.raises(errors.NotFound):
        targets.remove(actor=Actor.of(factories.user()), target=target)
    with pytest.raises(errors.NotFound):
        targets.add_volume(
            actor=Actor.of(factories.user()), policy=policy, region=HERE, resource_id=FREE, now=NOW
        )

    targets.remove(actor=Actor.of(policy.user), target=target)
    assert not policy.targets.exists()


def test_describing_many_costs_a_call_per_200_and_leaves_out_the_absent(ec2):
    ids = [f"vol-{n:017x}" for n in range(401)]
    ec2.volumes = [volume(id) for id in ids[:-1]]

    found = BY_KEY["volumes"].describe(ec2.client(None, "ec2", HERE), ids)

    assert len(found) == 400
    assert ids[-1] not in found
    assert [count for _, _, count in ec2.asked] == [200, 200, 1]
