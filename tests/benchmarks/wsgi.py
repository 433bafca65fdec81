"""Requests to the application inside this process: a whole WSGI answer without a network between."""

import io
from collections.abc import Iterator

from django.core.handlers.wsgi import WSGIHandler


def chunks(
    handler: WSGIHandler, path: str, query: str, token: str, *, accept: str = "application/json"
) -> Iterator[bytes]:
    """The body as it is sent. Raises SystemExit when the answer is not 200."""
    status: list[int] = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_AUTHORIZATION": f"Bearer {token}", "HTTP_HOST": "localhost", "HTTP_ACCEPT": accept,
        "REMOTE_ADDR": "127.0.0.1",
    }  # fmt: skip
    response = handler(environ, lambda line, headers, exc_info=None: status.append(int(line[:3])))  # type: ignore[arg-type,misc]  # the write callable of WSGI is not used
    if status != [200]:
        raise SystemExit(f"{path}?{query} answered {status}: {b''.join(response)[:300]!r}")
    try:
        yield from response
    finally:
        response.close()


def get(handler: WSGIHandler, path: str, query: str, token: str) -> bytes:
    return b"".join(chunks(handler, path, query, token))
