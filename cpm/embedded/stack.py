"""Which parts the stack has, in which order they start, and what they are told.

Stage 1 PostgreSQL, 2 Redis, 3 the AWS simulator, then migrations and root's key, 4 API, workers and beat.
"""

import json
import os
import secrets
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis

from cpm.embedded import processes, programs
from cpm.embedded.connection import FILE_NAME, Connection, secret_files
from cpm.embedded.errors import StackError
from cpm.embedded.folder import DataFolder
from cpm.embedded.postgres import Passwords, Postgres
from cpm.embedded.redis import Redis
from cpm.embedded.supervisor import Death, Part, Supervisor

ADMIN_USER = "root"
# The simulator's first user; they open nothing else. Written here too because importing them would load moto.
SIMULATED_ACCESS_KEY = "AKIASIMULATOR0000001"
SIMULATED_SECRET_KEY = "simulator-secret-key-for-account-1234567"  # noqa: S105
SIMULATED_REGIONS = ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"]
WORKER_CONCURRENCY = 2


@dataclass(frozen=True)
class Options:
    """What `cpm up` was asked for. Port 0 is a free one."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 2
    simulated_aws: bool = False
    connection_file: Path | None = None


@dataclass
class Stack:
    """One stack in one data folder. Use `running`, which cleans up whatever happens."""

    options: Options
    folder: DataFolder
    supervisor: Supervisor
    tell: Callable[[str], None]
    env: dict[str, str] = field(default_factory=dict)
    connection: Connection | None = None
    _closing: ExitStack = field(default_factory=ExitStack)
    _simulator_port: int = 0

    def start(self) -> Connection:
        """Starts everything and writes the connection file. Raises StackError or StopRequested."""
        options, folder = self.options, self.folder
        self._end_leftovers()
        listener = self._closing.enter_context(_listen(options.host, options.port))
        self.env = {**os.environ, **programs.import_path(os.environ), "CPM_DATA": str(folder.path)}
        self._provide_secrets()
        self.env["CPM_DATABASE_URL"] = os.environ.get("CPM_DATABASE_URL") or self._start_postgres()
        self.env["CPM_REDIS_URL"] = os.environ.get("CPM_REDIS_URL") or self._start_redis()
        _check_servers(self.env["CPM_DATABASE_URL"], self.env["CPM_REDIS_URL"])
        port_file = self.folder.run / "simulator-port"
        if options.simulated_aws:
            self._launch_simulator(port_file)
        self.tell("migrating the database")
        self.supervisor.run_once("migrate", programs.management("migrate", "--noinput"), env=self.env, within=600)
        if options.simulated_aws:
            self._use_simulator(port_file)
        self.tell("starting API, workers and beat")
        numbers = range(1, options.workers + 1)
        parts = [self._api(listener), *(self._worker(f"worker{number}") for number in numbers), self._beat()]
        for part in parts:
            self.supervisor.launch(part)
        root = self._bootstrap()
        for part in parts:
            self.supervisor.await_ready(part.name)
        self.connection = self._describe(root, listener)
        for path in self._connection_files():
            self.connection.write(path)
        return self.connection

    def stop(self) -> None:
        """Ends every part and takes back the connection file, whose key opens nothing any more."""
        for path in self._connection_files():
            path.unlink(missing_ok=True)
        self.supervisor.stop()
        self._closing.close()

    def _end_leftovers(self) -> None:
        for path in self._connection_files():
            path.unlink(missing_ok=True)
        leftovers = processes.end_marked(self.supervisor.mark)
        if leftovers:
            self.tell(f"ended {len(leftovers)} processes that a killed `cpm up` had left")

    def _connection_files(self) -> list[Path]:
        chosen = self.options.connection_file
        return [self.folder.path / FILE_NAME, *([chosen.absolute()] if chosen else [])]

    def _provide_secrets(self) -> None:
        self.folder.secret("secret-key")
        self.folder.field_keys_file()
        self.folder.subfolder("static")
        for name, path in secret_files(self.folder.path).items():
            self.env.setdefault(name, str(path))

    def _start_postgres(self) -> str:
        self.tell("starting PostgreSQL")
        passwords = Passwords(self.folder.secret("database-admin"), self.folder.secret("database"))
        server = Postgres(self.folder.path / "postgres", passwords)
        self._closing.callback(server.close)
        server.prepare()
        self.supervisor.start(server.part(stage=1))
        server.ensure_database()
        return server.url

    def _start_redis(self) -> str:
        self.tell("starting Redis")
        server = Redis(self.folder.path / "redis", self.folder.secret("redis"))
        server.prepare()
        self.supervisor.start(server.part(stage=2))
        return server.url

    def _launch_simulator(self, port_file: Path) -> None:
        """Its first start chooses the port, and a restart takes the same one, which everybody has been told."""
        self.tell("starting the AWS simulator")
        port_file.unlink(missing_ok=True)
        data = str(self.folder.subfolder("simulator"))
        self.supervisor.launch(
            Part(
                name="simulator",
                stage=3,
                command=lambda: programs.simulator(data, self._simulator_port, str(port_file)),
                env=self.env,
                ready=port_file.exists,
            )
        )

    def _use_simulator(self, port_file: Path) -> None:
        self.supervisor.await_ready("simulator")
        self._simulator_port = int(port_file.read_text())
        self.env |= {
            "CPM_AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._simulator_port}",
            "CPM_AWS_RATE_FACTOR": "1000",
            "CPM_POLL_SECONDS": "2",
            # So that accounts that use the server's own role work without a metadata service.
            "AWS_ACCESS_KEY_ID": SIMULATED_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SIMULATED_SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _bootstrap(self) -> dict[str, str]:
        """Root's name, password and a key minted for this start. They pass through a 0600 file, never a log."""
        password_file = self.folder.secret_file("admin-password", secrets.token_urlsafe(18))
        answer = self.folder.run / "bootstrap.json"
        command = programs.management(
            *("bootstrap", "--username", ADMIN_USER, "--password-file", str(password_file), "--output", str(answer))
        )
        try:
            self.supervisor.run_once("bootstrap", command, env=self.env, within=120)
            root: dict[str, str] = json.loads(answer.read_text())
            return root
        finally:
            answer.unlink(missing_ok=True)

    def _api(self, listener: socket.socket) -> Part:
        command = programs.api(f"fd://{listener.fileno()}")
        url = _url(listener, self.options.host)
        return Part(
            name="api",
            stage=4,
            command=lambda: command,
            env=self.env,
            ready=lambda: _answers(f"{url}/healthz"),
            keep_open=(listener.fileno(),),
        )

    def _worker(self, name: str) -> Part:
        command = programs.worker(programs.QUEUES, concurrency=WORKER_CONCURRENCY, name=name)
        return Part(
            name=name,
            stage=4,
            command=lambda: command,
            env=self.env,
            ready_line=" ready.",
            stop_within=20,
            # Celery's cold shutdown: what runs is cut short, and its lease brings it back.
            death_signal=signal.SIGQUIT,
        )

    def _beat(self) -> Part:
        command = programs.beat(str(self.folder.run / "beat-schedule"))
        return Part(name="beat", stage=4, command=lambda: command, env=self.env, ready_line="beat: Starting")

    def _describe(self, root: dict[str, str], listener: socket.socket) -> Connection:
        url = _url(listener, self.options.host)
        endpoint = self.env["CPM_AWS_ENDPOINT_URL"] if self.options.simulated_aws else None
        return Connection(
            api_url=f"{url}/api",
            api_key=root["api_key"],
            admin_url=f"{url}/admin/",
            admin_user=root["username"],
            admin_password=root["password"],
            database_url=self.env["CPM_DATABASE_URL"],
            redis_url=self.env["CPM_REDIS_URL"],
            aws_endpoint_url=endpoint,
            aws_access_key_id=SIMULATED_ACCESS_KEY if endpoint else None,
            aws_secret_access_key=SIMULATED_SECRET_KEY if endpoint else None,
            aws_regions=SIMULATED_REGIONS if endpoint else None,
            simulator_control_url=f"{endpoint}/_control" if endpoint else None,
        )


@contextmanager
def running(
    options: Options, *, tell: Callable[[str], None], on_death: Callable[[Death], None] = lambda death: None
) -> Iterator[Stack]:
    """A started stack; SIGINT and SIGTERM ask it to stop. Everything is ended when the block is left.

    Raises StackError when it cannot start, StopRequested when it was asked to stop meanwhile.
    """
    if sys.platform == "win32":
        raise StackError("The embedded stack runs on Linux and macOS.")
    folder = DataFolder(options.data)
    with folder.locked():
        stack = Stack(options, folder, Supervisor(folder.logs, mark=folder.secret("mark"), on_death=on_death), tell)
        previous = {
            number: signal.signal(number, stack.supervisor.request_stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """The API's socket is opened here, so that a taken port is known at once and a restarted API keeps its port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise StackError(f"Cannot listen on {host} port {port}: {error.strerror}. Choose another --port.") from error
    with listener:
        yield listener


def _url(listener: socket.socket, host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{listener.getsockname()[1]}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http address
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _check_servers(database_url: str, redis_url: str) -> None:
    try:
        psycopg.connect(database_url, connect_timeout=10).close()
    except psycopg.Error as error:
        raise StackError(f"The database at {_place(database_url)} does not answer: {error}") from error
    try:
        # Celery writes socket URLs as redis+socket://, redis-py as unix://.
        with redis.Redis.from_url(redis_url.replace("redis+socket://", "unix://", 1), socket_timeout=10) as link:
            link.ping()
    except redis.RedisError as error:
        raise StackError(f"Redis at {_place(redis_url)} does not answer: {error}") from error


def _place(url: str) -> str:
    """An address without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or ''}{parts.path}"
