"""Getting an archived copy back: every pack is asked for once, then looked at until all can be read.

Packs are gone through in the order of their keys. A pass that meets one which is not ready stops there and goes on from
it later, so a pack is looked at once more only while it is the first that is missing: thousands of packs cost thousands
of requests in all, not thousands in a minute.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.db.models import Q

from cpm.flows.s3 import repositories, restore_record
from cpm.flows.s3.restore_plan import RETRIEVE
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, Wait
from cpm.lib.states import RetrievalStatus, RetrievalTier, SnapshotStatus, Tier
from cpm.models import S3Copy
from cpm.repository.repository import Repository
from cpm.repository.store import Info

QUEUE = "s3"
SLICE_SECONDS = 60.0
AT_ONCE = 16
BATCH = 8 * AT_ONCE
LEAST_PAUSE, MOST_PAUSE = 4, 64
"""In intervals of polling: the pause after a pass that met a missing pack, doubled up to the longest."""
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def retrieve(context: StepContext) -> Outcome:
    """One slice: ask for packs that have not been asked for, else look at those that were missing."""
    copy = S3Copy.objects.select_related("repository__account").filter(pk=context.payload["copy"]).first()
    if copy is None or copy.repository is None or copy.status != SnapshotStatus.COMPLETED:
        return Failed(f"The archived copy of {context.payload['original']} was deleted meanwhile.")
    if copy.tier != Tier.ARCHIVE:
        return Done("The copy need not be retrieved.")
    if context.cursor is None:
        _begin(context, copy)
    repository = repositories.opened(copy.repository, session=f"cpm-recovery-{context.subject_id}")
    work = _Pass(context, repository, copy)
    return work.ask() if context.cursor["asking"] else work.look()


def _begin(context: StepContext, copy: S3Copy) -> None:
    """From now on it is shown as on its way, unless it can be read already and only stays for longer."""
    context.log(f"Asking S3 to retrieve the archived copy of {context.payload['original']}.")
    readable = Q(retrieve_status=RetrievalStatus.AVAILABLE, retrieve_expiration__gt=context.now)
    with context.fenced():
        S3Copy.objects.filter(pk=copy.pk).exclude(readable).update(retrieve_status=RetrievalStatus.IN_PROGRESS)
        restore_record.show(context, 0, "retrieve")
        context.save_cursor({"asking": True, "after": "", "done": 0, "until": None, "pause": LEAST_PAUSE})


def _given_up(context: StepContext, message: str = "") -> None:
    """Nobody looks any more whether S3 has it ready."""
    if context.cursor is not None:
        on_its_way = S3Copy.objects.filter(
            pk=context.payload["copy"], retrieve_status=RetrievalStatus.IN_PROGRESS
        )
        on_its_way.update(retrieve_status=RetrievalStatus.NONE)


class _Pass:
    """One run of the step over the packs of an archive."""

    def __init__(self, context: StepContext, repository: Repository, copy: S3Copy) -> None:
        self._context = context
        self._store = repository.store
        self._copy = copy
        self._packs = repository.copy(copy.stored_id).draft.area.packs
        self._ends = 0.0

    def ask(self) -> Outcome:
        """RestoreObject for each pack; for one that is retrieved already this prolongs its stay."""
        context = self._context
        with ThreadPoolExecutor(AT_ONCE, "retrieve") as threads:
            for batch in self._batches():
                keys = [info.key for info in batch if info.storage_class in ARCHIVED]
                list(threads.map(self._retrieve, keys))
                self._save(after=batch[-1].key, done=context.cursor["done"] + len(batch))
                if self._stop():
                    return Wait(0.0, message=f"{context.cursor['done']} objects have been asked for.")
        asked = context.cursor["done"]
        self._save(asking=False, after="", done=0, total=asked)
        return self._pause(f"{asked} objects have been asked for.")

    def look(self) -> Outcome:
        """HEAD of the packs in order, from the first that was missing."""
        context = self._context
        told = restore_record.Progress(context, "retrieve")
        missing = context.cursor.get("missing")
        # One question tells whether going on is worth a listing.
        if missing and not self._ready(shown_now := self._store.head(missing)):
            self._missing(shown_now)
            return self._pause("Waiting for S3 to retrieve the archived copy.")
        with ThreadPoolExecutor(AT_ONCE, "retrieve") as threads:
            for batch in self._batches():
                shown = list(threads.map(self._store.head, [info.key for info in batch]))
                first = next(
                    (number for number, info in enumerate(shown) if not self._ready(info)), len(shown)
                )
                self._seen(shown[:first])
                done, total = context.cursor["done"], max(1, context.cursor["total"])
                told.at(min(99, 100 * done // total), f"{done} of {total} objects can be read.")
                if first < len(shown):
                    self._missing(shown[first])
                    return self._pause(f"{done} of {total} objects can be read.")
                if self._stop():
                    return Wait(0.0, message="Looking at the objects that were asked for.")
        return self._all_there()

    def _batches(self) -> Iterator[list[Info]]:
        after = self._context.cursor["after"]
        rest = (info for info in self._store.list(self._packs) if info.key > after)
        while batch := list(islice(rest, BATCH)):
            # Listing anew up to the cursor may take long, and must not leave a slice without any work.
            self._ends = self._ends or time.monotonic() + SLICE_SECONDS
            yield batch

    def _stop(self) -> bool:
        return time.monotonic() > self._ends or self._context.refresh_aborted()

    @staticmethod
    def _ready(info: Info) -> bool:
        return info.retrieval in (None, "ready")

    def _missing(self, info: Info) -> None:
        """Remember where to go on; what has gone again meanwhile, because its days were over, is asked for anew."""
        if info.retrieval == "needed":
            self._retrieve(info.key)
        self._save(missing=info.key)

    def _retrieve(self, key: str) -> None:
        payload = self._context.payload
        self._store.retrieve(key, tier=RetrievalTier(payload["tier"]).label, days=payload["days"])

    def _seen(self, infos: list[Info]) -> None:
        if not infos:
            return
        known = self._context.cursor["until"]
        ends = [info.retrieved_until for info in infos if info.retrieved_until is not None]
        ends += [datetime.fromisoformat(known)] if known else []
        self._save(
            after=infos[-1].key,
            done=self._context.cursor["done"] + len(infos),
            until=min(ends).astimezone(UTC).isoformat() if ends else None,
            pause=LEAST_PAUSE,
            missing=None,
        )

    def _save(self, **changed: Any) -> None:
        self._context.save_cursor({**self._context.cursor, **changed})

    def _pause(self, message: str) -> Wait:
        pause = self._context.cursor["pause"]
        self._save(pause=min(MOST_PAUSE, 2 * pause))
        return Wait(pause * settings.CPM_POLL_SECONDS, message=message)

    def _all_there(self) -> Outcome:
        context, until = self._context, self._context.cursor["until"]

        def write() -> None:
            S3Copy.objects.filter(pk=self._copy.pk).update(
                retrieve_status=RetrievalStatus.AVAILABLE, retrieve_expiration=until
            )
            restore_record.show(context, 100, "retrieve")

        context.log(
            f"The archived copy of {context.payload['original']} can be read{f' until {until}' if until else ''}."
        )
        return Done(write=write)


KINDS = (StepKind(RETRIEVE, QUEUE, retrieve, failed=_given_up, cancelled=_given_up),)
