"""Workers that are killed with SIGKILL, or frozen with SIGSTOP, at a chosen moment.

A worker here is a forked process that sweeps and drains all queues as the fleet does. Its *events* are the moments
before and after every guarded write of a step row, every AWS call and every request of block I/O: at the chosen event
it sends itself the signal, which nothing in the process can notice or prevent.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from django.db import connection, connections

from cpm.aws.client import AwsClient
from cpm.aws.http_pool import HttpPool
from cpm.flows.table import ENGINE
from cpm.jobs import leases, runner, sessions, sweeper
from cpm.models import Job

QUEUES = ["control", "backup", "dr", "s3", "recovery"]


class Events:
    """Counts events and dies (or freezes) at one of them; `die_at` None lives for ever."""

    def __init__(self, die_at: int | None, number: signal.Signals = signal.SIGKILL) -> None:
        self.seen = 0
        self.die_at = die_at
        self.number = number
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.seen += 1
            strikes = self.seen == self.die_at
        if strikes:
            os.kill(os.getpid(), self.number)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self()
            result = function(*args, **kwargs)
            self()
            return result

        return wrapped


def work(seconds: float) -> None:
    """Sweep and drain until no job is open. As in the fleet, a lost database session is followed by a new one."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if not Job.objects.filter(finished_at=None).exists():
                return
            sweeper.sweep(queues=QUEUES)
            if not sum(runner.drain(queue, engine=ENGINE) for queue in QUEUES):
                time.sleep(0.01)
        except runner.DATABASE_GONE:
            connection.close()


def fork_worker(die_at: int | None, seconds: float = 60) -> tuple[bool, int]:
    """Run a worker to the end of all jobs, or to its death; returns whether it was killed and its events."""
    return _join(*_fork(Events(die_at), seconds))


def freeze_worker(freeze_at: int, seconds: float = 60) -> tuple[bool, int]:
    """Run a worker that stands still from an event on until another one has done all the work; then it goes on.

    Returns whether there was such an event, and if not, how many there were.
    """
    child, pipe = _fork(Events(freeze_at, signal.SIGSTOP), seconds)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        with os.fdopen(pipe) as told:
            return False, int(told.read())
    fork_worker(None, seconds)
    os.kill(child, signal.SIGCONT)
    assert _join(child, pipe)[0] is False
    return True, 0


def _fork(events: Events, seconds: float) -> tuple[int, int]:
    """The pid of a worker, and where it tells how many events it has seen."""
    connections.close_all()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.close(reader)
        sessions.bound()
        AwsClient.call = events.around(AwsClient.call)  # type: ignore[method-assign]
        HttpPool.send = events.around(HttpPool.send)  # type: ignore[method-assign]
        leases.guarded = events.around(leases.guarded)
        work(seconds)
        os.write(writer, str(events.seen).encode())
        code = 0
    except Exception:  # noqa: BLE001 (the parent sees only an exit code)
        traceback.print_exc()
    finally:
        os._exit(code)


def _join(child: int, reader: int) -> tuple[bool, int]:
    with os.fdopen(reader) as pipe:
        seen = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, 0
    assert os.WEXITSTATUS(status) == 0, "the worker ended with an error of its own"
    return False, int(seen)
