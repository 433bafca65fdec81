"""The log mode acts on every process within seconds, and shows no secrets in either mode."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import structlog
from celery.signals import beat_init, before_task_publish, task_prerun
from django.db import OperationalError, connection
from django.test import Client

from cpm.aws import gateway
from cpm.lib import errors, logs
from cpm.lib.states import LogMode
from cpm.models import Actor, AuditRecord, ServerSettings
from cpm.services import log_mode
from tests import factories
from workers import log_mode as fleet
from workers.fleet import report

pytestmark = pytest.mark.django_db

log = structlog.get_logger("tests.log_mode")
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def following(settings):
    """A process that has just started, and looks at every opportunity."""
    settings.CPM_FOLLOW_SECONDS = 0.000001
    log_mode.forget()
    yield
    log_mode.forget()
    logs.set_level(settings.CPM_LOG_LEVEL)


@pytest.fixture
def actor() -> Actor:
    return Actor.of(factories.root())


def _written(capsys) -> list[str]:
    log.debug("a detail", secret_key=SECRET)
    log.info("an event")
    return [orjson.loads(line)["event"] for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]


def test_debug_is_taken_up_and_left_again(actor, capsys):
    standard = _written(capsys)
    log_mode.change(actor=actor, mode=LogMode.DEBUG)
    before = _written(capsys)
    log_mode.follow()
    debug = _written(capsys)
    log_mode.change(actor=actor, mode=LogMode.STANDARD)
    log_mode.follow()
    after = _written(capsys)

    assert "a detail" not in standard + before + after
    assert "a detail" in debug and "an event" in debug and "an event" in after
    assert AuditRecord.objects.filter(event_type="log_mode.updated").count() == 2


def test_the_database_is_asked_now_and_then_only(settings, django_assert_num_queries):
    settings.CPM_FOLLOW_SECONDS = 300

    with django_assert_num_queries(1):
        for _ in range(5):
            log_mode.follow()
    settings.CPM_FOLLOW_SECONDS = 0
    log_mode.forget()
    with django_assert_num_queries(0):
        log_mode.follow()


def test_a_database_that_is_away_changes_nothing(actor, monkeypatch, capsys):
    log_mode.change(actor=actor, mode=LogMode.DEBUG)
    log_mode.follow()

    def away(*_: object, **__: object) -> None:
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(ServerSettings.objects, "filter", away)
    monkeypatch.setattr("cpm.services.log_mode.connection.close", lambda: None)
    log_mode.follow()

    assert "a detail" in _written(capsys)


def test_debug_shows_no_secrets_of_ours_or_of_libraries(actor, capsys):
    log_mode.change(actor=actor, mode=LogMode.DEBUG)
    log_mode.follow()
    gateway.configure(gateway.GatewayConfig())
    _written(capsys)

    log.debug("a detail", secret_key=SECRET, text=f"Authorization: Bearer {SECRET}")
    handler = logging.getLogger().handlers
    line = logs.ScrubbedFormatter("%(message)s").format(
        logging.LogRecord("library", logging.DEBUG, "", 1, "password=%s", (SECRET,), None)
    )

    err = capsys.readouterr().err
    assert "a detail" in err and SECRET not in err + line
    assert handler and logging.getLogger().isEnabledFor(logging.DEBUG)
    for name in ("botocore", "botocore.auth", "boto3", "urllib3.connectionpool"):
        assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)


def test_a_request_takes_the_mode_up_and_is_logged_without_its_query(actor, capsys):
    log_mode.change(actor=actor, mode=LogMode.DEBUG)

    Client().get(f"/api/policies/?search={SECRET}", headers={"Authorization": f"Bearer {SECRET}"})

    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    (answered,) = [line for line in lines if line["event"] == "request answered"]
    assert (answered["method"], answered["path"], answered["status"]) == ("GET", "/api/policies/", 401)
    assert SECRET not in str(lines)


def test_workers_and_beat_follow_with_what_they_do_anyway(monkeypatch):
    """The signals are Celery's; beat looks when it sends, and nobody else does then."""
    followed: list[str] = []
    monkeypatch.setattr(log_mode, "follow", lambda: followed.append("looked"))

    report(SimpleNamespace(task_consumer=None))
    task_prerun.send(sender=None)
    quiet = len(followed)
    before_task_publish.send(sender="a task")
    unmoved = len(followed)
    beat_init.send(sender=None)
    before_task_publish.send(sender="a task")
    before_task_publish.disconnect(fleet._follow)

    assert quiet >= 2 and unmoved == quiet and len(followed) == quiet + 1


@pytest.mark.django_db(transaction=True)
def test_a_running_process_takes_the_mode_up_within_seconds(tmp_path):
    """A real process with nothing but its work: it logs a detail as soon as it has seen the change."""
    script = tmp_path / "process.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import django
            django.setup()
            import structlog
            from django.conf import settings
            from cpm.services import log_mode
            log = structlog.get_logger()
            print("ready", flush=True)
            ends = time.monotonic() + 60
            while time.monotonic() < ends:
                log_mode.follow()
                log.debug("a detail")
                if "DEBUG" == log_mode._follower._mode:
                    sys.exit(0)
                time.sleep(0.1)
            sys.exit(1)
            """
        )
    )
    process = _start(script)
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"

    log_mode.change(actor=Actor.of(factories.root()), mode=LogMode.DEBUG)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert '"event": "a detail"' in err


def _start(script: Path) -> "subprocess.Popen[str]":
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:{database['PASSWORD']}@/{database['NAME']}?host={database['HOST']}&port={database['PORT']}"
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "cpm.settings", "CPM_DATABASE_URL": url, "CPM_FOLLOW_SECONDS": "0.2",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_only_root_changes_the_mode():
    for user in (factories.user(), factories.delegate(factories.root(), allow_settings_changes=True)):
        with pytest.raises(errors.PermissionDenied):
            log_mode.change(actor=Actor.of(user), mode=LogMode.DEBUG)
