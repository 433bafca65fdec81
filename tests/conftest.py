"""One embedded PostgreSQL and Redis for the whole run, started before anything imports a model.

Runs without the Django plugin (`-p no:django`) start neither. Settings are not named in pyproject.toml, because
pytest-django would then read them before the servers' addresses are known.
"""

import atexit
import functools
import os
from contextlib import ExitStack

import django
import pytest
from django.conf import settings

from tests import empty_database
from tests.stack import running_servers


@functools.cache
def _start_servers() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The process that spreads the tests has started the servers; each worker has a database of its own there.
        os.environ.setdefault("CPM_FOLLOW_SECONDS", "0")
        django.setup()
        return
    if settings.configured:
        raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE and leave out --ds: the tests bring their own servers.")
    servers = ExitStack()
    # Not tied to pytest's own end, which never comes when reading the options fails.
    atexit.register(servers.close)
    os.environ.update(servers.enter_context(running_servers()))
    # Tests run steps themselves; messages to nobody would only pile up.
    os.environ.setdefault("CPM_JOBS_WAKE", "cpm.jobs.queue.no_wake")
    # Tests that count queries must not meet one that only comes now and then.
    os.environ.setdefault("CPM_FOLLOW_SECONDS", "0")
    django.setup()


def pytest_plugin_registered(manager: pytest.PytestPluginManager) -> None:
    """The first hook that reaches this file: after its import, before conftest files further down are imported."""
    if manager.hasplugin("django"):
        _start_servers()
        empty_database.use()


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The Redis of this run. Tests share it, so they use keys of their own."""
    return os.environ["CPM_REDIS_URL"]
