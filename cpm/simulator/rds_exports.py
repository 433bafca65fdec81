"""Exports of snapshots to S3: StartExportTask, DescribeExportTasks, CancelExportTask.

The simulator has no rows to make Parquet of: the one data file of an export holds the snapshot's bytes as they are.
"""

import json
from typing import Any

from moto.iam.models import iam_backends
from moto.s3.models import FakeBucket, s3_backends

from cpm.simulator import rds_keys
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_model import ExportTask
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


def start(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, StartExportTask: an available snapshot of the caller's own, into its bucket here."""
    params = call.params
    name = params["ExportTaskIdentifier"]
    if len(name) > EXPORT.longest or not NAME.fullmatch(name.lower()):
        raise invalid(f"Invalid export task identifier: {name}")
    if any(task.name == name for task in living(call, EXPORT)):
        raise AwsError(EXPORT.exists, f"The export task {name} already exists.")
    parts = params["SourceArn"].split(":")
    kind = next((kind for kind in (SNAPSHOT, CLUSTER_SNAPSHOT) if kind.resource in parts[5:6]), None)
    if kind is None:
        raise AwsError("UnsupportedOperation", "The simulator exports snapshots only.")
    source = find(call, kind, params["SourceArn"])
    if source.state != "available":
        raise AwsError(
            "InvalidExportSourceState", f"The snapshot {source.name} is in the {source.state} state."
        )
    _check_bucket(call, params["S3BucketName"])
    _check_role(call, params["IamRoleArn"])
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
        key=rds_keys.named(call, params["KmsKeyId"]),
        only=params.get("ExportOnly", []),
        data=call.state.contents.read(source.id),
        database_name=source.of.database_name or source.of.name,
        failure="injected failure" if call.fails(source.of.name) else None,
    )
    shelf(call, EXPORT).add(task)
    return shown(task)


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
        "TotalExtractedDataInGB": len(task.data) >> 30 if task.state == "COMPLETE" else 0,
        "FailureCause": task.failure if task.state == "FAILED" else None,
        "SourceType": task.source_kind,
    }


def _finish(task: ExportTask) -> None:
    """Puts what a finished task has exported into its bucket; a bucket that has gone makes the task fail.

    AWS: RDS User Guide, File naming convention for exports: the folder is named for the task, below it are two
    kinds of lists and the data of each table.
    """
    backend = s3_backends[task.account]["aws"]
    if task.bucket not in backend.buckets:
        task.failure = f"The S3 bucket {task.bucket} has been deleted"
        return
    folder = "/".join(part for part in (task.prefix, task.name) if part)
    table = f"{task.database_name}/{task.database_name}.content"
    info = {
        "exportTaskIdentifier": task.name,
        "sourceArn": task.source_arn,
        "status": "COMPLETE",
        "percentProgress": 100,
    }
    tables = {"perTableStatus": [{"target": f"{task.database_name}.content", "status": "COMPLETE"}]}
    files = {
        f"{folder}/export_info_{task.name}.json": json.dumps(info).encode(),
        f"{folder}/export_tables_info_{task.name}_from_1_to_1.json": json.dumps(tables).encode(),
        f"{folder}/{table}/1/part-00000-{task.serial:08d}.gz.parquet": task.data,
    }
    for name, data in files.items():
        backend.put_object(task.bucket, name, data, encryption="aws:kms", kms_key_id=task.key)
    task.written = True


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
            _finish(task)
    part, marker = listed(call, EXPORT, chosen, LOOKUPS)
    return {"ExportTasks": [shown(task) for task in part], "Marker": marker}


def cancel(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, CancelExportTask: nothing that has ended."""
    task = find(call, EXPORT, call.params["ExportTaskIdentifier"])
    if task.state not in ("STARTING", "IN_PROGRESS"):
        raise AwsError(EXPORT.wrong_state, f"The export task {task.name} is in the {task.state} state.")
    task.canceled = True
    return shown(task)


ACTIONS = {"StartExportTask": start, "DescribeExportTasks": describe, "CancelExportTask": cancel}
