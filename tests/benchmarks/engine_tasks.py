"""The tasks of the engine benchmark: a step kind and a plain task that do nothing."""

from collections.abc import Sequence

from cpm.jobs import runner
from cpm.jobs.kinds import Done, Engine, StepKind, Verdict, table
from workers.app import app

QUEUE = "control"
ENGINE = Engine(
    table(StepKind("bench.nothing", QUEUE, lambda context: Done())),
    lambda error: Verdict(repr(error), retry=False),
)


@app.task(name="bench.run_step")
def run_step(*, step_id: int, **_: object) -> None:
    """What workers.run_step does, with the benchmark's engine."""
    runner.run_message(step_id, engine=ENGINE, queue_name=QUEUE)


@app.task(name="bench.nothing")
def nothing(*, number: int) -> None:
    """A plain Celery task of the same size."""


def wake(steps: Sequence[tuple[str, int]]) -> None:
    """The wake-up hook of the benchmark."""
    for queue, step_id in steps:
        run_step.apply_async(kwargs={"step_id": step_id}, queue=queue)
