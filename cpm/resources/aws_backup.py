"""AWS Backup: its jobs, its recovery points and their lifetimes, as resource types that it protects need them.

A job is known by its id until it is complete, and by the ARN of its recovery point from then on. A vault that does not exist
is `Denied`, as if it were closed; that never counts as absent.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cpm.aws import errors
from cpm.aws.client import AwsClient
from cpm.aws.errors import Denied, InvalidState, NotFound
from cpm.lib.states import SnapshotStatus
from cpm.resources.base import Shown
from cpm.resources.whole import Growing, Held, Listed, Sides

_Error = TypeVar("_Error", bound=errors.AwsError)

VAULT = re.compile(r"[a-zA-Z0-9_-]{2,50}")
ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+")
OWN_ROLE = "service-role/AWSBackupDefaultServiceRole"
# AWS's clock and ours never differ by more, or no call would be accepted.
CLOCKS = timedelta(minutes=15)
# Up to so many jobs are asked about one by one; AWS lists all restore jobs that there ever were.
FEW = 10
RUNNING = frozenset({"CREATED", "PENDING", "RUNNING"})
POINT_STATES = {
    "CREATING": SnapshotStatus.PENDING,
    "COMPLETED": SnapshotStatus.COMPLETED,
    "AVAILABLE": SnapshotStatus.COMPLETED,
}
COMPLETE = frozenset(name for name, state in POINT_STATES.items() if state is SnapshotStatus.COMPLETED)
GIB = 1 << 30


def is_job(aws_id: str) -> bool:
    """Whether this is the id of a job, and not yet that of a recovery point."""
    return not aws_id.startswith("arn:")


def own_role(partition: str, account: str) -> str:
    """The role that AWS Backup's console makes in each account."""
    return f"arn:{partition}:iam::{account}:role/{OWN_ROLE}"


def vault_arn(partition: str, region: str, account: str, name: str) -> str:
    return f"arn:{partition}:backup:{region}:{account}:backup-vault:{name}"


def backups(client: AwsClient, held: Sequence[Held], resource_type: str) -> dict[str, Shown]:
    """What AWS shows of backups: of jobs in one list, of complete ones by their recovery points."""
    jobs = [one for one in held if is_job(one.aws_id)]
    found: dict[str, Shown] = {}
    if jobs:
        listed = client.paginate("ListBackupJobs", "BackupJobs", ByResourceType=resource_type, **_since(jobs))
        wanted = {one.aws_id for one in jobs}
        ours = {str(job["BackupJobId"]): job for job in listed if job["BackupJobId"] in wanted}
        ends = _ends(client, ours.values(), resource_type)
        for id, job in ours.items():
            point = str(job.get("RecoveryPointArn") or "")
            kept = {"backup_vault_name": job.get("BackupVaultName", ""), "backup_iam_role_arn": job.get("IamRoleArn", "")}
            found[id] = _of_job(job, point, {**kept, **ends.get(point, {})})
    for one in held:
        if not is_job(one.aws_id) and (shown := _point(client, one)) is not None:
            found[one.aws_id] = shown
    return found


def copies(sides: Sides, held: Sequence[Held], resource_type: str, limited: Collection[str]) -> dict[str, Shown]:
    """What AWS shows of copy jobs, which it knows where they come from. `limited` are the ids of those whose copies end by
    themselves."""
    if not held:
        return {}
    listed = sides.source.paginate("ListCopyJobs", "CopyJobs", ByResourceType=resource_type, **_since(held))
    wanted = {one.aws_id for one in held}
    found: dict[str, Shown] = {}
    for job in (job for job in listed if job["CopyJobId"] in wanted):
        id, point = str(job["CopyJobId"]), str(job.get("DestinationRecoveryPointArn") or "")
        ends = _times_of(sides.target, job, point) if point and id in limited else {}
        found[id] = _of_job(job, point, ends)
    return found


def _times_of(client: AwsClient, job: Mapping[str, Any], point: str) -> dict[str, str]:
    """When a complete copy ends; nothing where that may not be looked at."""
    if job["State"] != "COMPLETED":
        return {}
    vault = str(job["DestinationBackupVaultArn"]).rsplit(":", 1)[-1]
    try:
        return _times(client.call("DescribeRecoveryPoint", BackupVaultName=vault, RecoveryPointArn=point))
    except errors.AwsError as error:
        if error.transient:
            raise
        return {}


def listed(client: AwsClient, resource_type: str) -> Iterator[Listed]:
    """The recovery points of a type in all vaults, but for those that backup plans have made. One call for each."""
    for vault in client.paginate("ListBackupVaults", "BackupVaultList"):
        points = client.paginate(
            "ListRecoveryPointsByBackupVault", "RecoveryPoints",
            BackupVaultName=vault["BackupVaultName"], ByResourceType=resource_type,
        )  # fmt: skip
        for point in points:
            if not (point.get("CreatedBy") or {}).get("BackupPlanId") and point["Status"] in COMPLETE:
                yield _listed(point, tags_of(client, point["RecoveryPointArn"]))


def _listed(point: Mapping[str, Any], tags: Mapping[str, str]) -> Listed:
    arn, source, size = point["RecoveryPointArn"], point["ResourceArn"], point.get("BackupSizeInBytes")
    here, home = arn.split(":"), source.split(":")
    known = {
        "backup_vault_name": point["BackupVaultName"],
        "backup_iam_role_arn": point.get("IamRoleArn", ""),
        **_times(point),
    }
    capacity = None if size is None else -(-size // GIB)
    return Listed(
        aws_id=arn,
        source_id=source.rsplit("/", 1)[-1],
        made=point["CreationDate"],
        shown=Shown(SnapshotStatus.COMPLETED, details=known, capacity=capacity),
        tags=tags,
        details={"arn": source},
        source_region=home[3],
        source_account=home[4],
        # A copy carries the tags of what it was copied from, the kind among them.
        copy=here[3:5] != home[3:5],
    )


def restores(client: AwsClient, ids: Sequence[str], resource_type: str) -> dict[str, Growing]:
    """How far restore jobs are."""
    if len(ids) > FEW:
        listed = client.paginate("ListRestoreJobs", "RestoreJobs", ByResourceType=resource_type)
        return {str(job["RestoreJobId"]): _growing(job) for job in listed if job["RestoreJobId"] in ids}
    found = {}
    for id in ids:
        try:
            found[id] = _growing(client.call("DescribeRestoreJob", RestoreJobId=id))
        except NotFound:
            continue
    return found


def delete_point(client: AwsClient, vault: str, arn: str) -> None:
    """Delete a recovery point. Raises `NotFound` if there is none, and `Denied` if AWS only pretended to delete it."""
    client.call("DeleteRecoveryPoint", BackupVaultName=vault, RecoveryPointArn=arn)
    # AWS Backup answers "200" to a caller who may not delete, and keeps the recovery point.
    try:
        left = client.call("DescribeRecoveryPoint", BackupVaultName=vault, RecoveryPointArn=arn)
    except NotFound:
        return
    if left["Status"] in POINT_STATES:
        message = f"{arn} is still there after it was deleted"
        raise _own(Denied, client, "DeleteRecoveryPoint", "AccessDeniedException", message)


def delete_job(client: AwsClient, id: str) -> None:
    """Stop a backup job, or delete what it has made by now. Raises `NotFound` if it has made nothing."""
    job = client.call("DescribeBackupJob", BackupJobId=id)
    if job["State"] in RUNNING:
        try:
            client.call("StopBackupJob", BackupJobId=id)
        except errors.Invalid as error:
            raise busy(client, "StopBackupJob", f"The job {id} is ending") from error
    elif job["State"] == "ABORTING":
        return
    elif job["State"] == "COMPLETED" and job.get("RecoveryPointArn"):
        delete_point(client, job["BackupVaultName"], job["RecoveryPointArn"])
    else:
        raise gone(client, "DescribeBackupJob", f"The job {id} made nothing: {job['State']}")


def tags_of(client: AwsClient, arn: str) -> dict[str, str]:
    """The tags of a recovery point; none where there is no such point (yet)."""
    try:
        return dict(client.call("ListTags", ResourceArn=arn).get("Tags", {}))
    except NotFound:
        return {}


def busy(client: AwsClient, action: str, message: str) -> InvalidState:
    """AWS is not ready for what is asked."""
    return _own(InvalidState, client, action, "InvalidResourceStateException", message)


def gone(client: AwsClient, action: str, message: str) -> NotFound:
    """There is nothing that what is asked could be done to."""
    return _own(NotFound, client, action, "ResourceNotFoundException", message)


def moment(when: datetime) -> str:
    """A time as records keep it in their details."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _own(kind: type[_Error], client: AwsClient, action: str, code: str, message: str) -> _Error:
    return kind(code, message, action=action, service=client.service, region=client.region)


def _since(held: Sequence[Held]) -> dict[str, datetime]:
    moments = [one.started for one in held if one.started is not None]
    return {"ByCreatedAfter": min(moments) - CLOCKS} if len(moments) == len(held) else {}


def _of_job(job: Mapping[str, Any], point: str, details: Mapping[str, Any]) -> Shown:
    state = job["State"]
    if state in RUNNING or state == "ABORTING":
        percent = int(float(job.get("PercentDone") or 0))
        return Shown(SnapshotStatus.PENDING, percent, details=details)
    if state != "COMPLETED" or not point:
        return Shown(SnapshotStatus.ERROR, reason=job.get("StatusMessage") or f"The job is {state}", details=details)
    size = job.get("BackupSizeInBytes")
    capacity = None if size is None else -(-size // GIB)
    return Shown(SnapshotStatus.COMPLETED, details=details, capacity=capacity, aws_id=point)


def _ends(client: AwsClient, jobs: Iterable[Mapping[str, Any]], resource_type: str) -> dict[str, dict[str, str]]:
    """When the recovery points of complete jobs move to cold storage and expire, one list for each vault. A vault that may
    not be looked into tells nothing, and spoils nothing for the others."""
    limited = [job for job in jobs if job["State"] == "COMPLETED" and job.get("RecoveryPointLifecycle")]
    found: dict[str, dict[str, str]] = {}
    for vault in sorted({job["BackupVaultName"] for job in limited}):
        first = min(job["CreationDate"] for job in limited if job["BackupVaultName"] == vault) - CLOCKS
        points = client.paginate(
            "ListRecoveryPointsByBackupVault", "RecoveryPoints",
            BackupVaultName=vault, ByResourceType=resource_type, ByCreatedAfter=first,
        )  # fmt: skip
        try:
            found |= {point["RecoveryPointArn"]: _times(point) for point in points}
        except errors.AwsError as error:
            if error.transient:
                raise
    return found


def _times(point: Mapping[str, Any]) -> dict[str, str]:
    calculated = point.get("CalculatedLifecycle") or {}
    names = {"expire_time": "DeleteAt", "move_to_cold_storage_time": "MoveToColdStorageAt"}
    return {name: moment(calculated[key]) for name, key in names.items() if calculated.get(key)}


def _point(client: AwsClient, held: Held) -> Shown | None:
    vault = held.details.get("backup_vault_name", "")
    try:
        found = client.call("DescribeRecoveryPoint", BackupVaultName=vault, RecoveryPointArn=held.aws_id)
    except NotFound:
        return None
    if found["Status"] == "DELETING":
        return None
    state = POINT_STATES.get(found["Status"], SnapshotStatus.ERROR)
    reason = found.get("StatusMessage") or f"The recovery point is {found['Status']}"
    return Shown(state, reason=reason if state is SnapshotStatus.ERROR else "", details=_times(found))


def _growing(job: Mapping[str, Any]) -> Growing:
    if job["Status"] == "COMPLETED":
        return Growing(done=True, id=str(job.get("CreatedResourceArn") or "").rsplit("/", 1)[-1])
    if job["Status"] in RUNNING:
        return Growing(progress=int(float(str(job.get("PercentDone") or "0").rstrip("%"))))
    return Growing(failed=job.get("StatusMessage") or f"The job is {job['Status']}")
