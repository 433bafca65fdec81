"""Pagination that is off unless a client asks for it.

With `page` or `page_size` the answer is `{count, next, previous, results}`; without them, or with `page_size=0`, it is
a bare array. A page that is no number is a 400, a page behind the last one a 404.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.http import HttpResponse
from django.utils.encoding import iri_to_uri
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from cpm.lib.errors import NotFound, ValidationFailed

DEFAULT_SIZE = 50
LARGEST_SIZE = 5000


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a list that a page shows; `number` starts at 1."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    def check(self, total: int) -> None:
        """Raises `NotFound` for a page behind the last one; the first page of an empty list exists."""
        if self.number > 1 and self.offset >= total:
            raise NotFound("page", self.number)


def window_of(request: Request) -> Window | None:
    """What page the client asks for; None if it wants everything. Larger pages than `LARGEST_SIZE` are cut to it."""
    parameters = request.query_params
    if "page" not in parameters and "page_size" not in parameters:
        return None
    size = _number(parameters, "page_size", DEFAULT_SIZE, least=0)
    number = _number(parameters, "page", 1, least=1)
    return Window(number, min(size, LARGEST_SIZE)) if size else None


def _number(parameters: Any, name: str, default: int, least: int) -> int:
    text = parameters.get(name, "")
    if text == "":
        return default
    # More digits than any offset has would only make arithmetic slow.
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
        raise ValidationFailed.one(name, f"This must be a whole number from {least} up.")
    return int(text)


def page_answer(request: Request, window: Window, total: int, rows: Sequence[str]) -> HttpResponse:
    """The page as `{count, next, previous, results}` around rows that are JSON texts already."""
    before, after = _links(request, window, total)
    head = f'{{"count":{total},"next":{_quoted(after)},"previous":{_quoted(before)},"results":['
    return HttpResponse(f"{head}{','.join(rows)}]}}", content_type="application/json")


def _quoted(link: str | None) -> str:
    return orjson.dumps(link).decode()


def _links(request: Request, window: Window, total: int) -> tuple[str | None, str | None]:
    """Addresses of the pages before and after, with every other parameter as the client wrote it."""
    others = "&".join(
        part
        for part in request.META.get("QUERY_STRING", "").split("&")
        if part and not part.startswith("page=")
    )
    base = f"{request.scheme}://{request.get_host()}{request.path}"

    def link(number: int) -> str:
        return iri_to_uri(f"{base}?page={number}&{others}" if others else f"{base}?page={number}")

    before = link(window.number - 1) if window.number > 1 else None
    after = link(window.number + 1) if window.offset + window.size < total else None
    return before, after


class OptionalPagination(BasePagination):
    """The same rules as a framework class, for views that paginate Python lists or plain querysets."""

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        self.request, self.window = request, window_of(request)
        if self.window is None:
            return None
        self.total = len(queryset) if isinstance(queryset, list) else queryset.count()
        self.window.check(self.total)
        return list(queryset[self.window.offset : self.window.offset + self.window.size])

    def get_paginated_response(self, data: Any) -> Response:
        assert self.window is not None, "paginate_queryset answered None: there is no page"
        before, after = _links(self.request, self.window, self.total)
        return Response({"count": self.total, "next": after, "previous": before, "results": data})

    def page_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The OpenAPI schema of a page of such rows."""
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["count", "next", "previous", "results"],
            "properties": {"count": {"type": "integer"}, "next": link, "previous": link, "results": schema},
        }

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"oneOf": [schema, self.page_schema(schema)]}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": "page",
                "in": "query",
                "description": "Number of the page, from 1. Without `page` and `page_size` the whole list is sent.",
                "schema": {"type": "integer", "minimum": 1},
            },
            {
                "name": "page_size",
                "in": "query",
                "description": f"Rows on a page, {DEFAULT_SIZE} if only `page` is given; 0 sends the whole list.",
                "schema": {"type": "integer", "minimum": 0},
            },
        ]
