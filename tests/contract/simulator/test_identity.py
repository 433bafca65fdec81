"""Credentials, accounts, roles and regions."""

import json

import pytest

from tests.simulated_aws import SimulatedAws

OTHER = "210987654321"
ROLE = f"arn:aws:iam::{OTHER}:role/Backup"


def trust(*, external_id: str | None = None, principal: str = "arn:aws:iam::123456789012:root") -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}
    if external_id:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def assume(aws: SimulatedAws, **more):
    return aws.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="backup-1", **more)


def as_role(aws: SimulatedAws, service: str, credentials: dict):
    return aws.client_with(
        service,
        "us-east-1",
        credentials["AccessKeyId"],
        credentials["SecretAccessKey"],
        credentials["SessionToken"],
    )


def test_caller_identity_names_the_account(aws: SimulatedAws) -> None:
    """AWS: STS API Reference, GetCallerIdentity."""
    mine = aws.client("sts").get_caller_identity()
    other = aws.client("sts", account=OTHER).get_caller_identity()

    assert (mine["Account"], other["Account"]) == ("123456789012", OTHER)
    assert other["Arn"].startswith(f"arn:aws:iam::{OTHER}:user/")


def test_accounts_do_not_see_each_other(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, DescribeVolumes: the account's own."""
    volume = aws.volume()
    vpcs = aws.client("ec2").describe_vpcs()["Vpcs"]
    other = aws.client("ec2", account=OTHER)

    assert other.describe_volumes()["Volumes"] == []
    assert {v["VpcId"] for v in other.describe_vpcs()["Vpcs"]}.isdisjoint(v["VpcId"] for v in vpcs)
    with refused("InvalidVolume.NotFound"):
        other.delete_volume(VolumeId=volume)


def test_assumed_role_acts_in_its_account(aws: SimulatedAws) -> None:
    """AWS: STS API Reference, AssumeRole."""
    session = assume(aws)["Credentials"]

    identity = as_role(aws, "sts", session).get_caller_identity()

    assert identity["Arn"] == f"arn:aws:sts::{OTHER}:assumed-role/Backup/backup-1"
    as_role(aws, "ec2", session).create_volume(AvailabilityZone="us-east-1a", Size=1)
    assert len(aws.client("ec2", account=OTHER).describe_volumes()["Volumes"]) == 1


def test_external_id_must_match_the_trust_policy(aws: SimulatedAws, refused) -> None:
    """AWS: IAM User Guide, Access to AWS accounts owned by third parties."""
    aws.client("iam", account=OTHER).create_role(
        RoleName="Backup", AssumeRolePolicyDocument=trust(external_id="4711")
    )

    with refused("AccessDenied"):
        assume(aws)
    with refused("AccessDenied"):
        assume(aws, ExternalId="4712")

    assert assume(aws, ExternalId="4711")["AssumedRoleUser"]["Arn"].endswith("/backup-1")


def test_role_that_trusts_others_is_not_assumed(aws: SimulatedAws, refused) -> None:
    """AWS: IAM User Guide, Role trust policies."""
    aws.client("iam", account=OTHER).create_role(
        RoleName="Backup", AssumeRolePolicyDocument=trust(principal="arn:aws:iam::999999999999:root")
    )

    with refused("AccessDenied"):
        assume(aws)


def test_roles_chain(aws: SimulatedAws) -> None:
    """AWS: IAM User Guide, Role chaining."""
    first = assume(aws)["Credentials"]
    third = "arn:aws:iam::345678901234:role/Far"

    second = as_role(aws, "sts", first).assume_role(RoleArn=third, RoleSessionName="second")["Credentials"]

    assert as_role(aws, "sts", second).get_caller_identity()["Account"] == "345678901234"


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", "describe_volumes", "AuthFailure"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("kms", "list_keys", "UnrecognizedClientException"),
        ("ssm", "list_commands", "UnrecognizedClientException"),
    ],
)
def test_revoked_key_is_refused_until_it_is_restored(aws: SimulatedAws, refused, service, call, code) -> None:
    """AWS: EC2 API Reference, Error codes, AuthFailure; Common errors of STS, KMS and Systems Manager."""
    key = {"access_key": aws.credentials(OTHER)[0]}
    aws.control("POST", "/keys/revoke", key)

    with refused(code):
        getattr(aws.client(service, account=OTHER), call)()
    aws.control("POST", "/keys/restore", key)

    getattr(aws.client(service, account=OTHER), call)()


def test_wrong_secret_and_unknown_key_are_refused(aws: SimulatedAws, refused) -> None:
    """AWS: IAM User Guide, Signature Version 4."""
    access_key, _ = aws.credentials()

    with refused("SignatureDoesNotMatch"):
        aws.client_with("sts", "us-east-1", access_key, "wrong").get_caller_identity()
    with refused("AuthFailure"):
        aws.client_with("ec2", "us-east-1", access_key, "wrong").describe_volumes()
    with refused("AuthFailure"):
        aws.client_with("ec2", "us-east-1", "AKIAAAAAAAAAAAAAAAAA", "wrong").describe_volumes()


def test_key_made_through_iam_works_until_it_is_deleted(aws: SimulatedAws, refused) -> None:
    """AWS: IAM API Reference, CreateAccessKey and DeleteAccessKey."""
    iam = aws.client("iam", account=OTHER)
    iam.create_user(UserName="robot")
    made = iam.create_access_key(UserName="robot")["AccessKey"]
    robot = aws.client_with("ec2", "us-east-1", made["AccessKeyId"], made["SecretAccessKey"])

    robot.create_volume(AvailabilityZone="us-east-1a", Size=1)

    assert len(aws.client("ec2", account=OTHER).describe_volumes()["Volumes"]) == 1
    iam.delete_access_key(UserName="robot", AccessKeyId=made["AccessKeyId"])
    with refused("AuthFailure"):
        robot.describe_volumes()


@pytest.mark.parametrize("code", ["AuthFailure", "OptInRequired"])
def test_disabled_region_refuses_and_is_not_listed(aws: SimulatedAws, refused, code: str) -> None:
    """AWS: Account Management Guide, Enable or disable AWS Regions; EC2 API Reference, Error codes."""
    aws.control("POST", "/regions", {"region": "ap-south-1", "enabled": False, "error": code})

    with refused(code):
        aws.client("ec2", "ap-south-1").describe_volumes()

    names = {region["RegionName"] for region in aws.client("ec2").describe_regions()["Regions"]}
    assert "ap-south-1" not in names and "eu-west-1" in names
    aws.control("POST", "/regions", {"region": "ap-south-1", "enabled": True})
    assert aws.client("ec2", "ap-south-1").describe_volumes()["Volumes"] == []


def test_what_nobody_simulates_is_a_proper_refusal(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Error codes, UnsupportedOperation."""
    with refused("UnsupportedOperation"):
        aws.client("ec2").describe_locked_snapshots()
    with refused("UnsupportedOperation"):
        aws.client("iam").simulate_custom_policy(
            PolicyInputList=[trust()], ActionNames=["ec2:CreateSnapshot"]
        )


def test_s3_keys_with_odd_names_are_signed_right(aws: SimulatedAws, refused) -> None:
    """AWS: IAM User Guide, Signature Version 4: S3 signs the path as it is written."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="bucket-1")
    key = "a b/ü+%41&=?.txt"

    s3.put_object(Bucket="bucket-1", Key=key, Body=b"content")

    assert s3.get_object(Bucket="bucket-1", Key=key)["Body"].read() == b"content"
    assert s3.head_object(Bucket="bucket-1", Key=key)["ContentLength"] == 7
    with refused("SignatureDoesNotMatch"):
        aws.client_with("s3", "us-east-1", aws.credentials()[0], "wrong").list_buckets()


def test_refusal_speaks_the_protocol_of_its_service(aws: SimulatedAws, refused) -> None:
    """AWS: Common errors; each service answers errors in its own protocol."""
    with refused("UnsupportedOperation"):
        aws.client("backup").list_backup_jobs()
    with refused("UnsupportedOperation"):
        aws.client("pricing").describe_services()


def test_what_moto_would_answer_wrongly_is_refused(aws: SimulatedAws, refused) -> None:
    """Our own: an empty list must not stand for what is not known."""
    with refused("UnsupportedOperation"):
        aws.client("ec2").describe_volumes_modifications()
    with refused("UnsupportedOperation"):
        aws.client("resourcegroupstaggingapi").get_resources()


def test_default_key_of_ebs_is_named(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, GetEbsDefaultKmsKeyId and EnableEbsEncryptionByDefault."""
    ec2 = aws.client("ec2")
    ec2.enable_ebs_encryption_by_default()

    key = ec2.get_ebs_default_kms_key_id()["KmsKeyId"]

    shown = ec2.describe_volumes(VolumeIds=[aws.volume()])["Volumes"][0]
    assert shown["Encrypted"] and shown["KmsKeyId"] == key
