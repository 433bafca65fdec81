"""Watching what backups and DR have started until AWS says that it is complete, or never will be."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings

from cpm.aws import known_errors
from cpm.flows import polling
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, Wait
from cpm.lib.states import SnapshotStatus
from cpm.models import Snapshot
from cpm.resources.base import Shown


def watch(context: StepContext) -> Outcome:
    """Join the others who watch the same kind of thing in this account and region."""
    return polling.again(context.now, group=_group(context))


def rows_of(contexts: Sequence[StepContext]) -> dict[int, list[Snapshot]]:
    """The records that each step watches."""
    wanted = {context.step_id: context.payload["rows"] for context in contexts}
    by_id = Snapshot.objects.in_bulk([row for rows in wanted.values() for row in rows])
    return {step: [by_id[row] for row in rows if row in by_id] for step, rows in wanted.items()}


def judge(context: StepContext, rows: list[Snapshot], shown: Mapping[str, Shown]) -> Outcome:
    """The outcome of one watching step: done when all its rows are over, failed if one of them failed."""
    progress, changed, open_rows = 0, [], 0
    for row in rows:
        if row.status == SnapshotStatus.PENDING:
            before = (row.status, row.progress, row.aws_id)
            _apply(context, row, shown.get(row.aws_id))
            if (row.status, row.progress, row.aws_id) != before:
                changed.append(row)
        open_rows += row.status == SnapshotStatus.PENDING
        progress += row.progress
    percent = progress // max(len(rows), 1)

    def write() -> None:
        Snapshot.objects.bulk_update(
            changed, ["aws_id", "status", "progress", "succeeded", "end_time", "error", "details", "capacity"]
        )

    if open_rows:
        wait: Wait = polling.again(context.now, group=_group(context), progress=percent)
        return dataclasses.replace(wait, write=write) if changed else wait
    failed = [row for row in rows if not row.succeeded]
    if failed:
        return Failed("; ".join(f"{row.aws_id or row.source_id}: {row.error}" for row in failed), write=write)
    context.log("; ".join(f"Snapshot {row.aws_id} of {row.source_id} is complete" for row in rows) + ".")
    return Done(write=write)


def mark_failed(context: StepContext, message: str) -> None:
    """A step ended without its snapshots: their records say why."""
    rows = context.payload.get("rows") or [
        *context.payload.get("snapshots", {}).values(),
        *([context.payload["snapshot"]] if "snapshot" in context.payload else []),
    ]
    Snapshot.objects.filter(pk__in=rows, succeeded=None).update(
        status=SnapshotStatus.ERROR, succeeded=False, error=message, end_time=context.now
    )


def _group(context: StepContext) -> str:
    payload = context.payload
    return polling.group(payload["account"], payload["region"], payload["what"])


def _apply(context: StepContext, row: Snapshot, shown: Shown | None) -> None:
    if shown is None:
        # AWS's lists may lag behind the creation, which was over when this step first ran.
        if context.now - context.lease.started_at > timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS):
            _end(row, SnapshotStatus.ERROR, context.now, f"{row.aws_id} was deleted before it was complete.")
        return
    row.details = {**row.details, **shown.details}
    row.capacity = shown.capacity or row.capacity
    row.aws_id = shown.aws_id or row.aws_id
    if shown.state is SnapshotStatus.PENDING:
        row.progress = min(shown.progress, 99)
    elif shown.state is SnapshotStatus.COMPLETED:
        row.progress = 100
        _end(row, SnapshotStatus.COMPLETED, context.now, "")
    else:
        reason = known_errors.explain_state(shown.reason) or "AWS gives no reason."
        _end(row, SnapshotStatus.ERROR, context.now, f"{row.aws_id} ended in error: {reason}")


def _end(row: Snapshot, status: SnapshotStatus, now: datetime, error: str) -> None:
    row.status, row.succeeded, row.end_time, row.error = (
        status,
        status is SnapshotStatus.COMPLETED,
        now,
        error,
    )
