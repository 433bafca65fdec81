"""Verifying a repository against its own bytes and against what the database says: which backups suffer from what.

Reading is cut into slices; whoever goes on starts behind the last batch of packs. The result stays on the repository's
row, on each copy (`S3Copy.damaged`), and in an alert.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from django.db import transaction
from django.utils import timezone

from cpm.flows.s3 import deletion, repositories, repository_health
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib.states import DeletionStatus, RetrievalStatus, SnapshotStatus, Tier, VerifyDepth, VerifyResult
from cpm.models import S3Copy, S3Repository
from cpm.repository import manifest
from cpm.repository.pack_reading import Reading, read_packs
from cpm.repository.repository import Repository
from cpm.repository.verify import Depth, Report, started, verify

KIND = "verification"
SUBJECT = repositories.SUBJECT
STEP = "repository.verify"
QUEUES = {STEP: repositories.QUEUE}
SLICE_SECONDS = 60.0
NAMED = 20
"""How many findings, affected volumes and strangers the row of a repository names."""

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verification:
    """A report in terms of records. `affected` are the copies that cannot be restored, with backup and snapshot;
    `strangers` are ids of copies in the bucket that no record knows."""

    report: Report
    affected: Sequence[S3Copy]
    strangers: Sequence[str]

    @property
    def result(self) -> VerifyResult:
        return VerifyResult.DAMAGED if self.report.damage else VerifyResult.SOUND


def job(row: S3Repository, depth: VerifyDepth) -> JobSpec:
    step = StepSpec(STEP, {"depth": depth.value}, place=deletion.place_of(row))
    return JobSpec(KIND, SUBJECT, row.pk, [step], user_id=row.user_id)


def check(
    row: S3Repository,
    depth: VerifyDepth,
    *,
    session: str = "cpm-repository",
    on_progress: Progress = lambda done, total: None,
) -> Verification:
    """Verify in this process. The result stays on the row, also when it could not be read. Raises what `opened` does."""
    try:
        repository = repositories.opened(row, session=session)
        reading = started(Depth(depth.value))
        read_packs(repository, reading, on_progress=on_progress)
        found = _judge(row, repository, depth, reading)
        repositories.take_stock(row, repository)
    except Exception as error:
        with transaction.atomic():
            repository_health.remember(row, depth, VerifyResult.FAILED, str(error), now=timezone.now())
        raise
    with transaction.atomic():
        _remember(row, depth, found)
    return found


def summary(found: Verification) -> str:
    """A verification in words: how many copies are sound, whose backups are not, what is damaged, and what is unknown."""
    report = found.report
    lines = [f"{len(report.sound)} copies are sound, {len(report.affected)} are not."]
    lines += _first(found.affected, _named, "volumes")
    lines += _first(report.damage, lambda finding: f"{finding.key}: {finding.reason}", "objects")
    if found.strangers:
        lines.append(
            f"{len(found.strangers)} copies are in the bucket that no record knows; a rebuild records them."
        )
    return "\n".join(lines)


def _first(things: Sequence[T], words: Callable[[T], str], noun: str) -> Iterable[str]:
    yield from (words(thing) for thing in things[:NAMED])
    if len(things) > NAMED:
        yield f"And {len(things) - NAMED} more {noun}."


def _named(copy: S3Copy) -> str:
    backup, volume = copy.backup, copy.snapshot
    of = f" of {volume.instance_id}" if volume.instance_id else ""
    return f"Backup {backup.pk} of policy {backup.policy_name}, {backup.start_time:%Y-%m-%d %H:%M} UTC: {volume.source_id}{of}."


# -- judging ----------------------------------------------------------------------------------------------


def _expected(row: S3Repository) -> set[str]:
    """Copies that have to be in the bucket."""
    rows = S3Copy.objects.filter(repository=row, status=SnapshotStatus.COMPLETED, succeeded=True)
    return {copy.stored_id for copy in rows.exclude(pk__in=deletion.going().values("pk"))}


def _judge(row: S3Repository, repository: Repository, depth: VerifyDepth, reading: Reading) -> Verification:
    expected = _expected(row)
    report = verify(repository, Depth(depth.value), expected=expected, reading=reading)
    # What a cleanup has deleted meanwhile is not missed.
    gone = expected - _expected(row)
    report.findings = [
        finding
        for finding in report.findings
        if not (finding.key.startswith(manifest.COPIES) and set(finding.copies) & gone)
    ]
    hurt = report.affected
    rows = S3Copy.objects.filter(repository=row).exclude(status=SnapshotStatus.DELETED)
    known = list(rows.select_related("backup", "snapshot").order_by("backup__start_time", "pk"))
    strangers = set(manifest.ids(repository.store)) - _ids(row)
    return Verification(report, [copy for copy in known if copy.stored_id in hurt], sorted(strangers))


def _ids(row: S3Repository) -> set[str]:
    pairs = S3Copy.objects.filter(repository=row).values_list("copy_id", "archive_id")
    return {one for pair in pairs for one in pair}


def _remember(row: S3Repository, depth: VerifyDepth, found: Verification) -> None:
    hurt = [copy.pk for copy in found.affected]
    sound = set(found.report.sound)
    copies = S3Copy.objects.filter(repository=row)
    copies.filter(pk__in=hurt).update(damaged=True)
    healed = [
        copy.pk
        for copy in copies.filter(damaged=True).exclude(pk__in=hurt)
        if copy.stored_id in sound and _could_tell(copy, depth)
    ]
    copies.filter(pk__in=healed).update(damaged=False)
    repository_health.remember(row, depth, found.result, summary(found), now=timezone.now())


def _could_tell(copy: S3Copy, depth: VerifyDepth) -> bool:
    """Damage of archives is noted nowhere else, so only who has read all of one may call it sound again."""
    read = depth == VerifyDepth.FULL and copy.retrieve_status == RetrievalStatus.AVAILABLE
    return copy.tier != Tier.ARCHIVE or read


# -- the step ---------------------------------------------------------------------------------------------


def run(context: StepContext) -> Outcome:
    row = _row(context)
    if row is None or row.deletion_status == DeletionStatus.IN_PROGRESS:
        return Done("The repository is being deleted.")
    depth = VerifyDepth(context.payload["depth"])
    repository = repositories.opened(row, session=f"cpm-job-{context.job_id}")
    reading = Reading.of_json(context.cursor) if context.cursor else started(Depth(depth.value))
    ends = time.monotonic() + SLICE_SECONDS

    def tell(done: int, total: int) -> None:
        where = f" of {reading.area}" if reading.area else ""
        context.progress(100 * done // max(total, 1), f"{done} of {total} packs{where} read.")

    finished = read_packs(
        repository,
        reading,
        enough=lambda: time.monotonic() > ends or context.refresh_aborted(),
        on_progress=tell,
    )
    context.save_cursor(reading.as_json())
    if not finished:
        return Wait(0.0, message=f"{reading.bytes_read >> 20} MiB read.")
    found = _judge(row, repository, depth, reading)
    repositories.take_stock(row, repository)
    words = summary(found)
    (context.error if found.report.damage else context.log)(f"Repository {row.name} was verified. {words}")
    return Done(words.splitlines()[0], write=lambda: _remember(row, depth, found))


def _failed(context: StepContext, message: str) -> None:
    """Nobody knows how it is, which is told like damage."""
    row = _row(context)
    if row is not None:
        depth = VerifyDepth(context.payload["depth"])
        repository_health.remember(row, depth, VerifyResult.FAILED, message, now=timezone.now())


def _row(context: StepContext) -> S3Repository | None:
    return S3Repository.objects.select_related("account", "user").filter(pk=context.subject_id).first()


KINDS = (StepKind(STEP, repositories.QUEUE, run, failed=_failed),)
