"""A tiny HTTP server that answers AWS's query protocol from a script of answers and counts what it was
asked."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs


@dataclass
class Request:
    action: str
    params: dict[str, str]
    authorization: str
    token: str | None


@dataclass
class Reply:
    body: str = ""
    status: int = 200
    drop: bool = False


Responder = Callable[[Request, int], Reply]
"""Gets the request and how many of its action came before."""


@dataclass
class FakeAws:
    """``responders`` by action; the requests as they came in."""

    url: str
    responders: dict[str, Responder]
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, action: str) -> list[Request]:
        with self.lock:
            return [request for request in self.requests if request.action == action]


def ec2_error(code: str, message: str = "Refused.", status: int = 400) -> Reply:
    return Reply(
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>req-fake</RequestID></Response>",
        status,
    )


def query_error(code: str, message: str = "Refused.", status: int = 400) -> Reply:
    return Reply(
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        "<RequestId>req-fake</RequestId></ErrorResponse>",
        status,
    )


def snapshot_created(snapshot: str = "snap-0123456789abcdef0") -> Reply:
    return Reply(f"<CreateSnapshotResponse><snapshotId>{snapshot}</snapshotId></CreateSnapshotResponse>")


def caller(account: str = "111122223333") -> Reply:
    return Reply(
        "<GetCallerIdentityResponse><GetCallerIdentityResult>"
        f"<Arn>arn:aws:iam::{account}:user/cpm</Arn><UserId>AIDA</UserId><Account>{account}</Account>"
        "</GetCallerIdentityResult></GetCallerIdentityResponse>"
    )


def assumed(number: int, expires: str, secret: str = "planted-role-secret") -> Reply:
    return Reply(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
        f"<AccessKeyId>ASIAROLE{number}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
        f"<SessionToken>token-{number}</SessionToken><Expiration>{expires}</Expiration>"
        "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )


class _Handler(BaseHTTPRequestHandler):
    fake: ClassVar[FakeAws]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        params = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        request = Request(
            params.get("Action", ""),
            params,
            self.headers.get("Authorization", ""),
            self.headers.get("X-Amz-Security-Token"),
        )
        with self.fake.lock:
            before = sum(1 for earlier in self.fake.requests if earlier.action == request.action)
            self.fake.requests.append(request)
        reply = self.fake.responders[request.action](request, before)
        if reply.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests read the requests, not a log on standard error."""


def serve() -> tuple[ThreadingHTTPServer, FakeAws]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    fake = FakeAws(f"http://127.0.0.1:{server.server_port}", {})
    server.RequestHandlerClass = type("Handler", (_Handler,), {"fake": fake})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, fake
