"""Backup of resources that AWS snapshots as a whole: start the snapshot, then watch it together with all others of its type.

None of the starting calls has to be trusted to run once: the step's own name, token or tag finds what an interrupted
attempt has made.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from cpm.aws.errors import AlreadyExists, InUse, InvalidState, LimitReached
from cpm.aws.gateway import AwsClient, client
from cpm.flows import polling, whole
from cpm.flows.backups import watching
from cpm.flows.identities import identity_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind
from cpm.lib.states import SnapshotStatus
from cpm.models import Account, Snapshot
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Making

QUEUE = "backup"
# A resource that AWS is busy with (maintenance, its own backup, a change of class) can be backed up when that is over.
LONGEST_BUSY = timedelta(hours=1)


def start(context: StepContext) -> Outcome:
    """Start the snapshot of one resource. Payload: type, account, region, snapshot (row id), options, tags."""
    row = Snapshot.objects.select_related("backup").get(pk=context.payload["snapshot"])
    kind, aws = whole.type_of(row), _client(context)
    making = whole.making(context, row, context.payload["options"])

    def create() -> str:
        try:
            return kind.create(aws, making)
        except AlreadyExists:
            made = kind.find(aws, making)
            if not made:
                raise
            return made[0]

    try:
        aws_id = context.once(
            create=create, find=lambda: kind.find(aws, making), discard=lambda made: whole.discard(context, aws, row, made)
        )
    except (InvalidState, InUse, LimitReached) as error:
        context.forget_intent()
        if context.now - context.lease.started_at < LONGEST_BUSY:
            if context.cursor is None:
                context.save_cursor({"waiting_since": context.now.isoformat()})
                context.warn(f"{row.source_id}: waiting, since AWS says: {error.message}")
            return polling.again(context.now, message=f"Waiting for AWS: {error.message}")
        return Failed(error.explain())
    context.log(f"Started {aws_id}.")
    return Done(write=lambda: _started(row, aws_id, making))


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all snapshots of one type in one account and region together."""
    rows = watching.rows_of(contexts)
    kind = WHOLE_BY_KEY[contexts[0].payload["type"]]
    pending = [
        whole.held(row) for found in rows.values() for row in found if row.status == SnapshotStatus.PENDING
    ]
    shown = kind.snapshots(_client(contexts[0]), pending)
    return {context.step_id: watching.judge(context, rows[context.step_id], shown) for context in contexts}


def cancel_start(context: StepContext) -> None:
    """Abort: delete what this step has started. Absent is as good as deleted."""
    if context.lease.intent_at is None:
        return
    whole.until_listed(context)
    row = Snapshot.objects.select_related("backup").get(pk=context.payload["snapshot"])
    kind, aws = whole.type_of(row), _client(context)
    making = whole.making(context, row, context.payload["options"])
    for made in [context.token] if context.token is not None else kind.find(aws, making):
        whole.discard(context, aws, row, made)
        context.log(f"Removed {made}.")


def cancel_watch(context: StepContext) -> None:
    """Abort: delete the snapshots that are not complete, and say so in their records."""
    aws = _client(context)
    for row in Snapshot.objects.filter(pk__in=context.payload["rows"], status=SnapshotStatus.PENDING):
        if row.aws_id:
            whole.discard(context, aws, row, row.aws_id)
        context.log(f"Removed {row.aws_id or 'nothing'} of {row.source_id}: the backup was aborted.")
    with context.fenced():
        Snapshot.objects.filter(pk__in=context.payload["rows"], status=SnapshotStatus.PENDING).update(
            status=SnapshotStatus.DELETED, succeeded=False, deletion_time=context.now, error="Aborted."
        )


def _client(context: StepContext) -> AwsClient:
    kind = WHOLE_BY_KEY[context.payload["type"]]
    account = Account.objects.get(pk=context.payload["account"])
    identity = identity_of(account, session=f"cpm-job-{context.job_id}")
    return client(identity, kind.snapshots_in, context.payload["region"])


def _started(row: Snapshot, aws_id: str, making: Making) -> None:
    Snapshot.objects.filter(pk=row.pk).update(aws_id=aws_id, start_time=making.since)


KINDS = (
    StepKind("backup.start_whole", QUEUE, start, cancel=cancel_start, failed=watching.mark_failed),
    StepKind(
        "backup.watch_whole", QUEUE, watching.watch, poll=poll, cancel=cancel_watch, failed=watching.mark_failed
    ),
)
