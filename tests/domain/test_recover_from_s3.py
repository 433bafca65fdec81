"""Recovery from S3 against the simulated AWS: volumes and instances whose native snapshots are gone."""


import pytest

from cpm.flows.s3 import restore, restore_blocks
from cpm.models import Job, Step
from tests import factories
from tests.domain.copying import repository
from tests.domain.recovering import (
    ids,
    instance,
    left_over,
    log,
    run_and_die,
    volume_row,
    volumes_of,
)
from tests.domain.restoring import (
    copied,
    copy_of_instance,
    copy_of_volume,
    damage,
    lose_snapshots,
    recover,
    start,
)
from tests.domain.world import DR_ACCOUNT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def describe(aws, volume, region="us-east-1", account=None):
    return aws.client("ec2", region, account).describe_volumes(VolumeIds=[volume])["Volumes"][0]


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
