"""The step of an S3 sync: slices of about a minute, each from where the one before has come to, until the lists end.

A slice that dies is repeated from its cursor, which costs looking again and nothing else. The engine works in threads of its
own; this one asks meanwhile whether the job is to stop, and says how far it is. Objects that lie in an archive, and those that
changed while they were copied, are left out with a warning; objects that S3 refuses fail the sync, when all others are copied.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any
from urllib.parse import quote, unquote

from django.conf import settings

from cpm.flows.identities import identity_of
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec, Wait
from cpm.lib import places
from cpm.lib.states import RunIf, SnapshotStatus, SyncStorageClass
from cpm.models import Account, S3Repository, Snapshot, Target
from cpm.s3_sync import s3_buckets, slices
from cpm.s3_sync.buckets import Buckets, Listed, Page, Stop
from cpm.s3_sync.counts import Counts, Trouble
from cpm.s3_sync.errors import VANISHED, Unsuitable
from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.slices import Slice

SYNC, QUEUE = "backup.s3_sync", "s3"
GIB = 1 << 30
LOOK_SECONDS = 1.0
"""How often a slice asks whether it is to stop."""
TOLD = 5
"""So many keys of each trouble stand in the log."""


# -- planning -----------------------------------------------------------------------------------------------


def mirror_of(bucket: str, options: Mapping[str, Any]) -> Mirror:
    """The mirror that a target with these options makes of the bucket. Raises `Unsuitable`."""
    return Mirror(
        source_bucket=bucket,
        destination_bucket=options["destination_bucket_name"],
        source_prefix=options["source_prefix"],
        destination_prefix=options["destination_prefix"],
        keep_source_prefix=options["keep_source_prefix"],
        delete_extra=options["delete_extra"],
    )


def why_not(mirror: Mirror) -> str:
    """Why this mirror would harm copies of backups; empty if it would not."""
    base = mirror.destination_base
    for row in S3Repository.objects.filter(aws_bucket_name=mirror.destination_bucket):
        emptied = mirror.delete_extra and row.prefix.startswith(base)
        if emptied or base.startswith(row.prefix):
            return (
                f"Bucket {mirror.destination_bucket} has an S3 repository with copies of backups at {row.prefix}, which"
                " this sync would destroy. Choose another bucket, or a prefix beside it."
            )
    return ""


def step(row: Snapshot, target: Target) -> StepSpec | str:
    """The step of a planned record, or why there can be none. It is best done near the destination, to which all but the
    source's lists are sent."""
    options = target.options
    account = Account.objects.filter(pk=options["destination_account"]).first()
    if account is None:
        return "The account of the destination is no longer known to CPM. Choose another one for this S3 sync."
    try:
        why = why_not(mirror_of(target.aws_resource_id, options))
    except Unsuitable as error:
        why = str(error)
    if why:
        return why
    payload = {
        "snapshot": row.pk,
        "account": row.account_id,
        "region": row.region,
        "destination_account": account.pk,
        "bucket": target.aws_resource_id,
        "options": dict(options),
    }
    place = places.at(account.account_number, options["destination_region"])
    return StepSpec(SYNC, payload, key=f"sync-{row.pk}", run_if=RunIf.ENDED, place=place)


# -- a slice ------------------------------------------------------------------------------------------------


def sync(context: StepContext) -> Outcome:
    """One slice. Raises `Halted` for what stops all of it: what passes is tried again from the cursor."""
    earlier = _counts(context)
    if context.cursor is None:
        _begin(context)
    mirror = mirror_of(context.payload["bucket"], context.payload["options"])
    buckets = _Watched(_connected(context, mirror))
    done = _run(context, mirror, buckets, earlier)
    counts = earlier + done.counts
    context.save_cursor({"next": None if done.cursor is None else quote(done.cursor), "counts": _storable(counts)})
    if done.counts.copied or done.counts.deleted or done.counts.seen:
        # What went wrong before has been overcome.
        context.lease.failures = 0
    if done.halted is not None:
        raise done.halted
    if not done.finished:
        return Wait(0.0, message=_words(counts))
    return _ended(context, counts)


def _run(context: StepContext, mirror: Mirror, buckets: "_Watched", earlier: Counts) -> Slice:
    """A slice that ends in time, at an abort, or when the lease is lost."""
    ends = time.monotonic() + settings.CPM_S3_SLICE_SECONDS
    stopped = threading.Event()

    def stop() -> bool:
        # Asked by many threads, which must not touch the database.
        return stopped.is_set() or context.lease.lost.is_set() or time.monotonic() > ends

    cursor = (context.cursor or {}).get("next")
    with ThreadPoolExecutor(1, thread_name_prefix="s3-sync-slice") as executor:
        running: Future[Slice] = executor.submit(
            slices.run, mirror, buckets, cursor=None if cursor is None else unquote(cursor), stop=stop
        )
        try:
            while not wait_for([running], timeout=LOOK_SECONDS).done:
                if context.refresh_aborted():
                    stopped.set()
                context.progress(0, _words(earlier + buckets.counts))
        finally:
            stopped.set()
        return running.result()


class _Watched:
    """Buckets that count what is done with them, for whoever waits."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._lock = threading.Lock()
        self.counts = Counts()

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        page = self._buckets.list_source(prefix, after, token)
        with self._lock:
            self.counts.seen += len(page.objects)
        return page

    def list_destination(self, prefix: str, after: str | None, token: str | None) -> Page:
        return self._buckets.list_destination(prefix, after, token)

    def copy(self, source: Listed, key: str, stop: Stop) -> bool:
        tagged = self._buckets.copy(source, key, stop)
        with self._lock:
            self.counts.copied += 1
            self.counts.copied_bytes += source.size
        return tagged

    def delete(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        refused = self._buckets.delete(keys)
        with self._lock:
            self.counts.deleted += len(keys) - len(refused)
        return refused


def _connected(context: StepContext, mirror: Mirror) -> Buckets:
    payload = context.payload
    session = f"cpm-job-{context.job_id}"
    accounts = Account.objects.in_bulk([payload["account"], payload["destination_account"]])
    reader, writer = (
        identity_of(accounts[payload[name]], session=session) for name in ("account", "destination_account")
    )
    return s3_buckets.connect(
        mirror,
        reader=reader,
        source_region=payload["region"],
        writer=writer,
        destination_region=payload["options"]["destination_region"],
        storage_class=SyncStorageClass(payload["options"]["storage_class"]).label,
    )


def _counts(context: StepContext) -> Counts:
    return Counts.restored((context.cursor or {}).get("counts", {}))


# -- the record ---------------------------------------------------------------------------------------------


def _begin(context: StepContext) -> None:
    with context.fenced():
        _record(context).filter(start_time=None).update(start_time=context.now)


def _ended(context: StepContext, counts: Counts) -> Outcome:
    """All that could be copied is copied. Only what S3 refused makes it a failure."""
    _tell(context, counts)
    changes = {"end_time": context.now, "details": _details(context, counts)}
    if counts.failed.count:
        error = f"{counts.failed.count} objects could not be copied or deleted: {_first(counts.failed)}"
        failed = {"status": SnapshotStatus.ERROR, "succeeded": False, "error": error}
        return Failed(error, write=lambda: _update(context, **changes, **failed))
    worked = {"status": SnapshotStatus.COMPLETED, "succeeded": True, "progress": 100}
    return Done(_words(counts), write=lambda: _update(context, **changes, **worked))


def _tell(context: StepContext, counts: Counts) -> None:
    context.log(f"S3 sync of {context.payload['bucket']}: {_words(counts)}")
    for reason, trouble in counts.skipped.items():
        if reason != VANISHED and trouble.count:
            text = f"{trouble.count} objects were left out, {_SKIPPED[reason]}: {_first(trouble)}"
            context.warn(text)
    if counts.untagged:
        context.warn(f"{counts.untagged} objects were copied without their tags, because rights are missing.")


_SKIPPED = {
    "archived": "as they lie in an archive class and were not retrieved",
    "changed": "as they changed meanwhile; the next run copies them",
}


def _first(trouble: Trouble) -> str:
    shown = [f"{key} ({text})" if text else key for key, text in trouble.first[:TOLD]]
    return ", ".join(_plain(one) for one in shown) + (", …" if trouble.count > TOLD else ".")


def _words(counts: Counts) -> str:
    return (
        f"{counts.seen} objects looked at, {counts.copied} copied ({counts.copied_bytes / GIB:.1f} GiB),"
        f" {counts.deleted} deleted."
    )


def _details(context: StepContext, counts: Counts) -> dict[str, Any]:
    mirror = mirror_of(context.payload["bucket"], context.payload["options"])
    return {"destination": f"{mirror.destination_bucket}/{mirror.destination_base}", **_storable(counts)}


def _storable(counts: Counts) -> dict[str, Any]:
    stored = counts.stored()
    for trouble in (stored["failed"], *stored["skipped"].values()):
        trouble["first"] = [[_plain(key), _plain(text)] for key, text in trouble["first"]]
    return stored


def _plain(text: str) -> str:
    """S3 has keys with a zero byte, which PostgreSQL stores in no text."""
    return text.replace("\0", "\\0")


def _record(context: StepContext) -> Any:
    return Snapshot.objects.filter(pk=context.payload["snapshot"], succeeded=None)


def _update(context: StepContext, **changes: Any) -> None:
    _record(context).update(**changes)


def failed(context: StepContext, message: str) -> None:
    """It ended before its lists did; what was copied until then stays."""
    _update(
        context,
        status=SnapshotStatus.ERROR,
        succeeded=False,
        error=_plain(message),
        end_time=context.now,
        details=_details(context, _counts(context)),
    )


def cancelled(context: StepContext) -> None:
    failed(context, f"Aborted. {_words(_counts(context))}")


KINDS = (StepKind(SYNC, QUEUE, sync, failed=failed, cancelled=cancelled),)
