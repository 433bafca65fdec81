"""Backup jobs: from an EFS file system to a recovery point in a vault."""

import uuid
from datetime import timedelta
from typing import Any

from cpm.simulator import backup_vaults, efs
from cpm.simulator.backup_model import BackupJob, RecoveryPoint
from cpm.simulator.backup_rules import (
    RESOURCE_TYPE,
    bad_request,
    check_role,
    invalid,
    lifecycle,
    missing,
    new_arn,
    of_job,
    once,
    page,
)
from cpm.simulator.call import Call
from cpm.simulator.efs_model import FileSystem
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now

INJECTED = "The job failed, as the simulator's control endpoint wanted it."
LEAST_START_MINUTES = 60
EIGHT_HOURS = 480


def start(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, StartBackupJob."""
    return once(call, lambda: _start(call))


def _start(call: Call) -> dict[str, Any]:
    params = call.params
    if "LogicallyAirGappedBackupVaultArn" in params:
        raise AwsError("UnsupportedOperation", "The simulator does not offer logically air-gapped vaults.")
    if params.get("StartWindowMinutes", EIGHT_HOURS) < LEAST_START_MINUTES:
        raise invalid(f"StartWindowMinutes must be at least {LEAST_START_MINUTES}")
    vault = backup_vaults.find(call, params["BackupVaultName"])
    if vault is None:
        raise missing(f"Backup vault {params['BackupVaultName']} does not exist")
    source, role, wanted = _source(call), check_role(call, params["IamRoleArn"]), lifecycle(params)
    # AWS: AWS Backup Developer Guide, Tags of backups: those of the resource, and above them those of the request.
    tags = {**source.tags, **backup_vaults.check_tags(params.get("RecoveryPointTags", {}))}
    point = RecoveryPoint(
        id=new_arn(call.region, call.account),
        account=call.account,
        region=call.region,
        vault_arn=vault.id,
        resource_arn=source.arn,
        resource_name=source.tags.get("Name", ""),
        role_arn=role,
        key_arn=vault.key_arn,
        created=now(),
        settling=call.world.settling("backup_job"),
        lifecycle=wanted,
        day_seconds=call.state.timing.backup_day_seconds,
        files=source.content(),
        tags=tags,
    )
    job = _job(call, point, INJECTED if call.fails(source.id) else None)
    call.state.backup_jobs.add(job)
    if job.failure is None:
        call.state.recovery_points.add(point)
    return {
        "BackupJobId": job.id, "RecoveryPointArn": point.id, "CreationDate": job.created, "IsParent": False,
    }  # fmt: skip


def _source(call: Call) -> FileSystem:
    arn = call.params["ResourceArn"]
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn":
        raise invalid(f"{arn} is not an ARN")
    if parts[2] != "elasticfilesystem":
        raise AwsError("UnsupportedOperation", "The simulator offers backups of EFS file systems only.")
    source = efs.find(call.state, call.account, call.region, arn)
    if source is None:
        raise missing(f"The resource {arn} does not exist")
    if source.state != "available":
        raise bad_request(f"The resource {arn} is {source.state}")
    return source


def _job(call: Call, point: RecoveryPoint, failure: str | None) -> BackupJob:
    return BackupJob(
        id=str(uuid.uuid4()).upper(),
        account=call.account,
        region=call.region,
        resource_arn=point.resource_arn,
        role_arn=point.role_arn,
        size=point.size,
        settling=point.settling,
        failure=failure,
        vault_arn=point.vault_arn,
        point_arn=point.id,
        key_arn=point.key_arn,
        lifecycle=point.lifecycle,
        resource_name=point.resource_name,
    )


def _described(job: BackupJob) -> dict[str, Any]:
    return of_job(job) | {
        "BackupJobId": job.id, "BackupVaultName": job.vault_arn.rsplit(":", 1)[1],
        "BackupVaultArn": job.vault_arn, "VaultType": "BACKUP_VAULT", "ResourceArn": job.resource_arn,
        "RecoveryPointArn": None if job.state in ("FAILED", "ABORTED") else job.point_arn,
        "RecoveryPointLifecycle": job.lifecycle or None, "EncryptionKeyArn": job.key_arn, "IsEncrypted": True,
        "State": job.state, "PercentDone": job.percent, "ResourceName": job.resource_name,
        "BytesTransferred": job.size if job.state == "COMPLETED" else 0, "BackupType": "SNAPSHOT",
        "StartBy": job.created + timedelta(minutes=EIGHT_HOURS), "InitiationDate": job.created,
    }  # fmt: skip


def _named(call: Call) -> BackupJob:
    found = call.state.backup_jobs.at(call.account, call.region).get(call.params["BackupJobId"])
    if found is None:
        raise missing(f"Backup job {call.params['BackupJobId']} does not exist")
    return found


def describe(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DescribeBackupJob."""
    return _described(_named(call))


def list_jobs(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListBackupJobs."""
    equal = {
        "ByResourceArn": lambda job: job.resource_arn,
        "ByState": lambda job: job.state,
        "ByBackupVaultName": lambda job: job.vault_arn.rsplit(":", 1)[1],
        "ByResourceType": lambda job: RESOURCE_TYPE,
        "ByAccountId": lambda job: job.account,
        "ByParentJobId": lambda job: None,
    }
    shown, following = page(call, call.state.backup_jobs.at(call.account, call.region).values(), equal)
    return {"BackupJobs": [_described(job) for job in shown], "NextToken": following}


def stop(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, StopBackupJob: an unfinished job ends without a recovery point."""
    job = _named(call)
    if job.ended:
        raise bad_request(f"Backup job {job.id} is {job.state} and cannot be stopped")
    job.stopped = now()
    point = call.state.recovery_points.by_id.get(job.point_arn)
    if point is not None:
        call.state.recovery_points.remove(point)
    return {}


ACTIONS = {
    "StartBackupJob": start,
    "DescribeBackupJob": describe,
    "ListBackupJobs": list_jobs,
    "StopBackupJob": stop,
}
