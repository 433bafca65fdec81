"""The Celery application of the engine benchmark: the fleet's own, with tasks that do nothing."""

from workers.app import app

app.conf.include = [*app.conf.include, "tests.benchmarks.engine_tasks"]

__all__ = ["app"]
