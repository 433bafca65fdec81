"""One HTTP/1.1 connection that moves large bodies with few copies and few system calls.

Made for block I/O, where a general client costs as much CPU as compressing the data. It knows what S3 and EBS
direct need: bodies of known length, chunked answers, keep-alive, TLS, and a web proxy.
"""

import base64
import select
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

MAX_HEAD = 64 * 1024
_FIRST_READ = 4096
# A server that closes idle connections does it while nobody looks; younger ones are used without looking.
LOOK_AFTER = 1.0

Buffer = bytes | bytearray | memoryview


class Broken(Exception):
    """No whole answer came. ``sent`` tells whether the request may have arrived, ``late`` that time ran out,
    ``stale`` that a kept connection turned out to be closed before it was used again."""

    def __init__(self, code: str, text: str, *, sent: bool, late: bool = False, stale: bool = False) -> None:
        self.code, self.sent, self.late, self.stale = code, sent, late, stale
        super().__init__(text)


@dataclass(frozen=True)
class Route:
    """How a host is reached. ``tls`` is None for plain HTTP; ``proxy`` is a URL as botocore takes it."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)
    connect_timeout: float = 10.0
    read_timeout: float = 60.0

    @property
    def authority(self) -> str:
        """What the Host header says, and the signature covers: the port only when it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(slots=True)
class Answer:
    """Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytearray | memoryview


class Connection:
    """Use it from one thread at a time. After ``Broken`` it is closed."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._used = False
        self.keep = True
        self.idle_since = 0.0
        self._prefix = ""
        self._proxy_headers = ""
        self._socket = self._connect()
        # One call of the kernel fills a whole body; OpenSSL hands out one record of 16 KiB at a time.
        self._flags = 0 if isinstance(self._socket, ssl.SSLSocket) else socket.MSG_WAITALL

    def close(self) -> None:
        self.keep = False
        self._socket.close()

    def usable(self) -> bool:
        """Whether a kept connection is still open, as far as this side can see."""
        if time.monotonic() - self.idle_since < LOOK_AFTER:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Sequence[Buffer],
        *,
        longest: int,
        into: memoryview | None = None,
    ) -> Answer:
        """Sends a request and reads its answer, whose body may have up to ``longest`` bytes.

        With ``into`` the body of a successful answer lies in that memory, and the answer shows that part of it.
        """
        if any("\r" in value or "\n" in value for value in (target, *headers.values())):
            raise ValueError("a header or a path of a request contains a line break")
        length = sum(len(piece) for piece in body)
        lines = [f"{method} {self._prefix}{target} HTTP/1.1\r\nHost: {self._route.authority}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if length or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {length}\r\n")
        head = "".join((*lines, self._proxy_headers, "\r\n")).encode("latin-1")
        try:
            refused = self._send(head, body)
            answer = self._read(method, longest, into)
        except OSError as error:
            self.close()
            raise _lost(error) from None
        except Broken:
            self.close()
            raise
        self._used = True
        if refused or not self.keep:
            self.close()
        self.idle_since = time.monotonic()
        return answer

    # -- sending ------------------------------------------------------------------------------------------

    def _send(self, head: bytes, body: Sequence[Buffer]) -> bool:
        """True when the other side stopped listening, which it may do while it says why."""
        try:
            if self._flags:
                self._send_gathered(
                    [memoryview(head), *(memoryview(piece).cast("B") for piece in body if piece)]
                )
            else:
                self._socket.sendall(head)
                for piece in body:
                    self._socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def _send_gathered(self, views: list[memoryview]) -> None:
        while views:
            sent = self._socket.sendmsg(views[:64])
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    # -- reading ------------------------------------------------------------------------------------------

    def _read(self, method: str, longest: int, into: memoryview | None) -> Answer:
        rest = b""
        while True:
            head, rest = self._head(rest)
            status, headers = _parsed(head)
            if status >= 200:
                break
        if headers.get("connection", "").lower() == "close" or head.startswith(b"HTTP/1.0"):
            self.keep = False
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, bytearray())
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, self._chunked(rest, longest))
        length = headers.get("content-length")
        if length is None:
            self.keep = False
            return Answer(status, headers, self._until_closed(rest, longest))
        if not length.isdigit():
            raise Broken("BadAnswer", "the answer's Content-Length is no number", sent=True)
        size = _allowed(int(length), longest)
        if into is not None and status < 300:
            return Answer(status, headers, self._fill(into[: _allowed(size, len(into))], rest))
        body = bytearray(size)
        with memoryview(body) as view:
            self._fill(view, rest)
        return Answer(status, headers, body)

    def _head(self, rest: bytes) -> tuple[bytes, bytes]:
        data = rest
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                return data[:end], data[end + 4 :]
            if len(data) > MAX_HEAD:
                raise Broken("BadAnswer", "the answer's headers are too long", sent=True)
            more = self._socket.recv(_FIRST_READ)
            if not more:
                stale = self._used and not data
                raise Broken("ConnectionClosedError", "the connection was closed before an answer came",
                             sent=True, stale=stale)  # fmt: skip
            data += more

    def _fill(self, view: memoryview, rest: bytes) -> memoryview:
        length, have = len(view), len(rest)
        if have > length:
            raise Broken("BadAnswer", "the answer is longer than it says", sent=True)
        view[:have] = rest
        while have < length:
            got = self._socket.recv_into(view[have:], length - have, self._flags)
            if not got:
                text = f"the answer ended after {have} of {length} bytes"
                raise Broken("IncompleteReadError", text, sent=True)
            have += got
        return view

    def _chunked(self, rest: bytes, longest: int) -> bytearray:
        body = bytearray()
        while True:
            line, rest = self._line(rest)
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise Broken("BadAnswer", "a chunk's size is no number", sent=True) from None
            if size == 0:
                break
            _allowed(len(body) + size, longest)
            while len(rest) < size + 2:
                rest += self._more()
            body += rest[:size]
            rest = rest[size + 2 :]
        while line:
            line, rest = self._line(rest)
        return body

    def _line(self, rest: bytes) -> tuple[bytes, bytes]:
        while (end := rest.find(b"\r\n")) < 0:
            if len(rest) > MAX_HEAD:
                raise Broken("BadAnswer", "a line of the answer is too long", sent=True)
            rest += self._more()
        return rest[:end], rest[end + 2 :]

    def _more(self) -> bytes:
        if not (more := self._socket.recv(MAX_HEAD)):
            raise Broken("IncompleteReadError", "the answer ended inside a chunk", sent=True)
        return more

    def _until_closed(self, rest: bytes, longest: int) -> bytearray:
        body = bytearray(rest)
        while more := self._socket.recv(MAX_HEAD):
            body += more
            _allowed(len(body), longest)
        return body

    # -- connecting ---------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        route = self._route
        proxy = urlsplit(route.proxy) if route.proxy else None
        if proxy is not None and proxy.scheme not in ("http", ""):
            raise Broken("ProxyConnectionError", "only http:// proxies are supported here", sent=False)
        place = (proxy.hostname or "", proxy.port or 80) if proxy else (route.host, route.port)
        try:
            plain = socket.create_connection(place, timeout=route.connect_timeout)
        except OSError as error:
            code = "ProxyConnectionError" if proxy else "EndpointConnectionError"
            late = isinstance(error, TimeoutError)
            text = f"no connection to {place[0]}:{place[1]} ({error.strerror or error})"
            raise Broken("ConnectTimeoutError" if late else code, text, sent=False, late=late) from None
        try:
            return self._prepared(plain, _authorization(proxy.username, proxy.password) if proxy else None)
        except Broken:
            plain.close()
            raise
        except OSError as error:
            plain.close()
            code = "SSLError" if isinstance(error, ssl.SSLError) else "EndpointConnectionError"
            text = f"no usable connection to {route.host} ({error.strerror or error})"
            raise Broken(code, text, sent=False, late=isinstance(error, TimeoutError)) from None

    def _prepared(self, plain: socket.socket, proxy: str | None) -> socket.socket:
        route = self._route
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if route.tls is None:
            if proxy is not None:
                self._prefix, self._proxy_headers = f"http://{route.authority}", proxy
            # Python makes a socket with a timeout non-blocking and polls before each call; the kernel's own
            # timeout lets one call fill a body.
            seconds = struct.pack("ll", int(route.read_timeout), int(route.read_timeout % 1 * 1_000_000))
            plain.settimeout(None)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
            return plain
        if proxy is not None:
            _open_tunnel(plain, f"{_bracketed(route.host)}:{route.port}", proxy)
        secure = route.tls.wrap_socket(plain, server_hostname=route.host)
        secure.settimeout(route.read_timeout)
        return secure


def _open_tunnel(plain: socket.socket, place: str, headers: str) -> None:
    plain.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{headers}\r\n".encode("latin-1"))
    data = b""
    while b"\r\n\r\n" not in data:
        more = plain.recv(_FIRST_READ)
        if not more or len(data) > MAX_HEAD:
            raise Broken("ProxyConnectionError", "the proxy closed the connection", sent=False)
        data += more
    status, _ = _parsed(data.split(b"\r\n\r\n")[0])
    if status != 200:
        raise Broken("ProxyConnectionError", f"Tunnel connection failed: {status}", sent=False)


def _authorization(user: str | None, password: str | None) -> str:
    if not user:
        return ""
    name = f"{unquote(user)}:{unquote(password or '')}".encode()
    return f"Proxy-Authorization: Basic {base64.b64encode(name).decode()}\r\n"


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Broken("BadAnswer", "the answer is not HTTP", sent=True)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers


def _allowed(length: int, longest: int) -> int:
    if length > longest:
        raise Broken("BadAnswer", f"the answer has more than the {longest} bytes expected", sent=True)
    return length


def _lost(error: OSError) -> Broken:
    if isinstance(error, TimeoutError | BlockingIOError):
        return Broken("ReadTimeoutError", "no answer in time", sent=True, late=True)
    return Broken("ConnectionClosedError", f"the connection broke ({error.strerror or error})", sent=True)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
