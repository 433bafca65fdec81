"""EFS file systems, by AWS Backup. AWS: AWS Backup Developer Guide, "Restore an Amazon EFS file system".

A restore, into a new file system too, puts the files into a folder `aws-backup-restore_<time>` below the root and overwrites
nothing. Neither copy jobs nor restore jobs can be stopped: who must undo one waits for its end. A copy goes to a vault of the
same name; that vault's policy, not a permission on the recovery point, admits copies from other accounts.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.errors import InUse, Invalid, KmsUnusable, NotFound
from cpm.lib.states import EfsPerformance, EfsTarget, RecoveryType
from cpm.resources import aws_backup, efs_actions, efs_options
from cpm.resources.base import Described, Shown
from cpm.resources.fields import Shows, Takes
from cpm.resources.whole import (
    Clients,
    Dr,
    Growing,
    Held,
    Listed,
    Making,
    Place,
    Problems,
    Restoring,
    Sides,
    WholeResource,
)  # fmt: skip

ID = re.compile("fs-[0-9a-f]{8,40}")
KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/\S+")
FILE_SYSTEM, TAGS = "file system", "tags"
BACKUP = "backup"
# AWS's own name of the resource type in AWS Backup.
TYPE = "EFS"
GIB = 1 << 30
GOING = ("deleting", "deleted")
SYMMETRIC = "SYMMETRIC_DEFAULT"
# Up to so many file systems are asked about one by one; of more, all are listed, a hundred a page.
FEW = 10


class EfsFileSystem(WholeResource):
    """A file system with its files."""

    key = "efs"
    noun = "EFS file system"
    service = "efs"
    snapshot_service = BACKUP
    since = "1.3.0"
    since_snapshots = "1.3.0"
    dr_since = "1.5.0"
    id_pattern = ID.pattern
    details = (
        "arn", "capacity", "encrypted", "num_mount_targets", "original_kms_key_id", "performance_mode", "size_in_bytes",
        "status",
    )  # fmt: skip
    target_fields = (
        Shows("encrypted", "details__encrypted", bool),
        Shows("name", "name"),
        Shows("num_mount_targets", "details__num_mount_targets", int),
        Shows("size_in_bytes", "details__size_in_bytes", int),
        Shows("status", "details__status"),
        *efs_options.SHOWS,
    )
    target_takes = efs_options.TAKES
    recovery_type = RecoveryType.EFS
    kind = "efs"
    dr_kind = "dr_efs"
    snapshot_word = "efs"
    snapshot_fields = tuple(
        Shows(name, f"details__{name}")
        for name in (
            "backup_iam_role_arn", "backup_vault_name", "expire_time", "move_to_cold_storage_time", "original_kms_key_id",
            "performance_mode",
        )
    )  # fmt: skip
    dr_fields = (Shows("original_snapshot_id", "details__original_snap"),)
    recover_takes = (
        Takes("target_efs", choices=EfsTarget, help="A new file system (the default), or a folder of the original."),
        Takes("performance_mode", choices=EfsPerformance, help="Of a new file system."),
        Takes("encryption_key", help="ARN of the KMS key of a new file system."),
        Takes("iam_role_arn", help="Role that AWS Backup restores with."),
        Takes("preserve_tags", bool, default=True, help="Give a new file system the tags of the original."),
    )
    stages: ClassVar[Sequence[str]] = (FILE_SYSTEM, TAGS)
    dr = Dr.COPY
    shared = False
    iam_actions = efs_actions.ACTIONS

    def service_of(self, stage: str) -> str:
        return BACKUP if stage == FILE_SYSTEM else self.service

    # -- targets --------------------------------------------------------------------------------------------

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        if len(ids) > FEW:
            wanted = set(ids)
            listed = client.paginate("DescribeFileSystems", "FileSystems")
            shown = [one for one in listed if one["FileSystemId"] in wanted]
        else:
            shown = [one for id in ids if (one := _file_system(client, id)) is not None]
        return {one["FileSystemId"]: _described(one) for one in shown if one["LifeCycleState"] not in GOING}

    def option_problems(self, options: Mapping[str, Any]) -> Problems:
        return efs_options.problems(options)

    # -- snapshots ------------------------------------------------------------------------------------------

    def create(self, client: AwsClient, making: Making) -> str:
        _, partition, _, _, account, _ = making.details["arn"].split(":", 5)
        lifecycle = efs_options.lifecycle(making.options)
        started = client.call(
            "StartBackupJob",
            BackupVaultName=making.options.get("backup_vault_name") or efs_options.DEFAULT_VAULT,
            ResourceArn=making.details["arn"],
            IamRoleArn=making.options.get("backup_iam_role_arn") or aws_backup.own_role(partition, account),
            IdempotencyToken=making.token,
            RecoveryPointTags=dict(making.tags),
            **({"Lifecycle": lifecycle} if lifecycle else {}),
        )
        return str(started["BackupJobId"])

    def find(self, client: AwsClient, making: Making) -> list[str]:
        since = making.since - aws_backup.CLOCKS
        jobs = client.paginate(
            "ListBackupJobs", "BackupJobs", ByResourceArn=making.details["arn"], ByCreatedAfter=since
        )
        # Only the recovery point carries our tags; a job without one has made nothing that could be left over.
        made = [job for job in jobs if job.get("RecoveryPointArn")]
        ours = [
            job
            for job in made
            if making.tags.items() <= aws_backup.tags_of(client, job["RecoveryPointArn"]).items()
        ]
        return [str(job["BackupJobId"]) for job in sorted(ours, key=lambda job: str(job["CreationDate"]))]

    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        return aws_backup.backups(client, held, TYPE)

    def listed(self, client: AwsClient) -> Iterator[Listed]:
        return aws_backup.listed(client, TYPE)

    def delete(self, client: AwsClient, held: Held) -> None:
        if aws_backup.is_job(held.aws_id):
            aws_backup.delete_job(client, held.aws_id)
        else:
            aws_backup.delete_point(client, held.details["backup_vault_name"], held.aws_id)

    def outlives_policy(self, held: Held, now: datetime) -> bool:
        return efs_options.outlives_policy(held, now)

    def mark_outdated(self, client: AwsClient, held: Held, key: str) -> bool:
        client.call("TagResource", ResourceArn=held.aws_id, Tags={key: "true"})
        return True

    # -- DR -------------------------------------------------------------------------------------------------

    def why_not_copied(self, held: Held, target: Place) -> str:
        cold = held.details.get("move_to_cold_storage_time")
        if cold and datetime.fromisoformat(cold) <= datetime.now(UTC):
            return "AWS Backup does not copy what has moved to cold storage."
        return ""

    def copy(self, sides: Sides, held: Held, making: Making, target: Place, key_id: str) -> str:
        lifecycle = efs_options.lifecycle(held.details.get("options") or {})
        started = sides.source.call(
            "StartCopyJob",
            RecoveryPointArn=held.aws_id,
            SourceBackupVaultName=held.details["backup_vault_name"],
            DestinationBackupVaultArn=_destination(held, target),
            IamRoleArn=held.details["backup_iam_role_arn"],
            IdempotencyToken=making.token,
            **({"Lifecycle": lifecycle} if lifecycle else {}),
        )
        return str(started["CopyJobId"])

    def copies(self, sides: Sides, held: Sequence[Held]) -> dict[str, Shown]:
        limited = [one.aws_id for one in held if efs_options.lifecycle(one.details.get("options") or {})]
        return aws_backup.copies(sides, held, TYPE, limited)

    def find_copies(self, sides: Sides, held: Held, making: Making) -> list[str]:
        assert making.place is not None
        jobs = sides.source.paginate(
            "ListCopyJobs", "CopyJobs",
            BySourceRecoveryPointArn=held.aws_id,
            ByDestinationVaultArn=_destination(held, making.place),
            ByCreatedAfter=making.since - aws_backup.CLOCKS,
        )  # fmt: skip
        # The source is a recovery point of ours, so that what was copied from it since then is, too.
        ours = [job for job in jobs if job["State"] not in ("FAILED", "PARTIAL")]
        return [str(job["CopyJobId"]) for job in sorted(ours, key=lambda job: str(job["CreationDate"]))]

    def cancel_copy(self, sides: Sides, held: Held) -> None:
        if not aws_backup.is_job(held.aws_id):
            self.delete(sides.target, held)
            return
        job = sides.source.call("DescribeCopyJob", CopyJobId=held.aws_id)["CopyJob"]
        if job["State"] in aws_backup.RUNNING:
            raise aws_backup.busy(sides.source, "DescribeCopyJob", f"The copy job {held.aws_id} cannot be stopped")
        if job["State"] != "COMPLETED":
            raise aws_backup.gone(sides.source, "DescribeCopyJob", f"The copy job {held.aws_id} made nothing")
        self.delete(sides.target, dataclasses.replace(held, aws_id=job["DestinationRecoveryPointArn"]))

    # -- recovery -------------------------------------------------------------------------------------------

    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        found: Problems = {}
        for name, pattern in (("encryption_key", KEY), ("iam_role_arn", aws_backup.ROLE)):
            if request.get(name) and not pattern.fullmatch(request[name]):
                found[name] = f"This is not the ARN of {'a KMS key' if name == 'encryption_key' else 'an IAM role'}."
        if not _is_new(request) and request.get("encryption_key"):
            found["encryption_key"] = "The original keeps its key; only a new file system can have another."
        mode = request.get("performance_mode")
        if not _is_new(request) and mode and mode != held.details.get("performance_mode"):
            found["performance_mode"] = "The original keeps its performance mode; only a new one can have another."
        return found

    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        found: Problems = {}
        if _role(held, request, place).split(":")[4] != place.account_number:
            found["iam_role_arn"] = f"AWS Backup needs a role of account {place.account_number}, into which it restores."
        if not _is_new(request):
            original = _file_system(clients(self.service), held.source_id)
            if original is None or original["LifeCycleState"] in GOING:
                found["target_efs"] = f"{held.source_id} is not in {place.region} (any more); restore into a new one."
            return found
        key = _key(held, request, place)
        if key and not _usable(clients("kms"), key):
            found["encryption_key"] = f"The key {key} cannot be used in {place.region}; choose another."
        return found

    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        if stage == TAGS:
            made = str(restoring.earlier[FILE_SYSTEM])
            if _is_new(restoring.request) and restoring.tags:
                labels = [{"Key": key, "Value": value} for key, value in restoring.tags.items()]
                client.call("TagResource", ResourceId=made, Tags=labels)
            return made
        started = client.call(
            "StartRestoreJob",
            RecoveryPointArn=restoring.snapshot,
            Metadata=_metadata(restoring),
            IamRoleArn=_role(restoring.held, restoring.request, restoring.place),
            IdempotencyToken=restoring.token,
            ResourceType=TYPE,
        )
        return str(started["RestoreJobId"])

    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        if stage == TAGS:
            return []
        jobs = client.paginate("ListRestoreJobs", "RestoreJobs", ByResourceType=TYPE)
        ids = [str(job["RestoreJobId"]) for job in jobs if job["RecoveryPointArn"] == restoring.snapshot]
        return [id for id in ids if _token_of(client, id) == restoring.token]

    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        if stage == TAGS:
            return {id: Growing(done=True) for id in ids}
        return aws_backup.restores(client, ids, TYPE)

    def stays(self, id: str, stage: str, request: Mapping[str, Any]) -> str:
        if _is_new(request):
            return ""
        if stage == TAGS:
            return "The original file system keeps its tags."
        return (
            f"AWS Backup cannot take back what it restores into the original file system ({id}): look there for a folder "
            "aws-backup-restore_<time>."
        )

    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        if stage == TAGS or not _is_new(request):
            return True
        if ID.fullmatch(id):
            return _delete(clients(self.service), id)
        try:
            job = clients(BACKUP).call("DescribeRestoreJob", RestoreJobId=id)
        except NotFound:
            return True
        if job["Status"] in aws_backup.RUNNING:
            return False
        made = str(job.get("CreatedResourceArn") or "").rsplit("/", 1)[-1]
        return not made or _delete(clients(self.service), made)


def _delete(client: AwsClient, id: str) -> bool:
    """Delete a file system; False while something is mounted on it. Absent is fine."""
    try:
        client.call("DeleteFileSystem", FileSystemId=id)
    except NotFound:
        return True
    except InUse:
        return False
    return True


def _file_system(client: AwsClient, id: str) -> dict[str, Any] | None:
    try:
        found: list[dict[str, Any]] = client.call("DescribeFileSystems", FileSystemId=id)["FileSystems"]
    except NotFound:
        return None
    return found[0] if found else None


def _described(one: Mapping[str, Any]) -> Described:
    size = one["SizeInBytes"]["Value"]
    return Described(
        id=one["FileSystemId"],
        tags={tag["Key"]: tag["Value"] for tag in one.get("Tags", ())},
        details={
            "arn": one["FileSystemArn"],
            "capacity": -(-size // GIB),
            "encrypted": bool(one.get("Encrypted")),
            "num_mount_targets": one["NumberOfMountTargets"],
            "original_kms_key_id": one.get("KmsKeyId", ""),
            "performance_mode": one["PerformanceMode"],
            "size_in_bytes": size,
            "status": one["LifeCycleState"],
        },
    )


def _destination(held: Held, place: Place) -> str:
    partition = held.aws_id.split(":", 2)[1]
    return aws_backup.vault_arn(partition, place.region, place.account_number, held.details["backup_vault_name"])


def _is_new(request: Mapping[str, Any]) -> bool:
    return (request.get("target_efs") or EfsTarget.NEW) == EfsTarget.NEW


def _role(held: Held, request: Mapping[str, Any], place: Place) -> str:
    """The role that was asked for, else the one that the backup was made with, else AWS Backup's own in that account."""
    used = str(held.details.get("backup_iam_role_arn") or "")
    if request.get("iam_role_arn"):
        return str(request["iam_role_arn"])
    if used and used.split(":")[4] == place.account_number:
        return used
    return aws_backup.own_role(held.aws_id.split(":", 2)[1], place.account_number)


def _key(held: Held, request: Mapping[str, Any], place: Place) -> str:
    """The key that was asked for, else that of the original where it is valid; empty for that of EFS itself, or none."""
    if request.get("encryption_key"):
        return str(request["encryption_key"])
    original = str(held.details.get("original_kms_key_id") or "")
    there = original.split(":")[3:5] == [place.region, place.account_number]
    return original if there else ""


def _usable(kms: AwsClient, key: str) -> bool:
    try:
        found = kms.call("DescribeKey", KeyId=key)["KeyMetadata"]
    except (NotFound, KmsUnusable, Invalid):
        return False
    return bool(found["Enabled"] and found.get("KeySpec", SYMMETRIC) == SYMMETRIC)


def _metadata(restoring: Restoring) -> dict[str, str]:
    held, request = restoring.held, restoring.request
    if not _is_new(request):
        return {"file-system-id": held.source_id, "newFileSystem": "false"}
    key = _key(held, request, restoring.place)
    # What a record does not know, because it was rebuilt from AWS, is rather encrypted than not.
    encrypted = bool(key) or held.details.get("encrypted") is not False
    mode = request.get("performance_mode") or held.details.get("performance_mode")
    return {
        "file-system-id": held.source_id,
        "newFileSystem": "true",
        "CreationToken": restoring.token,
        "PerformanceMode": str(mode or EfsPerformance.GENERAL_PURPOSE),
        "Encrypted": str(encrypted).lower(),
        **({"KmsKeyId": key} if key else {}),
    }


def _token_of(client: AwsClient, job: str) -> str:
    """The token of the file system that a restore job makes; empty for one into a file system that there was before."""
    try:
        return str(client.call("GetRestoreJobMetadata", RestoreJobId=job)["Metadata"].get("CreationToken", ""))
    except NotFound:
        return ""
