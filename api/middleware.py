"""Conventions of the API that hold before any view is chosen: addresses, request ids, body size, error bodies."""

import re
import uuid
from collections.abc import Callable

import structlog
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from api import errors

PREFIX = "/api/"
# Newer clients look for the AWS resources under /api/aws/; both addresses reach the same views.
MOVED = (
    "accounts", "backups", "freezer", "policies", "recoveries", "recovery_scenarios", "regions", "resource_control",
    "resource_types", "s3_repositories",
)  # fmt: skip
_ALIAS = re.compile(rf"^/api/aws/(?=(?:{'|'.join(MOVED)})/)")
_SLASHES = re.compile(r"/{2,}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def canonical(path: str) -> str:
    """The address under which a view is registered: single slashes, no `aws/`, a slash at the end."""
    path = _SLASHES.sub("/", path)
    if not path.endswith("/"):
        path += "/"
    return _ALIAS.sub(PREFIX, path)


class ApiConventions:
    """Wraps requests under /api/. `request.path` stays as the client wrote it, so that links point back there."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not _SLASHES.sub("/", request.path_info).startswith(PREFIX):
            return self.get_response(request)
        request.path_info = canonical(request.path_info)
        request_id = _request_id(request)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = errors.for_status(413) if _too_large(request) else self.get_response(request)
        if response.status_code >= 400 and not _is_ours(response):
            response = errors.for_status(response.status_code)
        response["X-Request-ID"] = request_id
        return response


def _request_id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _too_large(request: HttpRequest) -> bool:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return length.isdigit() and int(length) > (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0)


def _is_ours(response: HttpResponseBase) -> bool:
    return response.get("Content-Type", "").startswith("application/json")
