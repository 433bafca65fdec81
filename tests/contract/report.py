"""`python -m tests.contract.report`: how much of the contract this server keeps, by chapter, and what is missing.

Exits with 1 when an implemented or promised operation is not green.
"""

import logging
import os
import sys
from collections import defaultdict
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import django
import structlog
from django.core.management import call_command
from django.test.utils import setup_databases, teardown_databases

from tests import simulated_aws
from tests.contract.facts import operations, promised
from tests.simulated_aws import SimulatedAws
from tests.stack import running_servers


def main() -> int:
    with ExitStack() as stack:
        os.environ.update(stack.enter_context(running_servers()))
        django.setup()
        logging.disable(logging.CRITICAL)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        # A database of its own beside the configured one, so that nobody's rows are touched.
        databases = setup_databases(verbosity=0, interactive=False)
        stack.callback(teardown_databases, databases, 0)
        call_command("check", fail_level="ERROR", verbosity=0)
        aws = simulated_aws.start(Path(stack.enter_context(TemporaryDirectory())))
        stack.callback(aws.stop)
        return _report(aws)


def _report(aws: SimulatedAws) -> int:
    # They import models, which exist only once Django is set up.
    conformance = import_module("tests.contract.conformance")
    call = conformance.Caller(import_module("tests.contract.populated").populate(aws))
    required = set(promised())
    green: dict[str, list[str]] = defaultdict(list)
    missing: dict[str, list[str]] = defaultdict(list)
    broken = 0
    for operation in operations():
        chapter = f"{operation['id'].partition('.')[0]}. {operation['chapter']}"
        name = f"{operation['id']} {operation['method']} {operation['path']}"
        if not conformance.implemented(operation) and operation["id"] not in required:
            missing[chapter].append(name)
        elif problems := conformance.check(operation, call):
            broken += 1
            print(f"NOT GREEN {name}")
            for problem in problems:
                print(f"    {problem}")
        else:
            green[chapter].append(name)
    _print_chapters(green, missing)
    print(f"{sum(map(len, green.values()))} of {len(operations())} operations, {broken} not green")
    return 1 if broken else 0


def _print_chapters(green: dict[str, list[str]], missing: dict[str, list[str]]) -> None:
    chapters = dict.fromkeys(f"{o['id'].partition('.')[0]}. {o['chapter']}" for o in operations())
    for chapter in chapters:
        total = sum(1 for o in operations() if chapter == f"{o['id'].partition('.')[0]}. {o['chapter']}")
        print(f"{chapter}: {len(green[chapter])} of {total}")
        for name in missing[chapter]:
            print(f"    missing {name}")


if __name__ == "__main__":
    sys.exit(main())
