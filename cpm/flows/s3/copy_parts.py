"""The steps that copy one volume: parts of it, each in slices, then the seal that makes a copy of them.

A part goes on from its cursor, which says what was made durable; whoever takes it over repeats at most what came after
that. Blocks already in the repository are not stored again, so repeating costs time and nothing else.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from django.conf import settings
from django.db import connection
from django.db.models import F

from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.aws.errors import AwsError
from cpm.flows.identities import identity_of
from cpm.flows.s3 import records, repositories
from cpm.flows.s3.copy_blocks import AHEAD, NoBase, Source, Tally, copy_blocks, threads
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.lib.states import CopyStatus, SnapshotKind, SnapshotStatus
from cpm.models import S3Copy, S3Repository, Snapshot, Step
from cpm.repository.blocks import SEGMENT_BLOCKS
from cpm.repository.delays import VIEW_LIFETIME
from cpm.repository.errors import Damaged, ObjectMissing
from cpm.repository.index import View
from cpm.repository.manifest import Manifest
from cpm.repository.repository import Repository
from cpm.repository.writer import CopyWriter

QUEUE = "s3"
PART, SEAL = "s3_copy.part", "s3_copy.seal"
EXPORT, PACK = "s3_copy.export", "s3_copy.pack"
TRANSFERS = (PART, EXPORT, PACK)
"""The steps that bring data; their payload says how many blocks they count for."""
GIB, MIB = 1 << 30, 1 << 20
SHOW_SECONDS = 2.0
"""How often the backup's percentage is counted anew by each worker."""

RELATED = (
    "repository__account", "base__snapshot", "snapshot__account", "snapshot__parent",
    "backup__user", "backup__account", "backup__policy",
)  # fmt: skip
_SHOW = """
UPDATE cpm_backup SET s3_copy_progress = shown.percent FROM (
    SELECT coalesce(sum(progress * (payload->>'blocks')::bigint)
                    / nullif(sum((payload->>'blocks')::bigint), 0), 0) AS percent
    FROM cpm_step WHERE job_id = %s AND kind = ANY(%s)) AS shown
WHERE id = %s AND s3_copy_status IN ('P', 'G') AND s3_copy_progress < shown.percent
"""

_GOING_ON = (CopyStatus.INITIALIZING, CopyStatus.IN_PROGRESS, CopyStatus.ABORTING)

# What the last slice in this process knew of a repository, so that the next need not read its whole index again.
_views: dict[bytes, View] = {}


def of_payload(context: StepContext) -> S3Copy:
    """The copy that the step works for, with all that its manifest says."""
    return S3Copy.objects.select_related(*RELATED).get(pk=context.payload["copy"])


def opened(context: StepContext, copy: S3Copy) -> Repository:
    """The copy's repository. Raises what `repositories.opened` raises."""
    assert copy.repository is not None
    return repositories.opened(
        copy.repository, session=f"cpm-job-{context.job_id}", storage_class=copy.storage_class
    )


def gone(copy: S3Copy) -> str:
    """Why the copy can be neither made nor finished; empty if it can."""
    if copy.repository is None:
        return "The S3 repository was deleted."
    if copy.snapshot.account is None:
        return f"{copy.snapshot.aws_id} cannot be read: its account is no longer known to CPM."
    return ""


def ended(copy: S3Copy) -> Outcome | None:
    """How a step ends whose copy is over or can be nothing any more; None if there is something to do."""
    if copy.succeeded is None:
        why = gone(copy)
        return Failed(why) if why else None
    if copy.succeeded or copy.backup.s3_copy_status in _GOING_ON:
        return Done("The copy of this volume is over.")
    # The job is being tried again: it must not seem to have copied anything.
    return Failed("What was stored of this copy has been dropped. The next backup of the policy is copied instead.")


def _ebs(context: StepContext, copy: S3Copy) -> EbsDirect:
    row = copy.snapshot
    assert row.account is not None
    return EbsDirect(identity_of(row.account, session=f"cpm-job-{context.job_id}"), row.region, ahead=AHEAD)


# -- a part -----------------------------------------------------------------------------------------------


def part(context: StepContext) -> Outcome:
    """A slice of the part. Payload: copy, first and end (segments), blocks (how many)."""
    copy = of_payload(context)
    if over := ended(copy):
        return over
    slice_ = Slice(context, copy, opened(context, copy), context.payload["end"])
    try:
        slice_.run()
    except NoBase as error:
        # Parts that have used the base are right all the same: each says what its own segments consist of.
        with context.fenced():
            S3Copy.objects.filter(pk=copy.pk).update(base=None)
        context.warn(f"{copy.snapshot.source_id} is read as a whole, not only what changed. {error}")
        return Wait(0.0, message="Reading the whole volume.")
    if slice_.next < context.payload["end"]:
        # What went wrong before has been overcome.
        context.lease.failures = 0
        return Wait(0.0, progress=slice_.percent, message=slice_.words())
    return Done(slice_.words())


class Fill(Protocol):
    """Writes what a writer is there for, until it is `enough`; as `copy_blocks`."""

    def __call__(
        self,
        writer: CopyWriter,
        tally: Tally,
        *,
        enough: Callable[[], bool],
        tell: Callable[[int], None],
        checkpointed: Callable[[dict[str, Any]], None],
    ) -> None: ...


class Slice:
    """One turn at a part of an image: the cursor it starts from, and what it shows while it goes on."""

    def __init__(self, context: StepContext, copy: S3Copy, repository: Repository, end: int) -> None:
        self.context = context
        self.copy = copy
        self.repository = repository
        self.end = end
        self.first: int = context.payload.get("first", 0)
        cursor: dict[str, Any] = context.cursor or {}
        self.next: int = cursor.get("next", self.first)
        self.tally = Tally(**cursor.get("tally", {}))
        self.based: bool = cursor.get("based", False)
        self.unclean: bool = cursor.get("unclean", False)
        self._block = self.next * SEGMENT_BLOCKS
        self._stop = False
        self._ends = time.monotonic() + settings.CPM_S3_SLICE_SECONDS
        self._told = self._shown = time.monotonic()

    def run(self) -> None:
        """Copy from the snapshot. Raises `NoBase` and what `fill` raises."""
        parent, source = self._parent(), self._source()

        def blocks(writer: CopyWriter, tally: Tally, **tell: Callable[..., Any]) -> None:
            copy_blocks(writer, source, tally, **tell)

        self.fill(blocks, parent)

    def fill(self, fill: Fill, parent: Manifest | None = None) -> None:
        """Write until the time is up. Raises whatever reading and writing raise."""
        view = self._view()
        with CopyWriter(
            self.repository, records.draft(self.copy), first=self.next, end=self.end, parent=parent, threads=threads(),
            background=threads(), view=view,
        ) as writer:  # fmt: skip
            if self.unclean:
                writer.adopt_orphans()
            self._save(unclean=True)
            fill(
                writer,
                self.tally,
                enough=self._enough,
                tell=self._tell,
                checkpointed=self._checkpointed,
            )
        self._save(unclean=False)
        if self.next < self.end and self._fresh(view):
            _views[self.repository.id] = view
        show(self.context)

    @property
    def percent(self) -> int:
        blocks = (self.end - self.first) * SEGMENT_BLOCKS
        return min(99, 100 * (self._block - self.first * SEGMENT_BLOCKS) // blocks)

    def words(self) -> str:
        blocks = (self.end - self.first) * SEGMENT_BLOCKS
        done = min(self._block - self.first * SEGMENT_BLOCKS, blocks)
        return f"{_gib(done)} of {_gib(blocks)} GiB done, {_gib(self.tally.read)} GiB read."

    def _parent(self) -> Manifest | None:
        if self.copy.base is None:
            return None
        try:
            return self.repository.copy(self.copy.base.copy_id)
        except (ObjectMissing, Damaged) as error:
            raise NoBase(str(error)) from error

    def _source(self) -> Source:
        base = self.copy.base
        ebs = _ebs(self.context, self.copy)
        return Source(ebs, self.copy.snapshot.aws_id, base.snapshot.aws_id if base else "")

    def _view(self) -> View:
        """What an earlier slice knew, while that is good for another whole slice; else a new look."""
        known = _views.pop(self.repository.id, None)
        _views.clear()
        return known if known is not None and self._fresh(known) else self.repository.view()

    def _fresh(self, view: View) -> bool:
        # A writer looks again by itself after this time, and then knows more than the view it was given.
        return self.repository.clock() - view.taken < VIEW_LIFETIME / 4

    def _enough(self) -> bool:
        return self._stop or self.context.lease.lost.is_set() or time.monotonic() > self._ends

    def _tell(self, block: int) -> None:
        self._block = max(block, self._block)
        now = time.monotonic()
        if now - self._told < 1:
            return
        self._told = now
        self._stop = self.context.refresh_aborted()
        self.context.progress(self.percent, self.words())
        if now - self._shown >= SHOW_SECONDS:
            self._shown = now
            show(self.context)

    def _checkpointed(self, cursor: dict[str, Any]) -> None:
        self.next = cursor["next"]
        self.based = self.based or self.copy.base is not None
        self._block = self.next * SEGMENT_BLOCKS
        self._save(unclean=True)
        self._stop = self.context.refresh_aborted()

    def _save(self, *, unclean: bool) -> None:
        """`unclean`: a worker that dies now may leave packs that no index names; its successor looks for them."""
        self.context.save_cursor(
            {"next": self.next, "tally": asdict(self.tally), "based": self.based, "unclean": unclean}
        )


def show(context: StepContext) -> None:
    """Bring the percentage of the whole backup up to date."""
    with connection.cursor() as cursor:
        cursor.execute(_SHOW, [context.job_id, list(TRANSFERS), context.subject_id])


def _gib(blocks: int) -> str:
    return f"{blocks * BLOCK / GIB:.1f}"


def failed(context: StepContext, message: str) -> None:
    """Only this volume is given up; what other parts of it are doing ends with their slices."""
    S3Copy.objects.filter(pk=context.payload["copy"], succeeded=None).update(
        status=SnapshotStatus.ERROR, succeeded=False, error=message, end_time=context.now
    )


def part_overtaken(context: StepContext) -> None:
    """Progress that was written too late: of a copy that is over, nobody would look for it again before a prune."""
    copy = of_payload(context)
    if copy.succeeded is not None and not gone(copy):
        opened(context, copy).abort_copy(copy.copy_id)


# -- the seal ---------------------------------------------------------------------------------------------


def seal(context: StepContext) -> Outcome:
    """All parts are through: write the manifest, from which moment on the copy exists. Payload: copy."""
    copy = of_payload(context)
    if over := ended(copy):
        return over
    manifest = opened(context, copy).finish_copy(records.draft(copy))
    valid = valid_mib(context, copy)
    return Done(write=lambda: completed(context, copy, manifest, valid))


def completed(context: StepContext, copy: S3Copy, manifest: Manifest, valid: int | None) -> None:
    """Record what was copied, once; `valid` is of `valid_mib`. Needs a transaction."""
    tallies = _tallies(_cursors(context, copy))
    figures = manifest.figures
    row = S3Copy.objects.filter(pk=copy.pk).exclude(succeeded=True)
    changed = row.update(
        status=SnapshotStatus.COMPLETED,
        succeeded=True,
        error="",
        end_time=context.now,
        bytes_read=sum(tally.read for tally in tallies) * BLOCK,
        bytes_new=figures.get("new", 0),
        bytes_stored=figures.get("stored", 0),
    )
    if not changed:
        return
    # Databases have no changed blocks to tell of.
    volume = Snapshot.objects.filter(pk=copy.snapshot_id, kind=SnapshotKind.VOLUME)
    volume.update(
        cbt_valid_size_mb=valid,
        cbt_changed_size_mb=_mib(sum(tally.listed for tally in tallies)),
    )
    assert copy.repository is not None
    S3Repository.objects.filter(pk=copy.repository.pk).update(
        bytes_stored=F("bytes_stored") + figures.get("stored", 0),
        blocks_stored=F("blocks_stored") + figures.get("new", 0) // BLOCK,
        copies_stored=F("copies_stored") + 1,
    )
    context.log(
        f"Copied {copy.snapshot.aws_id} of {copy.snapshot.source_id} to S3:"
        f" {_gib(sum(tally.read for tally in tallies))} GiB read, {figures.get('new', 0) / GIB:.1f} GiB new,"
        f" {figures.get('stored', 0) / GIB:.1f} GiB stored."
    )


def seal_overtaken(context: StepContext) -> None:
    """A seal that came too late: of a copy that was given up meanwhile, nobody would look for the manifest again."""
    copy = of_payload(context)
    if copy.succeeded is False and not gone(copy):
        opened(context, copy).delete_copy(copy.copy_id)


def _cursors(context: StepContext, copy: S3Copy) -> list[dict[str, Any]]:
    steps = Step.objects.filter(job_id=context.job_id, kind__in=(PART, PACK), payload__copy=copy.pk)
    return [cursor for cursor in steps.values_list("cursor", flat=True) if cursor is not None]


def _tallies(cursors: list[dict[str, Any]]) -> list[Tally]:
    return [Tally(**cursor["tally"]) for cursor in cursors]


def valid_mib(context: StepContext, copy: S3Copy) -> int | None:
    """The size of all blocks that the snapshot has, counted on from the base if there is one.

    What cannot be counted on, because the base was lost on the way or its own size is not known, is asked of AWS. None
    if AWS does not tell: the copy is complete all the same.
    """
    cursors = _cursors(context, copy)
    blocks = sum(tally.gained - tally.gone for tally in _tallies(cursors))
    if not any(cursor["based"] for cursor in cursors):
        return _mib(blocks)
    before = copy.base.snapshot.cbt_valid_size_mb if copy.base is not None else None
    if before is not None:
        return max(0, before + _mib(blocks))
    try:
        return _mib(sum(1 for _ in _ebs(context, copy).list_blocks(copy.snapshot.aws_id)))
    except AwsError as error:
        context.warn(f"How much {copy.snapshot.aws_id} holds is not known. {error.explain()}")
        return None


def _mib(blocks: int) -> int:
    return -(-blocks * BLOCK // MIB)


KINDS = (
    StepKind(PART, QUEUE, part, failed=failed, overtaken=part_overtaken),
    StepKind(SEAL, QUEUE, seal, failed=failed, overtaken=seal_overtaken),
)
