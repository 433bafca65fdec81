"""Asking a populated server over HTTP, and what its own document says. Every request is rolled back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import transaction
from django.test import Client
from django.urls import Resolver404, resolve
from drf_spectacular.generators import SchemaGenerator

from api import authentication
from tests.contract import recipes
from tests.contract.facts import Operation
from tests.contract.populated import Server

Problems = Iterator[str]
ABSENT = 2**62
# One for all requests: each would load the middleware anew.
CLIENT = Client(raise_request_exception=False)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    def __str__(self) -> str:
        return f"{self.status} {self.content[:300].decode(errors='replace')}"


class Caller:
    """Root's client. What a request changes is undone."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.token = str(authentication.obtain(server.api_key).access_token)

    def __call__(
        self, operation: Operation, path: str = "", body: Any = None, query: Any = None, **headers: str
    ) -> Answer:
        path = path or recipes.path_of(operation, self.server)
        sent = {
            "authorization": f"Bearer {self.token}",
            **recipes.filled(recipes.HEADERS.get(operation["id"], {}), self.server),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        data = b"" if body is None else json.dumps(body).encode()
        with transaction.atomic():
            recipes.BEFORE.get(operation["id"], _nothing)(self.server)
            response = CLIENT.generic(
                operation["method"], path, data, "application/json", headers=sent, query_params=query or {}
            )
            content = b"".join(response) if response.streaming else response.content
            self.before_undoing()
            transaction.set_rollback(True)
        return Answer(response.status_code, {k.lower(): v for k, v in response.items()}, content)

    def before_undoing(self) -> None:
        """A place to look at what the request has changed."""


def _nothing(server: Server) -> None:
    """Most operations need nothing else."""


def implemented(operation: Operation) -> bool:
    """Whether the address is routed to a view that takes the method."""
    path = operation["path"]
    for name in [parameter["name"] for parameter in operation.get("path_params", [])]:
        path = path.replace(f"{{{name}}}", "1")
    try:
        found = resolve(path)
    except Resolver404:
        return False
    actions = getattr(found.func, "actions", {})
    return operation["method"].lower() in actions


@cache
def document() -> dict[str, Any]:
    """Our OpenAPI document."""
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return made


def good(operation: Operation, call: Caller, **extra: Any) -> Answer:
    body = recipes.body_of(operation, call.server) if "body" in operation else None
    return call(operation, **{"body": body, "query": needed_query(operation, call), **extra})


def needed_query(operation: Operation, call: Caller) -> dict[str, Any]:
    needed = [p["name"] for p in operation.get("query_params", []) if p.get("required")]
    return {name: recipes.filled(recipes.QUERIES[name], call.server) for name in needed}


def is_envelope(answer: Answer) -> bool:
    try:
        shown = answer.json
    except ValueError:
        return False
    errors = shown.get("errors") if isinstance(shown, dict) else None
    return (
        isinstance(errors, list)
        and len(errors) == 1
        and all(
            isinstance(item, dict) and set(item) == {"message", "code"}
            for items in errors[0].values()
            for item in items
        )
    )


def blames(answer: Answer, field: str) -> bool:
    """Whether it is a 400 that names the field, or something within it."""
    if answer.status != 400 or not is_envelope(answer):
        return False
    return any(name == field or name.startswith(f"{field}.") for name in answer.json["errors"][0])
