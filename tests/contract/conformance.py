"""Does an operation answer as the contract says? Asked over HTTP, against a populated server.

`check` returns what is wrong with one operation, nothing if it is green. Every request runs in a transaction that
is rolled back, so that operations may be checked in any order.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from django.db import transaction
from django.test import Client
from django.urls import Resolver404, resolve
from drf_spectacular.generators import SchemaGenerator

from api import authentication
from tests.contract import recipes
from tests.contract.facts import VERSIONS, Operation, parameters, schema, success
from tests.contract.populated import Server

Problems = Iterator[str]
ABSENT = 2**62


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
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        data = b"" if body is None else json.dumps(body).encode()
        with transaction.atomic():
            response = Client(raise_request_exception=False).generic(
                operation["method"], path, data, "application/json", headers=sent, query_params=query or {}
            )
            content = b"".join(response) if response.streaming else response.content
            transaction.set_rollback(True)
        return Answer(response.status_code, {k.lower(): v for k, v in response.items()}, content)


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


def check(operation: Operation, call: Caller) -> list[str]:
    """Everything in which the operation differs from the contract."""
    if not implemented(operation):
        return ["The route or the method is missing."]
    checks: list[Callable[[Operation, Caller], Problems]] = [
        _documented, _answer, _versions, _identity, _absence, _filters, _orders, _pages, _csv, _required, _types,
    ]  # fmt: skip
    return [problem for one in checks for problem in one(operation, call)]


def _good(operation: Operation, call: Caller, **extra: Any) -> Answer:
    body = recipes.body_of(operation, call.server) if "body" in operation else None
    return call(operation, **{"body": body, "query": _needed_query(operation, call), **extra})


def _needed_query(operation: Operation, call: Caller) -> dict[str, Any]:
    needed = [p["name"] for p in operation.get("query_params", []) if p.get("required")]
    return {name: recipes.filled(recipes.QUERIES[name], call.server) for name in needed}


def _documented(operation: Operation, call: Caller) -> Problems:
    """Our own document names the same parameters and the same status."""
    ours = document()["paths"].get(operation["path"], {}).get(operation["method"].lower())
    if ours is None:
        yield "The OpenAPI document lacks the operation."
        return
    for place, theirs in (("query", parameters(operation)), ("path", _path_parameters(operation))):
        names = {p["name"] for p in ours.get("parameters", []) if p["in"] == place}
        if missing := set(theirs) - names:
            yield f"Undocumented {place} parameters: {sorted(missing)}."
        if extra := names - set(theirs):
            yield f"{place.capitalize()} parameters that the contract lacks: {sorted(extra)}."
    if str(success(operation)["code"]) not in ours["responses"]:
        yield f"The OpenAPI document has {sorted(ours['responses'])}, not {success(operation)['code']}."
    if ("body" in operation) != ("requestBody" in ours):
        yield "The OpenAPI document and the contract differ in whether there is a body."


def _path_parameters(operation: Operation) -> list[str]:
    return [parameter["name"] for parameter in operation.get("path_params", [])]


def _answer(operation: Operation, call: Caller) -> Problems:
    """The documented status, and exactly the documented fields with their types."""
    expected = success(operation)
    answer = _good(operation, call)
    if answer.status != expected["code"]:
        yield f"A good request is answered {answer} instead of {expected['code']}."
        return
    yield from _content(expected, answer)
    if "body" in operation:
        bare = call(operation, body=recipes.body_of(operation, call.server, required_only=True))
        if bare.status != expected["code"]:
            yield f"With the required fields alone the answer is {bare}."


def _content(expected: dict[str, Any], answer: Answer) -> Problems:
    if "schema" not in expected:
        if answer.content:
            yield f"There should be no content, but: {answer}."
        return
    if answer.headers.get("content-type") != "application/json":
        yield f"The content type is {answer.headers.get('content-type')}."
        return
    shown = answer.json
    if expected.get("array"):
        if not (isinstance(shown, list) and shown):
            yield f"There should be an array with rows, but: {answer}."
            return
        for row in shown:
            yield from _fields(expected["schema"], row, "")
    else:
        yield from _fields(expected["schema"], shown, "")


def _fields(name: str, row: Any, where: str) -> Problems:
    if not isinstance(row, dict):
        yield f"{where or 'The answer'} should be an object, not {row!r}."
        return
    fields = {field["name"]: field for field in schema(name)}
    if missing := set(fields) - set(row):
        yield f"Missing fields: {sorted(where + field for field in missing)}."
    if unknown := set(row) - set(fields):
        yield f"Unknown fields: {sorted(where + field for field in unknown)}."
    for key in set(fields) & set(row):
        yield from _typed(fields[key], row[key], where + key)


TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "enum": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "object": (dict,), "array": (list,),
}  # fmt: skip


def _typed(field: dict[str, Any], value: Any, where: str) -> Problems:
    if value is None:
        return
    kind = field["type"]
    is_bool_as_number = isinstance(value, bool) and kind in ("integer", "number")
    if not isinstance(value, TYPES[kind]) or is_bool_as_number:
        yield f"{where} should be {kind}, not {value!r}."
    elif kind == "enum" and not field.get("enum_truncated"):
        if value not in {choice["value"] for choice in field["enum"]}:
            yield f"{where} has the unknown value {value!r}."
    elif kind == "object" and "ref" in field:
        yield from _fields(field["ref"], value, f"{where}.")
    elif kind == "array" and "items" in field:
        for item in value:
            yield from _item(field["items"], item, f"{where}[]")


def _item(items: dict[str, Any], value: Any, where: str) -> Problems:
    if items["type"] == "object" and "ref" in items:
        yield from _fields(items["ref"], value, f"{where}.")
    else:
        yield from _typed(items, value, where)


def _versions(operation: Operation, call: Caller) -> Problems:
    """Unknown before its first version, known in it."""
    since = VERSIONS.index(operation["initial_release"])
    if since:
        older = _good(operation, call, accept=f"application/json; version={VERSIONS[since - 1]}")
        if older.status != 404:
            yield f"Version {VERSIONS[since - 1]} should not know it, but: {older}."
    first = _good(operation, call, accept=f"application/json; version={VERSIONS[since]};")
    if first.status != success(operation)["code"]:
        yield f"Version {VERSIONS[since]} should know it, but: {first}."


def _identity(operation: Operation, call: Caller) -> Problems:
    if (
        any(answer["code"] == 401 for answer in operation["responses"])
        and "Token" not in operation["chapter"]
    ):
        answer = call(operation, authorization="")
        if answer.status != 401 or not _is_envelope(answer):
            yield f"Without a token the answer is {answer} instead of a 401."


def _absence(operation: Operation, call: Caller) -> Problems:
    """Ids that do not exist, or are no ids, are 404 at every place of the path."""
    for name in _path_parameters(operation):
        for wrong in (ABSENT, 10**30, "x"):
            path = recipes.path_of(operation, call.server, **{name: wrong})
            answer = _good(operation, call, path=path)
            if answer.status != 404 or not _is_envelope(answer):
                yield f"With {name}={wrong} the answer is {answer} instead of a 404."


def _filters(operation: Operation, call: Caller) -> Problems:
    for name in parameters(operation):
        value = recipes.filled(recipes.QUERIES.get(name, "text"), call.server)
        if value is None:
            continue
        answer = _good(operation, call, query={**_needed_query(operation, call), name: value})
        if answer.status != success(operation)["code"]:
            yield f"?{name}={value} is answered {answer}."
        control = _good(operation, call, query={**_needed_query(operation, call), name: "a\x00b"})
        if control.status != 400 or not _is_envelope(control):
            yield f"A control character in ?{name} is answered {control} instead of a 400."


def _orders(operation: Operation, call: Caller) -> Problems:
    if not operation.get("ordering"):
        return
    for name in operation["ordering"]:
        for order in (name, f"-{name}"):
            answer = _good(operation, call, query={"ordering": order})
            if answer.status != 200:
                yield f"?ordering={order} is answered {answer}."
    nonsense = _good(operation, call, query={"ordering": "no_such_field"})
    if nonsense.status != 400 or not _is_envelope(nonsense):
        yield f"Ordering by an unknown field is answered {nonsense} instead of a 400."


def _pages(operation: Operation, call: Caller) -> Problems:
    if "page" not in parameters(operation) or not success(operation).get("array"):
        return
    everything = _good(operation, call).json
    needed = _needed_query(operation, call)
    page = _good(operation, call, query={**needed, "page": "1", "page_size": "1"})
    shown = page.json if page.status == 200 else {}
    if set(shown) != {"count", "next", "previous", "results"}:
        yield f"A page is answered {page}."
    elif shown["count"] != len(everything) or shown["results"] != everything[:1]:
        yield f"The first page of one row does not begin the whole list of {len(everything)}: {page}."
    off = _good(operation, call, query={**needed, "page_size": "0"})
    if off.status != 200 or off.json != everything:
        yield f"?page_size=0 is answered {off} instead of the whole list."
    for query, status in (({"page": "x"}, 400), ({"page": "0"}, 400), ({"page": "100000"}, 404)):
        answer = _good(operation, call, query={**needed, **query})
        if answer.status != status or not _is_envelope(answer):
            yield f"{query} is answered {answer} instead of {status}."


def _csv(operation: Operation, call: Caller) -> Problems:
    if "text/csv" not in operation.get("produces", []):
        return
    answer = _good(operation, call, accept="text/csv;")
    if answer.status != 200 or not answer.headers["content-type"].startswith("text/csv"):
        yield f"As CSV the answer is {answer}."
    elif "filename=" not in answer.headers.get("content-disposition", ""):
        yield "The CSV download has no file name."


def _required(operation: Operation, call: Caller) -> Problems:
    if "body" not in operation:
        return
    good = recipes.body_of(operation, call.server)
    for field in schema(operation["body"]):
        if field.get("required"):
            answer = call(operation, body={k: v for k, v in good.items() if k != field["name"]})
            if not _blames(answer, field["name"]):
                yield f"Without {field['name']} the answer is {answer} instead of a 400 that names it."
    for nonsense in ([], "text", 5):
        answer = call(operation, body=nonsense)
        if answer.status != 400 or not _is_envelope(answer):
            yield f"The body {nonsense!r} is answered {answer} instead of a 400."


WRONG: dict[str, Any] = {
    "string": {"a": 1}, "enum": "no such value", "integer": "x", "number": "x", "boolean": "maybe", "array": "text",
    "object": "text",
}  # fmt: skip


def _types(operation: Operation, call: Caller) -> Problems:
    """Every field of the body is known: a wrong type in it is a 400 that names it."""
    if "body" in operation:
        send = partial(call, operation)
        yield from _wrong_types(operation["body"], recipes.body_of(operation, call.server), "", send)


def _wrong_types(name: str, good: Any, where: str, send: Callable[..., Answer]) -> Problems:
    for field in schema(name):
        key = field["name"]
        if not field.get("enum_truncated"):
            answer = send(body={**good, key: WRONG[field["type"]]})
            if not _blames(answer, where + key):
                yield f"{where}{key}={WRONG[field['type']]!r} is answered {answer}; a 400 should name it."
        if field["type"] == "object" and "ref" in field:
            inner = good.get(key) or {}
            wrap = partial(_wrapped, send, good, key)
            yield from _wrong_types(field["ref"], inner, f"{where}{key}.", wrap)
        elif field["type"] == "array" and field.get("items", {}).get("ref"):
            inner = (good.get(key) or [{}])[0]
            wrap = partial(_wrapped_in_list, send, good, key)
            yield from _wrong_types(field["items"]["ref"], inner, f"{where}{key}.0.", wrap)


def _wrapped(send: Callable[..., Answer], good: dict[str, Any], key: str, body: Any) -> Answer:
    return send(body={**good, key: body})


def _wrapped_in_list(send: Callable[..., Answer], good: dict[str, Any], key: str, body: Any) -> Answer:
    return send(body={**good, key: [body]})


def _is_envelope(answer: Answer) -> bool:
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


def _blames(answer: Answer, field: str) -> bool:
    """Whether it is a 400 that names the field, or something within it."""
    if answer.status != 400 or not _is_envelope(answer):
        return False
    return any(name == field or name.startswith(f"{field}.") for name in answer.json["errors"][0])
