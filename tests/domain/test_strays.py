"""The daily look for what a worker made late and then died: only proven duplicates go."""

from datetime import timedelta
from threading import Thread

import pytest
from django.db import connection
from django.utils import timezone

from cpm.aws.gateway import client
from cpm.flows import tags
from cpm.flows.cleanup import stray_rules, strays
from cpm.flows.identities import identity_of
from cpm.jobs import queue
from cpm.lib.states import AmiOption
from cpm.models import Job, LogLine, Snapshot, Step
from tests import factories
from tests.domain import recovering
from tests.domain.straying import image_again, image_of, look, made_again, shown
from tests.domain.world import DR_ACCOUNT
from workers import tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _at_once(settings):
    """Nothing has to be an hour old, unless a test says so."""
    settings.CPM_STRAY_SETTLED_SECONDS = 0


def lines(level="Info"):
    return list(LogLine.objects.filter(subject_type="cleanup", level=level).values_list("message", flat=True))


def backed_up(world, aws, **fields):
    """A backup of one volume: its snapshot's record and the step that made it."""
    backup = world.back_up(world.policy(aws.volume(), **fields), status="B")
    row = Snapshot.objects.get(backup=backup, kind="volumes")
    return row, Step.objects.get(kind="backup.start_volume", payload__snapshot=row.pk)


def test_a_duplicate_goes_and_the_one_that_counts_stays(world, aws):
    row, step = backed_up(world, aws)
    stray = made_again(aws.client("ec2"), row.aws_id)

    job = look(world)

    assert job.state == "succeeded"
    assert world.snapshots_in_aws() == {row.aws_id}
    (line,) = lines()
    assert stray in line and f"step {step.pk} (backup.start_volume)" in line and row.aws_id in line
    assert LogLine.objects.get(message=line).subject_id == world.user.pk
    assert lines("Warning") == []


def test_a_second_set_of_an_instance_goes_volume_by_volume(world, aws):
    instance, devices = aws.instance((1, 1))
    backup = world.back_up(world.policy(instance), status="B")
    rows = Snapshot.objects.filter(backup=backup, kind="volumes")
    kept = set(rows.values_list("aws_id", flat=True))
    for aws_id in kept:
        made_again(aws.client("ec2"), aws_id)
    foreign = made_again(aws.client("ec2"), min(kept), volume=aws.volume())

    look(world)

    assert len(devices) == len(kept) == 2
    assert world.snapshots_in_aws() == kept | {foreign}


@pytest.mark.parametrize(
    "changed",
    [
        {tags.STEP: "987654321"},
        {tags.STEP: "mine"},
        {tags.SERVER: "00000000-0000-0000-0000-000000000000"},
        {tags.BACKUP: "987654321"},
        {tags.OUTDATED: "true"},
    ],
)
def test_what_another_step_server_or_backup_made_stays(world, aws, changed):
    row, _ = backed_up(world, aws)
    other = made_again(aws.client("ec2"), row.aws_id, **changed)

    job = look(world)

    assert (job.state, lines()) == ("succeeded", [])
    assert world.snapshots_in_aws() == {row.aws_id, other}


def test_a_copied_tag_of_a_step_that_makes_no_snapshots_proves_nothing(world, aws):
    row, _ = backed_up(world, aws)
    recovery = recovering.recover(world, row)
    (volume,) = recovering.ids(recovery)
    ec2 = aws.client("ec2")
    labels = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Tags"]
    marks = [{"ResourceType": "snapshot", "Tags": labels}]
    foreign = ec2.create_snapshot(VolumeId=volume, TagSpecifications=marks)["SnapshotId"]

    look(world)

    assert tags.STEP in tags.as_dict(labels)
    assert shown(ec2, foreign)
    assert lines() == lines("Warning") == []


def test_what_is_younger_than_an_hour_stays(world, aws, settings):
    settings.CPM_STRAY_SETTLED_SECONDS = 3600
    row, step = backed_up(world, aws)
    long_ago = timezone.now() - timedelta(hours=3)
    Step.objects.filter(pk=step.pk).update(started_at=long_ago, finished_at=long_ago)
    stray = made_again(aws.client("ec2"), row.aws_id)

    look(world)

    assert world.snapshots_in_aws() == {row.aws_id, stray}


def test_what_belongs_to_a_step_that_is_not_long_over_stays(world, aws):
    row, step = backed_up(world, aws)
    Step.objects.filter(pk=step.pk).update(finished_at=timezone.now() + timedelta(hours=1))
    stray = made_again(aws.client("ec2"), row.aws_id)

    look(world)

    assert world.snapshots_in_aws() == {row.aws_id, stray}


def test_what_is_older_than_its_step_was_made_by_another_one_of_that_id(world, aws):
    row, step = backed_up(world, aws)
    other = made_again(aws.client("ec2"), row.aws_id)
    Step.objects.filter(pk=step.pk).update(started_at=timezone.now() + timedelta(minutes=5))

    look(world)

    assert world.snapshots_in_aws() == {row.aws_id, other}


def test_what_any_record_names_stays(world, aws):
    row, _ = backed_up(world, aws)
    ec2 = aws.client("ec2")
    as_row, in_details, in_request = (made_again(ec2, row.aws_id) for _ in range(3))
    unnamed = made_again(ec2, row.aws_id)
    factories.snapshot(row.backup, aws_id=as_row)
    factories.snapshot(row.backup, details={"snapshot_ids": [in_details]})
    factories.recovery(row, request={"image_id": in_request}, status="R")

    look(world)

    assert world.snapshots_in_aws() == {row.aws_id, as_row, in_details, in_request}
    assert len(lines()) == 1 and unnamed in lines()[0]


def test_what_a_step_without_a_token_left_is_reported_and_stays(world, aws):
    row, step = backed_up(world, aws)
    Step.objects.filter(pk=step.pk).update(token=None, state="failed")
    only = made_again(aws.client("ec2"), row.aws_id)

    job = look(world)

    assert (job.state, lines()) == ("succeeded", [])
    assert world.snapshots_in_aws() == {row.aws_id, only}
    assert len(lines("Warning")) == 1 and only in lines("Warning")[0]


def image_and_another(world, aws):
    """The record of an image, and one that its step has made again, with its snapshots."""
    instance, row = image_of(world)
    made = image_again(world, instance, row)
    mappings = aws.client("ec2").describe_images(ImageIds=[made])["Images"][0]["BlockDeviceMappings"]
    return row, made, {mapping["Ebs"]["SnapshotId"] for mapping in mappings}


def images(aws):
    return {image["ImageId"] for image in aws.client("ec2").describe_images(Owners=["self"])["Images"]}


def test_a_duplicate_image_goes_with_its_snapshots(world, aws):
    row, stray, parts = image_and_another(world, aws)
    before = world.snapshots_in_aws()

    job = look(world)

    assert job.state == "succeeded"
    assert stray not in images(aws)
    assert world.snapshots_in_aws() == before - parts == set(row.details["snapshot_ids"])
    assert len(lines()) == 1 and all(one in lines()[0] for one in (stray, *parts))


def test_an_image_whose_snapshot_a_record_names_stays_whole(world, aws):
    row, stray, parts = image_and_another(world, aws)
    factories.snapshot(row.backup, aws_id=min(parts))
    before = world.snapshots_in_aws()

    look(world)

    assert stray in images(aws)
    assert world.snapshots_in_aws() == before


def test_snapshots_of_an_image_that_could_not_be_deleted_go_when_the_job_is_tried_again(world, aws):
    row, stray, parts = image_and_another(world, aws)
    aws.fault(action="DeleteSnapshot", error="UnauthorizedOperation", status=403)
    job = look(world)
    failed, left = job.state, world.snapshots_in_aws()
    aws.clear_faults()

    queue.retry_failed(job.pk)
    world.run()

    job.refresh_from_db()
    assert (failed, job.state) == ("failed", "succeeded")
    assert stray not in images(aws) and parts <= left
    assert world.snapshots_in_aws() == set(row.details["snapshot_ids"])
    assert any("ec2:DeleteSnapshot" in line for line in lines("Error"))


def test_what_is_gone_already_counts_as_removed(world, aws):
    row, _ = backed_up(world, aws)
    made_again(aws.client("ec2"), row.aws_id)
    aws.fault(action="DeleteSnapshot", error="InvalidSnapshot.NotFound")

    assert look(world).state == "succeeded"


def test_an_access_error_is_shown_and_nothing_is_removed(world, aws):
    row, _ = backed_up(world, aws)
    stray = made_again(aws.client("ec2"), row.aws_id)
    aws.fault(action="DescribeSnapshots", error="UnauthorizedOperation", status=403)

    job = look(world)

    aws.clear_faults()
    assert job.state == "failed"
    assert "ec2:DescribeSnapshots" in job.steps.get().message
    assert any("ec2:DescribeSnapshots" in line for line in lines("Error"))
    assert world.snapshots_in_aws() == {row.aws_id, stray}


def test_copies_in_a_dr_account_are_looked_at_there_and_only_tagged_where_nothing_may_be_deleted(world, aws):
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True, allow_deleting_snapshots=False)
    row, _ = backed_up(
        world, aws, dr_enabled=True, dr_account=dr_account, dr_account_regions=[world.region_id("eu-west-1")]
    )
    copy = Snapshot.objects.get(backup=row.backup, kind="dr_volumes")
    ec2 = aws.client("ec2", "eu-west-1", DR_ACCOUNT)
    stray = made_again(ec2, copy.aws_id, volume=aws.volume(region="eu-west-1", account=DR_ACCOUNT))

    look(world)

    assert set(Step.objects.filter(kind=strays.STEP).values_list("payload__account", "payload__region")) == {
        (world.account.pk, "us-east-1"), (dr_account.pk, "eu-west-1"),
    }  # fmt: skip
    assert tags.OUTDATED in tags.as_dict(shown(ec2, stray)["Tags"])
    assert tags.OUTDATED not in tags.as_dict(shown(ec2, copy.aws_id)["Tags"])


def test_there_is_one_job_for_an_account_and_day(world, aws):
    backed_up(world, aws)
    world.add_account(DR_ACCOUNT)
    now = timezone.now()

    first = look(world, now)
    again = look(world, now)
    tasks.housekeeping()
    tomorrow = look(world, now + timedelta(days=1))

    assert (again, first.pk < tomorrow.pk) == (None, True)
    assert Job.objects.filter(kind="strays").count() == 2
    assert first.user_id == world.user.pk


def test_housekeepers_that_meet_start_one_job(world, aws):
    backed_up(world, aws)

    def work():
        tasks.housekeeping()
        connection.close()

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Job.objects.filter(kind="strays").count() == 1


@pytest.mark.timeout(240)
def test_the_rules_know_what_every_flow_makes(world, aws):
    """A flow that changes a name or description would otherwise hide its strays."""
    dr_account = world.add_account(DR_ACCOUNT, is_dr_account=True)
    instance, _ = aws.instance((1, 1))
    policy = world.policy(
        aws.volume(), dr_enabled=True, dr_regions=[world.region_id("us-west-2")], dr_account=dr_account
    )
    world.target(policy, instance, ami_backup_option=AmiOption.SINGLE)
    backup = world.back_up(policy, status="B", dr_status="C")
    world.back_up(world.policy(name="cpmdata"), status="B")
    row = recovering.instance_row(backup)
    Snapshot.objects.filter(kind__startswith="dr_", backup=backup).delete()
    west = world.region_id("us-west-2")
    recovering.recover(world, row, ami_handling="O", to_region=west)
    recovering.recover(world, row, restore_from="I", ami_handling="L", to_region=west)

    seen = set()
    for region in ("us-east-1", "us-west-2"):
        ec2 = client(identity_of(world.account, session="test"), "ec2", region)
        for thing in strays.listed(ec2, world.account):
            step = Step.objects.get(pk=thing.step)
            if thing.sort == "snap" and step.kind in stray_rules.IMAGES:
                continue
            assert stray_rules.made_by(step, thing), (step.kind, thing)
            assert stray_rules.counted(step, thing) == thing.aws_id
            seen.add(step.kind)

    known = {*stray_rules.SNAPSHOTS, *stray_rules.IMAGES}
    # The first looks as backup.start_instance does; the second is asked about where recoveries from S3 are tested.
    assert known - seen == {"backup.start_unless_vss", "recover.s3_write"}
