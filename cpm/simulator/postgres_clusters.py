"""PostgreSQL servers behind simulated RDS instances: one a live instance, each with its own roles, databases and port.

One server for all would not do: a restored instance has the names, roles and passwords of the one it comes from, and
both are to be reached at once. What a new instance starts from is made once and copied, which takes a tenth of the time
of making it; copies of running servers are base backups, so they are of one moment whatever is open.
"""

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from cpm.embedded import processes
from cpm.embedded.folder import write_private
from cpm.embedded.postgres import Passwords, Postgres
from cpm.embedded.supervisor import last_lines

# AWS: RDS User Guide, Master user account privileges: what RDS itself works as.
ADMIN = "rdsadmin"
SETTINGS = {"shared_buffers": "16MB", "max_connections": "60", "io_method": "sync", "max_wal_size": "128MB"}
READY_WITHIN = 60.0
STOPPED_WITHIN = 20.0
DATA = "data"


class ClusterFailed(Exception):
    """A server did not come up, or could not be copied."""


@dataclass
class _Running:
    server: Postgres
    process: "Popen[bytes]"
    port: int


class Clusters:
    """Clusters by a name that only the simulator knows: running ones have a server, those of snapshots never have.

    Not thread-safe: calls come under the world's lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, _Running] = {}
        # The kernel ends a server when the thread that started it ends, and those of requests end soon.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="postgres")

    def exists(self, name: str) -> bool:
        return (self._place(name) / DATA / "PG_VERSION").exists()

    def create(self) -> str:
        """A new cluster that nothing is in; its name."""
        template = self._place("template")
        if not self.exists("template"):
            template.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            server = self._server("template", None)
            try:
                server.prepare()
            finally:
                server.close()
        return self.copy("template")

    def copy(self, name: str) -> str:
        """Another cluster with the same content as of this moment; its name."""
        made = secrets.token_hex(8)
        target = self._place(made)
        target.mkdir(mode=0o700)
        if name in self._running:
            self._back_up(self._running[name].server, target / DATA)
        else:
            shutil.copytree(
                self._place(name) / DATA, target / DATA, copy_function=shutil.copyfile, symlinks=True
            )
            _hand_over(target / DATA, self._place(name) / DATA)
        return made

    def start(self, name: str, port: int = 0) -> int:
        """Lets a server run, on this port if it is free; the port."""
        if name in self._running:
            return self._running[name].port
        port = _free_port(port)
        server = self._server(name, port)
        server.prepare()
        running = _Running(server, self._starter.submit(self._spawn, server).result(), port)
        self._running[name] = running
        try:
            self._await(running)
        except ClusterFailed:
            self.stop(name)
            raise
        return port

    def url(self, name: str, database: str = "postgres") -> str:
        """How RDS itself connects to a running one."""
        return self._running[name].server.superuser_url(database)

    @contextmanager
    def opened(self, name: str) -> Iterator[str]:
        """The name of a running copy that is thrown away afterwards."""
        made = self.copy(name)
        try:
            self.start(made)
            yield made
        finally:
            self.drop(made)

    def stop(self, *names: str) -> None:
        """Ends servers in order, all at once: sessions end, everything is written."""
        ending = [self._running.pop(name) for name in names if name in self._running]
        for running in ending:
            processes.signal_process(running.process, signal.SIGINT)
        deadline = time.monotonic() + STOPPED_WITHIN
        for running in ending:
            while running.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            processes.end_group(running.process)
            running.server.close()

    def drop(self, name: str) -> None:
        """Ends a server without ado and removes its cluster."""
        running = self._running.pop(name, None)
        if running is not None:
            processes.end_group(running.process)
            running.server.close()
        shutil.rmtree(self._place(name), ignore_errors=True)

    def keep_only(self, names: set[str]) -> None:
        """Removes all other clusters."""
        found = {path.name for path in self._place("").glob("*")} if self._place("").exists() else set()
        for name in found - names - {"template"}:
            self.drop(name)

    def close(self) -> None:
        """Ends everything that runs; what it holds is there again next time."""
        self.stop(*list(self._running))
        self._starter.shutdown()

    def _place(self, name: str) -> Path:
        return self.folder / "postgres" / name

    def _password(self) -> str:
        path = self.folder / "postgres-password"
        if not path.exists():
            write_private(path, secrets.token_hex(16))
        return path.read_text()

    def _server(self, name: str, port: int | None) -> Postgres:
        passwords = Passwords(superuser=self._password(), role="")
        return Postgres(
            self._place(name), passwords, durable=False, port=port, superuser=ADMIN, settings=SETTINGS
        )

    def _spawn(self, server: Postgres) -> "Popen[bytes]":
        part = server.part(stage=1)
        mark = {name: os.environ[name] for name in (processes.MARK,) if name in os.environ}
        with (server.folder / "log").open("ab") as log:
            return processes.spawn(
                part.command(),
                env={**part.env, **mark},
                log=log,
                account=part.account,
                keep_open=part.keep_open,
                death_signal=part.death_signal,
            )

    def _await(self, running: _Running) -> None:
        part = running.server.part(stage=1)
        deadline = time.monotonic() + READY_WITHIN
        while not part.ready():
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise ClusterFailed("\n".join(last_lines(running.server.folder / "log", 15)))
            time.sleep(0.02)

    def _back_up(self, server: Postgres, target: Path) -> None:
        """AWS: RDS User Guide, Creating a DB snapshot: of the whole instance, all its databases."""
        draft = server.folder / "backup"
        done = server.run(
            "pg_basebackup", "-D", server.seen_by_server(draft), "-d", server.superuser_url(), "--checkpoint=fast",
            "--wal-method=fetch", "--no-sync", "--no-manifest",
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise ClusterFailed(done.stderr.strip())
        draft.rename(target)


def _hand_over(path: Path, like: Path) -> None:
    """Gives a copy to whoever owns the original, with the rights that PostgreSQL demands."""
    owner = like.stat()
    for folder, _, files in os.walk(path):
        os.chmod(folder, 0o700)
        os.chown(folder, owner.st_uid, owner.st_gid)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o600)
            os.chown(os.path.join(folder, name), owner.st_uid, owner.st_gid)


def _free_port(wanted: int) -> int:
    """The wanted port, or another one when it is taken or none is wanted."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise ClusterFailed("there is no free port")
