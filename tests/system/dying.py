"""Workers that are killed with SIGKILL at a chosen moment.

A worker here is a forked process that sweeps and drains all queues as the fleet does. Its *events* are the moments
before and after every guarded write of a step row and every AWS call: at the chosen event it kills itself, which
nothing in the process can notice or prevent.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from django.db import connections

from cpm.aws.client import AwsClient
from cpm.flows.table import ENGINE
from cpm.jobs import leases, runner, sweeper
from cpm.models import Job

QUEUES = ["control", "backup", "dr", "s3", "recovery"]


class Events:
    """Counts events and dies at one of them; `die_at` None lives for ever."""

    def __init__(self, die_at: int | None) -> None:
        self.seen = 0
        self.die_at = die_at

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self()
            result = function(*args, **kwargs)
            self()
            return result

        return wrapped


def work(seconds: float) -> None:
    """Sweep and drain until no job is open."""
    ends = time.monotonic() + seconds
    while Job.objects.filter(finished_at=None).exists() and time.monotonic() < ends:
        sweeper.sweep(queues=QUEUES)
        if not sum(runner.drain(queue, engine=ENGINE) for queue in QUEUES):
            time.sleep(0.01)


def fork_worker(die_at: int | None, seconds: float = 60) -> tuple[bool, int]:
    """Run a worker to the end of all jobs, or to its death; returns whether it was killed and its events."""
    connections.close_all()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            events = Events(die_at)
            AwsClient.call = events.around(AwsClient.call)  # type: ignore[method-assign]
            leases.guarded = events.around(leases.guarded)
            work(seconds)
            os.write(writer, str(events.seen).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seen = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, 0
    assert os.WEXITSTATUS(status) == 0, "the worker ended with an error of its own"
    return False, int(seen)
