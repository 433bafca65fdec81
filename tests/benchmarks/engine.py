"""Steps per second through PostgreSQL, Redis and two worker processes, beside no-op Celery tasks; idle latency.

Both are measured in the same run with the same workers, in turns, three times; medians are printed.
"""

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.core.management import call_command

from tests.benchmarks.engine_runs import idle_latencies, noop_rate, step_rate, warm_up

JOBS = 3000
IDLE_PROBES = 200
ROUNDS = 3


def main(arguments: Sequence[str]) -> None:
    """Start workers, measure, print, stop."""
    call_command("migrate", verbosity=0)
    with workers() as process:
        warm_up(process)
        steps, tasks = [], []
        for _ in range(ROUNDS):
            steps.append(step_rate(JOBS))
            tasks.append(noop_rate(JOBS))
        ours, plain = statistics.median(steps), statistics.median(tasks)
        print(f"engine: {ours:7.0f} steps/s   no-op Celery tasks: {plain:7.0f}/s   ratio {ours / plain:.2f}")
        print("  goals: at least 600 steps/s, ratio at least 0.40")
        latencies = sorted(idle_latencies(IDLE_PROBES))
        p50, p95 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.95)]
        print(f"idle dispatch: p50 {p50 * 1000:.1f} ms   p95 {p95 * 1000:.1f} ms   (goal: p95 at most 25 ms)")


@contextmanager
def workers() -> Iterator["subprocess.Popen[bytes]"]:
    """One Celery worker with two processes."""
    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.engine_app", "worker"]
    command += ["-Q", "control", "-c", "2", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen(command, env=os.environ, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
