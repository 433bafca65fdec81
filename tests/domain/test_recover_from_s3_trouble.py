"""Recovery from S3 when something goes wrong: damage, refusals of AWS, dead workers, aborts, and waiting."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from cpm.flows.cleanup import stray_rules, strays
from cpm.flows.recoveries import recover_base
from cpm.flows.s3 import restore, restore_blocks
from cpm.jobs.context import NotYet
from cpm.lib.errors import Conflict, PreconditionFailed
from cpm.models import Backup, Job, Policy, Recovery, Step
from cpm.repository.errors import StoreUnavailable
from cpm.services import recoveries
from tests import factories
from tests.domain.recovering import (
    ids,
    left_over,
    log,
)
from tests.domain.restoring import (
    copy_of_volume,
    damage,
    recover,
    start,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_a_damaged_copy_is_named_and_nothing_of_it_stays(world, aws):
    _, row, copy = copy_of_volume(world, aws)
    damage(world)

    recovery = recover(world, row, expect="F")

    assert f"The copy of {row.source_id} in repository main is damaged" in recovery.outcome
    assert "packs/" in recovery.outcome and "needed for block" in recovery.outcome
    assert (recovery.s3_status, recovery.recovered_resource_ids) == ("F", "")
    assert left_over(world) == []
    copy.refresh_from_db()
    assert copy.damaged
    with pytest.raises(PreconditionFailed, match="damaged"):
        start(world, row)


def test_a_snapshot_that_aws_dropped_is_written_again_once(world, aws, monkeypatch):
    volume, row, _ = copy_of_volume(world, aws)
    drops = drop_at_writing(world, monkeypatch)

    drops.extend([True])
    recovery = recover(world, row)
    drops.extend([True, True])
    failed = recover(world, row, expect="F")

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    assert sum("It is written again from the beginning" in line for line in log(recovery)) == 1
    assert "for the second time" in failed.outcome
    assert left_over(world, kept=set(ids(recovery))) == []


def test_a_snapshot_that_ec2_does_not_show_yet_is_not_taken_for_dropped(world, aws, monkeypatch, settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 2
    volume, row, _ = copy_of_volume(world, aws)
    aws.fault(service="ec2", action="DescribeSnapshots", list_lag_seconds=1.5)
    whole, refusals = restore.restore_part, [True]

    def part(reader, ebs, snapshot, *more):
        if refusals:
            refusals.pop()
            ebs.get_block(snapshot, 0, "a snapshot that is not complete is refused")
        return whole(reader, ebs, snapshot, *more)

    monkeypatch.setattr(restore, "restore_part", part)
    recovery = recover(world, row)

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    assert not any("dropped" in line for line in log(recovery))


def test_what_a_second_beginning_may_have_left_is_waited_for_before_it_is_looked_for(settings):
    settings.CPM_AWS_LIST_LAG_SECONDS = 60
    now = timezone.now()
    context = SimpleNamespace(now=now)
    first = now - timedelta(hours=1)

    recover_base.until_listed(context, Step(intent_at=first, cursor={"began": first.isoformat()}))
    with pytest.raises(NotYet):
        recover_base.until_listed(context, Step(intent_at=first, cursor={"began": now.isoformat()}))


def drop_at_writing(world, monkeypatch):
    """As often as the list says, somebody removes the snapshot that a slice is about to write, as AWS would."""
    whole, drops, dropped = restore._slice, [], set()

    def slice_of(context, ebs, reader, snapshot):
        if drops and snapshot not in dropped:
            drops.pop()
            dropped.add(snapshot)
            world.aws.client("ec2").delete_snapshot(SnapshotId=snapshot)
        return whole(context, ebs, reader, snapshot)

    monkeypatch.setattr(restore, "_slice", slice_of)
    return drops


def test_a_checksum_that_is_not_that_of_the_written_blocks_fails_the_recovery(world, aws, monkeypatch):
    _, row, _ = copy_of_volume(world, aws)
    whole = restore._slice

    def slice_of(context, *arguments):
        ended = whole(context, *arguments)
        checksum = context.cursor["checksum"]
        total = {**checksum["total"], "words": [0] * 8}
        context.save_cursor({**context.cursor, "checksum": {**checksum, "total": total}})
        return ended

    monkeypatch.setattr(restore, "_slice", slice_of)
    recovery = recover(world, row, expect="F")

    assert "ebs:CompleteSnapshot" in recovery.outcome and "checksum does not match" in recovery.outcome
    assert left_over(world) == []


def test_trouble_that_passes_does_not_add_up_over_the_parts_of_a_volume(world, aws, monkeypatch, settings):
    settings.CPM_MAX_STEP_FAILURES = 2
    settings.CPM_RETRY_BASE_SECONDS = 0.01
    monkeypatch.setattr(restore_blocks, "PART_BLOCKS", 1)
    monkeypatch.setattr(restore, "SLICE_SECONDS", 0)
    volume, row, _ = copy_of_volume(world, aws)
    whole, tried = restore.restore_part, set()

    def part(reader, ebs, snapshot, first, *more):
        if first not in tried:
            tried.add(first)
            raise StoreUnavailable("S3 did not answer")
        return whole(reader, ebs, snapshot, first, *more)

    monkeypatch.setattr(restore, "restore_part", part)
    recovery = recover(world, row)

    # Four blocks that are not zeros, and the end.
    assert len(tried) == 5 and aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)


def test_as_many_snapshots_as_aws_takes_at_once_are_waited_for(world, aws):
    volume, row, _ = copy_of_volume(world, aws)
    aws.fault(service="ebs", action="StartSnapshot", error="ConcurrentLimitExceededException", count=12)

    recovery = recover(world, row)

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    assert Step.objects.get(kind="recover.s3_write").failures == 0


def test_an_abort_in_the_middle_leaves_nothing_in_aws(world, aws, monkeypatch):
    _, row, _ = copy_of_volume(world, aws)
    monkeypatch.setattr(restore, "SLICE_SECONDS", 0)
    monkeypatch.setattr(restore_blocks, "PART_BLOCKS", 1)
    recovery = start(world, row)
    aborting_after_first_part(world, monkeypatch, recovery)

    world.run()

    recovery.refresh_from_db()
    assert (recovery.status, recovery.s3_status) == ("F", "A") and "Aborted" in recovery.outcome
    step = Step.objects.get(kind="recover.s3_write")
    assert step.state == "cancelled" and step.cursor["next"] > 0
    assert left_over(world) == []
    with pytest.raises(Conflict, match="not running"):
        recoveries.abort_from_s3(actor=world.actor, recovery=recovery)


def aborting_after_first_part(world, monkeypatch, recovery):
    """Somebody aborts, twice, when the first blocks are written."""
    whole = restore._slice

    def slice_of(context, ebs, reader, snapshot):
        ended = whole(context, ebs, reader, snapshot)
        for _ in range(2):
            recoveries.abort_from_s3(actor=world.actor, recovery=recovery)
        recovery.refresh_from_db()
        assert recovery.s3_status == "G" and left_over(world) == [snapshot]
        assert_found_as_ours(world, snapshot)
        return ended

    monkeypatch.setattr(restore, "_slice", slice_of)


def assert_found_as_ours(world, snapshot):
    """If it were left behind, the daily look for strays would know which step it belongs to."""
    [thing] = strays.listed(world.aws.client("ec2"), world.account)
    step = Step.objects.get(pk=thing.step)
    assert step.kind == "recover.s3_write"
    assert stray_rules.made_by(step, thing) and stray_rules.counted(step, thing) == snapshot


def test_a_recovery_waits_for_its_turn_but_a_frozen_backup_for_nobody(world, aws):
    _, row, _ = copy_of_volume(world, aws)
    other = factories.s3_operation(row.backup)

    Backup.objects.filter(pk=row.backup_id).update(is_freezer_item=True, name="kept")
    finish(world, start(world, row))
    assert Policy.objects.get(pk=row.backup.policy_id).s3_job_id == other.pk
    Backup.objects.filter(pk=row.backup_id).update(is_freezer_item=False, name="")
    recovery = start(world, row)
    for _ in range(3):
        world.work()
    step = Step.objects.get(kind="recover.plan_volume", job__subject_id=recovery.pk)
    assert (
        f"s3_copy (job {other.pk}, backup {row.backup_id})" in step.message and "abort that" in step.message
    )
    Job.objects.filter(pk=other.pk).update(state="succeeded", finished_at=other.created_at)
    finish(world, recovery)

    assert sum("Waiting: " in line for line in log(recovery)) == 1
    held_by = Policy.objects.get(pk=row.backup.policy_id).s3_job
    assert (held_by.kind, held_by.subject_id) == ("recovery", recovery.pk)


def finish(world, recovery):
    """Work until this recovery is over, whatever else there is."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends and Recovery.objects.filter(pk=recovery.pk, status="P").exists():
        if not world.work():
            time.sleep(0.02)
    recovery.refresh_from_db()
    assert recovery.status == "R", (recovery.outcome, log(recovery))
