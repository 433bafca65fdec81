"""AWS Backup of EFS file systems: vaults, backup jobs, recovery points, copies and restores."""

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.simulator.test_efs import file_system, get, put
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws, wait_for

OTHER = "210987654321"
NEW = {
    "newFileSystem": "true",
    "Encrypted": "false",
    "PerformanceMode": "generalPurpose",
    "CreationToken": "restored",
}


def role(aws: SimulatedAws, account: str = DEFAULT_ACCOUNT) -> str:
    """The role that backups of an account run with."""
    iam = aws.client("iam", account=account)
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="backup", AssumeRolePolicyDocument='{"Statement": []}')
    arn: str = iam.get_role(RoleName="backup")["Role"]["Arn"]
    return arn


def vault(
    aws: SimulatedAws, name: str = "vault", region: str = "us-east-1", account: str = DEFAULT_ACCOUNT, **more
) -> str:
    arn: str = aws.client("backup", region, account).create_backup_vault(BackupVaultName=name, **more)[
        "BackupVaultArn"
    ]
    return arn


def filled(aws: SimulatedAws, **more) -> dict:
    """A file system with three files."""
    made = file_system(aws, **more)
    for path in ("a/one", "a/deep/two", "three"):
        put(aws, made["FileSystemId"], path, path.encode())
    return made


def back_up(aws: SimulatedAws, arn: str, **more) -> dict[str, Any]:
    """A finished backup job in the vault named ``vault``."""
    asked = {"BackupVaultName": "vault", "ResourceArn": arn, "IamRoleArn": role(aws), **more}
    backup = aws.client("backup")
    job = backup.start_backup_job(**asked)["BackupJobId"]
    return backup.describe_backup_job(BackupJobId=job)


def restore(
    aws: SimulatedAws, point: str, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT, **metadata
) -> dict[str, Any]:
    backup = aws.client("backup", region, account)
    job = backup.start_restore_job(RecoveryPointArn=point, IamRoleArn=role(aws, account), Metadata=metadata)
    return backup.describe_restore_job(RestoreJobId=job["RestoreJobId"])


def copy(aws: SimulatedAws, point: str, destination: str, **more) -> dict[str, Any]:
    backup = aws.client("backup")
    asked = {
        "SourceBackupVaultName": "vault",
        "DestinationBackupVaultArn": destination,
        "IamRoleArn": role(aws),
    }
    job = backup.start_copy_job(RecoveryPointArn=point, **asked, **more)["CopyJobId"]
    return backup.describe_copy_job(CopyJobId=job)["CopyJob"]


def test_a_vault_is_made_once_and_goes_only_when_empty(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, CreateBackupVault, DeleteBackupVault; Developer Guide: no vault by itself.

    That a vault which does not exist is AccessDeniedException is what the service answers, not what its models say.
    """
    backup = aws.client("backup")
    assert backup.list_backup_vaults()["BackupVaultList"] == []
    with refused("AccessDeniedException"):
        backup.describe_backup_vault(BackupVaultName="Default")

    arn = vault(aws, CreatorRequestId="first")

    assert arn == "arn:aws:backup:us-east-1:123456789012:backup-vault:vault"
    assert vault(aws, CreatorRequestId="first") == arn
    with pytest.raises(ClientError) as again:
        vault(aws)
    assert (again.value.response["Error"]["Code"], again.value.response["Arn"]) == (
        "AlreadyExistsException",
        arn,
    )
    with refused("InvalidParameterValueException"):
        vault(aws, "no.dots")
    with refused("InvalidParameterValueException"):
        vault(aws, "bad", EncryptionKeyArn="arn:aws:kms:us-east-1:123456789012:key/none")
    point = back_up(aws, filled(aws)["FileSystemArn"])["RecoveryPointArn"]
    assert backup.describe_backup_vault(BackupVaultName="vault")["NumberOfRecoveryPoints"] == 1
    with refused("InvalidRequestException"):
        backup.delete_backup_vault(BackupVaultName="vault")
    backup.delete_recovery_point(BackupVaultName="vault", RecoveryPointArn=point)
    backup.delete_backup_vault(BackupVaultName="vault")
    assert backup.list_backup_vaults()["BackupVaultList"] == []


def test_a_job_runs_through_its_states_and_keeps_the_files_of_its_beginning(
    aws: SimulatedAws, refused
) -> None:
    """AWS: AWS Backup API Reference, StartBackupJob and DescribeBackupJob; the same token is the same job."""
    backup, arn = aws.client("backup"), vault(aws)
    source = filled(aws, Tags=[{"Key": "Name", "Value": "home"}])
    aws.timing(backup_job_seconds=1.5)
    tags = {"cpm_step": "7"}
    asked = {"BackupVaultName": "vault", "ResourceArn": source["FileSystemArn"], "IamRoleArn": role(aws)}

    first, again = (
        backup.start_backup_job(IdempotencyToken="once", RecoveryPointTags=tags, **asked) for _ in range(2)
    )
    put(aws, source["FileSystemId"], "three", b"changed")

    assert first["BackupJobId"] == again["BackupJobId"]
    states, percents, refusals = [], [], []
    while not states or states[-1] != "COMPLETED":
        job = backup.describe_backup_job(BackupJobId=first["BackupJobId"])
        states += [job["State"]] if job["State"] not in states else []
        percents.append(float(job["PercentDone"]))
        # Asked once, in the middle: it must not have ended before the answer.
        if job["State"] == "RUNNING" and percents[-1] < 50 and not refusals:
            refusals.append(job)
            with refused("InvalidResourceStateException"):
                backup.delete_recovery_point(
                    BackupVaultName="vault", RecoveryPointArn=first["RecoveryPointArn"]
                )
        time.sleep(0.02)
    assert states in (["CREATED", "RUNNING", "COMPLETED"], ["RUNNING", "COMPLETED"])
    assert refusals
    assert percents == sorted(percents) and percents[-1] == 100
    assert (
        job["BackupSizeInBytes"] == len("a/onea/deep/twothree")
        and job["CompletionDate"] > job["CreationDate"]
    )
    point = backup.describe_recovery_point(
        BackupVaultName="vault", RecoveryPointArn=first["RecoveryPointArn"]
    )
    assert (point["Status"], point["ResourceArn"]) == ("COMPLETED", source["FileSystemArn"])
    assert (point["BackupVaultArn"], point["EncryptionKeyArn"]) == (arn, job["EncryptionKeyArn"])
    found = backup.list_tags(ResourceArn=first["RecoveryPointArn"])["Tags"]
    assert found == {"Name": "home", "cpm_step": "7"}
    aws.timing(backup_job_seconds=0)
    job = restore(aws, first["RecoveryPointArn"], **NEW, **{"file-system-id": source["FileSystemId"]})
    created = job["CreatedResourceArn"].rsplit("/", 1)[1]
    (path,) = [path for path in aws.control("GET", f"/efs/{created}/files") if path.endswith("/three")]
    assert get(aws, created, path) == b"three"


def test_what_a_job_needs_must_exist(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, StartBackupJob: its errors, StartWindowMinutes and Lifecycle."""
    vault(aws)
    arn = filled(aws)["FileSystemArn"]

    with refused("ResourceNotFoundException"):
        back_up(aws, arn, BackupVaultName="other")
    with refused("ResourceNotFoundException"):
        back_up(aws, arn[:-1])
    with refused("InvalidParameterValueException"):
        back_up(aws, arn, IamRoleArn="arn:aws:iam::123456789012:role/none")
    with refused("InvalidParameterValueException"):
        back_up(aws, arn, StartWindowMinutes=59)
    for cold, delete in ((10, 99), (0, 90), (1, 36_501)):
        with refused("InvalidParameterValueException"):
            back_up(aws, arn, Lifecycle={"MoveToColdStorageAfterDays": cold, "DeleteAfterDays": delete})
    point = back_up(aws, arn, Lifecycle={"MoveToColdStorageAfterDays": 10, "DeleteAfterDays": 100})[
        "RecoveryPointArn"
    ]
    shown = aws.client("backup").describe_recovery_point(BackupVaultName="vault", RecoveryPointArn=point)
    days = {name: moment - shown["CreationDate"] for name, moment in shown["CalculatedLifecycle"].items()}
    assert days == {"MoveToColdStorageAt": timedelta(days=10), "DeleteAt": timedelta(days=100)}


def test_lists_have_filters_pages_and_lag(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, ListBackupJobs and both ListRecoveryPoints actions."""
    backup = aws.client("backup")
    vault(aws)
    vault(aws, "second")
    one, two = (filled(aws, token=token)["FileSystemArn"] for token in ("one", "two"))
    jobs = [back_up(aws, one) for _ in range(3)] + [back_up(aws, two, BackupVaultName="second")]

    def listed(**filters) -> list[str]:
        return [job["BackupJobId"] for job in backup.list_backup_jobs(**filters)["BackupJobs"]]

    ids = [job["BackupJobId"] for job in jobs]
    assert listed() == ids
    assert listed(ByResourceArn=two) == listed(ByBackupVaultName="second") == ids[3:]
    assert listed(ByState="COMPLETED", ByResourceType="EFS") == ids
    assert listed(ByState="FAILED") == listed(ByAccountId=OTHER) == []
    assert listed(ByCreatedAfter=datetime.now(UTC) - timedelta(minutes=1)) == ids
    assert listed(ByCreatedBefore=datetime.now(UTC) - timedelta(minutes=1)) == []
    pages = list(backup.get_paginator("list_backup_jobs").paginate(PaginationConfig={"PageSize": 3}))
    assert [job["BackupJobId"] for page in pages for job in page["BackupJobs"]] == ids and len(pages) == 2
    with refused("InvalidParameterValueException"):
        backup.list_backup_jobs(NextToken="nonsense")
    points = backup.list_recovery_points_by_backup_vault(BackupVaultName="vault", MaxResults=2)
    assert len(points["RecoveryPoints"]) == 2 and points["NextToken"]
    of_two = backup.list_recovery_points_by_resource(ResourceArn=two)["RecoveryPoints"]
    assert [point["RecoveryPointArn"] for point in of_two] == [jobs[3]["RecoveryPointArn"]]
    aws.fault(service="backup", action="List*", list_lag_seconds=60)
    assert (
        listed()
        == backup.list_recovery_points_by_backup_vault(BackupVaultName="vault")["RecoveryPoints"]
        == []
    )


def test_a_job_that_fails_or_is_stopped_leaves_no_recovery_point(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, StopBackupJob, and the states of BackupJob."""
    backup = aws.client("backup")
    vault(aws)
    source = filled(aws)
    aws.fault(service="backup", snapshots_error=True, resource_id=source["FileSystemId"], count=1)

    failed = back_up(aws, source["FileSystemArn"])
    aws.timing(backup_job_seconds=60)
    running = back_up(aws, source["FileSystemArn"])
    backup.stop_backup_job(BackupJobId=running["BackupJobId"])

    assert failed["State"] == "FAILED" and failed["StatusMessage"]
    stopped = backup.describe_backup_job(BackupJobId=running["BackupJobId"])
    assert stopped["State"] == "ABORTED" and stopped["CompletionDate"]
    with refused("InvalidRequestException"):
        backup.stop_backup_job(BackupJobId=running["BackupJobId"])
    assert backup.list_recovery_points_by_backup_vault(BackupVaultName="vault")["RecoveryPoints"] == []


def test_a_recovery_point_is_gone_when_its_days_are_over(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, Lifecycle; cold storage cannot be copied (Developer Guide, Backup and tag copy)."""
    backup = aws.client("backup")
    second = vault(aws) and vault(aws, "second")
    arn = filled(aws)["FileSystemArn"]
    aws.timing(backup_day_seconds=0.003)

    point = back_up(aws, arn, Lifecycle={"MoveToColdStorageAfterDays": 1, "DeleteAfterDays": 200})[
        "RecoveryPointArn"
    ]
    asked = {"BackupVaultName": "vault", "RecoveryPointArn": point}

    wait_for(lambda: backup.describe_recovery_point(**asked)["StorageClass"] == "COLD")
    with refused("InvalidRequestException"):
        copy(aws, point, second)
    wait_for(lambda: not backup.list_recovery_points_by_resource(ResourceArn=arn)["RecoveryPoints"])
    with refused("ResourceNotFoundException"):
        backup.describe_recovery_point(**asked)
    backup.delete_backup_vault(BackupVaultName="vault")


def test_a_copy_in_another_region_stands_alone(aws: SimulatedAws) -> None:
    """AWS: AWS Backup Developer Guide, Backup and tag copy: a copy keeps date, tags and, unless told, lifecycle."""
    there = aws.client("backup", "eu-west-1")
    vault(aws)
    destination = vault(aws, region="eu-west-1")
    source = filled(aws)
    made = back_up(
        aws, source["FileSystemArn"], RecoveryPointTags={"t": "1"}, Lifecycle={"DeleteAfterDays": 7}
    )

    kept = copy(aws, made["RecoveryPointArn"], destination)
    never = copy(aws, made["RecoveryPointArn"], destination, Lifecycle={"DeleteAfterDays": -1})
    aws.client("backup").delete_recovery_point(
        BackupVaultName="vault", RecoveryPointArn=made["RecoveryPointArn"]
    )
    aws.client("efs").delete_file_system(FileSystemId=source["FileSystemId"])

    assert (kept["State"], kept["SourceRecoveryPointArn"]) == ("COMPLETED", made["RecoveryPointArn"])
    first, second = (
        there.describe_recovery_point(
            BackupVaultName="vault", RecoveryPointArn=job["DestinationRecoveryPointArn"]
        )
        for job in (kept, never)
    )
    assert (first["CreationDate"], first["ResourceArn"]) == (made["CreationDate"], source["FileSystemArn"])
    assert (first["Lifecycle"]["DeleteAfterDays"], "CalculatedLifecycle" in second) == (7, False)
    assert there.list_tags(ResourceArn=first["RecoveryPointArn"])["Tags"] == {"t": "1"}
    jobs = aws.client("backup").list_copy_jobs(ByDestinationVaultArn=destination)["CopyJobs"]
    assert [job["CopyJobId"] for job in jobs] == [kept["CopyJobId"], never["CopyJobId"]]
    metadata = there.get_recovery_point_restore_metadata(
        BackupVaultName="vault", RecoveryPointArn=first["RecoveryPointArn"]
    )["RestoreMetadata"]
    job = restore(aws, first["RecoveryPointArn"], "eu-west-1", **metadata, **NEW)
    assert job["Status"] == "COMPLETED" and ":eu-west-1:" in job["CreatedResourceArn"]


def open_to(aws: SimulatedAws, account: str, effect: str = "Allow") -> None:
    statement = {
        "Effect": effect,
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "backup:CopyIntoBackupVault",
        "Resource": "*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.client("backup", account=OTHER).put_backup_vault_access_policy(
        BackupVaultName="vault", Policy=document
    )


def test_a_copy_into_another_account_needs_its_policy_and_keys(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup Developer Guide, Creating backup copies across AWS accounts; re:Post, Troubleshoot cross-account copy."""
    theirs = aws.client("backup", account=OTHER)
    key = aws.client("kms", account=OTHER).create_key()["KeyMetadata"]["Arn"]
    vault(aws)
    destination = vault(aws, account=OTHER, EncryptionKeyArn=key)
    managed = vault(aws, "managed", account=OTHER)
    source = filled(aws)
    point = back_up(aws, source["FileSystemArn"])["RecoveryPointArn"]

    with refused("ResourceNotFoundException"):
        theirs.get_backup_vault_access_policy(BackupVaultName="vault")
    closed = copy(aws, point, destination)
    open_to(aws, "111111111111")
    for_others = copy(aws, point, destination)
    open_to(aws, DEFAULT_ACCOUNT)
    admitted = copy(aws, point, destination)
    policy = theirs.get_backup_vault_access_policy(BackupVaultName="vault")["Policy"]
    theirs.put_backup_vault_access_policy(BackupVaultName="managed", Policy=policy)

    for job in (closed, for_others):
        assert (job["State"], job["StatusMessage"]) == (
            "FAILED",
            "Access Denied trying to call AWS Backup service",
        )
    assert copy(aws, point, managed)["State"] == "FAILED"
    assert copy(aws, point, destination + "x")["State"] == "FAILED"
    assert admitted["State"] == "COMPLETED" and admitted["AccountId"] == DEFAULT_ACCOUNT
    (copied,) = theirs.list_recovery_points_by_backup_vault(BackupVaultName="vault")["RecoveryPoints"]
    assert (copied["EncryptionKeyArn"], copied["ResourceArn"]) == (key, source["FileSystemArn"])
    job = restore(
        aws, copied["RecoveryPointArn"], account=OTHER, **NEW, **{"file-system-id": source["FileSystemId"]}
    )
    created = job["CreatedResourceArn"].rsplit("/", 1)[1]
    assert len(aws.control("GET", f"/efs/{created}/files")) == 3
    with refused("ResourceNotFoundException"):
        restore(aws, copied["RecoveryPointArn"], **NEW)


def test_a_source_key_must_be_shared_with_the_other_account(aws: SimulatedAws) -> None:
    """AWS: AWS Backup Developer Guide, Creating backup copies across AWS accounts: share the customer managed key."""
    kms = aws.client("kms")
    own = kms.create_key()["KeyMetadata"]["Arn"]
    vault(aws, EncryptionKeyArn=own)
    destination = vault(
        aws,
        account=OTHER,
        EncryptionKeyArn=aws.client("kms", account=OTHER).create_key()["KeyMetadata"]["Arn"],
    )
    open_to(aws, DEFAULT_ACCOUNT)
    point = back_up(aws, filled(aws)["FileSystemArn"])["RecoveryPointArn"]

    before = copy(aws, point, destination)
    grants = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
        "Action": ["kms:CreateGrant", "kms:DescribeKey", "kms:Decrypt"],
        "Resource": "*",
    }
    kms.put_key_policy(KeyId=own, PolicyName="default", Policy=json.dumps({"Statement": [grants]}))

    assert (before["State"], copy(aws, point, destination)["State"]) == ("FAILED", "COMPLETED")


def test_a_restore_into_the_original_overwrites_nothing(aws: SimulatedAws) -> None:
    """AWS: AWS Backup Developer Guide, Restore an EFS file system: a directory of its own for each restore, items."""
    vault(aws)
    source = filled(aws)
    home = source["FileSystemId"]
    point = back_up(aws, source["FileSystemArn"])["RecoveryPointArn"]
    put(aws, home, "three", b"newer")
    before = aws.control("GET", f"/efs/{home}/files")
    there = {"file-system-id": home, "newFileSystem": "false"}
    aws.timing(backup_job_seconds=0.3)

    job = restore(aws, point, **there, itemsToRestore='["/a/deep", "/three"]')
    assert job["Status"] in ("PENDING", "RUNNING") and "CreatedResourceArn" not in job
    assert aws.control("GET", f"/efs/{home}/files") == before
    client = aws.client("backup")
    wait_for(lambda: client.describe_restore_job(RestoreJobId=job["RestoreJobId"])["Status"] == "COMPLETED")
    aws.timing(backup_job_seconds=0)
    assert restore(aws, point, **there)["CreatedResourceArn"] == source["FileSystemArn"]

    after = aws.control("GET", f"/efs/{home}/files")
    assert {path: after[path] for path in before} == before
    folders: dict[str, list[str]] = {}
    for path in set(after) - set(before):
        folder, below = path.split("/", 1)
        folders.setdefault(folder, []).append(below)
        assert get(aws, home, path) == below.encode()
    assert all(folder.startswith("aws-backup-restore_") for folder in folders)
    assert sorted(sorted(found) for found in folders.values()) == [
        ["a/deep/two", "a/one", "three"],
        ["a/deep/two", "three"],
    ]


def test_a_restore_with_metadata_that_do_not_fit_fails(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, StartRestoreJob, Metadata of EFS. The call succeeds, and the job fails."""
    vault(aws)
    source = filled(aws)
    point = back_up(aws, source["FileSystemArn"])["RecoveryPointArn"]
    whole = {**NEW, "file-system-id": source["FileSystemId"]}
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]

    bad: list[dict[str, str]] = [
        {name: whole[name] for name in whole if name != lacking} for lacking in whole
    ]
    bad += [
        {**whole, "CreationToken": "token"},
        {**whole, "KmsKeyId": key},
        {**whole, "newFilesystem": "true"},
    ]
    bad += [{**whole, "itemsToRestore": items} for items in ("/a", "[]", '["/none"]', '["/a/*"]')]
    jobs = [restore(aws, point, **metadata) for metadata in bad]

    assert [job["Status"] for job in jobs] == ["FAILED"] * len(bad)
    assert all(job["StatusMessage"] and "CreatedResourceArn" not in job for job in jobs)
    assert len(aws.client("efs").describe_file_systems()["FileSystems"]) == 1
    backup = aws.client("backup")
    assert len(backup.list_restore_jobs(ByStatus="FAILED")["RestoreJobs"]) == len(bad)
    with refused("InvalidParameterValueException"):
        backup.start_restore_job(RecoveryPointArn=point, Metadata=whole)
    done = restore(aws, point, **{**whole, "Encrypted": "true", "KmsKeyId": key})
    made = aws.client("efs").describe_file_systems(CreationToken="restored")["FileSystems"][0]
    assert (made["FileSystemArn"], made["KmsKeyId"]) == (done["CreatedResourceArn"], key)
    asked = backup.get_restore_job_metadata(RestoreJobId=done["RestoreJobId"])["Metadata"]
    assert asked == {**whole, "Encrypted": "true", "KmsKeyId": key}


def test_recovery_points_and_vaults_have_tags_and_the_rest_is_refused(aws: SimulatedAws, refused) -> None:
    """AWS: AWS Backup API Reference, TagResource, UntagResource, ListTags."""
    backup = aws.client("backup")
    arn = vault(aws, BackupVaultTags={"v": "1"})
    point = back_up(aws, filled(aws)["FileSystemArn"])["RecoveryPointArn"]
    since = aws.last_call()

    backup.tag_resource(ResourceArn=point, Tags={"a": "1", "b": "2"})
    backup.untag_resource(ResourceArn=point, TagKeyList=["a"])

    assert backup.list_tags(ResourceArn=point)["Tags"] == {"b": "2"}
    assert backup.list_tags(ResourceArn=arn)["Tags"] == {"v": "1"}
    calls = aws.calls(since)
    assert [call["action"] for call in calls] == ["TagResource", "UntagResource", "ListTags", "ListTags"]
    assert calls[0]["ids"] == {"resourceArn": point}
    with refused("ResourceNotFoundException"):
        aws.client("backup", "eu-west-1").list_tags(ResourceArn=point)
    with refused("UnsupportedOperation"):
        backup.list_backup_plans()
