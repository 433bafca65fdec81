"""Recovery from S3 against the simulated AWS: volumes and instances whose native snapshots are gone."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from cpm.flows.cleanup import stray_rules, strays
from cpm.flows.recoveries import recover_base
from cpm.flows.s3 import restore, restore_blocks, retrieve
from cpm.jobs.context import NotYet
from cpm.lib.errors import Conflict, PreconditionFailed
from cpm.models import Backup, Job, Policy, Recovery, S3Copy, Step
from cpm.repository.errors import StoreUnavailable
from cpm.services import recoveries
from tests import factories
from tests.domain.copying import BUCKET, repository
from tests.domain.recovering import (
    ids,
    instance,
    instance_row,
    left_over,
    log,
    run_and_die,
    volume_row,
    volumes_of,
)
from tests.domain.restoring import archive, copied, lose_snapshots, packs, recover, start
from tests.domain.world import DR_ACCOUNT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]
MIB = 1 << 20


def copy_of_volume(world, aws, *, lost=True, **options):
    """A volume with data here and there, and the copy of its backup in S3; the native snapshot is gone."""
    volume = aws.volume(**options)
    for place in (0, 1, 700, 1023):
        aws.write(volume, f"at {place}".encode() * 50, place * MIB)
    backup = world.back_up(world.policy(volume), status="B")
    row = volume_row(backup)
    copy = copied(world, row, repository(world))
    if lost:
        lose_snapshots(world, backup)
    return volume, row, copy


def copy_of_instance(world, aws, **fields):
    """An instance with two volumes and the copies of its backup in S3; the fingerprints of its volumes by device."""
    made, volumes = aws.instance((1, 1))
    for number, volume in enumerate(volumes.values()):
        aws.write(volume, bytes([65 + number]) * 4096, number * MIB)
    fingerprints = {device: aws.fingerprint(volume) for device, volume in volumes.items()}
    backup = world.back_up(world.policy(made, **fields), status="B")
    row, to = instance_row(backup), repository(world)
    for child in row.children.filter(kind="volumes"):
        copied(world, child, to)
    lose_snapshots(world, backup)
    return row, fingerprints


def describe(aws, volume, region="us-east-1", account=None):
    return aws.client("ec2", region, account).describe_volumes(VolumeIds=[volume])["Volumes"][0]


def damage(world):
    """Turn a byte in the middle of every pack."""
    s3 = world.aws.client("s3")
    for key in packs(world):
        data = bytearray(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        data[100] ^= 1
        s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))


# -- volumes ----------------------------------------------------------------------------------------------


def test_a_volume_comes_back_byte_for_byte_though_its_snapshot_is_gone(world, aws):
    volume, row, _ = copy_of_volume(world, aws, size=8, VolumeType="gp3", Iops=4000)
    expected = aws.fingerprint(volume)
    aws.write(volume, b"changed since" * 1000)
    before = aws.last_call()

    recovery = recover(world, row)

    [made] = ids(recovery)
    assert recovery.recovered_resource_ids == f"{made} (original: {volume})"
    assert aws.fingerprint(made) == expected
    shown = describe(aws, made)
    assert (shown["VolumeType"], shown["Iops"], shown["Size"], shown["Encrypted"]) == ("gp3", 4000, 8, False)
    assert (recovery.from_s3, recovery.s3_status, recovery.s3_progress) == (True, "S", [100])
    assert (recovery.retrieve_status, recovery.retrieve_progress) == ("Z", [])
    assert left_over(world, kept={made}) == []
    assert any("its copy in S3 repository main" in line for line in log(recovery))
    actions = [call["action"] for call in aws.calls(before)]
    assert actions.count("PutSnapshotBlock") == 4 and actions.count("CompleteSnapshot") == 1


def test_writing_goes_on_where_a_dead_worker_stopped(world, aws, monkeypatch):
    monkeypatch.setattr(restore_blocks, "PART_BLOCKS", 1)
    monkeypatch.setattr(restore, "SLICE_SECONDS", 0)
    volume, row, _ = copy_of_volume(world, aws)
    expected = aws.fingerprint(volume)
    events = run_and_die_in(world, row, monkeypatch, None, expected)
    step = Step.objects.get(kind="recover.s3_write")
    assert step.lease_epoch > 4 and step.failures == 0
    assert (step.cursor["checksum"]["count"], step.cursor["next"]) == (4, 2048)

    for die_at in (events // 3, events // 2, 2 * events // 3):
        run_and_die_in(world, row, monkeypatch, die_at, expected)


def run_and_die_in(world, row, monkeypatch, die_at, expected):
    recovery = start(world, row)
    events = run_and_die(world, monkeypatch, die_at)
    recovery.refresh_from_db()
    assert recovery.status == "R", (recovery.outcome, log(recovery))
    [made] = ids(recovery)
    assert world.aws.fingerprint(made) == expected
    assert left_over(world, kept={made}) == []
    world.aws.client("ec2").delete_volume(VolumeId=made)
    return events


def test_another_account_and_region_get_the_volume_by_credentials_that_are_then_forgotten(world, aws):
    volume, row, _ = copy_of_volume(world, aws)
    world.region_id("eu-west-1")
    access_key, secret_key = aws.credentials(DR_ACCOUNT)
    other = factories.account(world.user, account_number=DR_ACCOUNT, role_name="nobody-may-assume-it")
    given = {"aws_access_key": access_key, "aws_secret_key": secret_key}

    recovery = start(world, row, credentials=given, to_account=other.pk, region="eu-west-1")
    world.run()

    recovery.refresh_from_db()
    assert recovery.status == "R", (recovery.outcome, log(recovery))
    [made] = ids(recovery)
    assert describe(aws, made, "eu-west-1", DR_ACCOUNT)["AvailabilityZone"] == "eu-west-1a"
    assert aws.fingerprint(made) == aws.fingerprint(volume)
    assert left_over(world, kept={made}, region="eu-west-1", account=DR_ACCOUNT) == []
    assert Job.objects.get(kind="recovery").secret == "" and secret_key not in str(recovery.request)


def test_volumes_come_back_under_their_own_key_or_the_one_asked_for(world, aws):
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    there = aws.client("kms", "eu-west-1").create_key()["KeyMetadata"]
    aws.client("kms", "eu-west-1").create_alias(AliasName="alias/copies", TargetKeyId=there["KeyId"])
    volume, row, _ = copy_of_volume(world, aws, Encrypted=True, KmsKeyId=key)
    world.region_id("eu-west-1")

    own = recover(world, row)
    unmatched = recover(world, row, expect="F", region="eu-west-1")
    given = recover(world, row, region="eu-west-1", encryption_key="alias/copies")
    unknown = recover(world, row, expect="F", encryption_key="alias/nobody-made-it")

    assert describe(aws, ids(own)[0])["KmsKeyId"] == key
    assert (
        "No KMS key in eu-west-1 matches" in unmatched.outcome
        and "Give an encryption_key" in unmatched.outcome
    )
    assert unmatched.s3_status == "F"
    assert describe(aws, ids(given)[0], "eu-west-1")["KmsKeyId"] == there["Arn"]
    assert aws.fingerprint(ids(given)[0]) == aws.fingerprint(volume)
    assert "There is no KMS key alias/nobody-made-it in us-east-1" in unknown.outcome


def test_a_volume_of_zeros_alone_comes_back(world, aws):
    volume = aws.volume()
    backup = world.back_up(world.policy(volume), status="B")
    row = volume_row(backup)
    copied(world, row, repository(world))
    lose_snapshots(world, backup)
    before = aws.last_call()

    recovery = recover(world, row)

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    actions = [call["action"] for call in aws.calls(before)]
    assert "PutSnapshotBlock" not in actions and actions.count("CompleteSnapshot") == 1


# -- what goes wrong --------------------------------------------------------------------------------------


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


# -- archives ---------------------------------------------------------------------------------------------


def test_an_archived_copy_is_retrieved_first_with_few_requests(world, aws):
    volume, row, copy = copy_of_volume(world, aws)
    add_packs(world, 20)
    archive(world, copy)
    aws.timing(retrieval_seconds=1)
    before = aws.last_call()

    recovery = recover(world, row, retrieve_options={"retrieval_tier": "E", "days_to_keep": 2})

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    assert (recovery.retrieve_status, recovery.retrieve_progress) == ("S", [100])
    copy.refresh_from_db()
    assert copy.retrieve_status == "available"
    assert 1.9 < (copy.retrieve_expiration - recovery.recovery_time).total_seconds() / 86400 < 2.1
    actions = [call["action"] for call in aws.calls(before)]
    assert actions.count("RestoreObject") == 21
    # A batch is looked at twice at most, and each look that finds something missing costs one more.
    assert actions.count("HeadObject") < 2 * 21 + 10


def add_packs(world, count):
    """Further packs of which the copy needs nothing."""
    s3, [key] = world.aws.client("s3"), packs(world)
    for number in range(count):
        s3.copy_object(Bucket=BUCKET, Key=f"{key}{number:02d}", CopySource={"Bucket": BUCKET, "Key": key})


def test_what_was_retrieved_and_has_gone_again_is_retrieved_anew(world, aws, monkeypatch):
    volume, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    whole = restore._slice

    def too_late(*arguments):
        monkeypatch.setattr(restore, "_slice", whole)
        archive(world, copy)
        return whole(*arguments)

    monkeypatch.setattr(restore, "_slice", too_late)
    failed = recover(world, row, expect="F", retrieve_options={"retrieval_tier": "B", "days_to_keep": 1})
    copy.refresh_from_db()
    assert "archived again" in failed.outcome and copy.retrieve_status == "expired"
    assert left_over(world) == []

    assert aws.fingerprint(ids(recover(world, row))[0]) == aws.fingerprint(volume)


def test_a_slow_listing_does_not_keep_a_retrieval_from_going_on(world, aws, monkeypatch):
    volume, row, copy = copy_of_volume(world, aws)
    add_packs(world, 3)
    archive(world, copy)
    monkeypatch.setattr(retrieve, "BATCH", 1)
    monkeypatch.setattr(retrieve, "SLICE_SECONDS", 0)

    recovery = recover(world, row, retrieve_options={"retrieval_tier": "E", "days_to_keep": 2})

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)


def test_an_aborted_retrieval_is_not_shown_as_going_on(world, aws):
    _, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    aws.timing(retrieval_seconds=60)
    recovery = start(world, row)
    for _ in range(6):
        world.work()
    copy.refresh_from_db()
    assert copy.retrieve_status == "in_progress"

    recoveries.abort_from_s3(actor=world.actor, recovery=recovery)
    world.run()

    copy.refresh_from_db()
    recovery.refresh_from_db()
    assert (recovery.status, recovery.retrieve_status, copy.retrieve_status) == ("F", "A", "")


def test_a_copy_that_can_be_read_stays_so_while_its_stay_is_prolonged(world, aws, monkeypatch):
    _, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    recover(world, row)
    seen = []
    whole = retrieve._Pass.ask

    def ask(self):
        seen.append(S3Copy.objects.get(pk=copy.pk).retrieve_status)
        return whole(self)

    monkeypatch.setattr(retrieve._Pass, "ask", ask)
    recover(world, row)

    assert seen == ["available"]


# -- instances --------------------------------------------------------------------------------------------


def test_an_instance_comes_back_with_its_volumes_and_not_without(world, aws):
    row, fingerprints = copy_of_instance(world, aws)

    recovery = recover(world, row)

    [made] = ids(recovery)
    volumes = volumes_of(world, made)
    assert {device: aws.fingerprint(one["VolumeId"]) for device, one in volumes.items()} == fingerprints
    assert (recovery.s3_status, recovery.s3_progress) == ("S", [100, 100])
    kept = {made, *(one["VolumeId"] for one in volumes.values())}
    kept |= {nic["NetworkInterfaceId"] for nic in instance(world, made)["NetworkInterfaces"]}
    assert left_over(world, kept=kept) == []

    damage(world)
    failed = recover(world, row, expect="F")
    assert failed.s3_status in {"F", "R"} and failed.recovered_resource_ids == ""
    assert left_over(world, kept=kept) == []


def test_an_instance_comes_back_elsewhere_from_snapshots_and_from_an_image(world, aws):
    row, fingerprints = copy_of_instance(world, aws)
    other, region = world.add_account(DR_ACCOUNT), world.region_id("eu-west-1")
    image = aws.image((1,), "eu-west-1", DR_ACCOUNT)

    for request in ({}, {"image_id": image}):
        recovery = recover(world, row, to_account=other.pk, to_region=region, **request)
        volumes = volumes_of(world, ids(recovery)[0], "eu-west-1", DR_ACCOUNT)
        assert {device: aws.fingerprint(one["VolumeId"]) for device, one in volumes.items()} == fingerprints
