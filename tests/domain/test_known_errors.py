"""What to do about a known error of AWS reaches the people: by log, outcome and API."""

import json

import pytest

from api.errors import render
from cpm.aws.errors import InUse
from cpm.models import Account, LogLine, Snapshot
from tests.domain.recovering import log
from tests.domain.test_dr_flow import dr_policy, encrypted_volume
from tests.domain.test_recover_instance import Machine
from tests.domain.world import DR_ACCOUNT

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_service_control_policy_is_named_in_the_log_of_the_backup(world, aws):
    words = (
        "You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/cpm is not authorized to"
        " perform: ec2:DescribeVolumes with an explicit deny in a service control policy."
    )
    policy = world.policy(aws.volume(), number_of_retries=0)
    aws.fault(action="DescribeVolumes", error="UnauthorizedOperation", message=words, status=403)

    backup = world.back_up(policy, status="F")

    lines = LogLine.objects.filter(subject_type="backup", subject_id=backup.pk).values_list("message", flat=True)
    line = next(line for line in lines if "[service_control_policy]" in line)
    assert "ask the administrators of the AWS organization" in line
    assert "AWS said UnauthorizedOperation: You are not authorized" in line and "request id" in line


def test_a_quota_is_named_in_the_error_of_the_snapshot(world, aws):
    policy = world.policy(aws.volume(), number_of_retries=0)
    aws.fault(action="CreateSnapshot", error="SnapshotLimitExceeded", message="Maximum number of snapshots reached")

    backup = world.back_up(policy, status="F")

    error = Snapshot.objects.get(backup=backup).error
    assert "ask AWS to raise the quota of snapshots per region" in error
    assert "Maximum number of snapshots reached" in error and "[snapshot_quota]" in error


def test_an_instance_type_that_the_zone_lacks_is_named_in_the_outcome_of_the_recovery(world, aws):
    machine = Machine(world, aws)
    words = (
        "Your requested instance type (t3.micro) is not supported in your requested Availability Zone (us-east-1a)."
        " Please retry your request by not specifying an Availability Zone or choosing us-east-1b."
    )
    aws.fault(service="ec2", action="RunInstances", error="Unsupported", message=words)

    recovery = machine.recover(expect="F")

    assert "recover into a subnet of another zone" in recovery.outcome, (recovery.outcome, log(recovery))
    assert "choosing us-east-1b" in recovery.outcome and "[instance_type_not_in_zone]" in recovery.outcome


def test_a_dr_copy_that_cannot_use_the_key_of_the_source_says_whom_to_admit(world, aws):
    far = Account.objects.get(pk=world.add_account(DR_ACCOUNT, name="far", is_dr_account=True).pk)
    kms = aws.client("kms", "us-east-1", DR_ACCOUNT)
    kms.create_alias(AliasName="alias/mine", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    volume = encrypted_volume(aws, "alias/mine")
    policy = dr_policy(world, volume, dr_account=far, copy_to_snapshot_original_region=True)

    backup = world.back_up(policy, status="B", dr_status="F")

    error = Snapshot.objects.get(backup=backup, kind="dr_volumes").error
    assert "Given key ID is not accessible" in error and "[kms_key_not_accessible]" in error
    assert "the source's key policy admits this account" in error


def test_an_answer_of_the_api_keeps_its_code_and_says_what_to_do():
    words = "The snapshot snap-0bcf7289e9ad65306 is currently in use by ami-0ad9bdfd83929399f"
    error = InUse("InvalidSnapshot.InUse", words, action="DeleteSnapshot", service="ec2", region="us-east-1", request_id="r")

    answer = render(error, {})

    [refusal] = json.loads(answer.content)["errors"][0]["non_field_errors"]
    assert (answer.status_code, refusal["code"]) == (412, "aws_in_use")
    assert "deregister the AMI" in refusal["message"] and words in refusal["message"]
    assert refusal["message"].endswith("(request id r) [snapshot_in_use_by_image].")
