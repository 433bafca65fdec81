"""The measured runs of the engine benchmark."""

import subprocess
import time

import redis
from django.conf import settings

from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.models import Job, Step
from tests.benchmarks.engine_tasks import QUEUE, nothing

BATCH = 250


def warm_up(workers: "subprocess.Popen[bytes]") -> None:
    """Let the workers import and connect; raises RuntimeError if they have died of it."""
    _create(200)
    while Job.objects.filter(finished_at=None).exists():
        if workers.poll() is not None:
            raise RuntimeError("the workers did not start")
        time.sleep(0.1)
    noop_rate(200)


def step_rate(count: int) -> float:
    """Jobs of one step that does nothing: per second, from the first insert to the last end."""
    Job.objects.all().delete()
    began = time.monotonic()
    for start in range(0, count, BATCH):
        _create(min(BATCH, count - start))
    while Job.objects.filter(finished_at=None).exists():
        time.sleep(0.02)
    return count / (time.monotonic() - began)


def noop_rate(count: int) -> float:
    """Plain tasks per second, from the first message to the last."""
    broker = redis.Redis.from_url(settings.REDIS_URL)
    began = time.monotonic()
    for number in range(count):
        nothing.apply_async(kwargs={"number": number}, queue=QUEUE)
    while broker.llen(QUEUE) or broker.zcard("unacked_index"):
        time.sleep(0.005)
    return count / (time.monotonic() - began)


def idle_latencies(count: int) -> list[float]:
    """Seconds from the moment a step is made to the moment a worker has claimed it, when nothing else goes on."""
    found = []
    for _ in range(count):
        job = _create(1)[0]
        while Job.objects.filter(pk=job.pk, finished_at=None).exists():
            time.sleep(0.002)
        step = Step.objects.get(job=job)
        assert step.started_at is not None
        found.append((step.started_at - step.created_at).total_seconds())
        time.sleep(0.01)
    return found


def _create(count: int) -> list[Job]:
    specs = [queue.JobSpec("bench", "bench", None, [StepSpec("bench.nothing")]) for _ in range(count)]
    return queue.create_jobs(specs, engine_queues={"bench.nothing": QUEUE})
