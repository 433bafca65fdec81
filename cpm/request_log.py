"""Every request in the log, where the log mode is DEBUG; and the log mode, taken up with the next request."""

import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from cpm.services import log_mode

log = structlog.get_logger(__name__)


class RequestLog:
    """Middleware. The address is logged without its query, which may hold anything."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        log_mode.follow()
        began = time.monotonic()
        response = self.get_response(request)
        log.debug(
            "request answered",
            method=request.method,
            path=request.path,
            status=response.status_code,
            seconds=round(time.monotonic() - began, 4),
            request_id=response.get("X-Request-ID"),
        )
        return response
