"""`python -m tests.benchmarks NAME ...`: prints measurements as ratios and times; nothing here passes or fails.

Each benchmark is a module with `main(arguments)`. It brings its own embedded servers unless CPM_DATABASE_URL and
CPM_REDIS_URL name others.
"""

import importlib
import os
import sys

import django

from tests.stack import running_servers

BENCHMARKS = {
    "aws_calls": "tests.benchmarks.aws_calls",
    "engine": "tests.benchmarks.engine",
    "lists": "tests.benchmarks.lists",
    "planner": "tests.benchmarks.planner",
}


def main() -> int:
    name, *arguments = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(f"usage: python -m tests.benchmarks {{{','.join(BENCHMARKS)}}} [options]", file=sys.stderr)
        return 2
    with running_servers() as environment:
        os.environ.update(environment, CPM_LOG_LEVEL="WARNING")
        django.setup()
        # A benchmark imports models, which exist only once Django knows its database.
        importlib.import_module(BENCHMARKS[name]).main(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
