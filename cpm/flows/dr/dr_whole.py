"""DR of resources that AWS snapshots as a whole: share with the other account, copy, watch the copy, take the share back.

Where AWS makes no copies but lets another account restore a snapshot, DR is that grant, and it stays.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from cpm.aws.errors import AlreadyExists, InvalidState, LimitReached, NotFound
from cpm.aws.gateway import AwsClient, client
from cpm.flows import polling, whole
from cpm.flows.backups import watching
from cpm.flows.dr import dr_keys
from cpm.flows.dr.dr_key_choice import choose_key
from cpm.flows.identities import account_number_of, identity_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind
from cpm.lib.states import SnapshotStatus
from cpm.models import Account, Snapshot, Step
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Dr, Place, Sides, WholeResource

QUEUE = "dr"


def refusal(row: Snapshot, account: Account, region: str) -> str:
    """Why DR of this snapshot to that place is left out; empty if it is possible."""
    place = Place(account.account_number, region, same_account=account.pk == row.account_id)
    return whole.type_of(row).why_not_copied(whole.held(row), place)


def is_grant(row: Snapshot) -> bool:
    """Whether DR of this snapshot is the right to restore it, and no copy."""
    return row.resource_type in WHOLE_BY_KEY and whole.type_of(row).dr is Dr.GRANT


def is_shared(row: Snapshot) -> bool:
    """Whether the DR account must be let use this snapshot before it is copied."""
    return row.resource_type not in WHOLE_BY_KEY or whole.type_of(row).shared


def share(context: StepContext) -> Outcome:
    """Let the DR account use the source. Payload: as of `dr.copy_whole`."""
    kind, source = _kind(context), _source(context)
    kind.share(_aws(context, "source", kind.snapshots_in), source.aws_id, _number(context))
    return Done()


def share_overtaken(context: StepContext) -> None:
    """The permission may have been given after it was taken back; nobody else would look at it again."""
    steps = Step.objects.filter(
        job_id=context.job_id, kind="dr.unshare_whole", payload__source=context.payload["source"]
    )
    if steps.exists() and not steps.filter(pending_after__gt=0).exists():
        unshare(context)


def unshare(context: StepContext) -> Outcome:
    """Take the permission back. A source that is gone needs none."""
    kind, source = _kind(context), _source(context)
    try:
        kind.unshare(_aws(context, "source", kind.snapshots_in), source.aws_id, _number(context))
    except NotFound:
        return Done("The source is gone.")
    return Done()


def grant(context: StepContext) -> Outcome:
    """Let the DR account restore the source for as long as it exists, and keep that in the record."""
    kind, source = _kind(context), _source(context)
    number = _number(context)
    if kind.default_key_alias and _alias(context, source) == kind.default_key_alias:
        return Failed(str(dr_keys.unusable_elsewhere(kind.default_key_alias)))
    kind.share(_aws(context, "source", kind.snapshots_in), source.aws_id, number)
    context.log(f"Account {number} may restore {source.aws_id} in {source.region}.")

    def write() -> None:
        granted = sorted({*source.details.get("granted_to", ()), number})
        Snapshot.objects.filter(pk=source.pk).update(details={**source.details, "granted_to": granted})

    return Done(write=write)


def copy(context: StepContext) -> Outcome:
    """Start the copy. Payload: type, account, region, source_account, source_region, source and snapshot (row ids), tags."""
    kind, source = _kind(context), _source(context)
    row = Snapshot.objects.select_related("backup").get(pk=context.payload["snapshot"])
    sides = _sides(context, kind)
    try:
        key_id = _key(context, kind, source)
    except dr_keys.NoKey as error:
        return Failed(str(error))
    place = _place(context, source)
    held, making = whole.held(source), whole.making(context, row, {}, place)

    def create() -> str:
        try:
            return kind.copy(sides, held, making, place, key_id)
        except AlreadyExists:
            made = kind.find_copies(sides, held, making)
            if not made:
                raise
            return made[0]

    try:
        aws_id = context.once(
            create=create,
            find=lambda: kind.find_copies(sides, held, making),
            discard=lambda made: _cancel(context, sides, row, made),
        )
    except (LimitReached, InvalidState) as error:
        context.forget_intent()
        if isinstance(error, LimitReached) and not error.transient:
            return Failed(error.explain())
        return polling.again(context.now, message=f"Waiting for AWS: {error.message}")

    def write() -> None:
        Snapshot.objects.filter(pk=row.pk).update(aws_id=aws_id, start_time=making.since)
        context.log(f"Copying {source.aws_id} to {row.region} as {aws_id}.")

    return Done(write=write)


def cancel_copy(context: StepContext) -> None:
    """Stopped before the copy was watched: remove what was begun."""
    if context.lease.intent_at is None:
        return
    whole.until_listed(context)
    kind, source = _kind(context), _source(context)
    row = Snapshot.objects.select_related("backup").get(pk=context.payload["snapshot"])
    sides, making = _sides(context, kind), whole.making(context, row, {}, _place(context, source))
    found = [context.token] if context.token is not None else kind.find_copies(sides, whole.held(source), making)
    for aws_id in found:
        _cancel(context, sides, row, aws_id)


def poll(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all copies of one type between the same two places together."""
    rows, kind = watching.rows_of(contexts), _kind(contexts[0])
    pending = [
        whole.held(row) for found in rows.values() for row in found if row.status == SnapshotStatus.PENDING
    ]
    shown = kind.copies(_sides(contexts[0], kind), pending)
    return {context.step_id: watching.judge(context, rows[context.step_id], shown) for context in contexts}


def cancel_watch(context: StepContext) -> None:
    """Abort or time limit: remove the copies that are not complete."""
    kind = _kind(context)
    rows = Snapshot.objects.filter(pk__in=context.payload["rows"], status=SnapshotStatus.PENDING)
    for row in rows.exclude(aws_id=""):
        _cancel(context, _sides(context, kind), row, row.aws_id)
        context.log(f"Removed {row.aws_id} of {row.source_id} before it was complete.")
    with context.fenced():
        rows.update(status=SnapshotStatus.DELETED, succeeded=False, deletion_time=context.now, error="Aborted.")


def _cancel(context: StepContext, sides: Sides, row: Snapshot, aws_id: str) -> None:
    one = dataclasses.replace(whole.held(row), aws_id=aws_id)
    whole.removed(context, aws_id, lambda: whole.type_of(row).cancel_copy(sides, one))


def _key(context: StepContext, kind: WholeResource, source: Snapshot) -> str:
    """The KMS key of the copy; empty for what is not encrypted, and where AWS keeps the key of the destination."""
    if not source.encrypted or not kind.default_key_alias or not source.details.get("kms_key_id"):
        return ""
    choice = choose_key(
        context,
        source_kms=_aws(context, "source", "kms"),
        target_kms=_aws(context, "target", "kms"),
        key_id=source.details["kms_key_id"],
        default_alias=kind.default_key_alias,
    )
    return choice.key_id or kind.default_key_alias


def _alias(context: StepContext, source: Snapshot) -> str:
    """The alias of the key that encrypts the source; empty where there is none or it is not to be seen."""
    key_id = source.details.get("kms_key_id")
    return dr_keys.alias_of(_aws(context, "source", "kms"), key_id) if source.encrypted and key_id else ""


def _kind(context: StepContext) -> WholeResource:
    return WHOLE_BY_KEY[context.payload["type"]]


def _source(context: StepContext) -> Snapshot:
    return Snapshot.objects.get(pk=context.payload["source"])


def _number(context: StepContext) -> str:
    account = Account.objects.get(pk=context.payload["account"])
    return account_number_of(account, session=f"cpm-job-{context.job_id}")


def _place(context: StepContext, source: Snapshot) -> Place:
    same = context.payload["account"] == source.account_id
    return Place(_number(context), context.payload["region"], same_account=same)


def _sides(context: StepContext, kind: WholeResource) -> Sides:
    return Sides(_aws(context, "source", kind.snapshots_in), _aws(context, "target", kind.snapshots_in))


def _aws(context: StepContext, side: str, service: str) -> AwsClient:
    """A client of the `source` or of the `target` side of the copy."""
    prefix = "source_" if side == "source" else ""
    account = Account.objects.get(pk=context.payload[f"{prefix}account"])
    identity = identity_of(account, session=f"cpm-job-{context.job_id}")
    return client(identity, service, context.payload[f"{prefix}region"])


KINDS = (
    StepKind("dr.share_whole", QUEUE, share, failed=watching.mark_failed, overtaken=share_overtaken),
    StepKind("dr.grant_whole", QUEUE, grant),
    StepKind("dr.copy_whole", QUEUE, copy, cancel=cancel_copy, failed=watching.mark_failed),
    StepKind(
        "dr.watch_whole",
        QUEUE,
        watching.watch,
        poll=poll,
        cancel=cancel_watch,
        failed=watching.mark_failed,
    ),
    StepKind("dr.unshare_whole", QUEUE, unshare),
)
