"""Bodies: required fields, types and enumerations."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.contract import recipes
from tests.contract.asking import Answer, Caller, Problems, blames, is_envelope
from tests.contract.facts import Operation, schema


def required(operation: Operation, call: Caller) -> Problems:
    if "body" not in operation:
        return
    good = recipes.body_of(operation, call.server)
    for field in schema(operation["body"]):
        if field.get("required"):
            answer = call(operation, body={k: v for k, v in good.items() if k != field["name"]})
            if not blames(answer, field["name"]):
                yield f"Without {field['name']} the answer is {answer} instead of a 400 that names it."
    for nonsense in ([], "text", 5):
        answer = call(operation, body=nonsense)
        if answer.status != 400 or not is_envelope(answer):
            yield f"The body {nonsense!r} is answered {answer} instead of a 400."


WRONG: dict[str, Any] = {
    "string": {"a": 1}, "enum": "no such value", "integer": "x", "number": "x", "boolean": "maybe", "array": "text",
    "object": "text",
}  # fmt: skip


def types(operation: Operation, call: Caller) -> Problems:
    """Every field of the body is known: a wrong type in it is a 400 that names it."""
    if "body" in operation:
        send = partial(call, operation)
        yield from _wrong_types(operation["body"], recipes.body_of(operation, call.server), "", send)


def _wrong_types(name: str, good: Any, where: str, send: Callable[..., Answer]) -> Problems:
    for field in schema(name):
        key = field["name"]
        if not field.get("enum_truncated"):
            answer = send(body={**good, key: WRONG[field["type"]]})
            if not blames(answer, where + key):
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


def enumerations(operation: Operation, call: Caller) -> Problems:
    """Every value that the contract lists for a field of the body is one that the field knows."""
    if "body" not in operation:
        return
    body = recipes.body_of(operation, call.server)
    for field in schema(operation["body"]):
        for choice in field.get("enum", []) if not field.get("enum_truncated") else []:
            answer = call(operation, body={**body, field["name"]: choice["value"]})
            if _unknown_choice(answer, field["name"]):
                yield f"{field['name']}={choice['value']!r} is answered {answer}; the contract lists it."


def _unknown_choice(answer: Answer, field: str) -> bool:
    if answer.status != 400 or not is_envelope(answer):
        return False
    return any(error["code"] == "invalid_choice" for error in answer.json["errors"][0].get(field, []))
