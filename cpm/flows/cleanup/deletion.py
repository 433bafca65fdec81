"""Deleting what backups made in AWS: images before their snapshots, and only what nobody needs any more.

"Not found" means deleted. Every other error is kept on the snapshot record and in the log, and fails the step,
so that it is seen and tried again at the next cleanup.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db.models import Q

from cpm.aws.errors import AwsError, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import tags, whole
from cpm.flows.cleanup import remains, uses
from cpm.flows.identities import identity_of
from cpm.flows.messages import alerting
from cpm.flows.s3 import deletion as s3_deletion
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib.states import WITHOUT_SNAPSHOT, RunIf, Severity, SnapshotKind, SnapshotStatus
from cpm.models import Backup, Snapshot
from cpm.resources.registry import DR_KINDS, WHOLE_BY_KEY
from cpm.resources.whole import Sides

QUEUE = "control"
KIND = "cleanup"
IMAGES = frozenset(
    {SnapshotKind.INITIAL_AMI, SnapshotKind.ONLY_AMI, SnapshotKind.DR_INITIAL_AMI, SnapshotKind.ONLY_DR_AMI}
)
# A slice ends after this time and goes on in a new one, so that abort and a dying worker cost little.
SLICE_SECONDS = 60.0


def step(
    backup: Backup, rows: Sequence[int] | None = None, *, keep_needed: bool = True, outlived: bool = False
) -> StepSpec:
    """A step that deletes the snapshots of a backup, or only the given snapshot records.

    With `keep_needed` an initial AMI that instances of kept backups start from is left alone. With `outlived`, which is
    said of a backup beyond its policy's generations, a snapshot with a longer lifetime of its own is left alone, too.
    """
    payload = {"backup": backup.pk, "rows": None if rows is None else list(rows), "keep_needed": keep_needed}
    payload["outlived"] = outlived
    return StepSpec("cleanup.delete", payload)


def job(
    backup: Backup, rows: Sequence[int] | None = None, *, keep_needed: bool = True, copies: bool = False
) -> JobSpec:
    """A job of one such step, logged with the backup. With `copies` those in S3 go first; what becomes of them holds up
    nothing."""
    natives = step(backup, rows, keep_needed=keep_needed)
    specs = [natives]
    if copies:
        specs = [
            s3_deletion.step(backup, key="copies"),
            replace(natives, after=("copies",), run_if=RunIf.ENDED),
        ]
    return JobSpec(KIND, "backup", backup.pk, specs, user_id=backup.user_id)


def needed_initial_amis(backup_ids: Sequence[int] = ()) -> set[int]:
    """Ids of initial AMI records that instances start from: those of live backups (others than those given), and those
    whose volumes have living copies in S3."""
    going = Q(backup_id__in=backup_ids) | Q(backup__marked_for_deletion=True, backup__is_freezer_item=False)
    rows = Snapshot.objects.filter(
        kind=SnapshotKind.INSTANCE, succeeded=True, details__has_key="initial_ami", backup__deleted_at=None
    ).exclude(going & ~Q(pk__in=remains.copied_instances()))
    needed = set(rows.values_list("details__initial_ami", flat=True))
    copies = Snapshot.objects.filter(original_id__in=needed, kind=SnapshotKind.DR_INITIAL_AMI)
    return needed | set(copies.values_list("pk", flat=True))


def delete(context: StepContext) -> Outcome:
    """Delete the step's snapshots from AWS, a slice at a time. Idempotent: deleted records are passed over."""
    payload = context.payload
    backup = Backup.objects.get(pk=payload["backup"])
    if uses.read([backup.pk]):
        return Wait(30.0, message="A recovery or an explore session is using this backup.")
    if uses.copied([backup.pk], but_for=context.job_id):
        return Wait(30.0, message="This backup is being copied to S3.")
    ends = time.monotonic() + SLICE_SECONDS
    clients: dict[tuple[int, str, str], AwsClient] = {}
    errors: list[str] = []
    for row in _rows(context, backup):
        if time.monotonic() > ends:
            return Wait(0.0, message="More to delete.")
        problem = _delete_row(context, row, clients)
        if problem is not None:
            if problem.transient:
                raise problem
            errors.append(f"{row.aws_id}: {problem.explain()}")
            Snapshot.objects.filter(pk=row.pk).update(error=problem.explain())
    if errors:
        words = f"{len(errors)} snapshots could not be deleted. " + " ".join(errors[:5])
        _alert(context, backup, words)
        return Failed(words)
    return Done(write=lambda: _record(context, backup))


def _alert(context: StepContext, backup: Backup, words: str) -> None:
    with context.fenced():
        alerting.raise_alert(
            user=backup.user,
            policy=backup.policy,
            category=alerting.CLEANUP_FAILED,
            title=f"Snapshots of policy {backup.policy_name} could not be deleted",
            message=words,
            now=context.now,
            severity=Severity.WARNING,
        )


def _rows(context: StepContext, backup: Backup) -> list[Snapshot]:
    rows = backup.snapshots.exclude(status=SnapshotStatus.DELETED).exclude(kind__in=WITHOUT_SNAPSHOT)
    if context.payload["rows"] is not None:
        rows = rows.filter(pk__in=context.payload["rows"])
    if context.payload["keep_needed"]:
        rows = rows.exclude(pk__in=needed_initial_amis([backup.pk]))
    unneeded = list(rows)
    if context.payload.get("outlived"):
        unneeded = [row for row in unneeded if not _outlives_policy(row, context.now)]
    # Images first: EC2 refuses to delete a snapshot that a registered image uses.
    return sorted(unneeded, key=lambda row: (row.kind not in IMAGES, row.pk))


def _outlives_policy(row: Snapshot, now: datetime) -> bool:
    kind = WHOLE_BY_KEY.get(row.resource_type)
    return kind is not None and row.succeeded is True and kind.outlives_policy(whole.held(row), now)


def _delete_row(
    context: StepContext, row: Snapshot, clients: dict[tuple[int, str, str], AwsClient]
) -> AwsError | None:
    if not row.aws_id:
        _gone(context, row)
        return None
    account = row.account
    if account is None:
        context.error(f"{row.aws_id} stays in AWS: its account is no longer known to CPM.")
        _gone(context, row, left=True)
        return None
    service = WHOLE_BY_KEY[row.resource_type].snapshots_in if row.resource_type in WHOLE_BY_KEY else "ec2"
    where = (account.pk, row.region, service)
    if where not in clients:
        clients[where] = client(identity_of(account, session=f"cpm-job-{context.job_id}"), service, row.region)
    aws = clients[where]
    try:
        if row.kind in DR_KINDS and account.is_dr_account and not account.allow_deleting_snapshots:
            tagged = "was tagged so" if _mark_outdated(aws, row) else "stays"
            context.log(f"{row.aws_id} is outdated and {tagged}: CPM may not delete in {account.name}.")
            _gone(context, row, left=True)
        else:
            _delete_in_aws(context, aws, row)
            context.log(f"Deleted {row.aws_id} of {row.source_id} in {row.region}.")
            _gone(context, row)
    except AwsError as error:
        return error
    return None


def _delete_in_aws(context: StepContext, aws: AwsClient, row: Snapshot) -> None:
    if row.resource_type in WHOLE_BY_KEY:
        kind, source = WHOLE_BY_KEY[row.resource_type], _copied_from(context, row)
        with suppress(NotFound):
            if source is not None:
                kind.cancel_copy(Sides(source, aws), whole.held(row))
            else:
                kind.delete(aws, whole.held(row))
        return
    snapshots = [row.aws_id]
    if row.kind in IMAGES:
        snapshots = list(row.details.get("snapshot_ids", ()))
        snapshots += [found for found in _image_snapshots(aws, row.aws_id) if found not in snapshots]
        _ignore_absent(aws, "DeregisterImage", ImageId=row.aws_id)
    for snapshot in snapshots:
        _ignore_absent(aws, "DeleteSnapshot", SnapshotId=snapshot)


def _copied_from(context: StepContext, row: Snapshot) -> AwsClient | None:
    """Where a copy comes from that is not known to be complete: that place may know best what has come of it."""
    original = row.original
    if row.kind not in DR_KINDS or row.succeeded or original is None or original.account is None:
        return None
    identity = identity_of(original.account, session=f"cpm-job-{context.job_id}")
    return client(identity, WHOLE_BY_KEY[row.resource_type].snapshots_in, original.region)


def _image_snapshots(ec2: AwsClient, image: str) -> list[str]:
    filters = [{"Name": "image-id", "Values": [image]}]
    return [
        mapping["Ebs"]["SnapshotId"]
        for found in ec2.paginate("DescribeImages", "Images", Owners=["self"], Filters=filters)
        for mapping in found.get("BlockDeviceMappings", ())
        if mapping.get("Ebs", {}).get("SnapshotId")
    ]


def _ignore_absent(ec2: AwsClient, action: str, **parameters: Any) -> None:
    try:
        ec2.call(action, **parameters)
    except NotFound:
        return


def _mark_outdated(aws: AwsClient, row: Snapshot) -> bool:
    """Tag a copy that may not be deleted; False where AWS has no tags for it. Absent is fine."""
    try:
        if row.resource_type in WHOLE_BY_KEY:
            return WHOLE_BY_KEY[row.resource_type].mark_outdated(aws, whole.held(row), tags.OUTDATED)
        aws.call("CreateTags", Resources=[row.aws_id], Tags=[{"Key": tags.OUTDATED, "Value": "true"}])
    except NotFound:
        return True
    return True


def _gone(context: StepContext, row: Snapshot, *, left: bool = False) -> None:
    row.details = {**row.details, **({"left_in_account": True} if left else {})}
    with context.fenced():
        Snapshot.objects.filter(pk=row.pk).update(
            status=SnapshotStatus.DELETED, deletion_time=context.now, details=row.details
        )


def _record(context: StepContext, backup: Backup) -> None:
    of_policy = Snapshot.objects.filter(backup__policy=backup.policy_id, backup__user=backup.user_id)
    failing = of_policy.filter(backup__marked_for_deletion=True).exclude(status=SnapshotStatus.DELETED)
    if not failing.exclude(Q(error="") | Q(aws_id="")).exists():
        alerting.clear_alert(user=backup.user, policy=backup.policy, category=alerting.CLEANUP_FAILED)
    remains.settle(backup, now=context.now)


KINDS = (StepKind("cleanup.delete", QUEUE, delete),)
