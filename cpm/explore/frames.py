"""Messages between a session and its confined process: JSON and bytes, both prefixed by their lengths."""

import socket
import struct
from typing import Any

import orjson

HEADER = struct.Struct(">II")
MAX_JSON = 16 * 1024 * 1024
MAX_PAYLOAD = 4 * 1024 * 1024
Message = dict[str, Any]


class Broken(Exception):
    """The other side is gone, or sends what no message looks like."""


def send(connection: socket.socket, message: Message, payload: bytes = b"") -> None:
    body = orjson.dumps(message)
    try:
        connection.sendall(HEADER.pack(len(body), len(payload)) + body)
        if payload:
            connection.sendall(payload)
    except TimeoutError:
        raise
    except OSError as error:
        raise Broken(str(error)) from error


def receive(connection: socket.socket) -> tuple[Message, bytes]:
    """The next message. Raises TimeoutError after the connection's time limit, which counts per piece received."""
    body_length, payload_length = HEADER.unpack(_exactly(connection, HEADER.size))
    if body_length > MAX_JSON or payload_length > MAX_PAYLOAD:
        raise Broken("a message is too long")
    body = _exactly(connection, body_length)
    payload = _exactly(connection, payload_length)
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Broken("a message is no JSON") from error
    if not isinstance(message, dict):
        raise Broken("a message is no object")
    return message, payload


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            received = connection.recv_into(view)
        except TimeoutError:
            raise
        except OSError as error:
            raise Broken(str(error)) from error
        if not received:
            raise Broken("the connection ended")
        view = view[received:]
    return bytes(data)


def text(raw: bytes) -> str:
    """Bytes as text that JSON can carry, one character per byte."""
    return raw.decode("latin-1")


def raw(value: str) -> bytes:
    return value.encode("latin-1")
