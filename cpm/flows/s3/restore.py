"""A copy in S3 becomes a temporary EBS snapshot: StartSnapshot, PutSnapshotBlock in slices, CompleteSnapshot.

Every block is verified on the way out of the repository. Where the last part ended stands in the cursor, with the
checksum of all blocks so far; a part that died is written again, which is the same as once. A snapshot that AWS has
dropped is begun anew, one time.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cpm.aws.ebs_direct import EbsDirect
from cpm.aws.errors import Invalid, LimitReached, NotFound
from cpm.aws.linear_checksum import LinearChecksum
from cpm.flows import polling
from cpm.flows.recoveries.recover_base import (
    began_at,
    client_token,
    ec2,
    identity,
    lists_lag,
    marks,
    poll_group,
)
from cpm.flows.s3 import repositories, restore_record
from cpm.flows.s3.restore_blocks import restore_part
from cpm.flows.s3.restore_plan import WRITE
from cpm.flows.workers import worker_tags
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.jobs.leases import LeaseLost
from cpm.lib.states import RetrievalStatus, SnapshotStatus
from cpm.models import S3Copy, S3Repository, Step
from cpm.repository.errors import Damaged, ObjectArchived, ObjectMissing
from cpm.repository.reader import Reader
from cpm.resources.ec2_capture import describe_snapshots

QUEUE = "s3"
GIB = 1 << 30
SLICE_SECONDS = 60.0
KEPT_MINUTES = 24 * 60
"""When no block has come for so long, AWS drops the snapshot: queues may be long, and nothing stays behind for ever."""
AHEAD = 64


def write(context: StepContext) -> Outcome:
    """One slice of the whole: begin the snapshot, write blocks, seal it."""
    copy = S3Copy.objects.select_related("repository__account").filter(pk=context.payload["copy"]).first()
    if copy is None or copy.repository is None or copy.status != SnapshotStatus.COMPLETED:
        return Failed(f"The copy of {context.payload['original']} in S3 was deleted meanwhile.")
    ebs = EbsDirect(identity(context, context.payload["account"]), context.payload["region"], ahead=AHEAD)
    try:
        reader = reader_of(context, copy, copy.repository)
        snapshot = _started(context, ebs, reader)
        if not _slice(context, ebs, reader, snapshot):
            words = "Stopping." if context.aborted else f"Writing {context.payload['original']} from S3."
            return Wait(0.0, progress=_percent(context, reader), message=words)
        return _sealed(context, ebs, snapshot)
    except Damaged as damage:
        return damaged(context, copy, damage)
    except ObjectArchived as error:
        return expired(copy, error)
    except (NotFound, Invalid) as error:
        why = _dropped(context)
        if why is None:
            raise
        return _again(context, f"{why} ({error.code})")


def reader_of(context: StepContext, copy: S3Copy, row: S3Repository) -> Reader:
    """The copy as the repository's account reads it. Index objects that others need may be damaged."""
    repository = repositories.opened(row, session=f"cpm-recovery-{context.subject_id}")
    try:
        manifest = repository.copy(copy.stored_id)
    except ObjectMissing as missing:
        raise Damaged(missing.key, "the manifest of the copy is missing") from None
    return Reader(repository, manifest, repository.view(manifest.draft.area, lenient=True))


def _fresh(context: StepContext, attempt: int, dropped: str = "") -> dict[str, Any]:
    return {
        "began": context.now.isoformat(), "attempt": attempt, "dropped": dropped, "snapshot": "", "next": 0, "checksum": None,
        # Kept, since a call that is made again under its client token must say the same.
        "tags": worker_tags.beside(marks(context), context.payload["account"]),
    }  # fmt: skip


def _started(context: StepContext, ebs: EbsDirect, reader: Reader) -> str:
    """The snapshot that is being written, begun if it has not been. An interrupted call is simply made again.

    Raises NotYet while AWS takes no more snapshots.
    """
    if context.cursor is None:
        context.save_cursor(_fresh(context, 0))
    cursor = context.cursor
    if cursor["snapshot"]:
        return str(cursor["snapshot"])
    if cursor["dropped"]:
        with suppress(NotFound):
            ec2(context).call("DeleteSnapshot", SnapshotId=cursor["dropped"])
    snapshot = _begin(context, ebs, reader)
    try:
        context.remember(snapshot)
    except LeaseLost:
        _disown(context, snapshot)
        raise
    context.log(f"Writing {context.payload['original']} from S3 into the temporary snapshot {snapshot}.")
    context.save_cursor({**cursor, "snapshot": snapshot})
    return snapshot


def _begin(context: StepContext, ebs: EbsDirect, reader: Reader) -> str:
    """StartSnapshot, which answers the same to every run of the same attempt."""
    cursor, encryption = context.cursor, context.payload["encryption"]
    try:
        answer = ebs.start_snapshot(
            -(-reader.manifest.draft.size // GIB),
            client_token=f"{client_token(context)}-{cursor['attempt']}",
            # PostgreSQL keeps no order, and AWS takes another order for another request.
            tags=dict(sorted(cursor["tags"].items())),
            description=f"CPM recovery {context.subject_id}: {context.payload['original']} from S3",
            encrypted=bool(encryption),
            kms_key=encryption.get("kms_key"),
            timeout=KEPT_MINUTES,
        )
    except LimitReached as error:
        if not error.transient:
            raise
        words = "Waiting: AWS takes blocks for as many snapshots as it allows."
        raise NotYet(polling.again(context.now, message=words)) from None
    return str(answer["SnapshotId"])


def _disown(context: StepContext, snapshot: str) -> None:
    """Begun too late. A successor is given the same snapshot by the same client token, unless the step is over."""
    if Step.objects.filter(pk=context.step_id, finished_at__isnull=False).exclude(token=snapshot).exists():
        with suppress(NotFound):
            ec2(context).call("DeleteSnapshot", SnapshotId=snapshot)


def _slice(context: StepContext, ebs: EbsDirect, reader: Reader, snapshot: str) -> bool:
    """Write until the slice is over, one part at least; whether that was all."""
    ends = time.monotonic() + SLICE_SECONDS
    total = reader.manifest.draft.blocks
    told = restore_record.Progress(context)

    def tell(block: int) -> None:
        told.at(100 * block // total, f"Block {block} of {total}.")

    while context.cursor["next"] < total:
        if context.refresh_aborted():
            return False
        checksum = LinearChecksum.resumed(context.cursor["checksum"])
        following = restore_part(reader, ebs, snapshot, context.cursor["next"], checksum, tell)
        context.save_cursor({**context.cursor, "next": following, "checksum": checksum.state()})
        # What went wrong before has been overcome: trouble over days must not add up.
        context.lease.failures = 0
        if time.monotonic() > ends and following < total:
            return False
    told.at(100, "All blocks are written.", now=True)
    return True


def _percent(context: StepContext, reader: Reader) -> int:
    return int(100 * context.cursor["next"] // reader.manifest.draft.blocks)


def _sealed(context: StepContext, ebs: EbsDirect, snapshot: str) -> Outcome:
    """CompleteSnapshot with the number of blocks and the checksum of all of them."""
    checksum = LinearChecksum.resumed(context.cursor["checksum"])
    try:
        ebs.complete_snapshot(snapshot, checksum.count, checksum.digest() if checksum.count else None)
    except Invalid as error:
        # An earlier run may have sealed it and died; EC2 knows what became of it.
        if "INVALID_SNAPSHOT_ID" not in error.message or _dropped(context) is not None:
            raise
    return _waiting(context, 0)


def _waiting(context: StepContext, percent: int) -> Wait:
    group = poll_group(context, "s3-snapshots")
    return polling.again(
        context.now, group=group, progress=100, message=f"{context.token} is being completed ({percent}%)."
    )


def poll_sealed(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask about all sealed snapshots of one account and region together."""
    shown = describe_snapshots(ec2(contexts[0]), [context.token for context in contexts])
    return {context.step_id: _state(context, shown.get(context.token)) for context in contexts}


def _state(context: StepContext, shown: Mapping[str, Any] | None) -> Outcome:
    if shown is None and lists_lag(context, began_at(context)):
        return _waiting(context, 0)
    if shown is None or shown["State"] == "error":
        return _again(context, shown.get("StateMessage") or "AWS reports an error" if shown else "it is gone")
    if shown["State"] != "completed":
        return _waiting(context, int(shown.get("Progress", "0%").rstrip("%") or 0))
    context.log(
        f"Wrote {context.payload['original']} from S3 to {context.payload['region']} as {context.token}."
    )
    return Done()


def _dropped(context: StepContext) -> str | None:
    """Why AWS does not take any more of the snapshot; None if EC2 shows it in good order.

    Raises NotYet while it may be too new for EC2's lists.
    """
    snapshot = (context.cursor or {}).get("snapshot")
    if not snapshot:
        return None
    shown = describe_snapshots(ec2(context), [snapshot]).get(snapshot)
    if shown is None and lists_lag(context, began_at(context)):
        raise NotYet(polling.again(context.now, message=f"Waiting for {snapshot} to appear."))
    if shown is not None and shown["State"] != "error":
        return None
    return shown.get("StateMessage") or "AWS reports an error" if shown else "it is gone"


def _again(context: StepContext, why: str) -> Outcome:
    """Begin anew, once; the lease is made sure of before anything is removed."""
    original, snapshot = context.payload["original"], context.token
    if context.cursor["attempt"]:
        return Failed(f"AWS dropped the snapshot {snapshot} of {original} for the second time: {why}.")
    context.warn(
        f"AWS dropped the snapshot {snapshot} of {original}: {why}. It is written again from the beginning."
    )
    context.save_cursor(_fresh(context, 1, snapshot))
    return Wait(0.0, progress=0, message=f"Writing {original} from S3 again.")


def expired(copy: S3Copy, error: ObjectArchived) -> Outcome:
    def mark() -> None:
        S3Copy.objects.filter(pk=copy.pk).update(retrieve_status=RetrievalStatus.EXPIRED)

    words = "What was retrieved is archived again: recover anew, and keep it for more days."
    return Failed(f"{error} {words}", write=mark)


def damaged(context: StepContext, copy: S3Copy, damage: Damaged) -> Outcome:
    def mark() -> None:
        S3Copy.objects.filter(pk=copy.pk).update(damaged=True)

    return Failed(
        f"The copy of {context.payload['original']} in repository {copy.repository} is damaged, so it was not recovered."
        f" {damage}",
        write=mark,
    )


KINDS = (StepKind(WRITE, QUEUE, write, poll=poll_sealed),)
