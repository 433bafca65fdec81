"""Restore jobs: from a recovery point into a new EFS file system, or into a directory of one that exists."""

import json
import uuid
from datetime import timedelta
from typing import Any

from cpm.simulator import backup_points, efs
from cpm.simulator.backup_jobs import INJECTED
from cpm.simulator.backup_model import RecoveryPoint, RestoreJob
from cpm.simulator.backup_rules import (
    RESOURCE_TYPE,
    bad_request,
    check_role,
    invalid,
    missing,
    of_job,
    once,
    page,
)
from cpm.simulator.call import Call
from cpm.simulator.efs_model import Files, FileSystem
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import Settling

KNOWN = frozenset(
    {
        "file-system-id", "newFileSystem", "CreationToken", "Encrypted", "KmsKeyId", "PerformanceMode",
        "itemsToRestore", "aws:backup:request-id",
    }
)  # fmt: skip


class Unfit(Exception):
    """The metadata do not describe a restore that can be done; the job fails with this message."""


def start(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, StartRestoreJob: metadata of EFS are judged when the job runs, not by the call."""
    return once(call, lambda: _start(call))


def _start(call: Call) -> dict[str, Any]:
    params = call.params
    point, role = (
        backup_points.find(call, params["RecoveryPointArn"]),
        check_role(call, params.get("IamRoleArn")),
    )
    if point.status != "COMPLETED":
        raise bad_request(f"Recovery point {point.id} is {point.status}")
    if params.get("ResourceType", RESOURCE_TYPE) != RESOURCE_TYPE:
        raise invalid(f"Recovery point {point.id} is of the resource type {RESOURCE_TYPE}")
    settling = call.world.settling("backup_job")
    failure, target = None, None
    try:
        if call.fails(point.resource_arn.rsplit("/", 1)[1]):
            raise Unfit(INJECTED)
        target = _bring(call, point, settling)
    except Unfit as unfit:
        failure = str(unfit)
    job = RestoreJob(
        id=str(uuid.uuid4()).upper(),
        account=call.account,
        region=call.region,
        resource_arn=point.resource_arn,
        role_arn=role,
        size=point.size,
        settling=settling,
        failure=failure,
        vault_arn=point.vault_arn,
        point_arn=point.id,
        point_created=point.created,
        created_arn=target.arn if target else None,
        metadata=dict(params["Metadata"]),
    )
    call.state.restore_jobs.add(job)
    return {"RestoreJobId": job.id}


def _bring(call: Call, point: RecoveryPoint, settling: Settling) -> FileSystem:
    """Sends the files on their way; they are there when the job has ended."""
    wanted: dict[str, str] = call.params["Metadata"]
    unknown = sorted(set(wanted) - KNOWN)
    if unknown:
        raise Unfit(f"Unknown restore metadata: {', '.join(unknown)}")
    files = _chosen(point.files, wanted.get("itemsToRestore"))
    if "file-system-id" not in wanted:
        raise Unfit("The restore metadata lack file-system-id")
    if _truth(wanted, "newFileSystem"):
        target = _new(call, point, wanted)
    else:
        existing = efs.find(call.state, call.account, call.region, wanted["file-system-id"])
        if existing is None:
            raise Unfit(f"File system {wanted['file-system-id']} does not exist")
        target = existing
    folder = _folder(target, settling)
    target.arrivals.append((settling, {f"{folder}/{path}": data for path, data in files.items()}))
    return target


def _truth(wanted: dict[str, str], name: str) -> bool:
    value = wanted.get(name, "").lower()
    if value not in ("true", "false"):
        raise Unfit(f"The restore metadata need {name}, which is true or false")
    return value == "true"


def _chosen(files: Files, items: str | None) -> Files:
    """AWS: AWS Backup Developer Guide, Restore an EFS file system: files or whole directories, without wildcards."""
    if items is None:
        return files
    try:
        paths = json.loads(items)
    except ValueError as broken:
        raise Unfit("itemsToRestore is not a JSON array") from broken
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise Unfit("itemsToRestore is not an array of paths")
    found: Files = {}
    for path in (path.strip("/") for path in paths):
        below = {name: data for name, data in files.items() if name == path or name.startswith(path + "/")}
        if not below:
            raise Unfit(f"The recovery point has no item /{path}")
        found |= below
    return found


def _new(call: Call, point: RecoveryPoint, wanted: dict[str, str]) -> FileSystem:
    # AWS accepts a restore without a creation token, and its job fails.
    lacking = [name for name in ("CreationToken", "PerformanceMode") if not wanted.get(name)]
    if lacking:
        raise Unfit(f"The restore metadata lack {', '.join(lacking)}")
    token = wanted["CreationToken"]
    if any(one.token == token for one in call.state.file_systems.at(call.account, call.region).values()):
        raise Unfit(f"A file system already exists with creation token {token}")
    if wanted["PerformanceMode"] not in ("generalPurpose", "maxIO"):
        raise Unfit(f"There is no performance mode {wanted['PerformanceMode']}")
    params: dict[str, Any] = {
        name: wanted[name] for name in ("CreationToken", "PerformanceMode", "KmsKeyId") if name in wanted
    }
    params["Encrypted"] = _truth(wanted, "Encrypted")
    try:
        made = efs.add(call, params)
    except AwsError as refused:
        raise Unfit(refused.message) from refused
    if call.params.get("CopySourceTagsToRestoredResource"):
        made.tags = dict(point.tags)
    return made


def _folder(target: FileSystem, settling: Settling) -> str:
    """AWS: AWS Backup Developer Guide, Restore an EFS file system.

    Every restore, into a new file system too, has a directory of its own below the root and overwrites nothing.
    """
    moment, taken = settling.start, target.directories()
    while True:
        name = f"aws-backup-restore_{moment:%Y-%m-%dT%H-%M-%S}-{moment.microsecond // 1000:03d}Z"
        if name not in taken:
            return name
        moment += timedelta(milliseconds=1)


def _described(job: RestoreJob) -> dict[str, Any]:
    return of_job(job) | {
        "RestoreJobId": job.id, "RecoveryPointArn": job.point_arn, "SourceResourceArn": job.resource_arn,
        "BackupVaultArn": job.vault_arn, "Status": job.state, "PercentDone": job.percent,
        "CreatedResourceArn": job.created_arn if job.state == "COMPLETED" else None,
        "RecoveryPointCreationDate": job.point_created,
    }  # fmt: skip


def _named(call: Call) -> RestoreJob:
    found = call.state.restore_jobs.at(call.account, call.region).get(call.params["RestoreJobId"])
    if found is None:
        raise missing(f"Restore job {call.params['RestoreJobId']} does not exist")
    return found


def describe(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, DescribeRestoreJob."""
    return _described(_named(call))


def metadata(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, GetRestoreJobMetadata."""
    found = _named(call)
    return {"RestoreJobId": found.id, "Metadata": found.metadata}


def list_jobs(call: Call) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, ListRestoreJobs."""
    equal = {
        "ByStatus": lambda job: job.state,
        "ByResourceType": lambda job: RESOURCE_TYPE,
        "ByAccountId": lambda job: job.account,
        "ByParentJobId": lambda job: None,
        "ByRestoreTestingPlanArn": lambda job: None,
    }
    shown, following = page(call, call.state.restore_jobs.at(call.account, call.region).values(), equal)
    return {"RestoreJobs": [_described(job) for job in shown], "NextToken": following}


ACTIONS = {
    "StartRestoreJob": start,
    "DescribeRestoreJob": describe,
    "GetRestoreJobMetadata": metadata,
    "ListRestoreJobs": list_jobs,
}
