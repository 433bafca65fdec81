"""Small engines for tests of the job machinery: step kinds made of plain functions, run in this process."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from django.utils import timezone

from cpm.jobs import queue, runner, sweeper
from cpm.jobs.kinds import Engine, StepKind, StepSpec, Verdict, table
from cpm.models import Job, Step

QUEUE = "control"


class Passing(Exception):
    """Trouble that goes away."""


def engine(*kinds: StepKind) -> Engine:
    return Engine(table(*kinds), lambda error: Verdict(str(error), retry=isinstance(error, Passing)))


def kind(name: str, run: Callable, **more: object) -> StepKind:
    return StepKind(name, QUEUE, run, **more)


def start(built: Engine, steps: Sequence[StepSpec], **more: object) -> Job:
    queues = {name: found.queue for name, found in built.kinds.items()}
    return queue.create_jobs([queue.JobSpec("test", "test", 1, steps, **more)], engine_queues=queues)[0]


def run(built: Engine) -> None:
    """Run whatever is due now."""
    runner.drain(QUEUE, engine=built)


def run_to_end(built: Engine, job: Job, rounds: int = 50) -> Job:
    """Run a job to its end, moving the times of its waiting steps to now instead of waiting."""
    for _ in range(rounds):
        job.refresh_from_db()
        if job.finished_at:
            return job
        Step.objects.filter(job=job, state__in=["ready", "waiting"]).update(not_before=timezone.now())
        run(built)
    raise AssertionError(
        f"still {job.state} after {rounds} rounds: {list(job.steps.values('kind', 'state', 'message'))}"
    )


def lose_lease(step: Step) -> None:
    """What the database looks like when a worker died and its lease has run out; then the tick comes."""
    Step.objects.filter(pk=step.pk, state="running").update(lease_until=timezone.now() - timedelta(seconds=1))
    sweeper.sweep(queues=[QUEUE])
