"""A Redis-compatible server from a wheel: a free loopback port, a password, and an append-only file.

It listens on TCP because Celery and redis-py write socket URLs differently, and one URL has to serve both.
"""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import redis

from cpm.embedded import binaries
from cpm.embedded.folder import write_private
from cpm.embedded.supervisor import Part


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now. Somebody may take it before the caller does, so starting must notice."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Redis:
    """One server whose files lie in `folder`. The port is chosen anew for every instance."""

    def __init__(self, folder: Path, password: str, *, durable: bool = True) -> None:
        self.folder = folder
        self._password = password
        self._durable = durable
        self._port = 0

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self) -> None:
        """Chooses the port and writes the configuration, which keeps the password out of the process list."""
        self._program = binaries.redis_server()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._port = free_port()
        lines = [
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{self.folder}"',
            "daemonize no",
            "databases 16",
            # A queue must refuse rather than forget.
            "maxmemory-policy noeviction",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync everysec",
            "loglevel notice",
        ]
        write_private(self.folder / "server.conf", "\n".join(lines) + "\n")

    def part(self, stage: int) -> Part:
        command = [str(self._program), str(self.folder / "server.conf")]
        return Part(
            name="redis",
            stage=stage,
            command=lambda: command,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            ready=self._answers,
            ready_within=60,
            stop_signal=signal.SIGTERM,
            stop_within=20,
        )

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=2) as link:
            return bool(link.ping())
        return False
