"""PostgreSQL and Redis from wheels: private, persistent, wherever the folder is and whoever runs them."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from cpm.embedded import binaries
from cpm.embedded.binaries import ProgramMissing
from cpm.embedded.postgres import Passwords, Postgres, PostgresFailed, unprivileged_account
from cpm.embedded.redis import Redis
from cpm.embedded.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]
PASSWORDS = Passwords(superuser="s" * 40, role="r" * 40)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@contextmanager
def postgres_in(folder: Path, passwords: Passwords = PASSWORDS, *, durable: bool = False) -> Iterator[Postgres]:
    logs = folder.parent / "logs"
    logs.mkdir(exist_ok=True)
    supervisor = Supervisor(logs, mark=uuid.uuid4().hex)
    server = Postgres(folder, passwords, durable=durable)
    try:
        server.prepare()
        supervisor.start(server.part(stage=1))
        server.ensure_database()
        yield server
    finally:
        supervisor.stop()
        server.close()


@contextmanager
def redis_in(folder: Path) -> Iterator[Redis]:
    supervisor = Supervisor(folder.parent, mark=uuid.uuid4().hex)
    server = Redis(folder, "p" * 40)
    try:
        server.prepare()
        supervisor.start(server.part(stage=1))
        yield server
    finally:
        supervisor.stop()


def test_a_database_survives_a_restart_and_is_left_by_no_process(tmp_path: Path) -> None:
    with postgres_in(tmp_path / "postgres", durable=True) as server, psycopg.connect(server.url) as link:
        link.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    with postgres_in(tmp_path / "postgres", durable=True) as server, psycopg.connect(server.url) as link:
        assert link.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert link.execute("SHOW fsync").fetchone() == ("on",)
        assert link.execute("SHOW listen_addresses").fetchone() == ("",)
        assert link.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        url = server.url

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert not list((tmp_path / "postgres").glob("password-*"))


def test_the_database_wants_a_password_also_on_its_socket(tmp_path: Path) -> None:
    with postgres_in(tmp_path / "postgres") as server:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url.replace(PASSWORDS.role, "wrong"))
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(server.url.replace(f":{PASSWORDS.role}", ""))

    assert (tmp_path / "postgres" / "socket").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "postgres" / "data").stat().st_mode & 0o777 == 0o700


def test_a_long_path_moves_only_the_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / "postgres"
    folder.parent.mkdir()

    with postgres_in(folder) as server, psycopg.connect(server.url) as link:
        socket_folder = Path(server.url.partition("host=")[2])
        assert link.execute("SELECT 1").fetchone() == (1,)
        assert not socket_folder.is_relative_to(tmp_path)
        assert socket_folder.stat().st_mode & 0o777 == 0o700

    assert not socket_folder.exists()


def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data"
    half.mkdir(parents=True)
    (half / "base").write_text("interrupted")

    with postgres_in(tmp_path / "postgres") as server, psycopg.connect(server.url) as link:
        assert link.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("14\n")

    with pytest.raises(PostgresFailed, match="written by PostgreSQL 14"), postgres_in(tmp_path / "postgres"):
        pass

    assert (data / "PG_VERSION").read_text() == "14\n"


@as_root
def test_root_reaches_no_further_than_its_own_folders(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in [closed, *closed.parents]]

    with postgres_in(closed / "postgres") as server, psycopg.connect(server.url) as link:
        assert link.execute("SELECT 1").fetchone() == (1,)
        assert server.account is not None
        assert (closed / "postgres" / "data").stat().st_uid == server.account.uid != 0

    assert before == [(path, path.stat().st_mode, path.stat().st_uid) for path, _, _ in before]


@as_root
def test_root_copies_programs_that_the_account_cannot_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = binaries.postgres_installation()
    package = installation.parent
    hidden = tmp_path / "root-only"
    hidden.mkdir(mode=0o700)
    shutil.copytree(package.with_name(f"{package.name}.libs"), hidden / f"{package.name}.libs")
    shutil.copytree(installation, hidden / package.name / installation.name, ignore=shutil.ignore_patterns("*.a"))
    monkeypatch.setattr(binaries, "postgres_installation", lambda: hidden / package.name / installation.name)
    copies = set(Path(tempfile.gettempdir()).glob("cpm-postgres-*"))

    with postgres_in(tmp_path / "postgres") as server, psycopg.connect(server.url) as link:
        assert link.execute("SELECT 1").fetchone() == (1,)

    assert set(Path(tempfile.gettempdir()).glob("cpm-postgres-*")) <= copies


@as_root
def test_the_owner_of_the_data_folder_runs_the_database(tmp_path: Path) -> None:
    owner = pwd.getpwnam("daemon")
    os.chown(tmp_path, owner.pw_uid, owner.pw_gid)

    account = unprivileged_account(tmp_path)

    assert (account.name, account.uid) == ("daemon", owner.pw_uid)
    os.chown(tmp_path, 0, 0)
    assert unprivileged_account(tmp_path).name == "nobody"


def _python_for_everybody() -> list[str] | None:
    """An interpreter that `nobody` can run with our packages, or None where there is none."""
    for program in (sys.executable, "/usr/bin/python3"):
        env = {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])}
        command = ["env", *(f"{name}={value}" for name, value in env.items()), program]
        try:
            tried = subprocess.run(
                [*command, "-c", "import psycopg, cpm.embedded.postgres"],
                user="nobody", group="nogroup", extra_groups=[], cwd="/", capture_output=True, check=False,
            )  # fmt: skip
        except (OSError, LookupError):
            continue
        if tried.returncode == 0:
            return command
    return None


@as_root
def test_an_ordinary_user_needs_no_rights(tmp_path: Path) -> None:
    python = _python_for_everybody()
    if python is None:
        pytest.skip("no interpreter that `nobody` may run")
    with tempfile.TemporaryDirectory(prefix="cpm-test-nobody-") as name:
        folder = Path(name)
        shutil.chown(folder, "nobody", "nogroup")
        program = (
            "import sys, psycopg; from pathlib import Path\n"
            "from cpm.embedded.postgres import Passwords, Postgres\n"
            "from cpm.embedded.supervisor import Supervisor\n"
            "folder = Path(sys.argv[1]); supervisor = Supervisor(folder, mark=folder.name)\n"
            "server = Postgres(folder / 'postgres', Passwords('s', 'r'), durable=False)\n"
            "server.prepare(); supervisor.start(server.part(stage=1)); server.ensure_database()\n"
            "print(psycopg.connect(server.url).execute('SELECT current_user').fetchone()[0])\n"
            "supervisor.stop(); server.close()\n"
        )
        done = subprocess.run(
            [*python, "-c", program, name],
            user="nobody", group="nogroup", extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.stdout.split() == ["cpm"], done.stderr
        assert {path.stat().st_uid for path in folder.rglob("*")} == {pwd.getpwnam("nobody").pw_uid}


def test_a_queue_survives_a_restart_of_redis(tmp_path: Path) -> None:
    with redis_in(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as link:
        link.rpush("queue", *range(100))
        assert link.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    with redis_in(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as link:
        assert link.llen("queue") == 100


def test_redis_wants_its_password_and_shows_it_to_nobody(tmp_path: Path) -> None:
    with redis_in(tmp_path / "redis") as server:
        with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(server.url.replace("p" * 40, "")) as link:
            link.ping()
        assert "p" * 40 not in " ".join(server.part(stage=1).command())

    assert (tmp_path / "redis" / "server.conf").stat().st_mode & 0o777 == 0o600


def test_a_missing_wheel_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_package_folder", lambda package: None)

    with pytest.raises(ProgramMissing, match="CPM_DATABASE_URL"):
        binaries.postgres_installation()
    with pytest.raises(ProgramMissing, match="CPM_REDIS_URL"):
        binaries.redis_server()
