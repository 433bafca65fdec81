"""PostgreSQL from a wheel: passwords always (SCRAM), a private socket folder, no TCP unless a port is asked for.

PostgreSQL refuses to run as root. As root it therefore runs under an existing unprivileged account: the owner of the
data folder, or `nobody`. That account usually cannot walk to the data folder (below /root, or inside our 0700 folder),
and no folder outside ours may be opened up for it. So the server is given an open descriptor of its own folder and
reaches everything as /proc/self/fd/N/…, which needs no right on the folders above. The same path keeps the socket's
name short on the server's side; a client's path may be too long, and then the socket lies in a temporary folder.
The programs must be found by path; where the account cannot reach them, a private copy is made for the run.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from cpm.embedded import binaries
from cpm.embedded.errors import StackError
from cpm.embedded.processes import Account
from cpm.embedded.supervisor import Part

DATABASE = "cpm"
ROLE = "cpm"
SUPERUSER = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
# sun_path holds 108 bytes with its end mark.
LONGEST_SOCKET_PATH = 107
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "10min",
    "random_page_cost": "1.1",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# For databases that are thrown away with their folder.
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


class PostgresFailed(StackError):
    """The database could not be set up; the message says why."""


@dataclass(frozen=True)
class Passwords:
    """Of the cluster's superuser, used only to create the rest, and of the role that CPM works as."""

    superuser: str
    role: str


class Postgres:
    """One database cluster in `folder`. Call `prepare` before the first start and `close` at the very end.

    With a `port` it listens on 127.0.0.1 instead of the socket. A cluster that exists keeps its superuser.
    """

    def __init__(
        self,
        folder: Path,
        passwords: Passwords,
        *,
        durable: bool = True,
        port: int | None = None,
        superuser: str = SUPERUSER,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port
        self._passwords = passwords
        self._superuser = superuser
        self._settings = SETTINGS | ({} if durable else FAST_SETTINGS) | dict(settings or {})
        self._temporary: list[Path] = []
        self._descriptor = -1
        self.account: Account | None = None

    @property
    def url(self) -> str:
        """What CPM connects with."""
        return self._url(ROLE, self._passwords.role, DATABASE)

    def superuser_url(self, database: str = "postgres") -> str:
        """For those who manage the cluster."""
        return self._url(self._superuser, self._passwords.superuser, database)

    def prepare(self) -> None:
        """Finds the programs and an account, and creates the cluster when the folder is new."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.account = unprivileged_account(self.folder.parent) if os.geteuid() == 0 else None
        self._give(self.folder)
        self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self._programs = self._reachable_programs()
        self._socket = self.folder if self.port else self._socket_folder()
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._create_cluster()
        self._check_version()

    def part(self, stage: int) -> Part:
        """The server as a part of a stack. SIGINT is PostgreSQL's fast shutdown: it ends sessions and writes all."""
        settings = self._settings | self._listening()
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", self.seen_by_server(self.folder / "data"), *arguments]
        return Part(
            name="postgres",
            stage=stage,
            command=lambda: command,
            env=self._environment(),
            ready=self._answers,
            ready_within=120,
            stop_signal=signal.SIGINT,
            stop_within=60,
            death_signal=signal.SIGINT,
            account=self.account,
            keep_open=(self._descriptor,),
        )

    def ensure_database(self) -> None:
        """Creates CPM's role and database, or sets the role's password again, in a running server."""
        try:
            with psycopg.connect(self.superuser_url(), autocommit=True) as link:
                known = link.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
                change = sql.SQL("{} ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                    sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(ROLE), sql.Literal(self._passwords.role)
                )
                link.execute(change)
                if not link.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    link.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(ROLE))
                    )
        except psycopg.Error as error:
            raise PostgresFailed(f"The database could not be created: {error}") from error

    def close(self) -> None:
        """Gives back what only lives with the server. Call after it has stopped."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        self._temporary.clear()

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's programs to its end, as whom the server runs as."""
        return self._run([str(self._programs / program), *arguments])

    def _url(self, user: str, password: str, database: str) -> str:
        place = f"port={self.port}&host=127.0.0.1" if self.port else f"host={quote(str(self._socket), safe='/')}"
        return f"postgresql://{user}:{password}@/{quote(database, safe='')}?{place}"

    def _listening(self) -> dict[str, str]:
        if self.port:
            return {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        return {"unix_socket_directories": self.seen_by_server(self._socket)}

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def seen_by_server(self, path: Path) -> str:
        """How the server and the programs that `run` starts reach a path of this folder."""
        if self.account is None or not path.is_relative_to(self.folder):
            return str(path)
        return f"/proc/self/fd/{self._descriptor}/{path.relative_to(self.folder)}"

    def _give(self, path: Path, mode: int = 0o700) -> None:
        path.chmod(mode)
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _socket_folder(self) -> Path:
        folder = self.folder / "socket"
        if len(os.fsencode(folder / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
            folder = Path(tempfile.mkdtemp(prefix="cpm-"))
            self._temporary.append(folder)
        folder.mkdir(exist_ok=True)
        self._give(folder)
        for stale in folder.glob(".s.PGSQL.*"):
            stale.unlink()
        return folder

    def _reachable_programs(self) -> Path:
        installation = binaries.postgres_installation()
        if self.account is None or self._runs(installation):
            return installation / "bin"
        # The libraries of a wheel lie beside its package: <package>.libs.
        copy = Path(tempfile.mkdtemp(prefix="cpm-postgres-"))
        self._temporary.append(copy)
        copy.chmod(0o755)
        package = installation.parent
        shutil.copytree(package.with_name(f"{package.name}.libs"), copy / f"{package.name}.libs")
        target = copy / package.name / installation.name
        shutil.copytree(installation, target, ignore=shutil.ignore_patterns("*.a", "include"), symlinks=True)
        if not self._runs(target):
            raise PostgresFailed(
                f"The account {self.account.name} can run PostgreSQL neither from {installation} nor from {copy}. "
                "Install CPM where every account may read it, or run `cpm up` as an ordinary user."
            )
        return target / "bin"

    def _runs(self, installation: Path) -> bool:
        try:
            return self._run([str(installation / "bin" / "postgres"), "--version"]).returncode == 0
        except PermissionError:
            return False

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        account = self.account
        return subprocess.run(  # noqa: S603 - our own program and constants
            list(command),
            env=self._environment(),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            pass_fds=(self._descriptor,),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )

    def _create_cluster(self) -> None:
        """An interrupted creation leaves a folder without its mark and is done over."""
        data = self.folder / "data"
        draft = self.folder / "new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        self._give(draft)
        password_file = self.folder / f"password-{secrets.token_hex(4)}"
        try:
            descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._passwords.superuser + "\n")
            self._give(password_file, 0o600)
            command = [str(self._programs / "initdb"), "-D", self.seen_by_server(draft), "-U", self._superuser]
            command += ["--pwfile", self.seen_by_server(password_file), "--auth=scram-sha-256", "--encoding=UTF8"]
            command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
            done = self._run(command if self._settings.get("fsync") != "off" else [*command, "--no-sync"])
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode != 0:
            raise PostgresFailed(f"initdb ended with exit code {done.returncode}: {done.stderr.strip()}")
        shutil.rmtree(data, ignore_errors=True)
        draft.rename(data)

    def _check_version(self) -> None:
        has = (self.folder / "data" / "PG_VERSION").read_text().strip()
        wants = self._run([str(self._programs / "postgres"), "--version"]).stdout.split()[-1].partition(".")[0]
        if has != wants:
            raise PostgresFailed(
                f"{self.folder} was written by PostgreSQL {has}, and this is PostgreSQL {wants}. Dump it with the old "
                "version and load it with the new one, or use another data folder."
            )

    def _answers(self) -> bool:
        with suppress(psycopg.Error):
            psycopg.connect(self.superuser_url(), connect_timeout=2).close()
            return True
        return False


def unprivileged_account(folder: Path) -> Account:
    """Whom a server runs as that refuses root: the folder's owner, or `nobody`. PostgresFailed if there is neither."""
    owner = folder.stat().st_uid
    with suppress(KeyError):
        entry = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise PostgresFailed(
        "PostgreSQL does not run as root, and there is no account `nobody` to run it as. Give the data folder to an "
        "ordinary account, or set CPM_DATABASE_URL to a server of your own."
    )
