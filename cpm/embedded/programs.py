"""The command lines of CPM's own processes, the same under `cpm up`, docker-compose and systemd."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

QUEUES = ("control", "backup", "dr", "s3", "recovery")
API_PROCESSES = 2
API_THREADS = 4


def import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which these programs find our code and settings, installed or not, from any folder."""
    source = str(Path(__file__).resolve().parents[2])
    folders = [source, *(part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != source)]
    return {
        "PYTHONPATH": os.pathsep.join(folders),
        "DJANGO_SETTINGS_MODULE": environ.get("DJANGO_SETTINGS_MODULE", "cpm.settings"),
    }


def api(
    bind: str,
    *,
    processes: int = API_PROCESSES,
    threads: int = API_THREADS,
    tls: tuple[Path, Path] | None = None,
) -> list[str]:
    """The web server. Threads, because requests wait for the database; WSGI, because it streams lists as they come.

    `bind` is host:port, or fd://N for a socket that is already open. `tls` are a certificate and its key.
    """
    files = ("--certfile", str(tls[0]), "--keyfile", str(tls[1])) if tls else ()
    return [
        *(sys.executable, "-m", "gunicorn", "cpm.wsgi:application", "--bind", bind),
        *("--worker-class", "gthread", "--workers", str(processes), "--threads", str(threads)),
        *("--timeout", "120", "--graceful-timeout", "10", "--keep-alive", "30"),
        # Loaded once and shared by fork: half the start-up time and memory.
        "--preload",
        # The control socket would lie in the home folder, shared by all stacks of a user.
        "--no-control-socket",
        *files,
    ]


def worker(queues: Sequence[str], *, concurrency: int, name: str) -> list[str]:
    """A Celery worker. Processes rather than threads: hashing and compressing need more than one core."""
    return [
        *(sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--loglevel", "INFO"),
        *("--queues", ",".join(queues), "--concurrency", str(concurrency), "--hostname", f"{name}@%h"),
        # Workers share nothing that needs their gossip, and mingling delays every start.
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def beat(schedule_file: str) -> list[str]:
    """The clock that offers due work. Several may run: what is due is claimed in the database."""
    return [
        *(sys.executable, "-m", "celery", "-A", "workers.app", "beat", "--loglevel", "INFO"),
        *("--schedule", schedule_file, "--pidfile="),
    ]


def management(*arguments: str) -> list[str]:
    """A Django management command, wherever CPM is installed."""
    return [sys.executable, "-m", "django", *arguments]


def simulator(data: str, port: int, port_file: str) -> list[str]:
    """AWS for one machine."""
    return [
        *(sys.executable, "-m", "cpm.simulator", "--host", "127.0.0.1", "--port", str(port)),
        *("--data", data, "--port-file", port_file),
    ]
