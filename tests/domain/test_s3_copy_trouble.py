"""Copies to S3 that are stopped, refused or cut off: nothing false is said, and what was complete stays so."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from cpm.flows.s3 import copy, copy_parts
from cpm.flows.s3 import repositories as flow
from cpm.flows.table import ENGINE
from cpm.jobs import leases, queue, runner
from cpm.models import Alert, Backup, Job, LogLine, Policy, S3Copy, Snapshot, Step
from cpm.repository.errors import Damaged, StaleView, StoreUnavailable
from cpm.repository.verify import Depth, verify
from cpm.repository.writer import CopyWriter
from cpm.services import backups
from tests.domain import copying
from tests.domain.copying import block
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


class Killed(BaseException):
    """A worker that is gone in the middle of its work."""


def stored(policy: Policy, folder: str) -> list[str]:
    assert policy.s3_repository is not None
    return [info.key for info in flow.opened(policy.s3_repository).store.list(folder)]


def sound(policy: Policy) -> bool:
    assert policy.s3_repository is not None
    return not verify(flow.opened(policy.s3_repository), Depth.FULL).damage


def test_an_aborted_copy_keeps_what_is_complete_and_forgets_the_rest(world: World, settings) -> None:
    settings.CPM_S3_SLICE_SECONDS = 0
    small, large = world.aws.volume(1), world.aws.volume(2)
    copying.write(world, small, _0=1)
    copying.write(world, large, _0=2, _4000=3)
    policy = copying.policy_with_s3(world, small, large)
    before = copying.copied(world, policy)
    copying.write(world, small, _0=4)
    copying.write(world, large, _0=5, _4000=6)
    backup = copying.backed_up(world, policy)
    copying.one_step("s3_copy.plan")
    done, open_ = S3Copy.objects.filter(backup=backup).order_by("snapshot__capacity")
    while not S3Copy.objects.get(pk=done.pk).succeeded:
        leases_of = leases.claim_ready("s3", "test", 1)
        runner.run_leases(leases_of, engine=ENGINE)
        assert not S3Copy.objects.get(pk=open_.pk).succeeded

    assert copy.abort(backup) and not copy.abort(backup)
    backup.refresh_from_db()
    assert backup.s3_copy_status == "G"
    world.run()

    backup.refresh_from_db()
    assert (backup.status, backup.s3_copy_status) == ("B", "A")
    rows = {row.snapshot.source_id: row for row in S3Copy.objects.filter(backup=backup)}
    assert (rows[small].succeeded, rows[large].succeeded, rows[large].status) == (True, False, "error")
    assert copying.blocks(rows[small]) == {0: block(4)}
    assert stored(policy, "progress/") == [] and sound(policy)
    assert not Alert.objects.exists()
    after = copying.copied(world, policy)
    bases = {row.snapshot.source_id: row.base for row in after.s3_copies.all()}
    assert bases == {small: rows[small], large: S3Copy.objects.get(backup=before, snapshot__source_id=large)}


def test_a_copy_that_has_not_begun_can_be_aborted(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    backup = copying.backed_up(world, policy)
    assert backup.s3_copy_status == "I"

    assert copy.abort(backup)
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "A" and not S3Copy.objects.exists()
    assert not copy.abort(backup)
    copying.copied(world, policy)


@pytest.mark.parametrize("point", ["before the first checkpoint", "after a checkpoint", "after the manifest"])
def test_a_worker_that_dies_is_succeeded_by_another(
    world: World, settings, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr("cpm.flows.s3.copy_blocks.GROUP_BLOCKS", 1)
    volume = world.aws.volume(2)
    copying.write(world, volume, _0=1, _1024=2, _2048=3)
    policy = copying.policy_with_s3(world, volume)

    def dying(genuine: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if not first:
                genuine(*arguments, **named)
            raise Killed

        return wrapped

    where: tuple[Any, str, bool] = {
        "before the first checkpoint": (CopyWriter, "checkpoint", True),
        "after a checkpoint": (CopyWriter, "checkpoint", False),
        "after the manifest": (flow.Repository, "finish_copy", False),
    }[point]
    with monkeypatch.context() as patch:
        patch.setattr(where[0], where[1], dying(getattr(where[0], where[1]), first=where[2]))
        with pytest.raises(Killed):
            world.back_up(policy)
    world.expire_leases()
    world.run()

    backup = Backup.objects.get()
    assert backup.s3_copy_status == "S"
    assert copying.blocks(backup.s3_copies.get()) == {0: block(1), 1024: block(2), 2048: block(3)}
    assert stored(policy, "progress/") == [] and sound(policy)
    assert len(stored(policy, "copies/")) == 1
    assert policy.s3_repository is not None
    policy.s3_repository.refresh_from_db()
    assert policy.s3_repository.copies_stored == 1


def test_packs_that_a_dead_worker_left_are_taken_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2)
    policy = copying.policy_with_s3(world, volume)

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cpm.repository.uploads.PackUploads.write_index", dying)
        with pytest.raises(Killed):
            world.back_up(policy)
    left = stored(policy, "packs/")
    world.expire_leases()
    world.run()

    backup = Backup.objects.get()
    assert backup.s3_copy_status == "S" and left
    row = backup.s3_copies.get()
    assert copying.blocks(row) == {0: block(1), 1: block(2)}
    # Nothing that had got through is stored again.
    assert row.bytes_new == 0 and set(left) <= set(stored(policy, "packs/"))


def test_a_volume_that_may_not_be_read_fails_alone(world: World) -> None:
    one, two = world.aws.volume(), world.aws.volume()
    copying.write(world, one, _0=1)
    copying.write(world, two, _0=2)
    policy = copying.policy_with_s3(world, one, two)
    said = "not authorized to perform: ebs:GetSnapshotBlock"
    world.aws.fault(
        action="GetSnapshotBlock", error="AccessDeniedException", status=403, message=said, count=1
    )

    backup = world.back_up(policy, s3_copy_status="R")

    assert backup.s3_copies.filter(succeeded=True).count() == 1
    error = backup.s3_copies.get(succeeded=False).error
    assert "The permission ebs:GetSnapshotBlock is missing" in error
    alert = Alert.objects.get()
    assert (alert.category, alert.policy) == ("s3_copy_failed", policy)
    assert error in alert.message_body and stored(policy, "progress/") == []
    copying.copied(world, policy)
    assert not Alert.objects.exists()


def test_encrypted_volumes_are_copied_while_their_key_can_be_used(world: World) -> None:
    kms = world.aws.client("kms")
    key = kms.create_key()["KeyMetadata"]
    volume = world.aws.volume(Encrypted=True, KmsKeyId=key["Arn"])
    copying.write(world, volume, _0=1)
    policy = copying.policy_with_s3(world, volume)
    first = copying.copied(world, policy).s3_copies.get()
    backup = copying.backed_up(world, policy)
    kms.disable_key(KeyId=key["KeyId"])

    world.run()

    backup.refresh_from_db()
    assert copying.blocks(first) == {0: block(1)}
    assert backup.s3_copy_status == "F"
    assert "KMS key" in backup.s3_copies.get().error


def test_a_snapshot_that_is_larger_than_its_record_is_no_copy(world: World) -> None:
    volume = world.aws.volume(2)
    copying.write(world, volume, _0=1, _2048=2)
    policy = copying.policy_with_s3(world, volume)
    backup = copying.backed_up(world, policy)
    Snapshot.objects.update(capacity=1)

    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "F" and stored(policy, "copies/") == []
    assert "Block 2048 lies behind the known end" in backup.s3_copies.get().error


def test_a_volume_that_grows_before_its_snapshot_is_copied_whole(world: World) -> None:
    volume = world.aws.volume(1)
    policy = copying.policy_with_s3(world, volume)
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    [lease] = leases.claim_ready("backup", "test", 1)
    runner.run_leases([lease], engine=ENGINE)
    assert Snapshot.objects.get().capacity == 1
    world.aws.client("ec2").modify_volume(VolumeId=volume, Size=2)
    copying.write(world, volume, _4000=1)

    world.run()

    assert Snapshot.objects.get().capacity == 2
    assert copying.blocks(backup.s3_copies.get()) == {4000: block(1)}


def test_a_repository_of_another_server_is_left_alone(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    assert policy.s3_repository is not None
    flow.opened(policy.s3_repository).take_over(uuid.uuid4())
    policy.refresh_from_db()

    backup = world.back_up(policy, s3_copy_status="F")

    assert not S3Copy.objects.exists()
    assert any("belongs to server" in line for line in world.log(backup))
    assert "belongs to server" in Alert.objects.get(category="s3_copy_failed").message_body


def test_a_repository_that_goes_meanwhile_fails_the_copy(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    backup = copying.backed_up(world, policy)
    copying.one_step("s3_copy.plan")
    repository = policy.s3_repository
    Policy.objects.update(s3_repository=None)
    assert repository is not None
    repository.delete()

    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "F"
    assert "The S3 repository was deleted." in backup.s3_copies.get().error


def test_a_failed_backup_is_not_copied(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    world.aws.fault(action="CreateSnapshot", error="UnauthorizedOperation")

    backup = world.back_up(policy, status="F", s3_copy_status="K")

    assert any("the backup has no snapshots" in line for line in world.log(backup))
    assert not Job.objects.filter(kind="s3_copy").exists()


def test_a_plan_that_failed_can_be_tried_again(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    world.aws.fault(service="s3", action="GetObject", error="AccessDenied", status=403)
    backup = world.back_up(policy, s3_copy_status="F")
    world.aws.clear_faults()

    queue.retry_failed(Job.objects.get(kind="s3_copy").pk)
    copying.one_step("s3_copy.plan")
    backup.refresh_from_db()
    assert backup.s3_copy_status == "P"
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "S" and not Alert.objects.exists()


def failed_copy(world: World, *, volumes: int) -> Backup:
    """A backup of so many volumes, of which one could not be copied."""
    policy = copying.policy_with_s3(world, *(world.aws.volume() for _ in range(volumes)))
    world.aws.fault(action="ListSnapshotBlocks", error="AccessDeniedException", status=403, count=1)
    backup = world.back_up(policy, s3_copy_status="R" if volumes > 1 else "F")
    world.aws.clear_faults()
    return backup


def test_a_failed_copy_that_is_tried_again_does_not_seem_to_have_worked(world: World) -> None:
    backup = failed_copy(world, volumes=1)
    job = Job.objects.get(kind="s3_copy")

    queue.retry_failed(job.pk)
    world.run()

    job.refresh_from_db()
    backup.refresh_from_db()
    assert (job.state, backup.s3_copy_status) == ("failed", "F")
    assert any("The next backup of the policy is copied instead" in line for line in world.log(backup))


def test_copies_that_were_deleted_since_stay_deleted_when_the_job_is_tried_again(world: World) -> None:
    backup = failed_copy(world, volumes=2)
    Backup.objects.filter(pk=backup.pk).update(s3_copy_status="D")

    queue.retry_failed(Job.objects.get(kind="s3_copy").pk)
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "D"


def test_a_copy_whose_manifest_was_written_counts_when_s3_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1)
    policy = copying.policy_with_s3(world, volume)
    genuine_finish, genuine_copy, looks = flow.Repository.finish_copy, flow.Repository.copy, []

    def answer_lost(repository: Any, draft: Any) -> Any:
        genuine_finish(repository, draft)
        raise Damaged("copies/", "nothing that would be tried again")

    def away_at_first(repository: Any, copy_id: str) -> Any:
        looks.append(copy_id)
        if len(looks) == 1:
            raise StoreUnavailable("S3 is away")
        return genuine_copy(repository, copy_id)

    monkeypatch.setattr(flow.Repository, "finish_copy", answer_lost)
    monkeypatch.setattr(flow.Repository, "copy", away_at_first)
    backup = world.back_up(policy, s3_copy_status="S")

    assert copying.blocks(backup.s3_copies.get()) == {0: block(1)}


def test_a_view_that_grew_old_costs_a_slice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1)
    genuine, calls = CopyWriter.checkpoint, []

    def once_stale(writer: CopyWriter, upto: int | None = None) -> dict[str, object]:
        calls.append(upto)
        if len(calls) == 1:
            raise StaleView("too old")
        return genuine(writer, upto)

    monkeypatch.setattr(CopyWriter, "checkpoint", once_stale)

    backup = copying.copied(world, copying.policy_with_s3(world, volume))

    assert copying.blocks(backup.s3_copies.get()) == {0: block(1)}
    assert Step.objects.get(kind="s3_copy.part").failures == 0


def test_expired_tokens_are_renewed(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1, _1=2)
    world.aws.limits(block_token_seconds=1)
    world.aws.fault(action="GetSnapshotBlock", latency_seconds=2.1, count=2)

    backup = copying.copied(world, copying.policy_with_s3(world, volume))

    assert copying.blocks(backup.s3_copies.get()) == {0: block(1), 1: block(2)}


def test_a_seal_that_comes_too_late_leaves_no_copy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    backup = copying.backed_up(world, policy)
    genuine = flow.Repository.finish_copy

    def late(repository: Any, draft: Any) -> Any:
        """While this worker stands still, its lease runs out and the copy is aborted and over."""
        monkeypatch.undo()
        world.expire_leases()
        leased = Step.objects.filter(kind=copy_parts.SEAL)
        progress = [info.key for info in repository.store.list("progress/")]
        kept = {key: repository.store.get(key) for key in progress}
        assert copy.abort(backup)
        world.run()
        assert leased.get().state == "cancelled"
        for key, data in kept.items():
            repository.store.put(key, data)
        return genuine(repository, draft)

    monkeypatch.setattr(flow.Repository, "finish_copy", late)
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "A" and stored(policy, "copies/") == []


def test_a_slow_volume_shows_how_far_it_is(world: World, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CPM_S3_SLICE_SECONDS = 0
    monkeypatch.setattr(copy_parts, "SHOW_SECONDS", 0)
    policy = copying.policy_with_s3(world, world.aws.volume(2))
    backup = copying.backed_up(world, policy)
    copying.one_step("s3_copy.plan")
    for _ in range(2):
        copying.one_step("s3_copy.part")

    step = Step.objects.get(kind="s3_copy.part")
    backup.refresh_from_db()
    assert (step.progress, step.message) == (50, "1.0 of 2.0 GiB done, 0.0 GiB read.")
    assert (backup.s3_copy_status, backup.s3_copy_progress) == ("P", 25)
    world.run()
    backup.refresh_from_db()
    assert backup.s3_copy_progress == 100
    assert LogLine.objects.filter(subject_id=backup.pk, message="1 volumes copied to S3.").exists()
