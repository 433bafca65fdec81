"""Opening an explore session in the background: choose what each volume is read from, and look for its file systems.

The job makes nothing that lasts beside its row's state; whoever reads files later opens the session anew from the row
(`explore_open`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from cpm.aws.errors import AwsError
from cpm.explore.blocks import BlockSource
from cpm.explore.errors import ExploreError
from cpm.explore.sandbox import VolumeFacts
from cpm.flows.explore_sessions.explore_open import Opened, session_name
from cpm.flows.explore_sessions.explore_sources import Sources
from cpm.flows.recoveries import recover_sources
from cpm.flows.s3 import deletion
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.jobs.queue import JobSpec
from cpm.lib import places
from cpm.lib.errors import PreconditionFailed
from cpm.lib.states import ExploreStatus, RetrievalStatus, SnapshotKind, SnapshotStatus, Tier
from cpm.models import ExploreSession, S3Copy, Snapshot
from cpm.repository.errors import RepositoryError, StoreUnavailable

KIND = "explore"
SUBJECT = "explore_session"
STEP = "explore.open"
QUEUE = "s3"
Record = Snapshot | S3Copy


def job(row: ExploreSession, *, region: str, account: int | None, place: str) -> JobSpec:
    """The job that opens the session, best at that place, from snapshots in the region and account if one is named."""
    payload = {"region": region, "account": account}
    return JobSpec(KIND, SUBJECT, row.pk, [StepSpec(STEP, payload, place=place)], user_id=row.user_id)


def place_of(record: Record) -> str:
    """Where the data of a record is."""
    if isinstance(record, Snapshot):
        return places.at(record.aws_account_number, record.region)
    return deletion.place_of(record.repository) if record.repository is not None else ""


def idle_time() -> timedelta:
    return timedelta(minutes=settings.CPM_EXPLORE_IDLE_MINUTES)


def volume_records(backup_id: int | None) -> list[Snapshot]:
    """The native record of each volume of a backup, deleted ones included, since copies hang on them."""
    rows = Snapshot.objects.filter(backup=backup_id, kind=SnapshotKind.VOLUME).order_by("pk")
    # A volume may be there twice, with its instance and alone; one that worked counts.
    found = {row.source_id: row for row in rows.select_related("account", "parent")}
    found |= {row.source_id: row for row in rows.filter(succeeded=True).select_related("account", "parent")}
    return list(found.values())


def candidates(row: Snapshot, *, region: str, account: int | None, now: datetime) -> list[Record]:
    """What a volume can be read from, the best first: the snapshot, its copies in other places, its copies in S3.

    With a region or an account only the snapshots there, and after them the copies in S3.
    """
    natives = [
        one
        for one in recover_sources.candidates_of(row)
        if one.capacity and region in ("", one.region) and account in (None, one.account_id)
    ]
    readable = Q(tier=Tier.S3) | Q(retrieve_status=RetrievalStatus.AVAILABLE, retrieve_expiration__gt=now)
    copies = S3Copy.objects.filter(
        readable, snapshot=row, succeeded=True, status=SnapshotStatus.COMPLETED, repository__isnull=False
    )
    return [*natives, *copies.select_related("snapshot", "repository__account").order_by("tier", "-pk")]


def open_session(context: StepContext) -> Outcome:
    """Find what each volume is read from and which file systems there are; without any the session fails."""
    row = ExploreSession.objects.filter(pk=context.subject_id).first()
    if row is None or row.status != ExploreStatus.UNDEFINED:
        return Done("The session has ended.")
    chosen: dict[str, Record] = {}
    sources: dict[str, BlockSource] = {}
    opener = Sources(session_name(row.pk))
    originals = {one.source_id: one for one in volume_records(row.backup_id)}
    for volume in row.volume_ids:
        found = (
            candidates(originals[volume], now=context.now, **context.payload) if volume in originals else []
        )
        chosen[volume], sources[volume] = _chosen(context, opener, volume, found)
    opened = Opened(sources)
    try:
        volumes = opened.files.volumes()
    except ExploreError as error:
        return Failed(str(error))
    finally:
        opened.close()
    _tell(context, chosen, volumes)
    if all(one.why_not for one in volumes):
        return Failed(_nothing(volumes))
    return Done(write=lambda: _opened(row.pk, list(chosen.values())))


def _chosen(
    context: StepContext, opener: Sources, volume: str, found: Sequence[Record]
) -> tuple[Record, BlockSource]:
    """The first that can be read. Raises PreconditionFailed when none can, and errors that may pass."""
    reasons: list[str] = []
    for record in found:
        try:
            return record, opener.of(record)
        except AwsError as error:
            if error.transient:
                raise
            reasons.append(error.explain())
        except StoreUnavailable:
            raise
        except RepositoryError as error:
            reasons.append(str(error))
        context.warn(reasons[-1])
    words = f"There is nothing to read {volume} from. " + " ".join(dict.fromkeys(reasons))
    raise PreconditionFailed("nothing_to_explore", words.strip())


def _tell(context: StepContext, chosen: dict[str, Record], volumes: Sequence[VolumeFacts]) -> None:
    for volume, record in chosen.items():
        where = record.region if isinstance(record, Snapshot) else f"repository {record.repository}"
        context.log(f"{volume} is read from {record} in {where}.")
    for one in volumes:
        if one.why_not:
            context.warn(f"{one.name} cannot be explored: {one.why_not}.")
        for warning in one.warnings:
            context.warn(f"{one.name}: {warning}")


def _nothing(volumes: Sequence[VolumeFacts]) -> str:
    reasons = "; ".join(f"{one.name}: {one.why_not}" for one in volumes)
    if not reasons:
        return "No file system was found."
    return f"No file system can be explored. {reasons}. Recover the volumes instead."


def _opened(pk: int, records: Sequence[Record]) -> None:
    """A session that was ended meanwhile stays so."""
    ExploreSession.objects.filter(pk=pk, status=ExploreStatus.UNDEFINED).update(
        status=ExploreStatus.OPEN,
        snapshots=[one.pk for one in records if isinstance(one, Snapshot)],
        s3_copies=[one.pk for one in records if isinstance(one, S3Copy)],
        expires_at=timezone.now() + idle_time(),
    )


def _failed(context: StepContext, message: str) -> None:
    _over(context, status=ExploreStatus.FAILED, failure=message)


def _cancelled(context: StepContext) -> None:
    _over(context, status=ExploreStatus.ENDED)


def _over(context: StepContext, **fields: Any) -> None:
    rows = ExploreSession.objects.filter(pk=context.subject_id, status=ExploreStatus.UNDEFINED)
    rows.update(end_time=timezone.now(), **fields)


KINDS = (StepKind(STEP, QUEUE, open_session, failed=_failed, cancelled=_cancelled),)
QUEUES = {kind.name: kind.queue for kind in KINDS}
