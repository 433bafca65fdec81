"""A web proxy on this machine: forwards requests and tunnels, asks for a password if it has one, keeps a list."""

import base64
import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

HOP_BY_HOP = {"proxy-authorization", "proxy-connection", "connection", "keep-alive", "transfer-encoding"}


@dataclass
class Passed:
    """One request as the proxy saw it."""

    method: str
    target: str
    authorization: str


@dataclass
class LoopbackProxy:
    """``credentials`` are ``user:password``, empty for an open proxy; ``answer`` is a status sent to everything."""

    port: int
    credentials: str = ""
    answer: int = 0
    passed: list[Passed] = field(default_factory=list)
    address: str = "127.0.0.1"

    def expected(self) -> str:
        return f"Basic {base64.b64encode(self.credentials.encode()).decode()}" if self.credentials else ""


class _Handler(BaseHTTPRequestHandler):
    proxy: ClassVar[LoopbackProxy]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self._refused():
            return
        parts = urlsplit(self.path)
        upstream = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            upstream.request(
                self.command,
                self.path[self.path.index(parts.netloc) + len(parts.netloc) :] or "/",
                body,
                headers,
            )
            answer = upstream.getresponse()
            content = answer.read()
        except OSError:
            self._say(502)
            return
        finally:
            upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_CONNECT(self) -> None:
        if self._refused():
            return
        host, _, port = self.path.rpartition(":")
        try:
            upstream = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        except OSError:
            self._say(502)
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with upstream:
            _pump(self.connection, upstream)

    def _refused(self) -> bool:
        proxy, given = self.proxy, self.headers.get("Proxy-Authorization", "")
        proxy.passed.append(Passed(self.command, self.path, given))
        if proxy.answer:
            self._say(proxy.answer)
            return True
        if proxy.credentials and given != proxy.expected():
            self._say(407)
            return True
        return False

    def _say(self, status: int) -> None:
        body = b"<html>the proxy says no</html>"
        self.send_response(status)
        if status == 407:
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read the list, not a log on standard error."""


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carries bytes both ways until one side ends."""
    while True:
        ready, _, _ = select.select([one, other], [], [], 10)
        if not ready:
            return
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


def start(credentials: str = "", answer: int = 0) -> tuple[ThreadingHTTPServer, LoopbackProxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = LoopbackProxy(server.server_port, credentials, answer)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"proxy": proxy})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, proxy


@contextlib.contextmanager
def running(credentials: str = "", answer: int = 0) -> Iterator[LoopbackProxy]:
    server, proxy = start(credentials, answer)
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
