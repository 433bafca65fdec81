"""Copy jobs: recovery points into vaults of other regions and accounts."""

import uuid
from dataclasses import replace
from typing import Any

from cpm.simulator import backup_points, backup_vaults, kms
from cpm.simulator.backup_jobs import INJECTED
from cpm.simulator.backup_model import CopyJob, RecoveryPoint, Vault
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


def start(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, StartCopyJob; Developer Guide, Backup and tag copy.

    A copy keeps its source's date of creation, tags and, unless another is named, lifecycle.
    """
    return once(call, lambda: _start(call))


def _start(call: Call) -> dict[str, Any]:
    source, role = _source(call), check_role(call, call.params["IamRoleArn"])
    place = call.params["DestinationBackupVaultArn"].split(":")
    if len(place) != 7 or place[2] != "backup" or place[5] != "backup-vault":
        raise invalid(f"{call.params['DestinationBackupVaultArn']} is not the ARN of a backup vault")
    region, account = place[3], place[4]
    wanted = {**source.lifecycle, **lifecycle(call.params)}
    lifecycle({"Lifecycle": wanted})
    vault = call.state.backup_vaults.by_id.get(call.params["DestinationBackupVaultArn"])
    failure = _obstacle(call, source, vault)
    if failure is None and call.fails(source.resource_arn.rsplit("/", 1)[1]):
        failure = INJECTED
    copied = replace(
        source,
        id=new_arn(region, account),
        account=account,
        region=region,
        vault_arn=call.params["DestinationBackupVaultArn"],
        key_arn=vault.key_arn if vault else "",
        role_arn=role,
        settling=call.world.settling("backup_job"),
        lifecycle=wanted,
        day_seconds=call.state.timing.backup_day_seconds,
        tags=dict(source.tags),
        source_vault_arn=source.vault_arn,
    )
    if failure is None:
        call.state.recovery_points.add(copied)
    job = call.state.copy_jobs.add(_job(call, source, copied, failure))
    return {"CopyJobId": job.id, "CreationDate": job.created, "IsParent": False}


def _source(call: Call) -> RecoveryPoint:
    found = backup_points.find(call, call.params["RecoveryPointArn"])
    vault = backup_vaults.find(call, call.params["SourceBackupVaultName"])
    if vault is None or found.vault_arn != vault.id:
        raise missing(f"Recovery point {found.id} is not in vault {call.params['SourceBackupVaultName']}")
    if found.status != "COMPLETED":
        raise bad_request(f"Recovery point {found.id} is {found.status}")
    if found.cold:
        raise bad_request(f"Recovery point {found.id} is in cold storage and cannot be copied")
    return found


def _obstacle(call: Call, source: RecoveryPoint, vault: Vault | None) -> str | None:
    """Why a copy will fail. AWS looks at the destination only when the job runs.

    AWS: AWS Backup Developer Guide, Creating backup copies across AWS accounts; re:Post, Troubleshoot cross-account
    copy. The guide's editions differ in whether a file system's copy may lie in another account's vault that
    ``aws/backup`` encrypts; what the stricter one demands works under both.
    """
    if vault is None:
        return "The destination backup vault does not exist."
    if vault.account == call.account:
        return None
    if not backup_vaults.admits_copy(vault, call.account):
        return "Access Denied trying to call AWS Backup service"
    if kms.is_managed(vault.key_arn):
        return (
            "The destination backup vault is encrypted with an AWS managed key; use a customer managed key."
        )
    if not kms.is_managed(source.key_arn) and kms.usable(
        source.key_arn, vault.account, f"arn:aws:iam::{vault.account}:root"
    ):
        return "The source KMS key is not shared with the destination account."
    return None


def _job(call: Call, source: RecoveryPoint, copied: RecoveryPoint, failure: str | None) -> CopyJob:
    return CopyJob(
        id=str(uuid.uuid4()).upper(),
        account=call.account,
        region=call.region,
        resource_arn=source.resource_arn,
        role_arn=copied.role_arn,
        size=source.size,
        settling=copied.settling,
        failure=failure,
        source_vault_arn=source.vault_arn,
        source_point_arn=source.id,
        vault_arn=copied.vault_arn,
        point_arn=copied.id,
        lifecycle=copied.lifecycle,
        resource_name=source.resource_name,
    )


def _described(job: CopyJob) -> dict[str, Any]:
    return of_job(job) | {
        "CopyJobId": job.id, "SourceBackupVaultArn": job.source_vault_arn,
        "SourceRecoveryPointArn": job.source_point_arn, "DestinationBackupVaultArn": job.vault_arn,
        "DestinationRecoveryPointArn": job.point_arn if job.state == "COMPLETED" else None,
        "DestinationRecoveryPointLifecycle": job.lifecycle or None, "ResourceArn": job.resource_arn,
        "State": job.state, "ResourceName": job.resource_name,
    }  # fmt: skip


def describe(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DescribeCopyJob."""
    found = call.state.copy_jobs.at(call.account, call.region).get(call.params["CopyJobId"])
    if found is None:
        raise missing(f"Copy job {call.params['CopyJobId']} does not exist")
    return {"CopyJob": _described(found)}


def list_jobs(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListCopyJobs."""
    equal = {
        "ByResourceArn": lambda job: job.resource_arn,
        "ByState": lambda job: job.state,
        "ByResourceType": lambda job: RESOURCE_TYPE,
        "ByDestinationVaultArn": lambda job: job.vault_arn,
        "ByAccountId": lambda job: job.account,
        "ByParentJobId": lambda job: None,
        "BySourceRecoveryPointArn": lambda job: job.source_point_arn,
    }
    shown, following = page(call, call.state.copy_jobs.at(call.account, call.region).values(), equal)
    return {"CopyJobs": [_described(job) for job in shown], "NextToken": following}


ACTIONS = {"StartCopyJob": start, "DescribeCopyJob": describe, "ListCopyJobs": list_jobs}
