"""`cpm up` as people and tools use it: one command, a connection file, kills, and a clean end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from cpm.embedded import processes

ROOT = Path(__file__).resolve().parents[2]
OWN_SERVERS = ("CPM_JOBS_WAKE", "CPM_DATABASE_URL", "CPM_REDIS_URL", "CPM_DATA", "CPM_SECRET_KEY_FILE", "CPM_FIELD_KEYS_FILE")


@dataclass
class Up:
    process: subprocess.Popen[bytes]
    data: Path
    connection: dict[str, Any]

    @property
    def mark(self) -> str:
        return (self.data / "secrets" / "mark").read_text().strip()

    def ask(self, url: str, body: object = None) -> Any:
        request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
        request.data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def command(data: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    env = {name: value for name, value in os.environ.items() if name not in OWN_SERVERS}
    env["PYTHONPATH"] = str(ROOT)
    return [sys.executable, "-m", "cpm.cli", "up", "--port", "0", "--workers", "1", "--data", str(data), *more], env


@contextmanager
def up(data: Path, *more: str, servers: dict[str, str] | None = None) -> Iterator[Up]:
    """A stack that is ready. What it says goes to `said` beside its folder; it is killed if it does not stop."""
    file = data.with_name("connection.json")
    arguments, env = command(data, "--connection-file", str(file), *more)
    with data.with_name("said").open("ab") as said:
        process = subprocess.Popen(arguments, env=env | (servers or {}), cwd="/", stdout=said, stderr=said)
    try:
        assert eventually(lambda: file.exists() or process.poll() is not None, 300)
        assert process.poll() is None, data.with_name("said").read_text()
        yield Up(process, data, json.loads(file.read_text()))
        if process.poll() is None:
            process.terminate()
            assert process.wait(90) == 0, data.with_name("said").read_text()
    finally:
        process.kill()
        process.wait()


def listens(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def worker_pids(mark: str) -> list[int]:
    """The leaders of the workers' process groups."""
    found = []
    for pid in processes.marked(mark):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--hostname" in arguments and os.getpgid(pid) == pid:
            found.append(pid)
    return found


@pytest.mark.timeout(600)
def test_up_serves_restarts_what_dies_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data, "--simulated-aws") as stack:
        connection = stack.connection
        assert set(connection) == {
            *("api_url", "api_key", "admin_url", "admin_user", "admin_password", "database_url", "redis_url"),
            *("aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_regions"),
            "simulator_control_url",
        }
        assert connection["api_url"].endswith("/api")
        assert stat.S_IMODE((tmp_path / "connection.json").stat().st_mode) == 0o600
        token = stack.ask(f"{connection['api_url']}/token/obtain/api_key/", {"api_key": connection["api_key"]})
        assert token["access"]
        assert stack.ask(f"{connection['simulator_control_url']}/health")["status"] == "ok"
        with psycopg.connect(connection["database_url"]) as link:
            link.execute("CREATE TABLE kept AS SELECT 42 AS answer")

        arguments, env = command(data)
        second = subprocess.run(arguments, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 1
        assert f"process {stack.process.pid}" in " ".join(second.stderr.split())

        (worker,) = worker_pids(stack.mark)
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: worker_pids(stack.mark) not in ([], [worker]))
        mark = stack.mark

    assert processes.marked(mark) == []
    assert not any(listens(connection[name]) for name in ("api_url", "redis_url", "aws_endpoint_url"))
    assert not (tmp_path / "connection.json").exists()
    logs = b"".join(path.read_bytes() for path in (data / "logs").iterdir())
    for name in ("api_key", "admin_password"):
        assert connection[name].encode() not in logs

    with up(data) as stack:
        assert stack.connection["admin_password"] == connection["admin_password"]
        assert stack.connection["api_key"] != connection["api_key"]
        assert "aws_endpoint_url" not in stack.connection
        with psycopg.connect(stack.connection["database_url"]) as link:
            assert link.execute("SELECT answer FROM kept").fetchone() == (42,)

        stack.process.kill()
        stack.process.wait()

        assert eventually(lambda: not processes.marked(mark))


@pytest.mark.timeout(500)
def test_up_uses_the_servers_it_is_given(tmp_path: Path, redis_url: str) -> None:
    url = os.environ["CPM_DATABASE_URL"]
    name = f"up_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
    own = {"CPM_DATABASE_URL": urlsplit(url)._replace(path=f"/{name}").geturl(), "CPM_REDIS_URL": f"{redis_url.rpartition('/')[0]}/9"}

    try:
        with up(tmp_path / "data", servers=own) as stack:
            assert stack.connection["database_url"] == own["CPM_DATABASE_URL"]
            assert stack.connection["redis_url"] == own["CPM_REDIS_URL"]
            assert not (tmp_path / "data" / "postgres").exists()
            assert not (tmp_path / "data" / "redis").exists()
            with psycopg.connect(own["CPM_DATABASE_URL"]) as link:
                assert link.execute("SELECT count(*) > 0 FROM django_migrations").fetchone() == (True,)
    finally:
        with psycopg.connect(url, autocommit=True) as link:
            link.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_up_says_which_server_does_not_answer(tmp_path: Path) -> None:
    arguments, env = command(tmp_path / "data")
    env |= {"CPM_DATABASE_URL": "postgresql://cpm:hidden@127.0.0.1:1/cpm", "CPM_REDIS_URL": "redis://127.0.0.1:1/0"}

    done = subprocess.run(arguments, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "database at 127.0.0.1:1/cpm does not answer" in " ".join(done.stderr.split())
    assert "hidden" not in done.stderr
