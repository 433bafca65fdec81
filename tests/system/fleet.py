"""A real fleet to be mistreated: own PostgreSQL and Redis, simulated AWS, Celery workers and beats, all processes.

Everything can be killed, frozen and started again by the test. Nothing outlives the `with` block.
"""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis

from cpm.embedded import processes, programs
from cpm.embedded.folder import DataFolder
from cpm.embedded.postgres import Passwords, Postgres
from cpm.embedded.redis import Redis
from cpm.embedded.supervisor import Part
from tests import simulated_aws
from tests.simulated_aws import ROOT, SimulatedAws

LEASE_SECONDS = 2.0
# Short times, so that minutes of trouble fit into seconds. Lists lag for less than CPM expects.
PACE = {
    "CPM_LEASE_SECONDS": str(LEASE_SECONDS),
    "CPM_POLL_SECONDS": "1",
    "CPM_AWS_LIST_LAG_SECONDS": "1",
    "CPM_OFFER_SECONDS": "3",
    "CPM_RETRY_BASE_SECONDS": "0.3",
    "CPM_AWS_RATE_FACTOR": "1000",
    "CPM_STRAY_SETTLED_SECONDS": "3",
}


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Polls until the condition holds; AssertionError says what did not happen in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"within {seconds:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Member:
    """A process of the fleet that is started again after each death. Its children are in its group."""

    name: str
    command: Sequence[str]
    process: "subprocess.Popen[bytes]"
    ready: Callable[[], bool] = lambda: True

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        with suppress(OSError):
            return [int(p) for p in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def signal_all(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@dataclass
class Fleet:
    """Use `running`."""

    folder: DataFolder
    mark: str
    env: dict[str, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    aws: SimulatedAws = field(init=False)
    postgres: Postgres = field(init=False)
    redis: Redis = field(init=False)
    _parts: dict[str, Part] = field(default_factory=dict)

    # -- servers ------------------------------------------------------------------------------------------

    def start_servers(self) -> None:
        """PostgreSQL, Redis and the simulator, and an empty database in its newest shape."""
        # Neither the servers of other tests nor their settings.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CPM_", "DJANGO_"))}
        self.env = {
            **kept,
            **programs.import_path(kept),
            **PACE,
            "PYTHONPATH": str(ROOT),
            "CPM_DATA": str(self.folder.path),
            "CPM_SECRET_KEY_FILE": str(self.folder.secret_file("secret-key", self.folder.secret("secret-key"))),
            "CPM_FIELD_KEYS_FILE": str(self.folder.field_keys_file()),
            processes.MARK: self.mark,
        }
        passwords = Passwords(self.folder.secret("database-admin"), self.folder.secret("database"))
        self.postgres = Postgres(self.folder.path / "postgres", passwords)
        # What Redis forgets when it dies is the point of killing it.
        self.redis = Redis(self.folder.path / "redis", self.folder.secret("redis"), durable=False)
        self.postgres.prepare()
        self.redis.prepare()
        self._launch(_no_sync(self.postgres.part(1)))
        self._launch(self.redis.part(1))
        self.aws = simulated_aws.start(self.folder.path / "simulator")
        self.await_ready("postgres", "redis")
        self.postgres.ensure_database()
        self.env |= {
            "CPM_DATABASE_URL": self.postgres.url,
            "CPM_REDIS_URL": self.redis.url,
            "CPM_AWS_ENDPOINT_URL": self.aws.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.run("migrate", programs.management("migrate", "--noinput"))

    def restart_postgres(self) -> None:
        """PostgreSQL's immediate shutdown: no goodbye to anybody, recovery from its log at the next start."""
        self._replace("postgres", signal.SIGQUIT)

    def restart_redis(self, away: float = 0.0) -> None:
        """SIGKILL; it comes back empty after `away` seconds."""
        self._replace("redis", signal.SIGKILL, away)

    def flush_redis(self) -> None:
        self.broker().flushall()

    def broker(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis.url, socket_timeout=5)

    def broker_contents(self) -> bytes:
        """Every key and value that Redis holds."""
        link, found = self.broker(), []
        readers: dict[bytes, Callable[[bytes], Any]] = {
            b"string": link.get,
            b"list": lambda key: link.lrange(key, 0, -1),
            b"set": link.smembers,
            b"hash": link.hgetall,
            b"zset": lambda key: link.zrange(key, 0, -1),
        }
        for key in link.scan_iter(count=1000):
            kind = link.type(key)
            found.append(repr((key, readers[kind](key) if kind in readers else kind)).encode())
        return b"\n".join(found)

    def consumers(self) -> int:
        """How many workers wait for messages at this moment."""
        return sum(client["cmd"] == "brpop" for client in self.broker().client_list())

    # -- workers and beats --------------------------------------------------------------------------------

    def add_worker(self, name: str, concurrency: int = 2) -> None:
        command = programs.worker(programs.QUEUES, concurrency=concurrency, name=name)
        self._spawn_member(name, [*command, "--loglevel", "WARNING"])

    def add_beat(self, name: str) -> None:
        self._spawn_member(name, programs.beat(str(self.folder.run / f"{name}-schedule")))

    def named(self, prefix: str) -> list[Member]:
        return [member for name, member in sorted(self.members.items()) if name.startswith(prefix)]

    def tend(self) -> int:
        """Start what has ended by itself again, as `cpm up` and systemd do; returns how many there were.

        A worker gives up when a process of its pool dies before the pool has started.
        """
        fleet = [*self.named("worker"), *self.named("beat")]
        ended = [member for member in fleet if member.process.poll() is not None]
        for member in ended:
            member.signal_all(signal.SIGKILL)
            self._spawn_member(member.name, member.command)
        return len(ended)

    def kill(self, member: Member, how: str, chance: random.Random) -> None:
        """SIGKILL to the `member` alone, to its whole `group`, or to a `child`; the dead are replaced."""
        children = member.children()
        if how == "child" and children:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(children), signal.SIGKILL)
            return
        if how == "group":
            member.signal_all(signal.SIGKILL)
        member.process.kill()
        member.process.wait(30)
        self._spawn_member(member.name, member.command)

    # -- commands -----------------------------------------------------------------------------------------

    def run(self, name: str, command: Sequence[str], seconds: float = 120) -> None:
        """A command to its end, which must be a good one."""
        process = self.open(name, command)
        try:
            code = process.wait(seconds)
        finally:
            processes.end_group(process)
        assert code == 0, f"{name} ended with {code}: {self.log(name)[-3000:]}"

    def open(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with self._log_file(name).open("ab") as log:
            return processes.spawn(command, env=self.env, log=log, cwd=ROOT, death_signal=signal.SIGKILL)

    def log(self, name: str) -> str:
        return self._log_file(name).read_text(errors="replace")

    def logs(self) -> dict[str, bytes]:
        """What all processes have written."""
        files = [*self.folder.logs.iterdir(), self.folder.path / "simulator" / "simulator.log"]
        return {path.name: path.read_bytes() for path in files if path.is_file()}

    def secrets(self) -> dict[str, bytes]:
        """The secrets of this installation by name; none may be seen anywhere."""
        names = ("database", "database-admin", "redis", "secret-key", "field-keys")
        kept = {name: (self.folder.secrets / name).read_bytes().strip() for name in names}
        return kept | {f"secret key of {user}": pair[1].encode() for user, pair in self.aws.keys.items()}

    def await_ready(self, *names: str) -> None:
        for name in names:
            wait_for(self.members[name].ready, 120, f"{name} is ready; its log: {self._tail(name)}")

    def stop(self) -> None:
        for member in self.members.values():
            member.signal_all(signal.SIGKILL)
            member.process.wait(30)
        if hasattr(self, "aws"):
            self.aws.stop()
        processes.end_marked(self.mark)
        if hasattr(self, "postgres"):
            self.postgres.close()

    # -- inside -------------------------------------------------------------------------------------------

    def _log_file(self, name: str) -> Path:
        return self.folder.logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        path = self._log_file(name)
        return path.read_text(errors="replace")[-1000:] if path.exists() else ""

    def _spawn_member(self, name: str, command: Sequence[str]) -> None:
        self.members[name] = Member(name, command, self.open(name, command))

    def _launch(self, part: Part) -> None:
        with self._log_file(part.name).open("ab") as log:
            process = processes.spawn(
                part.command(),
                env={**part.env, processes.MARK: self.mark},
                log=log,
                account=part.account,
                keep_open=part.keep_open,
                death_signal=part.death_signal,
            )
        self.members[part.name] = Member(part.name, part.command(), process, part.ready)
        self._parts[part.name] = part

    def _replace(self, name: str, number: signal.Signals, away: float = 0.0) -> None:
        member = self.members[name]
        member.process.send_signal(number)
        member.process.wait(30)
        time.sleep(away)
        self._launch(self._parts[name])
        self.await_ready(name)


def _no_sync(part: Part) -> Part:
    """Machines do not lose power here, so what is written need not reach the disk."""
    command = [*part.command(), "-c", "fsync=off"]
    return replace(part, command=lambda: command)


@contextmanager
def running(path: Path) -> Iterator[Fleet]:
    """Servers without workers. They end with the block, and so does everything that was started meanwhile."""
    fleet = Fleet(DataFolder(path), mark=uuid.uuid4().hex)
    try:
        fleet.start_servers()
        yield fleet
    finally:
        fleet.stop()


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
