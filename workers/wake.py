"""The wake-up hook of `cpm.jobs.queue`: sends one message per step."""

from collections.abc import Sequence

import structlog
from kombu import Queue
from kombu.exceptions import OperationalError

from workers.tasks import run_step

log = structlog.get_logger(__name__)


def send(steps: Sequence[tuple[str, int]]) -> None:
    """Send a message for each (queue, step id). A broker that is away loses nothing: the tick offers again."""
    for queue, step_id in steps:
        try:
            # As an object: queues of places are declared by their own workers only, and others may send to them.
            run_step.apply_async(kwargs={"step_id": step_id}, queue=Queue(queue))
        except (OperationalError, OSError) as error:
            log.warning("broker away, the tick will offer the steps", steps=len(steps), error=str(error))
            return
