"""Creating jobs and steps, offering steps to workers, asking a job to stop.

The rows are the truth. A message only says "look at this step"; losing or repeating one is harmless,
because `cpm.jobs.sweeper` offers again whatever is due and nobody works on.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TypeAlias, cast

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from cpm.jobs import fleet
from cpm.jobs.kinds import Engine, StepSpec
from cpm.lib import places
from cpm.lib.states import JobState, StepState
from cpm.models import Job, Step, bulk
from cpm.models.base import new_ids

log = structlog.get_logger(__name__)

# One transaction sends at most this many messages per queue: each message's worker goes on with the next due
# steps of the queue by itself, so more messages would only be work for Redis.
FAN_OUT = 16

Wake: TypeAlias = Callable[[Sequence[tuple[str, int]]], None]


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job to be made. `secret` is an already encrypted text that is erased when the job settles."""

    kind: str
    subject_type: str
    subject_id: int | None
    steps: Sequence[StepSpec]
    user_id: int | None = None
    secret: str = ""
    deadline: datetime | None = None


@cache
def _wake() -> Wake:
    return cast(Wake, import_string(settings.CPM_JOBS_WAKE))


def no_wake(steps: Sequence[tuple[str, int]]) -> None:
    """A wake-up hook for processes without a broker: the sweeper finds the steps."""


def offer(steps: Iterable[tuple[str, int]]) -> None:
    """Tell workers about (queue, step id) pairs once the current transaction has committed."""
    chosen: list[tuple[str, int]] = []
    per_queue: dict[str, int] = defaultdict(int)
    for queue, step_id in steps:
        per_queue[queue] += 1
        if per_queue[queue] <= FAN_OUT:
            chosen.append((queue, step_id))
    if chosen:
        transaction.on_commit(lambda: _wake()(chosen))


def create_jobs(specs: Sequence[JobSpec], *, engine_queues: Mapping[str, str]) -> list[Job]:
    """Insert jobs with their steps in three statements and offer the steps that may start.

    `engine_queues` maps a step kind to its queue. Must run in the transaction that makes the subjects.
    """
    job_ids = new_ids(Job, len(specs))
    step_ids = iter(new_ids(Step, sum(len(spec.steps) for spec in specs)))
    jobs, steps = [], []
    for job_id, spec in zip(job_ids, specs, strict=True):
        jobs.append(
            Job(
                id=job_id,
                kind=spec.kind,
                subject_type=spec.subject_type,
                subject_id=spec.subject_id,
                user_id=spec.user_id,
                secret=spec.secret,
                deadline=spec.deadline,
                open_steps=len(spec.steps),
                state=JobState.QUEUED if spec.steps else JobState.SUCCEEDED,
            )
        )
        steps.extend(_rows(job_id, spec.steps, step_ids, engine_queues, finished=()))
    with transaction.atomic():
        bulk.insert(jobs)
        bulk.insert(steps)
        offer((step.queue, step.id) for step in steps if not step.pending_after)
    return jobs


def add_steps(job_id: int, specs: Sequence[StepSpec], *, engine: Engine) -> list[Step]:
    """Append steps to a job whose row the caller has locked. Steps named in `after` may be over already."""
    queues = {name: kind.queue for name, kind in engine.kinds.items()}
    known = [ref for spec in specs for ref in spec.after if isinstance(ref, int)]
    over = set(
        Step.objects.filter(job_id=job_id, id__in=known, finished_at__isnull=False).values_list(
            "id", flat=True
        )
    )
    steps = _rows(job_id, specs, iter(new_ids(Step, len(specs))), queues, finished=over)
    Step.objects.bulk_create(steps)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE cpm_job SET open_steps = open_steps + %s WHERE id = %s", [len(steps), job_id])
    offer((step.queue, step.id) for step in steps if not step.pending_after)
    return steps


def request_abort(job_id: int) -> bool:
    """Ask an open job to stop. Its waiting steps become due, so that what they made is removed now.

    Returns whether the job was open and had not been asked before.
    """
    with transaction.atomic():
        asked = Job.objects.filter(
            pk=job_id, state__in=[JobState.QUEUED, JobState.RUNNING], abort_requested_at=None
        ).update(abort_requested_at=timezone.now())
        if asked:
            due = Step.objects.filter(
                job_id=job_id, state__in=[StepState.READY, StepState.WAITING], pending_after=0
            )
            due.update(not_before=timezone.now())
            offer(due.values_list("queue", "id"))
    return bool(asked)


def retry_failed(job_id: int) -> int:
    """Run the failed and cancelled steps of a failed job again, and all that come after them; returns how many."""
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if job.state != JobState.FAILED:
            return 0
        again = _to_repeat(list(Step.objects.filter(job=job).order_by("id")))
        now = timezone.now()
        for step in again.values():
            Step.objects.filter(pk=step.pk).update(
                state=StepState.READY,
                pending_after=sum(1 for before in step.after if before in again),
                failures=0,
                finished_at=None,
                not_before=now,
                message="",
            )
        Job.objects.filter(pk=job.pk).update(
            state=JobState.RUNNING,
            open_steps=len(again),
            finished_at=None,
            abort_requested_at=None,
            deadline=None,
        )
        offer((step.queue, step.pk) for step in again.values() if not set(step.after) & set(again))
    return len(again)


def _to_repeat(steps: Sequence[Step]) -> dict[int, Step]:
    """The steps that did not succeed, with everything that stands after one of them."""
    chosen = {step.pk: step for step in steps if step.state in {StepState.FAILED, StepState.CANCELLED}}
    grown = True
    while grown:
        more = {s.pk: s for s in steps if s.pk not in chosen and any(ref in chosen for ref in s.after)}
        chosen |= more
        grown = bool(more)
    return chosen


def _rows(
    job_id: int,
    specs: Sequence[StepSpec],
    ids: Iterable[int],
    queues: Mapping[str, str],
    finished: Iterable[int],
) -> list[Step]:
    numbered = list(zip(specs, ids, strict=False))
    by_key = {spec.key: step_id for spec, step_id in numbered if spec.key}
    over = set(finished)
    now = timezone.now()
    served = fleet.served_at_places() if any(spec.place for spec in specs) else set()
    offered = now + timedelta(seconds=settings.CPM_OFFER_SECONDS)
    rows = []
    for spec, step_id in numbered:
        after = [ref if isinstance(ref, int) else by_key[ref] for ref in spec.after]
        rows.append(
            Step(
                id=step_id,
                job_id=job_id,
                kind=spec.kind,
                queue=places.route(queues[spec.kind], spec.place, served),
                place=spec.place if queues[spec.kind] in places.QUEUES else "",
                payload=dict(spec.payload),
                after=after,
                pending_after=sum(1 for ref in after if ref not in over),
                run_if=spec.run_if,
                not_before=spec.not_before or now,
                offered_until=offered,
                created_at=now,
            )
        )
    return rows
