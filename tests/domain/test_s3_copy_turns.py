"""When it is the turn of a backup to be copied to S3, and whom it waits for."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.flows.s3 import copy
from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.lib.states import JobState
from cpm.models import Backup, Job, Policy, Step
from tests.domain import copying
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


def test_a_policy_that_is_being_copied_does_not_begin_another_copy(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    first = copying.backed_up(world, policy)
    copying.one_step("s3_copy.plan")

    second = copying.backed_up(world, policy)
    Step.objects.filter(kind="s3_copy.plan", state="ready").update(not_before=timezone.now())
    Step.objects.filter(kind="s3_copy.part").update(not_before=timezone.now() + timedelta(hours=1))
    copying.one_step("s3_copy.plan")

    second.refresh_from_db()
    assert second.s3_copy_status == "K"
    assert any("another backup of the policy is being copied" in line for line in world.log(second))
    Step.objects.filter(kind="s3_copy.part").update(not_before=timezone.now())
    world.run()
    first.refresh_from_db()
    assert first.s3_copy_status == "S"


def test_a_retry_waits_for_the_copy_of_what_it_repeats(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    first = copying.backed_up(world, policy)
    Backup.objects.update(status="S")
    copying.one_step("s3_copy.plan")
    retry = copying.backed_up(world, policy)
    Backup.objects.filter(pk=retry.pk).update(is_retry=True, retry_of=first)

    world.run()

    for backup in (first, retry):
        backup.refresh_from_db()
        assert backup.s3_copy_status == "S", world.log(backup)


def test_a_copy_waits_for_another_operation_in_s3(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())
    backup = copying.backed_up(world, policy)
    other = queue.create_jobs(
        [queue.JobSpec("s3_cleanup", "policy", policy.pk, [StepSpec("s3_copy.finish")])],
        engine_queues=copy.QUEUES,
    )[0]
    Step.objects.filter(job=other).update(not_before=timezone.now() + timedelta(hours=1))
    Policy.objects.filter(pk=policy.pk).update(s3_job=other)

    copying.one_step("s3_copy.plan")
    waiting = Step.objects.get(kind="s3_copy.plan")
    assert waiting.finished_at is None and "Another operation" in waiting.message
    Step.objects.filter(job=other).update(state="succeeded", finished_at=timezone.now())
    Job.objects.filter(pk=other.pk).update(state=JobState.SUCCEEDED, finished_at=timezone.now())
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "S"


def test_every_second_backup_is_copied(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume(), s3_copy_interval=2)

    backups = [world.back_up(policy) for _ in range(4)]

    assert [backup.s3_copy_status for backup in backups] == ["S", "K", "S", "K"]
    assert any("backup 1 of 2 since" in line for line in world.log(backups[1]))


def run_of(world: World, policy: Policy, *, again: Backup | None = None, status: str = "B") -> Backup:
    """A backup as it would end, its copy made."""
    backup = copying.backed_up(world, policy)
    again_fields = {"is_retry": True, "retry_of": again} if again else {}
    Backup.objects.filter(pk=backup.pk).update(status=status, **again_fields)
    world.run()
    backup.refresh_from_db()
    return backup


def test_a_run_that_was_copied_whole_is_not_copied_again_by_its_retry(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume())

    first = run_of(world, policy, status="A")
    retry = run_of(world, policy, again=first)
    partial = run_of(world, policy, status="S")
    whole = run_of(world, policy, again=partial)

    assert [b.s3_copy_status for b in (first, retry, partial, whole)] == ["S", "K", "S", "S"]


def test_retries_do_not_count_for_the_interval(world: World) -> None:
    policy = copying.policy_with_s3(world, world.aws.volume(), s3_copy_interval=2)

    first = run_of(world, policy)
    second = run_of(world, policy, status="S")
    retry = run_of(world, policy, again=second)
    third = run_of(world, policy)

    assert [b.s3_copy_status for b in (first, second, retry, third)] == ["S", "K", "K", "S"]


def test_copies_wait_for_dr(world: World) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1)
    policy = copying.policy_with_s3(world, volume, dr_enabled=True, dr_regions=[world.region_id("us-west-2")])

    backup = world.back_up(policy, dr_status="C", s3_copy_status="S")

    assert [row.snapshot.kind for row in backup.s3_copies.all()] == ["volumes"]
    dr, s3 = Job.objects.get(kind="dr_copy"), Job.objects.get(kind="s3_copy")
    assert dr.finished_at is not None and dr.finished_at <= s3.created_at
