"""S3 syncs as targets of policies: what they copy, what they survive, what they refuse, and that they are no snapshots."""

from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from cpm.aws import gateway
from cpm.flows import iam
from cpm.flows.cleanup import retention
from cpm.flows.table import ENGINE
from cpm.jobs import queue, runner
from cpm.lib.errors import Conflict, DomainError, InUse, PreconditionFailed
from cpm.lib.states import AutoRemove, BackupStatus, DrStatus
from cpm.models import Alert, Job, Step, Target
from cpm.s3_sync import slices
from cpm.s3_sync.buckets import Listed, Stop
from cpm.s3_sync.counts import Counts
from cpm.s3_sync.errors import Halted, Refused
from cpm.s3_sync.s3_buckets import S3Buckets
from cpm.services import accounts, backup_deletion, backups, freezer, s3_sync_targets, targets
from tests import factories
from tests.api import facts
from tests.api.caller import Caller
from tests.domain.syncing import bucket, content, put, row_of, sync
from tests.domain.test_admin import _quiet, client_of
from tests.domain.world import DR_ACCOUNT, World

__all__ = ["_quiet"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def two(world: World) -> tuple[str, str]:
    """A source with two objects in a folder and one beside it, and an empty destination in another region."""
    put(world, bucket(world, "the-source"), logs__a="1", logs__b="2", other="3")
    return "the-source", bucket(world, "the-mirror", region="eu-west-1")


@pytest.fixture
def one_at_a_time(settings: Any) -> None:
    """Slices that end after one name."""
    settings.CPM_S3_SLICE_SECONDS = 0
    settings.CPM_POLL_SECONDS = 0.05


def begin(world: World, target: Target) -> Any:
    return backups.start(actor=world.actor, policy=target.policy, now=timezone.now())


def test_a_run_mirrors_the_bucket_and_the_next_one_copies_nothing(world: World, two: tuple[str, str]) -> None:
    target = sync(world, *two)

    first = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    since = world.aws.last_call()
    second = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert content(world, two[1]) == content(world, two[0])
    assert row_of(first).details["copied"] == 3 and row_of(first).details["copied_bytes"] == 3
    assert row_of(first).details["destination"] == "the-mirror/"
    # Within the second of the copy S3's dates leave it open which came first, and it is copied again.
    assert row_of(second).details["copied"] == world.aws.count(since)["by_action"].get("s3:CopyObject", 0)
    assert "S3 sync of the-source: 3 objects looked at, 3 copied" in " ".join(world.log(first))
    assert first.outcome == "All 1 S3 syncs succeeded."


def test_prefixes_extra_objects_and_the_storage_class(world: World, two: tuple[str, str]) -> None:
    put(world, two[1], kept__logs__old="x", kept__beside="y")
    target = sync(
        world, *two, source_prefix="logs", destination_prefix="kept", keep_source_prefix=True, delete_extra=True,
        storage_class="I",
    )  # fmt: skip

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert content(world, two[1]) == {"kept/beside": "y", "kept/logs/a": "1", "kept/logs/b": "2"}
    assert row_of(backup).details["deleted"] == 1
    head = world.aws.client("s3").head_object(Bucket=two[1], Key="kept/logs/a")
    assert head["StorageClass"] == "STANDARD_IA"


def test_the_destination_may_be_another_account_whose_record_then_stays(world: World, two: tuple[str, str]) -> None:
    far = world.add_account(DR_ACCOUNT, name="far")
    bucket(world, "far-away", DR_ACCOUNT, "eu-west-1")
    target = sync(world, two[0], "far-away", destination_account=far.pk)
    since = world.aws.last_call()

    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert content(world, "far-away", DR_ACCOUNT) == content(world, two[0])
    assert Step.objects.get(kind="backup.s3_sync").place == f"{DR_ACCOUNT}:eu-west-1"
    copies = [one for one in world.aws.calls(since) if one["action"] == "CopyObject"]
    assert {one["account"] for one in copies} == {DR_ACCOUNT}
    with pytest.raises(InUse, match="S3 sync of the-source"):
        accounts.delete(actor=world.actor, account=far)


def test_a_sync_goes_on_slice_by_slice_from_its_cursor_when_its_worker_dies(
    world: World, two: tuple[str, str], one_at_a_time: None
) -> None:
    target = sync(world, *two)
    backup = begin(world, target)
    step = Step.objects.filter(kind="backup.s3_sync")
    while not step.exclude(cursor=None).exists():
        world.work()
    # It is claimed, and then nothing is heard of its worker any more.
    Step.objects.filter(pk=step.get().pk, finished_at=None).update(state="running", lease_epoch=99)
    world.expire_leases()
    world.run()

    backup.refresh_from_db()
    assert backup.status == BackupStatus.SUCCESSFUL, world.log(backup)
    assert content(world, two[1]) == content(world, two[0])
    assert row_of(backup).details["seen"] == 3


def test_an_abort_ends_it_between_two_objects(world: World, two: tuple[str, str], one_at_a_time: None) -> None:
    target = sync(world, *two)
    backup = begin(world, target)
    job = Job.objects.get(subject_type="backup", subject_id=backup.pk)
    while not Step.objects.filter(kind="backup.s3_sync", finished_at=None).exists():
        runner.drain("backup", engine=ENGINE)
    queue.request_abort(job.pk)
    world.run()

    backup.refresh_from_db()
    row = row_of(backup)
    assert backup.status == BackupStatus.FAILED and row.error.startswith("Aborted.")
    assert content(world, two[1]) == {}


def test_a_source_that_is_gone_leaves_the_policy_only_if_that_is_wanted(world: World, two: tuple[str, str]) -> None:
    kept = sync(world, *two)
    alerted = sync(world, *two, world.policy(auto_remove_resource=AutoRemove.ALERT), destination_prefix="too")
    s3 = world.aws.client("s3")
    for key in content(world, two[0]):
        s3.delete_object(Bucket=two[0], Key=key)
    s3.delete_bucket(Bucket=two[0])

    failed = world.back_up(kept.policy, status=BackupStatus.FAILED)
    world.back_up(alerted.policy)

    assert "no longer exists" in row_of(failed).error
    assert list(Target.objects.all()) == [kept]
    assert Alert.objects.filter(title__contains="removed").exists()


def test_a_bucket_that_denies_loses_no_target_and_says_why(world: World, two: tuple[str, str]) -> None:
    target = sync(world, *two, world.policy(auto_remove_resource=AutoRemove.YES))
    world.aws.fault(service="s3", action="*", error="AccessDenied", status=403)

    backup = world.back_up(target.policy, status=BackupStatus.FAILED)

    assert Target.objects.filter(pk=target.pk).exists()
    assert "s3:ListObjectsV2" in row_of(backup).error or "s3:ListBucket" in row_of(backup).error


def test_what_passes_is_tried_again_and_what_is_archived_is_only_told(
    world: World, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.aws.client("s3").put_object(Bucket=two[0], Key="cold", Body=b"x", StorageClass="GLACIER")
    target, troubles, whole = sync(world, *two), [Halted("S3 is away.", transient=True)], slices.run

    def run(*args: Any, **more: Any) -> slices.Slice:
        return slices.Slice(None, False, Counts(), troubles.pop()) if troubles else whole(*args, **more)

    monkeypatch.setattr(slices, "run", run)

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert content(world, two[1]) == {"logs/a": "1", "logs/b": "2", "other": "3"}
    assert any("1 objects were left out" in line and "cold" in line for line in world.log(backup))


def test_objects_that_are_refused_fail_the_sync_after_all_others_are_copied(
    world: World, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, whole = sync(world, *two), S3Buckets.copy
    world.target(target.policy, world.aws.volume())

    def copy(buckets: S3Buckets, source: Listed, key: str, stop: Stop) -> bool:
        if source.key == "logs/a":
            raise Refused("AccessDenied by somebody")
        return whole(buckets, source, key, stop)

    monkeypatch.setattr(S3Buckets, "copy", copy)

    backup = world.back_up(target.policy, status=BackupStatus.SOME_FAILED)

    row = row_of(backup)
    assert row.error == "1 objects could not be copied or deleted: logs/a (AccessDenied by somebody)."
    assert content(world, two[1]) == {"logs/b": "2", "other": "3"}
    assert backup.outcome == "1 snapshots and S3 syncs succeeded, 1 failed."


def test_a_run_is_no_snapshot_and_its_record_goes_with_the_others(world: World, two: tuple[str, str]) -> None:
    region = world.region_id("eu-west-1")
    policy = world.policy(generations=1, dr_enabled=True, dr_regions=[region])
    target = sync(world, *two, policy)
    call = Caller(world.user)

    first = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL, dr_status=DrStatus.SKIPPED)
    _, shown = call("GET", f"backups/{first.pk}/")
    _, listed = call("GET", f"backups/{first.pk}/snapshots/")
    _, found = call("GET", "backups/?search_by_s3_sync=the-sour")
    _, none = call("GET", "backups/?search_by_s3_sync=the-mirror")
    world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    retention.request(now=timezone.now())
    world.run()

    assert (shown["is_recoverable"], shown["move_to_freezer_enabled"], listed) == (False, False, [])
    assert ([one["id"] for one in found], none) == ([first.pk], [])
    with pytest.raises(PreconditionFailed):
        freezer.freeze(actor=world.actor, backup=first, name="kept", description="")
    first.refresh_from_db()
    assert first.status == BackupStatus.DELETED and row_of(first).status == "deleted"
    assert content(world, two[1]) == content(world, two[0])


def test_a_backup_with_snapshots_beside_it_is_recoverable(world: World, two: tuple[str, str]) -> None:
    target = sync(world, *two)
    world.target(target.policy, world.aws.volume())

    backup = world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)
    _, shown = Caller(world.user)("GET", f"backups/{backup.pk}/")
    _, listed = Caller(world.user)("GET", f"backups/{backup.pk}/snapshots/")
    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    assert shown["is_recoverable"] and len(listed) == 1
    backup.refresh_from_db()
    assert backup.status == BackupStatus.DELETED
    assert content(world, two[1]) == content(world, two[0])


def test_syncs_are_made_read_changed_and_removed_over_rest(world: World, two: tuple[str, str]) -> None:
    world.region_id("us-east-1"), world.region_id("eu-west-1")
    policy, call = world.policy(), Caller(world.user)
    address = f"policies/{policy.pk}/targets/s3syncs/"
    names = {"name": two[0], "destination_bucket_name": two[1]}

    created, made = call("POST", address, {**names, "source_prefix": "logs", "storage_class": "R"})
    changed, put_ = call("PUT", f"{address}{made['id']}/", {**names, "delete_extra": True})
    for operation, answer in (("13.55", made), ("13.58", put_), ("13.56", call("GET", address)[1])):
        facts.check(operation, answer)

    assert (created, changed) == (201, 200)
    assert (put_["source_prefix"], put_["storage_class"], put_["delete_extra"]) == ("logs", "R", True)
    assert put_["destination_account"] == world.account.pk and put_["status"] == "available"
    assert Target.objects.get().aws_region == "us-east-1"
    assert call("DELETE", f"{address}{made['id']}/")[0] == 204


def test_syncs_are_set_in_the_admin(world: World, two: tuple[str, str]) -> None:
    world.region_id("us-east-1"), world.region_id("eu-west-1")
    policy, client = world.policy(), client_of(world.user)
    address = reverse("admin:cpm_policy_set_sync", args=[policy.pk])
    form = {"name": two[0], "destination_bucket_name": two[1], "storage_class": "S"}

    refused = client.post(address, {**form, "source_prefix": "/logs"}).content.decode()
    made = client.post(address, {**form, "delete_extra": "on", "destination_account": world.account.name})
    changed = client.post(address, {**form, "storage_class": "I"})

    assert "Keys in S3 begin without a slash" in refused
    assert (made.status_code, changed.status_code) == (302, 302)
    options = policy.targets.get().options
    assert (options["storage_class"], options["delete_extra"]) == ("I", False)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"name": "the-missing"}, "does_not_exist"),
        ({"name": "s3://the-source"}, "invalid_bucket"),
        ({"destination_bucket_name": "the-missing"}, "does_not_exist"),
        ({"source_prefix": "/logs"}, "leading_slash"),
        ({"destination_prefix": "a\n"}, "invalid_prefix"),
        ({"source_prefix": "log", "destination_prefix": "to", "delete_extra": True}, "empty_source"),
        ({"destination_bucket_name": "the-source"}, "overlaps_itself"),
        ({"destination_prefix": "cpm", "delete_extra": True}, "overlaps_repository"),
        ({"destination_prefix": "taken/deeper"}, "overlaps_other"),
        ({"destination_account": 0}, "not_found"),
    ],
)  # fmt: skip
def test_what_would_harm_is_refused(world: World, two: tuple[str, str], options: dict[str, Any], code: str) -> None:
    factories.s3_repository(world.account, two[1])
    put(world, bucket(world, "the-third"), a="1")
    sync(world, "the-third", two[1], destination_prefix="taken", delete_extra=True)
    wanted = {"name": two[0], "destination_bucket_name": two[1], **options}
    if options.get("destination_account") == 0:
        stranger = factories.account(factories.user())
        wanted["destination_account"] = stranger.pk

    with pytest.raises(DomainError) as refused:
        s3_sync_targets.add(actor=world.actor, policy=world.policy(), now=world.now(), **wanted)

    codes = [one["code"] for errors in refused.value.to_fields().values() for one in errors]
    assert codes == [code]


def test_a_bucket_is_mirrored_once_by_a_policy_and_may_be_replaced(world: World, two: tuple[str, str]) -> None:
    put(world, bucket(world, "the-third"), a="1")
    target = sync(world, *two)
    other = sync(world, "the-third", two[1], target.policy, destination_prefix="third")

    with pytest.raises(Conflict):
        sync(world, *two, target.policy)
    with pytest.raises(Conflict):
        s3_sync_targets.update(
            actor=world.actor, target=other, name=two[0], destination_bucket_name=two[1], now=world.now()
        )
    targets.remove(actor=world.actor, target=target)
    changed = s3_sync_targets.update(
        actor=world.actor, target=other, name=two[0], destination_bucket_name=two[1], now=world.now()
    )

    assert (changed.aws_resource_id, changed.options["destination_prefix"]) == ("the-source", "third")


def test_a_sync_calls_only_what_its_policy_allows(world: World, two: tuple[str, str]) -> None:
    declared = {one.action for one in iam.POLICIES["optional-s3-sync"]}

    with gateway.recording() as calls:
        target = sync(world, *two, source_prefix="logs", delete_extra=True)
        world.back_up(target.policy, status=BackupStatus.SUCCESSFUL)

    assert {iam.action_of(service, action) for service, action in calls} - declared <= {"sts:GetCallerIdentity"}
