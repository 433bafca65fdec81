"""A small HTTP server whose every answer is scripted down to the bytes, for what goes wrong on the way to AWS."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Say:
    """An answer. ``cut`` sends so many bytes of the body and closes; ``reset`` breaks the connection at once;
    ``hang_up`` closes after a whole answer without having said so."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    hang_up: bool = False
    chunked: bool = False
    delay: float = 0.0


Script = Callable[[Seen, int], Say]


@dataclass
class Wire:
    """``script`` gets the request and how many came before it."""

    url: str
    script: Script
    seen: list[Seen] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def connections(self) -> int:
        return len({one.connection for one in self.seen})


class _Handler(BaseHTTPRequestHandler):
    wire: ClassVar[Wire]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        wire = self.wire
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with wire.lock:
            wire.under_way += 1
            wire.most = max(wire.most, wire.under_way)
            seen = Seen(self.command, self.path, headers, body, self.client_address[1])
            number = len(wire.seen)
            wire.seen.append(seen)
        say = wire.script(seen, number)
        time.sleep(say.delay)
        with wire.lock:
            wire.under_way -= 1
        with contextlib.suppress(OSError):
            self._say(say)

    def _say(self, say: Say) -> None:
        if say.reset:
            # Lingering for no time makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(say.status)
        for name, value in say.headers.items():
            self.send_header(name, value)
        if say.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(say.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if say.chunked:
            for at in range(0, len(say.body), 1000):
                piece = say.body[at : at + 1000]
                self.wfile.write(f"{len(piece):x};note=1\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        else:
            self.wfile.write(say.body[: say.cut])
        self.close_connection = say.cut is not None or say.hang_up

    def log_message(self, format: str, *args: object) -> None:
        """Tests read the requests, not a log on standard error."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what these tests are about."""


@contextlib.contextmanager
def running(script: Script, certificate: tuple[str, str] | None = None) -> Iterator[Wire]:
    server = _Server(("127.0.0.1", 0), _Handler)
    scheme = "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    host = "localhost" if certificate else "127.0.0.1"
    wire = Wire(f"{scheme}://{host}:{server.server_port}", script)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"wire": wire})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
