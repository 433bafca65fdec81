"""`python -m tests.benchmarks [NAME [options]]`: prints measurements as ratios and times; nothing passes or fails.

Each benchmark is a module with `main(arguments)` and runs in a process of its own with its own embedded servers,
unless CPM_DATABASE_URL and CPM_REDIS_URL name others. Without a name all run, one after the other.
"""

import importlib
import os
import subprocess
import sys

import django

from tests.stack import running_servers

BENCHMARKS = {
    "aws_calls": "tests.benchmarks.aws_calls",
    "block_io": "tests.benchmarks.block_io",
    "engine": "tests.benchmarks.engine",
    "explore": "tests.benchmarks.explore",
    "lists": "tests.benchmarks.lists",
    "permissions": "tests.benchmarks.permissions",
    "planner": "tests.benchmarks.planner",
    "reports": "tests.benchmarks.reports",
    "repository": "tests.benchmarks.repository",
    "s3_sync": "tests.benchmarks.s3_sync",
    "whole_calls": "tests.benchmarks.whole_calls",
}
# The engine is measured with Celery; the others run their steps in their own process, or none.
WAKE = {"engine": "tests.benchmarks.engine_tasks.wake"}


def main() -> int:
    name, *arguments = sys.argv[1:] or ["all"]
    if name == "all":
        return max(subprocess.call([sys.executable, "-m", "tests.benchmarks", each]) for each in BENCHMARKS)
    if name not in BENCHMARKS:
        print(f"usage: python -m tests.benchmarks [{'|'.join(BENCHMARKS)}] [options]", file=sys.stderr)
        return 2
    os.environ["CPM_JOBS_WAKE"] = WAKE.get(name, "cpm.jobs.queue.no_wake")
    with running_servers() as environment:
        os.environ.update(environment, CPM_LOG_LEVEL="WARNING")
        django.setup()
        print(f"== {name}", flush=True)
        # A benchmark imports models, which exist only once Django knows its database.
        importlib.import_module(BENCHMARKS[name]).main(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
