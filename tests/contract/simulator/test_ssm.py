"""Systems Manager: commands with programmed results, and the VSS document."""

from tests.simulated_aws import SimulatedAws, wait_for

SCRIPT = {"commands": ["freeze"]}


def send(ssm, instance: str, document: str = "AWS-RunShellScript", parameters: dict | None = None) -> str:
    answer = ssm.send_command(InstanceIds=[instance], DocumentName=document, Parameters=parameters or SCRIPT)
    return answer["Command"]["CommandId"]


def test_only_registered_instances_take_commands(aws: SimulatedAws, refused) -> None:
    """AWS: Systems Manager API Reference, SendCommand and DescribeInstanceInformation."""
    ssm = aws.client("ssm")
    instance, _ = aws.instance()

    with refused("InvalidInstanceId"):
        send(ssm, instance)
    assert ssm.describe_instance_information()["InstanceInformationList"] == []
    aws.control("POST", "/ssm", {"instance_id": instance, "registered": True, "platform": "Windows"})

    found = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [instance]}])
    assert [(one["InstanceId"], one["PlatformType"]) for one in found["InstanceInformationList"]] == [
        (instance, "Windows")
    ]
    with refused("InvalidDocument"):
        send(ssm, instance, "AWS-Nothing")
    aws.client("ec2").stop_instances(InstanceIds=[instance])
    with refused("InvalidInstanceId"):
        send(ssm, instance)


def test_command_runs_through_its_states_to_its_result(aws: SimulatedAws) -> None:
    """AWS: Systems Manager API Reference, GetCommandInvocation; User Guide, Command statuses."""
    ssm = aws.client("ssm")
    instance, _ = aws.instance()
    results = [{"exit_code": 3, "stdout": "out", "stderr": "err", "seconds": 0.4}, {"stdout": "fine"}]
    aws.control("POST", "/ssm", {"instance_id": instance, "results": results})
    seen = []

    command = send(ssm, instance)

    def finished() -> bool:
        seen.append(ssm.get_command_invocation(CommandId=command, InstanceId=instance))
        return seen[-1]["Status"] in ("Success", "Failed")

    wait_for(finished)
    statuses = [one["Status"] for one in seen]
    assert set(statuses[:-1]) <= {"Pending", "InProgress"} and "InProgress" in statuses
    assert seen[0]["ResponseCode"] == -1 and seen[0]["StandardOutputContent"] == ""
    last = seen[-1]
    assert (last["Status"], last["ResponseCode"]) == ("Failed", 3)
    assert (last["StandardOutputContent"], last["StandardErrorContent"]) == ("out", "err")
    again = ssm.get_command_invocation(CommandId=send(ssm, instance), InstanceId=instance)
    assert (again["Status"], again["StandardOutputContent"]) == ("Success", "fine")


def test_command_is_cancelled_or_times_out(aws: SimulatedAws, refused) -> None:
    """AWS: Systems Manager API Reference, CancelCommand; document parameter executionTimeout."""
    ssm = aws.client("ssm")
    instance, _ = aws.instance()
    aws.control("POST", "/ssm", {"instance_id": instance, "result": {"seconds": 60}})
    cancelled = send(ssm, instance)
    late = send(ssm, instance, parameters={**SCRIPT, "executionTimeout": ["0"]})

    ssm.cancel_command(CommandId=cancelled)

    states = {one["CommandId"]: one["Status"] for one in ssm.list_command_invocations()["CommandInvocations"]}
    assert states == {cancelled: "Cancelled", late: "TimedOut"}
    with refused("InvocationDoesNotExist"):
        ssm.get_command_invocation(CommandId=cancelled, InstanceId="i-0123456789abcdef0")


def test_vss_document_takes_tagged_snapshots(aws: SimulatedAws) -> None:
    """AWS: EC2 User Guide, Create VSS based EBS snapshots, parameters and tags."""
    ssm, ec2 = aws.client("ssm"), aws.client("ec2")
    instance, devices = aws.instance((1, 1, 1))
    aws.control("POST", "/ssm", {"instance_id": instance, "platform": "Windows"})
    parameters = {
        "ExcludeBootVolume": ["True"],
        "description": ["by vss"],
        "tags": ["Key=step,Value=12;Key=policy,Value=gold"],
    }

    command = send(ssm, instance, "AWSEC2-CreateVssSnapshot", parameters)

    filters = [{"Name": "tag:step", "Values": ["12"]}]
    made = ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    assert {one["VolumeId"] for one in made} == {devices["/dev/xvdb"], devices["/dev/xvdc"]}
    tags = {tag["Key"]: tag["Value"] for tag in made[0]["Tags"]}
    assert tags == {"Device": "/dev/xvdb", "AppConsistent": "True", "step": "12", "policy": "gold"}
    output = ssm.get_command_invocation(CommandId=command, InstanceId=instance)["StandardOutputContent"]
    assert all(one["SnapshotId"] in output for one in made)


def test_failing_vss_document_takes_nothing(aws: SimulatedAws) -> None:
    """AWS: EC2 User Guide, Troubleshoot VSS based snapshots."""
    ssm, ec2 = aws.client("ssm"), aws.client("ec2")
    instance, _ = aws.instance()
    before = len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])
    aws.control("POST", "/ssm", {"instance_id": instance, "exit_code": 1, "stderr": "writers failed"})

    command = send(ssm, instance, "AWSEC2-CreateVssSnapshot", {"description": ["x"]})

    shown = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
    assert (shown["Status"], shown["StandardErrorContent"]) == ("Failed", "writers failed")
    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == before
