"""Explore sessions: looking at the files of a backup's volumes without restoring them.

U (being opened) becomes N (open) or F; N becomes P when it is ended and S when nobody can be reading any more, or S at
once when nobody has used it for `CPM_EXPLORE_IDLE_MINUTES`. Each change is one conditional update. What each process
has open follows the rows (`explore_open`), so no session outlives its row's state by more than a minute.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction

from cpm import permissions
from cpm.flows.explore_sessions import explore
from cpm.flows.explore_sessions.explore_open import HERE
from cpm.flows.table import QUEUES
from cpm.jobs import queue
from cpm.lib.errors import PreconditionFailed, ValidationFailed
from cpm.lib.states import BACKUP_RUNNING, BackupStatus, ExploreStatus, ExploreType, JobState, Tier
from cpm.models import Account, Actor, Backup, ExploreSession, Job, Region, Snapshot
from cpm.services import audit, scope

RIGHT = "explore_sessions.use"
NOUN = "explore session"
MOST_VOLUMES = 40
OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)
NOTED_EVERY = timedelta(minutes=1)
"""A use is written down at most so often; a reading that goes on notices within this time that its session has ended."""
CLOSING_TIME = NOTED_EVERY + timedelta(seconds=15)
"""How long a session that was ended is shown as expiring: other processes may be reading for so long."""


def create(
    *,
    actor: Actor,
    backup_record: int,
    now: datetime,
    aws_instance_id: str = "",
    aws_volume_ids: Sequence[str] = (),
    region: int | None = None,
    from_account: int | None = None,
) -> ExploreSession:
    """A session over volumes of the backup: those named, those of the instance, or all; a worker opens it.

    Of an instance, or of all, those that failed are left out. Raises ValidationFailed and NotFound for what makes no
    sense, PreconditionFailed when there is nothing to explore.
    """
    permissions.require(actor, RIGHT)
    backups = permissions.visible(actor.user, Backup.objects.select_related("user", "account"), RIGHT)
    backup = scope.referred(backups, backup_record, what="backup", field="backup_record")
    aws_region = _region(region)
    account = _account(actor, backup, from_account)
    _explorable(backup)
    named = list(dict.fromkeys(aws_volume_ids))
    rows = _volumes(backup, aws_instance_id, named)
    sources = _readable(rows, aws_region, account, now, all_of_them=bool(named))
    rows = list(sources)
    with transaction.atomic():
        row = ExploreSession.objects.create(
            user=backup.user,
            backup=backup,
            account=account or backup.account,
            name=f"{backup.policy_name} {backup.start_time:%Y-%m-%d %H:%M}"[:255],
            explore_type=_type(rows, aws_instance_id),
            volume_ids=[one.source_id for one in rows],
            start_time=now,
            expires_at=now + explore.idle_time(),
        )
        place = explore.place_of(sources[rows[0]])
        spec = explore.job(row, region=aws_region, account=account.pk if account else None, place=place)
        queue.create_jobs([spec], engine_queues=QUEUES)
        text = f"Session {row.pk} to explore {', '.join(row.volume_ids)} of backup {backup.pk} started."
        audit.record(actor, "explore_session.started", row, after=audit.state_of(row), text=text)
    return row


def keep_alive(*, actor: Actor, session: ExploreSession, now: datetime) -> None:
    """Count the idle time from now on. Raises PreconditionFailed for a session that is not open."""
    permissions.require(actor, RIGHT)
    rows = ExploreSession.objects.filter(pk=session.pk, status=ExploreStatus.OPEN, expires_at__gt=now)
    if not rows.update(expires_at=now + explore.idle_time()):
        raise not_open(session)


def end(*, actor: Actor, session: ExploreSession, now: datetime) -> None:
    """No file can be read any more. A session that is over stays as it is."""
    with transaction.atomic():
        row = scope.locked(actor, RIGHT, session, NOUN)
        before = audit.state_of(row)
        if row.status == ExploreStatus.UNDEFINED:
            row.status, row.end_time = ExploreStatus.ENDED, now
            _stop_opening([row.pk])
        elif row.status == ExploreStatus.OPEN:
            row.status, row.expires_at = ExploreStatus.EXPIRING, now + CLOSING_TIME
        row.save(update_fields=["status", "end_time", "expires_at"])
        text = f"Session {row.pk} to explore backup {row.backup_id} ended."
        audit.record(actor, "explore_session.ended", row, before=before, after=audit.state_of(row), text=text)
    HERE.drop(session.pk)


def end_idle(*, now: datetime) -> int:
    """End the sessions whose time is up; returns how many. Any number of processes may do this at once."""
    due = ExploreSession.objects.filter(expires_at__lte=now)
    with transaction.atomic():
        late = list(due.filter(status=ExploreStatus.UNDEFINED).values_list("pk", flat=True))
        words = "No worker has opened the session in time. Are there workers for the queue s3?"
        failed = due.filter(pk__in=late, status=ExploreStatus.UNDEFINED).update(
            status=ExploreStatus.FAILED, failure=words, end_time=now
        )
        _stop_opening(late)
    over = due.filter(status__in=[ExploreStatus.OPEN, ExploreStatus.EXPIRING])
    return failed + over.update(status=ExploreStatus.ENDED, end_time=now)


def used(session: ExploreSession, *, now: datetime) -> None:
    """Note that the session is being used. Raises PreconditionFailed when it is not open (any more)."""
    rows = ExploreSession.objects.filter(pk=session.pk, status=ExploreStatus.OPEN, expires_at__gt=now)
    until = now + explore.idle_time()
    if not rows.filter(expires_at__lte=until - NOTED_EVERY).update(expires_at=until) and not rows.exists():
        HERE.drop(session.pk)
        raise not_open(session)


def not_open(session: ExploreSession) -> PreconditionFailed:
    """Why nothing can be read from it now."""
    row = ExploreSession.objects.filter(pk=session.pk).first() or session
    if row.status == ExploreStatus.UNDEFINED:
        return PreconditionFailed(
            "explore_session_opening", "The session is being opened. Try again in a moment."
        )
    if row.status == ExploreStatus.FAILED:
        return PreconditionFailed(
            "explore_session_failed", f"The session could not be opened. {row.failure}".strip()
        )
    return PreconditionFailed("explore_session_ended", "The session has ended. Create a new one.")


def _stop_opening(ids: Sequence[int]) -> None:
    jobs = Job.objects.filter(
        kind=explore.KIND, subject_type=explore.SUBJECT, subject_id__in=ids, state__in=OPEN_JOBS
    )
    for pk in jobs.values_list("pk", flat=True):
        queue.request_abort(pk)


def _region(id: int | None) -> str:
    if id is None:
        return ""
    regions = Region.objects.filter(enabled=True)
    return scope.referred(regions, id, what="region", field="region").aws_region


def _account(actor: Actor, backup: Backup, id: int | None) -> Account | None:
    """An account of the backup's user; root may also name one of its own."""
    if id is None:
        return None
    reachable = permissions.visible(actor.user, Account.objects.all(), RIGHT)
    reachable = reachable.filter(user__in=[backup.user_id, actor.on_behalf_of.pk])
    return scope.referred(reachable, id, what="account", field="from_account")


def _explorable(backup: Backup) -> None:
    if backup.status in BACKUP_RUNNING:
        raise PreconditionFailed("backup_running", "The backup has not finished yet. Wait for it.")
    if backup.deleted_at is not None or backup.status in {BackupStatus.DELETED, BackupStatus.FAILED}:
        label = BackupStatus(backup.status).label
        raise PreconditionFailed("backup_not_recoverable", f"This backup cannot be explored: {label}.")


def _volumes(backup: Backup, instance: str, volumes: list[str]) -> list[Snapshot]:
    """The records of what is asked for. Raises ValidationFailed."""
    rows = explore.volume_records(backup.pk)
    if instance:
        rows = [
            row for row in rows if instance in (row.instance_id, row.parent.source_id if row.parent else "")
        ]
        if not rows:
            raise ValidationFailed.one(
                "aws_instance_id", f"Backup {backup.pk} has no volumes of {instance}.", "not_found"
            )
    known = {row.source_id: row for row in rows}
    for volume in volumes:
        if volume not in known:
            of = f" of {instance}" if instance else ""
            words = f"Backup {backup.pk} has no volume {volume}{of}."
            raise ValidationFailed.one("aws_volume_ids", words, "not_found")
    chosen = [known[volume] for volume in volumes] if volumes else rows
    if len(chosen) > MOST_VOLUMES:
        words = f"A session has at most {MOST_VOLUMES} volumes. Name an instance, or the volumes to explore."
        raise ValidationFailed.one("aws_volume_ids", words, "too_many")
    if not chosen:
        raise PreconditionFailed("nothing_to_explore", "This backup has no volumes to explore.")
    return chosen


def _readable(
    rows: Sequence[Snapshot], region: str, account: Account | None, now: datetime, *, all_of_them: bool
) -> dict[Snapshot, explore.Record]:
    """Those of which there is something to read, each with what is read first.

    Raises PreconditionFailed if there are none, or not all as wanted.
    """
    at = account.pk if account else None
    candidates = {row: explore.candidates(row, region=region, account=at, now=now) for row in rows}
    found = {row: records[0] for row, records in candidates.items() if records}
    missing = [row for row in rows if row not in found]
    if missing and (all_of_them or not found):
        raise PreconditionFailed("nothing_to_explore", _why(missing[0], bool(region or account)))
    return found


def _why(row: Snapshot, somewhere: bool) -> str:
    if row.s3_copies.filter(succeeded=True, tier=Tier.ARCHIVE).exists():
        return f"{row.source_id} of this backup is archived. Retrieve it from the archive first."
    if somewhere:
        return f"There is no snapshot of {row.source_id} in that region and account, and no copy of it in S3."
    return f"This backup has no snapshot of {row.source_id} and no copy of it in S3. {row.error}".strip()


def _type(rows: Sequence[Snapshot], instance: str) -> ExploreType:
    of = {row.parent_id for row in rows}
    whole = instance or (len(of) == 1 and None not in of)
    return ExploreType.INSTANCE_VOLUMES if whole else ExploreType.INDEPENDENT_VOLUMES
