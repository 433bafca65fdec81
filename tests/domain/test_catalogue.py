"""A lost database is rebuilt from AWS, and recovery works from what was rebuilt."""

import uuid
from collections.abc import Sequence

import pytest
from django.utils import timezone

from cpm.flows.server import catalogue_tags
from cpm.lib.errors import PermissionDenied, PreconditionFailed, ValidationFailed
from cpm.models import Account, Actor, Backup, Job, Policy, ServerSettings, Snapshot, Step, Target
from cpm.models.base import new_ids
from cpm.services import catalogue
from tests import factories
from tests.domain import recovering
from tests.domain.world import DR_ACCOUNT, World

pytestmark = pytest.mark.django_db(transaction=True)


def lose_database(world: World) -> str:
    """All that CPM knew is gone but for its user and accounts; answers the lost server's id."""
    lost = str(ServerSettings.objects.get(pk=1).server_id)
    Backup.objects.all().delete()
    Policy.objects.all().delete()
    Job.objects.all().delete()
    ServerSettings.objects.filter(pk=1).update(server_id=uuid.uuid4())
    return lost


def rebuild(world: World, server_id: str | None = None, regions: Sequence[str] | None = ("us-east-1", "us-west-2")) -> catalogue.CatalogueResult:
    return catalogue.rebuild(
        actor=world.actor, account=world.account, regions=regions, server_id=server_id, now=timezone.now()
    )


def prints(world: World, devices: dict[str, str], region: str = "us-east-1", account: str | None = None) -> dict[str, str]:
    return {device: world.aws.fingerprint(volume) for device, volume in devices.items()}


def test_volume_and_instance_are_recovered_from_a_rebuilt_catalogue(world: World) -> None:
    instance, devices = world.aws.instance((1, 1))
    free = world.aws.volume()
    for number, volume in enumerate([*devices.values(), free]):
        world.aws.write(volume, bytes([number + 1]) * 100_000, offset=number * 4096)
    before, free_before = prints(world, devices), world.aws.fingerprint(free)
    world.add_account(DR_ACCOUNT, name="far", is_dr_account=True)
    policy = world.policy(
        instance, free, name="daily", dr_enabled=True, dr_regions=[world.region_id("us-west-2")],
        dr_account=Account.objects.get(name="far"), copy_to_snapshot_original_region=True,
    )  # fmt: skip
    former = world.back_up(policy, status="B", dr_status="C")
    rows = set(Snapshot.objects.exclude(aws_id="").values_list("aws_id", "kind", "region", "source_id", "device"))
    details = recovering.instance_row(former).details
    world.region_id("us-east-1")
    lost = lose_database(world)

    result = rebuild(world, lost)

    assert result.problems == []
    assert (result.found, result.known, result.snapshots, result.backups, result.policies) == (9, 0, 9, 1, 1)
    backup = Backup.objects.get()
    assert (backup.pk, backup.status, backup.dr_status, backup.policy_name) == (former.pk, "B", "C", "daily")
    assert set(Snapshot.objects.exclude(aws_id="").values_list("aws_id", "kind", "region", "source_id", "device")) == rows
    assert recovering.instance_row(backup).details == details
    assert not Policy.objects.get().enabled and str(ServerSettings.objects.get(pk=1).server_id) == lost
    assert set(Target.objects.values_list("resource_type", "aws_resource_id")) == {("instances", instance), ("volumes", free)}
    [volume] = recovering.ids(recovering.recover(world, recovering.volume_row(backup, free)))
    assert world.aws.fingerprint(volume) == free_before
    world.aws.client("ec2").terminate_instances(InstanceIds=[instance])
    [again] = recovering.ids(recovering.recover(world, recovering.instance_row(backup)))
    shown = {device: one["VolumeId"] for device, one in recovering.volumes_of(world, again).items()}
    assert prints(world, shown) == before


def test_instance_is_recovered_when_only_dr_copies_are_left(world: World) -> None:
    instance, devices = world.aws.instance((1, 1))
    for number, volume in enumerate(devices.values()):
        world.aws.write(volume, bytes([number + 7]) * 50_000)
    before = prints(world, devices)
    policy = world.policy(instance, dr_enabled=True, dr_regions=[world.region_id("us-west-2")])
    world.back_up(policy, status="B", dr_status="C")
    for snapshot in world.snapshots_in_aws():
        world.aws.client("ec2").delete_snapshot(SnapshotId=snapshot)
    lost = lose_database(world)

    result = rebuild(world, lost)

    backup = Backup.objects.get()
    assert (result.problems, backup.status, backup.dr_status) == ([], "B", "C")
    west = world.region_id("us-west-2")
    recovery = recovering.recover(world, recovering.instance_row(backup), to_region=west)
    shown = recovering.volumes_of(world, recovering.ids(recovery)[0], "us-west-2")
    assert prints(world, {device: one["VolumeId"] for device, one in shown.items()}) == before


def test_initial_image_is_found_again(world: World) -> None:
    instance, _ = world.aws.instance((1,))
    policy = world.policy()
    world.target(policy, instance, ami_backup_option="S")
    world.back_up(policy, status="B")
    world.back_up(policy, status="B")
    lost = lose_database(world)

    result = rebuild(world, lost)

    assert (result.problems, result.backups) == ([], 2)
    [image] = Snapshot.objects.filter(kind="initial_amis")
    assert image.aws_id.startswith("ami-") and len(image.details["snapshot_ids"]) == 1
    starts = [row.details["initial_ami"] for row in Snapshot.objects.filter(kind="instances")]
    assert starts == [image.pk, image.pk]


def test_rebuild_adds_what_is_missing_and_changes_nothing_else(world: World) -> None:
    first, second = world.aws.volume(), world.aws.volume()
    backup = world.back_up(world.policy(first, second, name="mine", generations=7), status="B")
    Backup.objects.filter(pk=backup.pk).update(outcome="as it was")
    recovering.volume_row(backup, second).delete()

    results = [rebuild(world), rebuild(world)]

    assert [(r.found, r.known, r.snapshots, r.backups, r.policies) for r in results] == [(2, 1, 1, 0, 0), (2, 2, 0, 0, 0)]
    assert Backup.objects.get().outcome == "as it was" and Policy.objects.get().generations == 7
    assert recovering.volume_row(backup, second).aws_id.startswith("snap-")


def test_backup_with_a_snapshot_gone_is_not_called_successful(world: World) -> None:
    first, second = world.aws.volume(), world.aws.volume()
    backup = world.back_up(world.policy(first, second), status="B")
    world.aws.client("ec2").delete_snapshot(SnapshotId=recovering.volume_row(backup, first).aws_id)
    lost = lose_database(world)

    result = rebuild(world, lost)

    assert Backup.objects.get().status == "S"
    assert "1 of 2 snapshots are there" in result.problems[0]


def test_ids_that_stand_in_tags_are_not_given_out_again(world: World) -> None:
    world.back_up(world.policy(world.aws.volume()), status="B")
    lost = lose_database(world)
    snapshot = world.aws.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"][0]
    far = 50_000_000
    marks = [{"Key": key, "Value": str(far)} for key in ("cpm_backup_id", "cpm_step_id", "cpm_policy_id")]
    world.aws.client("ec2").create_tags(Resources=[snapshot["SnapshotId"]], Tags=marks)

    rebuild(world, lost)

    assert all(new_ids(model, 1)[0] > far for model in (Backup, Policy, Step))


def test_volume_comes_back_without_a_configuration(world: World) -> None:
    instance, devices = world.aws.instance((1,))
    [volume] = devices.values()
    world.aws.write(volume, b"x" * 5000)
    before = world.aws.fingerprint(volume)
    world.back_up(world.policy(instance), status="B")
    [snapshot] = world.snapshots_in_aws()
    world.aws.client("ec2").delete_tags(Resources=[snapshot], Tags=[{"Key": "cpm_config_0"}])
    lost = lose_database(world)

    result = rebuild(world, lost)

    backup = Backup.objects.get()
    assert "only its volumes can be recovered" in result.problems[0]
    [again] = recovering.ids(recovering.recover(world, recovering.volume_row(backup)))
    assert world.aws.fingerprint(again) == before


def test_region_that_cannot_be_read_is_a_problem_and_no_empty_answer(world: World) -> None:
    world.back_up(world.policy(world.aws.volume()), status="B")
    world.aws.fault(action="DescribeSnapshots", error="UnauthorizedOperation", count=1)

    result = rebuild(world)

    assert result.problems and result.problems[0].startswith("us-east-1 of account")


def test_unknown_server_and_wrong_callers_are_refused(world: World) -> None:
    mine = ServerSettings.objects.get_or_create(pk=1)[0].server_id

    with pytest.raises(PreconditionFailed, match="No snapshot"):
        rebuild(world, str(uuid.uuid4()))
    with pytest.raises(ValidationFailed, match="not the id of a server"):
        rebuild(world, "server-1")
    with pytest.raises(PermissionDenied):
        catalogue.rebuild(
            actor=Actor.of(factories.user()), account=world.account, regions=None, server_id=None, now=timezone.now()
        )
    assert ServerSettings.objects.get(pk=1).server_id == mine


def test_configuration_in_tags_is_whole_or_absent() -> None:
    big = {"region": "us-east-1", "instance": {str(uuid.UUID(int=n)): str(uuid.uuid4()) for n in range(20)}, "none": None, "no": False}

    labels = catalogue_tags.pack(big)

    assert len(labels) > 2 and all(len(value) <= 256 for value in labels.values())
    assert catalogue_tags.unpack(labels) == {"region": "us-east-1", "instance": big["instance"]}
    assert catalogue_tags.unpack({**labels, "cpm_config_1": ""}) is None
    assert catalogue_tags.pack({"x": [str(uuid.uuid4()) for _ in range(400)]}) == {}


@pytest.mark.parametrize(
    "found", [{"region": 1}, {"region": "r", "id": "i-1"}, {"region": "r", "volume": [1]}, {"region": "r", "instance": {"block_devices": ["x"]}}]
)
def test_configuration_that_somebody_has_edited_is_not_relied_on(found: dict[str, object]) -> None:
    assert catalogue_tags.unpack(catalogue_tags.pack(found)) is None


def test_tags_make_nobody_owner_of_the_servers_own_backup(world: World) -> None:
    Account.objects.filter(pk=world.account.pk).update(user=factories.user())
    world.account.refresh_from_db()
    world.back_up(world.policy(world.aws.volume(), name="daily"), status="B")
    [snapshot] = world.snapshots_in_aws()
    marks = [{"Key": "cpm_policy_name", "Value": "cpmdata"}]
    world.aws.client("ec2").create_tags(Resources=[snapshot], Tags=marks)
    lost = lose_database(world)

    rebuild(world, lost)

    assert Policy.objects.get().name.startswith("rebuilt-")


def test_volume_with_many_tags_is_backed_up_all_the_same(world: World) -> None:
    instance, devices = world.aws.instance((1,))
    many = [{"Key": f"tag-{n}", "Value": str(n)} for n in range(48)]
    world.aws.client("ec2").create_tags(Resources=list(devices.values()), Tags=many)

    backup = world.back_up(world.policy(instance), status="B")

    assert any("does not fit into the tags" in line for line in world.log(backup))
    assert len(recovering.volume_row(backup).details["tags"]) == 48
