"""The steps of one DR copy: share the source, copy it, watch the copy, take the share back."""

import dataclasses
from typing import Any

from cpm.aws.errors import InUse, LimitReached, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import polling, tags
from cpm.flows.backups import backup_snapshots, watching
from cpm.flows.backups.backup_snapshots import QUEUE as _BACKUP_QUEUE
from cpm.flows.dr import dr_keys
from cpm.flows.dr.dr_key_choice import choose_key
from cpm.flows.identities import account_number_of, identity_of
from cpm.flows.server import catalogue_tags
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind
from cpm.models import Account, Snapshot, Step

QUEUE = "dr"


def _client(context: StepContext, side: str, service: str = "ec2") -> AwsClient:
    """A client of the `source` or of the `target` side of the copy."""
    prefix = "source_" if side == "source" else ""
    account = Account.objects.get(pk=context.payload[f"{prefix}account"])
    identity = identity_of(account, session=f"cpm-job-{context.job_id}")
    return client(identity, service, context.payload[f"{prefix}region"])


def _source(context: StepContext) -> Snapshot:
    return Snapshot.objects.get(pk=context.payload["source"])


def _target_number(context: StepContext) -> str:
    account = Account.objects.get(pk=context.payload["account"])
    return account_number_of(account, session=f"cpm-job-{context.job_id}")


def share(context: StepContext) -> Outcome:
    """Let the DR account use the source. Adding a permission that exists changes nothing."""
    _permit(context, "add")
    return Done()


def share_overtaken(context: StepContext) -> None:
    """The permission may have been given after it was taken back; nobody else would look at it again."""
    steps = Step.objects.filter(job_id=context.job_id, kind="dr.unshare", payload__source=context.payload["source"])
    if not steps.filter(pending_after__gt=0).exists():
        unshare(context)


def unshare(context: StepContext) -> Outcome:
    """Take the permission back. A source that is gone needs none."""
    try:
        _permit(context, "remove")
    except NotFound:
        return Done("The source is gone.")
    return Done()


def _permit(context: StepContext, operation: str) -> None:
    ec2, source, number = _client(context, "source"), _source(context), _target_number(context)
    snapshots = [source.aws_id]
    if source.aws_id.startswith("ami-"):
        snapshots = source.details.get("snapshot_ids", [])
        ec2.call(
            "ModifyImageAttribute",
            ImageId=source.aws_id,
            Attribute="launchPermission",
            OperationType=operation,
            UserIds=[number],
        )
    for snapshot in snapshots:
        ec2.call(
            "ModifySnapshotAttribute",
            SnapshotId=snapshot,
            Attribute="createVolumePermission",
            OperationType=operation,
            UserIds=[number],
        )


def copy_snapshot(context: StepContext) -> Outcome:
    """CopySnapshot into the target. When AWS's limit of parallel copies is reached, the copy queues."""
    source, ec2 = _source(context), _client(context, "target")
    try:
        encryption = _encryption(context, source)
    except dr_keys.NoKey as error:
        return Failed(str(error))

    def create() -> dict[str, str]:
        made = ec2.call(
            "CopySnapshot",
            SourceRegion=source.region,
            SourceSnapshotId=source.aws_id,
            Description=f"CPM DR copy of {source.aws_id} ({source.source_id})",
            TagSpecifications=[tags.specification("snapshot", _marks(context, source))],
            **encryption,
        )
        return {source.source_id: made["SnapshotId"]}

    def find() -> list[dict[str, str]]:
        filters = tags.made_by(context.step_id, context.payload["tags"][tags.SERVER])
        found = list(ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters))
        found.sort(key=lambda item: (str(item["StartTime"]), item["SnapshotId"]))
        return [{source.source_id: item["SnapshotId"]} for item in found]

    def discard(token: dict[str, str]) -> None:
        for snapshot in token.values():
            ec2.call("DeleteSnapshot", SnapshotId=snapshot)

    try:
        token = context.once(create=create, find=find, discard=discard)
    except LimitReached:
        context.forget_intent()
        return polling.again(context.now, message="Waiting: AWS is copying as many snapshots as it allows.")
    return Done(write=lambda: _started(context, token[source.source_id]))


def copy_image(context: StepContext) -> Outcome:
    """CopyImage into the target, with the snapshots and tags of the image."""
    source, ec2 = _source(context), _client(context, "target")
    try:
        encryption = _encryption(context, source)
    except dr_keys.NoKey as error:
        return Failed(str(error))
    marks = _marks(context, source)
    try:
        made = ec2.call(
            "CopyImage",
            ClientToken=f"cpm-dr-{context.step_id}",
            Name=f"CPM-DR-{source.aws_id}-{context.step_id}",
            Description=f"CPM DR copy of {source.aws_id} ({source.source_id})",
            SourceImageId=source.aws_id,
            SourceRegion=source.region,
            TagSpecifications=[tags.specification("image", marks), tags.specification("snapshot", marks)],
            **encryption,
        )
    except LimitReached:
        return polling.again(context.now, message="Waiting: AWS is copying as many images as it allows.")
    context.remember(made["ImageId"])
    return Done(write=lambda: _started(context, made["ImageId"]))


def _encryption(context: StepContext, source: Snapshot) -> dict[str, Any]:
    """The encryption parameters of the copy; empty for what is not encrypted."""
    if not source.encrypted or not source.details.get("kms_key_id"):
        return {}
    choice = choose_key(
        context,
        source_kms=_client(context, "source", "kms"),
        target_kms=_client(context, "target", "kms"),
        key_id=source.details["kms_key_id"],
        default_alias=dr_keys.EBS_ALIAS,
    )
    return {"Encrypted": True} | ({"KmsKeyId": choice.key_id} if choice.key_id else {})


def _marks(context: StepContext, source: Snapshot) -> dict[str, str]:
    ours = {**context.payload["tags"], tags.STEP: str(context.step_id), **catalogue_tags.of_row(source)}
    return tags.with_source(ours, source.details.get("tags", {}))


def _started(context: StepContext, aws_id: str) -> None:
    Snapshot.objects.filter(pk=context.payload["snapshot"]).update(aws_id=aws_id, start_time=context.now)
    context.log(f"Copying to {context.payload['region']} as {aws_id}.")


def cancel_copy(context: StepContext) -> None:
    """Stopped before the copy was watched: remove what was begun."""
    if context.token is None and context.lease.intent_at is None:
        return
    ec2 = _client(context, "target")
    if isinstance(context.token, str):
        backup_snapshots.remove_image(ec2, context.token)
        return
    filters = tags.made_by(context.step_id, context.payload["tags"][tags.SERVER])
    for item in list(ec2.paginate("DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=filters)):
        try:
            ec2.call("DeleteSnapshot", SnapshotId=item["SnapshotId"])
        except (NotFound, InUse) as error:
            context.warn(f"{item['SnapshotId']} could not be removed: {error.explain()}")


def _moved(kind: StepKind, name: str) -> StepKind:
    """A watching step of the backup flow, in the queue of DR."""
    assert kind.queue == _BACKUP_QUEUE
    return dataclasses.replace(kind, name=name, queue=QUEUE)


_WATCH = {kind.name: kind for kind in backup_snapshots.KINDS}
KINDS = (
    StepKind("dr.share", QUEUE, share, failed=watching.mark_failed, overtaken=share_overtaken),
    StepKind(
        "dr.copy_snapshot", QUEUE, copy_snapshot, cancel=cancel_copy, failed=watching.mark_failed
    ),
    StepKind("dr.copy_image", QUEUE, copy_image, cancel=cancel_copy, failed=watching.mark_failed),
    _moved(_WATCH["backup.watch_snapshots"], "dr.watch_snapshots"),
    _moved(_WATCH["backup.watch_images"], "dr.watch_images"),
    StepKind("dr.unshare", QUEUE, unshare),
)
