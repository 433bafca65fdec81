"""Exports of snapshots to S3: StartExportTask, DescribeExportTasks, CancelExportTask.

Live databases of PostgreSQL are exported as Parquet, see ``rds_parquet``. Where there are no rows to make Parquet of, as
with all other engines, the one data file of an export holds the snapshot's bytes as they are.
"""

import json
import re
import uuid
from typing import Any

from moto.iam.models import iam_backends
from moto.s3.models import FakeBucket, s3_backends

from cpm.simulator import rds_keys, rds_parquet
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import DatabaseSnapshot, ExportTask
from cpm.simulator.rds_names import (
    CLUSTER_SNAPSHOT,
    EXPORT,
    NAME,
    SNAPSHOT,
    Lookup,
    arn,
    find,
    listed,
    living,
    missing,
    shelf,
)
from cpm.simulator.sts import as_list

SERVICE = "export.rds.amazonaws.com"
ENGINES = frozenset({"mysql", "mariadb", "postgres", "aurora-mysql", "aurora-postgresql"})
# AWS: RDS User Guide, Considerations for snapshot exports: partial exports know no other names.
ONLY = re.compile(r"[A-Za-z0-9$_]+(?:\.[A-Za-z0-9$_]+){0,2}", re.ASCII)
UNDER_WAY = ("STARTING", "IN_PROGRESS")


def start(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, StartExportTask: an available snapshot of the caller's own, into its bucket here."""
    params = call.params
    name = params["ExportTaskIdentifier"]
    if len(name) > EXPORT.longest or not NAME.fullmatch(name.lower()):
        raise invalid(f"Invalid export task identifier: {name}")
    if any(task.name == name for task in living(call, EXPORT)):
        raise AwsError(EXPORT.exists, f"The export task with the ID {name} already exists.")
    source = _source(call)
    only = params.get("ExportOnly", [])
    if wrong := [one for one in only if not ONLY.fullmatch(one)]:
        raise AwsError("InvalidExportOnly", f"These cannot be exported on their own: {', '.join(wrong)}")
    _check_bucket(call, params["S3BucketName"])
    _check_role(call, params["IamRoleArn"])
    key = rds_keys.named(call, params["KmsKeyId"])
    read = _extract(call, source, only)
    task = ExportTask(
        id=arn(call, EXPORT, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=call.world.settling("database_snapshot"),
        source_arn=source.id,
        source_time=source.created,
        source_kind="SNAPSHOT",
        bucket=params["S3BucketName"],
        prefix=params.get("S3Prefix", "").strip("/"),
        role_arn=params["IamRoleArn"],
        key=key,
        only=only,
        files=read.files,
        tables=read.tables,
        warning=_warning(read, only),
        failure="injected failure" if call.fails(source.of.name) else None,
    )
    shelf(call, EXPORT).add(task)
    return shown(task)


def _source(call: Call) -> DatabaseSnapshot:
    """The snapshot to export.

    AWS: RDS User Guide, Considerations for snapshot exports: some engines only, no magnetic storage, one task at a time
    for a snapshot. Which error the first two are is not said; of those that the call has, this one fits.
    """
    named = call.params["SourceArn"]
    kind = next(
        (kind for kind in (SNAPSHOT, CLUSTER_SNAPSHOT) if kind.resource in named.split(":")[5:6]), None
    )
    if kind is None:
        raise AwsError("UnsupportedOperation", "The simulator exports snapshots only.")
    source: DatabaseSnapshot = find(call, kind, named)
    if source.state != "available":
        raise AwsError(
            "InvalidExportSourceState", f"The snapshot {source.name} is in the {source.state} state."
        )
    magnetic = kind is SNAPSHOT and source.of.storage_type == "standard"
    if source.of.engine not in ENGINES or magnetic:
        kept = "magnetic storage" if magnetic else f"the engine {source.of.engine}"
        raise AwsError("InvalidExportSourceState", f"Snapshots of {kept} cannot be exported.")
    if any(task.source_arn == source.id and task.state in UNDER_WAY for task in living(call, EXPORT)):
        raise AwsError(EXPORT.exists, f"The snapshot {source.name} is being exported already.")
    return source


def _extract(call: Call, source: DatabaseSnapshot, only: list[str]) -> rds_parquet.Extract:
    """What is in the snapshot, read when the task starts: the snapshot may be deleted while it is being exported."""
    cluster = call.state.live.clusters.get(source.id)
    if cluster is not None:
        postgres = call.world.postgres
        with postgres.opened(cluster) as copy:
            return rds_parquet.extract(lambda name: postgres.url(copy, name), source.of.username, only)
    database = source.of.database_name or source.of.name
    target = f"{database}.content"
    return rds_parquet.Extract(
        files={
            f"{database}/{target}/1/part-00000-{uuid.uuid4()}.gz.parquet": call.state.contents.read(source.id)
        },
        tables=[{"target": target, "status": "COMPLETE"}],
        found=set(only),
    )


def _warning(read: rds_parquet.Extract, only: list[str]) -> str | None:
    """What was left out. AWS: RDS User Guide, Monitoring snapshot exports; the form of the entries is our own."""
    unknown = [{"name": name, "reason": "DOES_NOT_EXIST"} for name in only if name not in read.found]
    if not (read.skipped or unknown):
        return None
    return json.dumps({"skippedTables": read.skipped, "skippedObjectives": unknown, "general": []})


def _check_bucket(call: Call, name: str) -> None:
    bucket = s3_backends[call.account]["aws"].buckets.get(name)
    if not isinstance(bucket, FakeBucket) or bucket.region_name != call.region:
        raise AwsError(
            "InvalidS3BucketFault",
            f"The S3 bucket {name} doesn't exist in {call.region} or you do not have permissions to access it.",
        )


def _check_role(call: Call, role_arn: str) -> None:
    """AWS: RDS User Guide, Setting up access to an Amazon S3 bucket: RDS must be trusted to assume the role."""
    roles = iam_backends[call.account]["aws"].roles.values()
    role = next((role for role in roles if role.arn == role_arn), None)
    if role is None:
        raise AwsError("IamRoleNotFound", f"The IAM role {role_arn} doesn't exist.", 404)
    trusts = as_list(json.loads(role.assume_role_policy_document).get("Statement"))
    if not any(_trusted(statement) for statement in trusts):
        raise AwsError(
            "IamRoleMissingPermissions",
            f"The principal {SERVICE} isn't authorized to assume the role {role_arn}.",
        )


def _trusted(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal")
    services = as_list(principal.get("Service")) if isinstance(principal, dict) else []
    return statement.get("Effect") == "Allow" and SERVICE in services


def shown(task: ExportTask) -> dict[str, Any]:
    """A task as DescribeExportTasks shows it."""
    ended = task.state in ("COMPLETE", "FAILED")
    return {
        "ExportTaskIdentifier": task.name,
        "SourceArn": task.source_arn,
        "ExportOnly": task.only,
        "SnapshotTime": task.source_time,
        "TaskStartTime": task.created,
        "TaskEndTime": task.settling.end if ended else None,
        "S3Bucket": task.bucket,
        "S3Prefix": task.prefix,
        "IamRoleArn": task.role_arn,
        "KmsKeyId": task.key,
        "Status": task.state,
        "PercentProgress": task.settling.percent() if task.state != "CANCELED" else 0,
        "TotalExtractedDataInGB": task.bytes >> 30 if task.state == "COMPLETE" else 0,
        "FailureCause": task.failure if task.state == "FAILED" else None,
        "WarningMessage": task.warning if task.state == "COMPLETE" else None,
        "SourceType": task.source_kind,
    }


def _finish(call: Call, task: ExportTask) -> None:
    """Puts what a finished task has exported into its bucket, unless it may not or cannot any more.

    AWS: RDS User Guide, File naming convention for exports: the folder is named for the task, below it are two
    kinds of lists and the data of each table.
    """
    task.failure = _obstacle(call, task)
    if task.failure:
        return
    folder = "/".join(part for part in (task.prefix, task.name) if part)
    files = {f"export_info_{task.name}.json": json.dumps(_told(task), default=str).encode(), **task.files}
    if task.tables:
        name = f"export_tables_info_{task.name}_from_1_to_{len(task.tables)}.json"
        files[name] = json.dumps({"perTableStatus": task.tables}).encode()
    backend = s3_backends[task.account]["aws"]
    for name, data in files.items():
        backend.put_object(task.bucket, f"{folder}/{name}", data, encryption="aws:kms", kms_key_id=task.key)
    task.written = True


def _told(task: ExportTask) -> dict[str, Any]:
    return {
        "exportTaskIdentifier": task.name,
        "sourceArn": task.source_arn,
        "exportOnly": task.only,
        "snapshotTime": task.source_time,
        "taskStartTime": task.created,
        "taskEndTime": task.settling.end,
        "s3Bucket": task.bucket,
        "s3Prefix": task.prefix,
        "exportedFilesPath": task.name,
        "iamRoleArn": task.role_arn,
        "kmsKeyId": task.key,
        "status": "COMPLETE",
        "percentProgress": 100,
        "totalExportedDataInGB": task.bytes / 2**30,
    }


def _obstacle(call: Call, task: ExportTask) -> str | None:
    """What has gone since the task was started. AWS: RDS User Guide, Failure messages for Amazon S3 export tasks."""
    try:
        _check_bucket(call, task.bucket)
    except AwsError:
        return (
            f"The S3 bucket {task.bucket} isn't valid. Either it isn't located in the current AWS Region or it doesn't"
            " exist. Review your S3 bucket name and retry the export."
        )
    try:
        _check_role(call, task.role_arn)
    except AwsError:
        return (
            "The RDS export failed to write the export task's metadata because it can't assume the IAM role"
            f" {task.role_arn}."
        )
    try:
        rds_keys.named(call, task.key)
    except AwsError:
        return "KMS key check failed. Check the credentials on your KMS key and try again."
    return None


LOOKUPS: dict[str, Lookup] = {
    "export-task-identifier": lambda task: (task.name.lower(),),
    "s3-bucket": lambda task: (task.bucket,),
    "source-arn": lambda task: (task.source_arn.lower(),),
    "status": lambda task: (task.state.lower(),),
}


def describe(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeExportTasks. The files are there from the first answer that says COMPLETE."""
    chosen = living(call, EXPORT)
    if name := call.params.get("ExportTaskIdentifier"):
        chosen = [task for task in chosen if task.name == name]
        if not chosen:
            raise missing(EXPORT, name)
    if source := call.params.get("SourceArn"):
        chosen = [task for task in chosen if task.source_arn == source]
    for task in chosen:
        if task.state == "COMPLETE" and not task.written:
            _finish(call, task)
    part, marker = listed(call, EXPORT, chosen, LOOKUPS)
    return {"ExportTasks": [shown(task) for task in part], "Marker": marker}


def cancel(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CancelExportTask: nothing that has ended. The answer alone still says that it goes on."""
    task = find(call, EXPORT, call.params["ExportTaskIdentifier"])
    if task.state not in UNDER_WAY:
        raise AwsError(EXPORT.wrong_state, f"The export task {task.name} is in the {task.state} state.")
    task.canceled = True
    return {**shown(task), "Status": "CANCELING"}


ACTIONS = {"StartExportTask": start, "DescribeExportTasks": describe, "CancelExportTask": cancel}
