"""Backups of volumes and instances against the simulated AWS: status, records, retries, abort."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.lib.states import AmiOption, AutoRemove, WhichVolumes
from cpm.models import Alert, Backup, Job, Snapshot, Step, Target
from cpm.services import backups
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_volume_is_backed_up_and_its_snapshot_holds_the_bytes_of_that_moment(world, aws):
    volume = aws.volume()
    aws.write(volume, b"as it was" * 1000)
    expected = aws.sha256(volume)

    backup = world.back_up(world.policy(volume), status="B")

    row = Snapshot.objects.get(backup=backup)
    assert (row.kind, row.status, row.succeeded, row.progress) == ("volumes", "completed", True, 100)
    assert aws.sha256(row.aws_id) == expected
    assert row.start_time and row.end_time and backup.end_time
    assert Job.objects.get(subject_id=backup.pk, kind="backup").state == "succeeded"


def test_all_volumes_of_an_instance_share_one_call_and_carry_our_tags(world, aws):
    instance, devices = aws.instance((1, 2, 1))
    since = aws.last_call()

    backup = world.back_up(world.policy(instance), status="B")

    rows = Snapshot.objects.filter(backup=backup, kind="volumes")
    assert {row.device: row.capacity for row in rows} == {"/dev/xvda": 1, "/dev/xvdb": 2, "/dev/xvdc": 1}
    assert {row.source_id for row in rows} == set(devices.values())
    parent = Snapshot.objects.get(backup=backup, kind="instances")
    assert parent.succeeded and {row.parent_id for row in rows} == {parent.pk}
    assert parent.details["aws_instance_type"] == "t3.micro"
    actions = [call["action"] for call in aws.calls(since)]
    assert actions.count("CreateSnapshots") == 1
    tags = aws.client("ec2").describe_snapshots(SnapshotIds=[rows[0].aws_id])["Snapshots"][0]["Tags"]
    keys = {tag["Key"] for tag in tags}
    assert {"cpm_server_id", "cpm_policy_name", "cpm_backup_id", "cpm_step_id"} <= keys


@pytest.mark.parametrize(
    ("which", "listed", "kept"),
    [
        (WhichVolumes.INCLUDE, ["/dev/xvdb"], {"/dev/xvdb"}),
        (WhichVolumes.EXCLUDE, ["/dev/xvda"], {"/dev/xvdb", "/dev/xvdc"}),
        (WhichVolumes.EXCLUDE, ["/dev/xvdc"], {"/dev/xvda", "/dev/xvdb"}),
    ],
)
def test_volumes_that_are_left_out_have_no_snapshot(world, aws, which, listed, kept):
    instance, devices = aws.instance((1, 1, 1))
    policy = world.policy()
    target = world.target(policy, instance, which_volumes=which)
    for device in listed:
        factories.target_volume(target, aws_resource_id=devices[device])

    backup = world.back_up(policy, status="B")

    rows = Snapshot.objects.filter(backup=backup, kind="volumes")
    assert {row.device for row in rows} == kept
    assert len(world.snapshots_in_aws()) == len(kept)


def test_an_instance_that_only_wants_amis_gets_one_with_all_its_volumes(world, aws):
    instance, _ = aws.instance((1, 1))
    policy = world.policy()
    world.target(policy, instance, ami_backup_option=AmiOption.ONLY)

    backup = world.back_up(policy, status="B")

    row = Snapshot.objects.get(backup=backup, kind="only_amis")
    assert row.aws_id.startswith("ami-")
    assert len(row.details["snapshot_ids"]) == 2
    assert not Snapshot.objects.filter(backup=backup, kind="volumes").exists()


def test_the_initial_ami_is_made_once_and_again_when_its_rotation_is_due(world, aws):
    instance, _ = aws.instance((1,))
    policy = world.policy()
    world.target(policy, instance, ami_backup_option=AmiOption.SINGLE)

    first = world.back_up(policy, status="B")
    second = world.back_up(policy, status="B")
    Snapshot.objects.filter(kind="initial_amis").update(start_time=timezone.now() - timedelta(days=91))
    third = world.back_up(policy, status="B")

    made = list(Snapshot.objects.filter(kind="initial_amis").order_by("pk"))
    assert [row.backup_id for row in made] == [first.pk, third.pk]
    used = Snapshot.objects.get(backup=second, kind="instances")
    assert used.details["initial_ami"] == made[0].pk


def test_a_vanished_target_is_reported_and_the_others_are_protected(world, aws):
    policy = world.policy(aws.volume(), "vol-0123456789abcdef0")

    backup = world.back_up(policy, status="S")

    failed = Snapshot.objects.get(backup=backup, succeeded=False)
    assert "no longer exists" in failed.error
    assert backup.retry_scheduled and backup.retry_at is not None


@pytest.mark.parametrize(("rule", "alerts"), [(AutoRemove.YES, 0), (AutoRemove.ALERT, 1)])
def test_a_vanished_target_leaves_the_policy_when_the_policy_says_so(world, aws, rule, alerts):
    policy = world.policy(aws.volume(), "vol-0123456789abcdef0", auto_remove_resource=rule)

    world.back_up(policy, status="B")

    assert Target.objects.filter(policy=policy).count() == 1
    assert Alert.objects.filter(policy=policy, category="target_removed").count() == alerts


def test_a_denied_call_removes_no_target_and_says_what_is_missing(world, aws):
    policy = world.policy(aws.volume(), auto_remove_resource=AutoRemove.YES)
    aws.fault(action="DescribeVolumes", error="UnauthorizedOperation", status=403)

    backup = world.back_up(policy, status="F")
    aws.clear_faults()

    assert Target.objects.filter(policy=policy).count() == 1
    assert "ec2:DescribeVolumes" in Snapshot.objects.get(backup=backup).error


def test_throttling_is_waited_out(world, aws):
    policy = world.policy(aws.volume())
    aws.fault(action="CreateSnapshot", error="RequestLimitExceeded", status=503, count=2)

    world.back_up(policy, status="B")

    assert len(world.snapshots_in_aws()) == 1


def test_a_lost_answer_does_not_make_a_second_snapshot(world, aws):
    policy = world.policy(aws.volume())
    aws.fault(action="CreateSnapshot", lost_response=True, count=1)

    world.back_up(policy, status="B")

    assert len(world.snapshots_in_aws()) == 1


def test_a_snapshot_that_ends_in_error_fails_the_backup_and_raises_an_alert_that_success_clears(world, aws):
    volume = aws.volume()
    policy = world.policy(volume, number_of_retries=0)
    aws.fault(snapshots_error=True, count=1)

    failed = world.back_up(policy, status="F")
    raised = Alert.objects.filter(policy=policy, category="backup_failed").count()
    world.back_up(policy, status="B")

    assert (raised, Alert.objects.count()) == (1, 0)
    assert not failed.retry_scheduled
    policy.refresh_from_db()
    assert policy.consecutive_failures == 0 and policy.last_success_at


def test_credentials_that_stop_working_end_the_record_in_words(world, aws):
    policy = world.policy(aws.volume())
    aws.control("POST", "/keys/revoke", {"access_key": world.account.access_key})

    backup = world.back_up(policy, status="F")

    assert "credentials" in Snapshot.objects.get(backup=backup).error


def test_an_abort_removes_what_was_not_complete(world, aws):
    aws.timing(snapshot_seconds=60)
    policy = world.policy(aws.volume())
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    while not Snapshot.objects.filter(backup=backup).exclude(aws_id="").exists():
        world.work()

    backups.abort(actor=world.actor, backup=backup)
    world.run()
    aws.timing(snapshot_seconds=0)

    backup.refresh_from_db()
    assert (backup.status, backup.retry_scheduled) == ("F", False)
    assert world.snapshots_in_aws() == set()


def test_a_second_run_is_refused_while_one_is_going_on(world, aws):
    policy = world.policy(aws.volume())
    backups.start(actor=world.actor, policy=policy, now=timezone.now())

    with pytest.raises(Exception, match="is running"):
        backups.start(actor=world.actor, policy=policy, now=timezone.now())

    assert Backup.objects.count() == 1


def test_a_slot_is_run_once(world, aws):
    policy = world.policy(aws.volume())
    slot = timezone.now()

    first = backups.start_many(runs=[backups.Run(policy, slot)], now=slot)
    second = backups.start_many(runs=[backups.Run(policy, slot)], now=slot)

    assert (len(first), second) == (1, [])
    assert Job.objects.count() == Step.objects.count() == 1


def test_a_policy_without_targets_fails_and_says_so(world):
    backup = world.back_up(world.policy(), status="F")

    assert "no targets" in backup.outcome
