"""Application consistency through Systems Manager: scripts on instances, and VSS on Windows."""

import os
import subprocess
from pathlib import Path

import pytest
from django.utils import timezone

from cpm.aws import gateway
from cpm.flows.backups import agent_commands
from cpm.lib.states import AmiOption, WhichVolumes
from cpm.models import Backup, LogLine, ScriptLog, Snapshot, Step
from cpm.services import backups
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

VSS = "AWSEC2-CreateVssSnapshot"


def managed(aws, instance: str, **agent: object) -> str:
    aws.control("POST", "/ssm", {"instance_id": instance, **agent})
    return instance


def commands(aws, document: str = "") -> list[dict]:
    sent = aws.control("GET", "/ssm")["commands"]
    return [command for command in sent if document in ("", command["document"])]


def lines(command: dict) -> str:
    return "\n".join(command["parameters"]["commands"])


def actions(aws, since: int, *names: str) -> list[str]:
    return [call["action"] for call in aws.calls(since) if call["action"] in names]


def scripted(world, instance: str, **fields: object):
    policy = world.policy()
    world.target(policy, instance, enable_agent_scripts=True, **fields)
    return policy


def quiesced(world, instance: str, **fields: object):
    policy = world.policy()
    world.target(policy, instance, enable_agent_vss=True, **fields)
    return policy


def work_until_sent(world, aws, policy) -> Backup:
    """A backup whose command is on its way."""
    backup = backups.start(actor=world.actor, policy=policy, now=timezone.now())
    for _ in range(200):
        world.work()
        if commands(aws) and Step.objects.filter(state="waiting").exclude(token=None).exists():
            return backup
    raise AssertionError(list(Step.objects.values("kind", "state", "message")))


# -- scripts ----------------------------------------------------------------------------------------------


def test_scripts_of_an_instance_run_around_its_snapshots_and_are_told_that_all_is_well(world, aws):
    instance = managed(aws, aws.instance((1, 1))[0])
    since = aws.last_call()

    backup = world.back_up(scripted(world, instance), status="B", performed_quiesce=True)

    before, after, complete = commands(aws, "AWS-RunShellScript")
    assert "/opt/cpm/scripts/before.*" in lines(before) and 'exec "$script"  >' in lines(before)
    assert "/opt/cpm/scripts/after.*" in lines(after) and 'exec "$script" 1 >' in lines(after)
    assert "/opt/cpm/scripts/complete.*" in lines(complete) and 'exec "$script" 1 >' in lines(complete)
    assert f"CPM_BACKUP_ID={backup.pk}" in lines(before)
    assert before["parameters"]["executionTimeout"] == ["30"]
    order = ["SendCommand", "CreateSnapshots", "SendCommand", "SendCommand"]
    assert actions(aws, since, "SendCommand", "CreateSnapshots") == order
    titles = ScriptLog.objects.filter(backup=backup).order_by("pk").values_list("title", "exit_code")
    assert list(titles) == [(f"{phase} script on {instance}", 0) for phase in ("before", "after", "complete")]


def test_windows_instances_get_powershell(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows")

    world.back_up(scripted(world, instance), status="B", performed_quiesce=True)

    before, after, _ = commands(aws, "AWS-RunPowerShellScript")
    assert "C:\\Program Files\\CPM\\scripts" in lines(before) and "-eq 'before'" in lines(before)
    assert "-File $script.FullName 1 | Out-Null" in lines(after)


def test_a_failed_before_script_is_told_on_and_the_snapshots_are_taken(world, aws):
    results = [{"exit_code": 3, "stderr": "cannot freeze"}, {}]
    instance = managed(aws, aws.instance((1,))[0], results=results)

    backup = world.back_up(
        scripted(world, instance, collect_script_output=True), status="A", performed_quiesce=False
    )

    _, after, complete = commands(aws)
    assert 'exec "$script" 0 >' in lines(after) and 'exec "$script" 0 >' in lines(complete)
    assert Snapshot.objects.get(backup=backup, kind="volumes").succeeded
    log = ScriptLog.objects.get(backup=backup, title__startswith="before")
    assert (log.exit_code, log.log) == (3, "cannot freeze")
    assert f"The before script on {instance} ended with exit code 3." in world.log(backup)


def test_stderr_is_kept_only_when_asked_for(world, aws):
    instance = managed(aws, aws.instance((1,))[0], stderr="chatter")

    backup = world.back_up(scripted(world, instance), status="B")

    assert set(ScriptLog.objects.filter(backup=backup).values_list("log", flat=True)) == {""}


def test_a_script_beyond_its_time_fails_and_the_thaw_still_runs(world, aws):
    instance = managed(aws, aws.instance((1,))[0], results=[{"seconds": 600}, {}])

    backup = world.back_up(
        scripted(world, instance, agent_script_timeout=1), status="A", performed_quiesce=False
    )

    message = f"The before script on {instance} did not end within 1 s: ExecutionTimedOut."
    assert message in world.log(backup)
    assert ScriptLog.objects.get(backup=backup, title__startswith="before").exit_code is None
    assert len(commands(aws)) == 3


def test_an_instance_without_scripts_is_warned_about_and_not_called_quiesced(world, aws):
    instance = managed(aws, aws.instance((1,))[0], stdout=agent_commands.NO_SCRIPT + "\n")

    backup = world.back_up(scripted(world, instance), status="B", performed_quiesce=False)

    warnings = LogLine.objects.filter(subject_id=backup.pk, level="Warning", message__contains="There is no")
    assert warnings.count() == 3
    assert not ScriptLog.objects.exists()


def test_an_instance_that_ssm_does_not_manage_makes_the_record_partial_and_is_backed_up(world, aws):
    instance, _ = aws.instance((1,))

    backup = world.back_up(scripted(world, instance), status="A", performed_quiesce=False)

    assert any(f"{instance} is not managed by SSM" in line for line in world.log(backup))
    assert Snapshot.objects.get(backup=backup, kind="volumes").succeeded


def test_a_lost_answer_does_not_run_a_script_twice(world, aws):
    instance = managed(aws, aws.instance((1,))[0])
    aws.fault(action="SendCommand", lost_response=True, count=1)

    world.back_up(scripted(world, instance), status="B")

    assert len(commands(aws)) == 3


def test_many_scripts_are_asked_about_by_one_list(world, aws):
    policy = world.policy()
    image = aws.image((1,))
    for _ in range(4):
        instance, _ = aws.instance(ImageId=image)
        world.target(policy, managed(aws, instance, seconds=1), enable_agent_scripts=True)
    since = aws.last_call()

    world.back_up(policy, status="B")

    count = aws.count(since)["by_action"]
    asked = sum(number for action, number in count.items() if action.endswith("GetCommandInvocation"))
    # Twelve commands of one second each at twenty polls a second would be 240 calls.
    assert 12 <= asked <= 60


def test_an_abort_stops_the_script_and_thaws(world, aws):
    instance = managed(aws, aws.instance((1,))[0], results=[{"seconds": 600}, {}])
    backup = work_until_sent(world, aws, scripted(world, instance))

    backups.abort(actor=world.actor, backup=backup)
    world.run()

    before, after = commands(aws)
    assert (before["status"], after["status"]) == ("Cancelled", "Success")
    assert "scripts/after" in lines(after)
    assert not world.snapshots_in_aws()


# -- VSS --------------------------------------------------------------------------------------------------


def test_vss_takes_all_volumes_in_the_place_of_plain_snapshots(world, aws):
    instance, devices = aws.instance((1, 2))
    managed(aws, instance, platform="Windows")
    aws.write(devices["/dev/xvdb"], b"database" * 512)
    aws.client("ec2").create_tags(Resources=[devices["/dev/xvdb"]], Tags=[{"Key": "team", "Value": "a;b,c"}])
    policy = quiesced(world, instance)
    since = aws.last_call()

    backup = world.back_up(policy, status="B", performed_quiesce=True)

    rows = {row.device: row for row in Snapshot.objects.filter(backup=backup, kind="volumes")}
    assert set(rows) == {"/dev/xvda", "/dev/xvdb"} and all(row.succeeded for row in rows.values())
    assert {row.aws_id for row in rows.values()} == world.snapshots_in_aws()
    assert aws.sha256(rows["/dev/xvdb"].aws_id) == aws.sha256(devices["/dev/xvdb"])
    shown = aws.client("ec2").describe_snapshots(SnapshotIds=[rows["/dev/xvdb"].aws_id])["Snapshots"][0]
    assert shown["Description"] == f"CPM policy {policy.name}|instance: {instance}| VSS snapshot"
    tags = {tag["Key"]: tag["Value"] for tag in shown["Tags"]}
    assert (tags["cpm_policy_name"], tags["team"]) == (policy.name, "a;b,c")
    assert tags["AppConsistent"] == "True" and tags["cpm_step_id"] and tags["cpm_server_id"]
    assert actions(aws, since, "SendCommand", "CreateSnapshots") == ["SendCommand"]


def assert_plain(world, backup: Backup, why: str) -> None:
    rows = list(Snapshot.objects.filter(backup=backup, kind="volumes"))
    assert rows and all(row.succeeded for row in rows)
    assert {row.aws_id for row in rows} == world.snapshots_in_aws()
    log = world.log(backup)
    assert any(why in line for line in log), log
    warnings = LogLine.objects.filter(subject_id=backup.pk, level="Warning")
    assert warnings.filter(message__contains="taken without VSS").count() == 1


@pytest.mark.parametrize(
    ("agent", "target", "why"),
    [
        ({"registered": False}, {}, "is not managed by SSM"),
        ({"exit_code": 1, "stderr": "no AwsVssComponents"}, {}, "failed: Failed."),
        ({"platform": "Linux"}, {}, "it is not a Windows instance"),
        ({}, {"vss_volumes": "c:"}, "takes all drives"),
    ],
)
def test_without_vss_plain_snapshots_are_taken_and_the_record_is_partial(world, aws, agent, target, why):
    instance, _ = aws.instance((1, 1))
    managed(aws, instance, **{"platform": "Windows", **agent})

    backup = world.back_up(quiesced(world, instance, **target), status="A", performed_quiesce=False)

    assert_plain(world, backup, why)


def test_vss_is_not_tried_when_a_volume_is_left_out(world, aws):
    instance, devices = aws.instance((1, 1))
    managed(aws, instance, platform="Windows")
    policy = world.policy()
    target = world.target(policy, instance, enable_agent_vss=True, which_volumes=WhichVolumes.EXCLUDE)
    factories.target_volume(target, aws_resource_id=devices["/dev/xvda"])

    backup = world.back_up(policy, status="A", performed_quiesce=False)

    assert_plain(world, backup, "some are left out")
    assert not commands(aws)


def test_a_missing_right_falls_back_and_is_named(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows")
    aws.fault(action="SendCommand", error="AccessDeniedException", status=400)

    backup = world.back_up(quiesced(world, instance), status="A")

    assert_plain(world, backup, "ssm:SendCommand")


def test_a_command_whose_end_may_not_be_seen_is_stopped_and_replaced(world, aws):
    instance = managed(aws, aws.instance((1, 1))[0], platform="Windows", seconds=600)
    aws.fault(action="GetCommandInvocation", error="AccessDeniedException", status=400)

    backup = world.back_up(quiesced(world, instance), status="A", performed_quiesce=False)

    assert_plain(world, backup, "ssm:GetCommandInvocation")
    assert [command["status"] for command in commands(aws)] == ["Cancelled"]


def test_a_region_without_a_way_to_ssm_falls_back(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows")
    nowhere = gateway.GatewayConfig(
        endpoint_url=aws.url,
        endpoint_urls={"ssm": "http://127.0.0.1:1"},
        redis_url=os.environ["CPM_REDIS_URL"],
    )
    policy = quiesced(world, instance)
    gateway.configure(nowhere)

    backup = world.back_up(policy, status="A", performed_quiesce=False)

    assert_plain(world, backup, "AWS could not be reached")


def test_an_incomplete_vss_set_is_removed_and_replaced(world, aws):
    instance = managed(aws, aws.instance((1, 1))[0], platform="Windows", seconds=1)
    backup = work_until_sent(world, aws, quiesced(world, instance))
    taken = world.snapshots_in_aws()
    aws.client("ec2").delete_snapshot(SnapshotId=min(taken))

    world.run()

    backup.refresh_from_db()
    assert (backup.status, backup.performed_quiesce) == ("A", False)
    assert_plain(world, backup, "VSS took no consistent snapshot of vol-")
    assert not taken & world.snapshots_in_aws()


def test_a_volume_attached_after_planning_leaves_no_snapshot_without_a_record(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows", seconds=1)
    other = aws.volume()
    backup = work_until_sent(world, aws, quiesced(world, instance))
    ec2 = aws.client("ec2")
    [taken] = world.snapshots_in_aws()
    marks = ec2.describe_snapshots(SnapshotIds=[taken])["Snapshots"][0]["Tags"]
    ec2.create_snapshot(VolumeId=other, TagSpecifications=[{"ResourceType": "snapshot", "Tags": marks}])

    world.run()

    backup.refresh_from_db()
    assert (backup.status, world.snapshots_in_aws()) == ("B", {taken})


def test_a_lost_answer_does_not_make_a_second_set(world, aws):
    instance = managed(aws, aws.instance((1, 1))[0], platform="Windows")
    aws.fault(action="SendCommand", lost_response=True, count=1)

    world.back_up(quiesced(world, instance), status="B", performed_quiesce=True)

    assert len(commands(aws, VSS)) == 1
    assert len(world.snapshots_in_aws()) == 2


def test_an_abort_removes_what_vss_has_taken(world, aws):
    instance = managed(aws, aws.instance((1, 1))[0], platform="Windows", seconds=600)
    backup = work_until_sent(world, aws, quiesced(world, instance))
    assert len(world.snapshots_in_aws()) == 2

    backups.abort(actor=world.actor, backup=backup)
    world.run()

    backup.refresh_from_db()
    assert (backup.status, backup.performed_quiesce) == ("F", False)
    assert not world.snapshots_in_aws()
    assert commands(aws)[0]["status"] == "Cancelled"


def test_scripts_and_vss_of_one_instance_run_in_order(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows")

    world.back_up(quiesced(world, instance, enable_agent_scripts=True), status="B", performed_quiesce=True)

    script = "AWS-RunPowerShellScript"
    assert [command["document"] for command in commands(aws)] == [script, VSS, script, script]


def test_a_failed_vss_is_told_to_the_complete_script(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows", results=[{}, {"exit_code": 1}, {}])

    world.back_up(quiesced(world, instance, enable_agent_scripts=True), status="A")

    _, _, after, complete = commands(aws)
    assert "-File $script.FullName 1 |" in lines(after)
    assert "-File $script.FullName 0 |" in lines(complete)


def test_vss_for_an_ami_only_is_not_ignored(world, aws):
    instance = managed(aws, aws.instance((1,))[0], platform="Windows")
    policy = quiesced(world, instance, ami_backup_option=AmiOption.ONLY)

    backup = world.back_up(policy, status="A", performed_quiesce=False)

    assert any("AMIs are made by AWS without VSS" in line for line in world.log(backup))


# -- what runs on the instance ----------------------------------------------------------------------------


def run_shell(folder: Path, words: str = "1") -> "subprocess.CompletedProcess[str]":
    text = "\n".join(agent_commands.shell("before", words, 42, str(folder)))
    return subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, timeout=10, check=False)


@pytest.mark.parametrize("name", ["before", "before.sh"])
def test_the_lines_for_linux_run_the_script_with_its_argument_and_exit_code(tmp_path, name):
    script = tmp_path / name
    script.write_text('#!/bin/sh\necho out\necho "$# $1 $CPM_BACKUP_ID" >&2\nexit 5\n')
    script.chmod(0o755)
    (tmp_path / "beforehand").write_text("")

    ended = run_shell(tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (5, "", "1 1 42\n")


def test_the_lines_for_linux_say_when_there_is_no_script(tmp_path):
    ended = run_shell(tmp_path, "")

    assert (ended.returncode, ended.stdout) == (0, agent_commands.NO_SCRIPT + "\n")


def test_the_lines_for_linux_fail_for_a_script_that_is_not_executable(tmp_path):
    (tmp_path / "before.sh").write_text("#!/bin/sh\n")

    ended = run_shell(tmp_path)

    assert ended.returncode == 126 and "before.sh" in ended.stderr
