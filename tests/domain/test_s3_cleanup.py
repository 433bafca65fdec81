"""Cleanup of copies in the simulated S3: what goes, what stays, and what is said about it."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from cpm.flows.s3 import deletion as s3_deletion
from cpm.flows.s3 import pruning
from cpm.flows.s3 import repositories as flow
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import CopyStatus
from cpm.models import (
    Alert,
    Backup,
    ExploreSession,
    Job,
    LogLine,
    Policy,
    Recovery,
    S3Copy,
    S3Repository,
    ServerSettings,
    Step,
)
from cpm.repository import manifest
from cpm.repository.prune import prune
from cpm.services import backup_deletion, cleanup, freezer, policies, repositories, s3_operations
from tests import factories
from tests.domain import copying, stored
from tests.domain.test_admin import client_of
from tests.domain.world import World
from tests.repository.world import AT_ONCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prune without the delays that keep writers safe, of which there are none here."""
    monkeypatch.setattr(pruning, "prune", partial(prune, delays=AT_ONCE))


def policy_of(world: World, row: S3Repository, **fields: Any) -> Policy:
    return world.policy(s3_enabled=True, s3_repository=row, **{"s3_generations": 1, **fields})


def copied(policy: Policy, row: S3Repository, days: float, *seeds: int, **fields: Any) -> Backup:
    """A backup of so many days ago whose volume has been copied."""
    backup = stored.backup(policy, start_time=timezone.now() - timedelta(days=days), **fields)
    stored.copy(row, backup.snapshots.get(kind="volumes"), seeds)
    return backup


def clean(world: World) -> None:
    cleanup.run_s3(actor=world.actor, now=timezone.now())
    world.run()


def state(backup: Backup) -> tuple[str, str]:
    backup.refresh_from_db()
    return backup.status, backup.s3_copy_status


def in_s3(row: S3Repository) -> set[str]:
    return set(manifest.ids(flow.opened(row).store))


def packs(row: S3Repository) -> int:
    return sum(info.size for info in flow.store_of(row).list("packs/"))


def log(policy: Policy) -> str:
    lines = LogLine.objects.filter(subject_type="s3_cleanup", subject_id=policy.pk).order_by("id")
    return " ".join(lines.values_list("message", flat=True))


def test_what_is_beyond_the_generations_goes_and_its_blocks_with_it(world: World, at_once: None) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old, kept = copied(policy, row, 2, 2, 4, 6), copied(policy, row, 1, 2, 8)
    before = packs(row)

    clean(world)
    Job.objects.all().delete()
    clean(world)

    assert (state(old), state(kept)) == (("B", "D"), ("B", "S"))
    gone = S3Copy.objects.get(backup=old)
    assert gone.status == "deleted" and gone.deletion_time is not None
    assert in_s3(row) == {S3Copy.objects.get(backup=kept).copy_id}
    assert packs(row) < before
    assert stored.content(row, S3Copy.objects.get(backup=kept).copy_id) == [stored.block(2), stored.block(8)]
    assert "1 backups in S3 have expired" in log(policy)
    row.refresh_from_db()
    assert row.copies_stored == 1


def test_the_last_good_copy_stays_however_old(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row, s3_keep_by_generations=False, s3_keep_by_time=True, s3_keep_time_unit="W")
    good, partial_ = copied(policy, row, 30, 2), copied(policy, row, 20, 4)
    Backup.objects.filter(pk=partial_.pk).update(s3_copy_status=CopyStatus.PARTIAL)

    clean(world)

    assert (state(good), state(partial_)) == (("B", "S"), ("B", "R"))
    assert len(in_s3(row)) == 2


def test_a_backup_without_native_snapshots_lives_as_long_as_its_copies(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    stored.move(old)

    clean(world)

    assert state(old) == ("D", "D")
    assert old.deleted_at is not None and old.marked_for_deletion
    assert set(old.snapshots.values_list("status", flat=True)) == {"deleted"}


def test_deleting_a_backup_deletes_its_copies_too(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup, other = copied(policy, row, 2, 2), copied(policy, row, 1, 4)

    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    assert (state(backup), state(other)) == (("D", "D"), ("B", "S"))
    assert len(in_s3(row)) == 1


def test_deleting_native_snapshots_leaves_copies_and_what_a_recovery_of_them_needs(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup, plain = copied(policy, row, 2, 2), stored.backup(policy)

    backup_deletion.delete_policy_snapshots(actor=world.actor, policy=policy, native_only=True)
    world.run()

    assert (state(backup), state(plain)) == (("M", "S"), ("D", "Z"))
    assert backup.status_before_deletion == "B" and backup.deleted_at is None
    assert not backup.marked_for_deletion
    assert backup.snapshots.get(kind="instances").status == "completed"
    assert plain.snapshots.get(kind="instances").status == "deleted"
    Backup.objects.filter(pk__in=[backup.pk, plain.pk]).update(
        start_time=timezone.now() - timedelta(days=400)
    )
    Backup.objects.filter(pk=plain.pk).update(deleted_at=timezone.now() - timedelta(days=400))
    cleanup.run(actor=world.actor, now=timezone.now())
    world.run()
    assert list(Backup.objects.all()) == [backup] and len(in_s3(row)) == 1


def test_deleting_all_of_a_policy_deletes_what_was_moved_and_leaves_the_frozen(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    moved, frozen = copied(policy, row, 2, 2), copied(policy, row, 1, 4)
    for backup in (moved, frozen):
        stored.move(backup)
        backup.refresh_from_db()
    freezer.freeze(actor=world.actor, backup=frozen, name="keep", description="")

    backup_deletion.delete_policy_snapshots(actor=world.actor, policy=policy, native_only=False)
    world.run()
    assert (state(moved), state(frozen)) == (("D", "D"), ("M", "S"))
    policy.delete()
    clean(world)
    freezer.delete(actor=world.actor, backup=frozen)
    world.run()

    assert state(frozen) == ("D", "D") and in_s3(row) == set()


@pytest.mark.parametrize(
    ("what", "code"),
    [("recovery", "in_recovery"), ("copy", "copy_running"), ("archive", "archive_running")],
)
def test_what_is_used_is_not_deleted(world: World, what: str, code: str) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    recovery = use(backup, what)

    with pytest.raises(PreconditionFailed) as refused:
        backup_deletion.delete_policy_snapshots(actor=world.actor, policy=policy, native_only=False)
    clean(world)

    assert refused.value.error_code() == code
    assert len(in_s3(row)) == 2
    if recovery is not None:
        recovery.delete()
        clean(world)
        assert state(backup) == ("B", "D")


def use(backup: Backup, what: str) -> Recovery | None:
    if what == "recovery":
        return Recovery.objects.create(
            user=backup.user, backup=backup, recovery_type="V", from_s3=True, recovery_time=timezone.now()
        )
    column = {"copy": "s3_copy_status", "archive": "archive_status"}[what]
    Backup.objects.filter(pk=backup.pk).update(**{column: "P"})
    return None


def test_an_open_explore_session_keeps_what_it_reads(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    now = timezone.now()
    session = ExploreSession.objects.create(
        user=backup.user, backup=backup, explore_type="V", status="N", start_time=now, expires_at=now
    )

    clean(world)
    assert state(backup) == ("B", "S")
    ExploreSession.objects.filter(pk=session.pk).update(status="S")
    clean(world)

    assert state(backup) == ("B", "D")


def test_a_locked_copy_stays_and_is_tried_again(world: World) -> None:
    world.region_id("us-east-1")
    factories.bucket(world.aws, "locked-backups", ObjectLockEnabledForBucket=True)
    row = copying.repository(world, aws_bucket_name="locked-backups")
    S3Repository.objects.filter(pk=row.pk).update(lock_mode="GOVERNANCE", lock_days=1)
    row.refresh_from_db()
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    stored.move(backup)

    clean(world)

    assert state(backup) == ("M", "X") and backup.marked_for_deletion
    assert not Alert.objects.exists() and "is locked until" in log(policy)
    unlock(world, "locked-backups", S3Copy.objects.get(backup=backup).copy_id)
    clean(world)
    assert state(backup) == ("D", "D") and len(in_s3(row)) == 1


def unlock(world: World, bucket: str, copy_id: str) -> None:
    """Time passes: the lock of the manifest is over."""
    s3 = world.aws.client("s3")
    [key] = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"] if copy_id in one["Key"]]
    s3.put_object_retention(Bucket=bucket, Key=key, Retention={}, BypassGovernanceRetention=True)


def test_what_s3_refuses_to_delete_raises_an_alert_until_it_works(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    world.aws.fault(service="s3", action="DeleteObjects", error="AccessDenied", status=403)

    clean(world)

    assert state(backup) == ("B", "X")
    alert = Alert.objects.get(policy=policy, category="s3_cleanup_failed")
    assert "s3:DeleteObject" in alert.message_body
    world.aws.clear_faults()
    clean(world)
    assert state(backup) == ("B", "D") and not Alert.objects.exists()


def test_copies_of_a_deleted_policy_that_could_not_be_deleted_are_tried_again(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    world.aws.fault(service="s3", action="DeleteObjects", error="AccessDenied", status=403)
    policies.delete(actor=world.actor, policy=policy)
    world.run()
    assert state(backup) == ("M", "X") and backup.marked_for_deletion and not freezer.can_freeze(backup)
    world.aws.clear_faults()

    clean(world)

    assert state(backup) == ("D", "D") and in_s3(row) == set()


def test_a_killed_worker_is_succeeded_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    old = [copied(policy, row, 9 - number, 2 * number) for number in range(1, 4)]
    copied(policy, row, 1, 8)

    class Killed(BaseException):
        pass

    def dying(*arguments: Any) -> None:
        genuine(*arguments)
        raise Killed

    # The manifest is gone, its record does not say so yet.
    genuine = s3_deletion.locked_until
    with monkeypatch.context() as patch:
        patch.setattr(s3_deletion, "locked_until", dying)
        cleanup.run_s3(actor=world.actor, now=timezone.now())
        with pytest.raises(Killed):
            world.run()
    assert len(in_s3(row)) == 3
    world.expire_leases()
    world.run()

    assert [state(backup) for backup in old] == [("B", "D")] * 3
    assert len(in_s3(row)) == 1


def test_an_aborted_cleanup_goes_on_next_time(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    backup = copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    holder = Job.objects.create(kind="s3_copy", subject_type="backup", subject_id=backup.pk, state="running")
    Policy.objects.filter(pk=policy.pk).update(s3_job=holder)
    cleanup.run_s3(actor=world.actor, now=timezone.now())
    world.work()
    step = Step.objects.get(kind="s3_cleanup.plan")
    assert (step.state, str(holder.pk) in step.message) == ("ready", True)

    s3_operations.abort_cleanup(actor=world.actor, policy=policy)
    Job.objects.filter(pk=holder.pk).update(state="succeeded", finished_at=timezone.now())
    world.run()

    assert Job.objects.get(kind="s3_cleanup").state == "cancelled"
    assert state(backup) == ("B", "S")
    clean(world)
    assert state(backup) == ("B", "D")


def test_the_nightly_cleanup_begins_once_on_every_local_date(world: World, settings: Any) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    copied(policy, row, 1, 4)
    ServerSettings.current()
    evening = datetime(2026, 7, 1, 20, 30, tzinfo=UTC)
    settings.TIME_ZONE = "Europe/Berlin"
    moments = [
        evening,
        evening + timedelta(hours=1),
        evening + timedelta(hours=2),
        evening + timedelta(hours=20),
    ]

    began = [cleanup.run_s3_daily(now=moment) for moment in moments]

    assert began == [True, False, True, False]
    assert ServerSettings.current().last_s3_cleanup_time == moments[2]
    assert Job.objects.filter(kind="s3_cleanup").count() == 1


def test_a_repository_is_pruned_once_a_day_after_the_last_cleanup_of_its_policies(world: World) -> None:
    row = copying.repository(world)
    one, two = policy_of(world, row), policy_of(world, row)
    copied(one, row, 1, 2)
    copied(two, row, 1, 4)

    clean(world)
    clean(world)

    job = Job.objects.get(kind="prune")
    assert (job.subject_type, job.subject_id, job.state) == ("repository", row.pk, "succeeded")
    cleanups = Job.objects.filter(kind="s3_cleanup").order_by("pk")[:2]
    assert all(one.finished_at <= Step.objects.get(job=job).started_at for one in cleanups)


def test_backups_follow_a_repository_that_is_deleted(world: World) -> None:
    row, other = copying.repository(world), copying.repository(world)
    policy = policy_of(world, other)
    native, moved = copied(policy, row, 2, 2), copied(policy, row, 1, 4)
    stored.move(moved)

    repositories.delete(actor=world.actor, repository=row)
    world.run()

    assert (state(native), state(moved)) == (("B", "D"), ("D", "D"))
    assert set(S3Copy.objects.values_list("status", "repository")) == {("deleted", None)}


def test_upkeep_that_fails_raises_an_alert_until_it_works(world: World) -> None:
    row = copying.repository(world)
    factories.bucket(world.aws, "locked-backups", ObjectLockEnabledForBucket=True)
    locking = copying.repository(world, aws_bucket_name="locked-backups", name="locked")
    S3Repository.objects.filter(pk=locking.pk).update(lock_mode="GOVERNANCE", lock_days=3)
    locking.refresh_from_db()
    copied(policy_of(world, locking), locking, 1, 2)
    world.aws.fault(service="s3", action="PutObjectRetention", error="AccessDenied", status=403)

    clean(world)

    alert = Alert.objects.get(category="repository_upkeep_failed")
    assert alert.title.endswith(": locked") and "s3:PutObjectRetention" in alert.message_body
    assert {job.state for job in Job.objects.filter(kind="prune")} == {"succeeded"}
    world.aws.clear_faults()
    clean(world)
    assert not Alert.objects.exists()
    assert flow.store_of(locking).head("config").retain_until is not None
    assert Job.objects.filter(kind="extend_locks", subject_id=row.pk).count() == 0


def test_a_policy_whose_cleanup_is_stopped_does_not_keep_its_repository_from_being_pruned(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(
        world, row, s3_keep_by_time=True, s3_keep_time=1, s3_keep_time_unit="Y",
        archive_enabled=True, archive_keep=1, archive_keep_unit="Y",
    )  # fmt: skip
    copied(policy, row, 1, 2)

    clean(world)

    assert Alert.objects.filter(policy=policy, category="archive_too_short").exists()
    assert Job.objects.get(kind="prune").state == "succeeded"


def test_what_is_stored_of_a_copy_that_failed_goes_with_a_prune(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    failed, running = copied(policy, row, 2, 2), copied(policy, row, 1, 4)
    S3Copy.objects.update(status="error", succeeded=False)
    Backup.objects.filter(pk=failed.pk).update(s3_copy_status="F")
    Backup.objects.filter(pk=running.pk).update(s3_copy_status="P")

    clean(world)

    assert in_s3(row) == {S3Copy.objects.get(backup=running).copy_id}


def test_a_date_whose_first_hour_comes_twice_has_one_cleanup(world: World, settings: Any) -> None:
    settings.TIME_ZONE = "Atlantic/Azores"
    ServerSettings.current()
    # On 25 October 2026 clocks go back there at 01:00, to midnight.
    first_hour = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)

    began = [cleanup.run_s3_daily(now=first_hour + timedelta(hours=passed)) for passed in range(3)]

    assert began == [True, False, False]


def test_the_log_of_cleanups_in_s3_goes_after_its_time(world: World) -> None:
    policy = world.policy()
    now = timezone.now()
    ServerSettings.objects.update_or_create(pk=1, defaults={"keep_deleted_backup_records": 7})
    for subject in ("s3_cleanup", "archive", "repository"):
        for days in (6, 8):
            LogLine.objects.create(
                subject_type=subject, subject_id=policy.pk, time=now - timedelta(days=days), message=str(days)
            )

    cleanup.run(actor=world.actor, now=now)
    world.run()

    lines = LogLine.objects.filter(subject_type__in=("s3_cleanup", "archive", "repository"))
    assert list(lines.values_list("message", flat=True)) == ["6"] * 3


def test_the_admin_shows_the_log_of_a_cleanup_and_stops_one(world: World) -> None:
    row = copying.repository(world)
    policy = policy_of(world, row)
    copied(policy, row, 2, 2)
    copied(policy, row, 1, 4)
    clean(world)
    client = client_of(world.user)

    page = client.get(reverse("admin:cpm_job_change", args=[Job.objects.get(kind="s3_cleanup").pk]))
    assert "the copies of 1 backups in S3 have expired" in page.content.decode()

    running = Job.objects.create(kind="s3_cleanup", subject_type="s3_cleanup", subject_id=policy.pk, state="running")
    Policy.objects.filter(pk=policy.pk).update(s3_job=running)
    client.post(reverse("admin:cpm_policy_abort_in_s3", args=[policy.pk]))
    running.refresh_from_db()
    assert running.abort_requested_at is not None
