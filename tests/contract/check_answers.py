"""Route, methods, versions, statuses, media types and the fields of an answer."""

from typing import Any

from tests.contract import recipes
from tests.contract.asking import ABSENT, Answer, Caller, Problems, document, good, is_envelope
from tests.contract.facts import VERSIONS, Operation, operations, parameters, schema, success

JSON = "application/json"
# Files for which the contract names no media type, or CSV without a schema of rows.
DOWNLOADS = frozenset({"4.8", "4.18", "8.4", "23.13", "23.16"})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def documented(operation: Operation, call: Caller) -> Problems:
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
    codes = {str(answer["code"]) for answer in operation["responses"] if answer["code"] >= 400}
    if missing := (codes | {str(success(operation)["code"])}) - set(ours["responses"]):
        yield f"The OpenAPI document has {sorted(ours['responses'])}, but not {sorted(missing)}."
    if ("body" in operation) != ("requestBody" in ours):
        yield "The OpenAPI document and the contract differ in whether there is a body."


def _path_parameters(operation: Operation) -> list[str]:
    return [parameter["name"] for parameter in operation.get("path_params", [])]


def answer(operation: Operation, call: Caller) -> Problems:
    """The documented status, and exactly the documented fields with their types."""
    expected = success(operation)
    answer = good(operation, call)
    if answer.status != expected["code"]:
        yield f"A good request is answered {answer} instead of {expected['code']}."
        return
    yield from _content(operation, expected, answer)
    if "body" in operation:
        bare = call(operation, body=recipes.body_of(operation, call.server, required_only=True))
        if bare.status != expected["code"]:
            yield f"With the required fields alone the answer is {bare}."


def _content(operation: Operation, expected: dict[str, Any], answer: Answer) -> Problems:
    if _is_download(operation):
        if not answer.content or "filename=" not in answer.headers.get("content-disposition", ""):
            yield f"There should be a file with a name, but: {answer.headers}."
        return
    if expected.get("inline_type") == "object":
        # The contract says no more of it than that it is one.
        if not (answer.content and isinstance(answer.json, dict)):
            yield f"There should be an object, but: {answer}."
        return
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


def _is_download(operation: Operation) -> bool:
    return operation["id"] in DOWNLOADS or not {*operation.get("produces", []), JSON} <= {JSON, "text/csv"}


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


def versions(operation: Operation, call: Caller) -> Problems:
    """Unknown before its first version, known in it."""
    since = VERSIONS.index(operation["initial_release"])
    if since:
        older = good(operation, call, accept=f"application/json; version={VERSIONS[since - 1]}")
        if older.status != 404:
            yield f"Version {VERSIONS[since - 1]} should not know it, but: {older}."
    first = good(operation, call, accept=f"application/json; version={VERSIONS[since]};")
    if first.status != success(operation)["code"]:
        yield f"Version {VERSIONS[since]} should know it, but: {first}."


def identity(operation: Operation, call: Caller) -> Problems:
    if (
        any(answer["code"] == 401 for answer in operation["responses"])
        and "Token" not in operation["chapter"]
    ):
        answer = call(operation, authorization="")
        if answer.status != 401 or not is_envelope(answer):
            yield f"Without a token the answer is {answer} instead of a 401."


def absence(operation: Operation, call: Caller) -> Problems:
    """Ids that do not exist, or are no ids, are 404 at every place of the path."""
    for name in _path_parameters(operation):
        for wrong in (ABSENT, 10**30, "x"):
            path = recipes.path_of(operation, call.server, **{name: wrong})
            answer = good(operation, call, path=path)
            if answer.status != 404 or not is_envelope(answer):
                yield f"With {name}={wrong} the answer is {answer} instead of a 404."


def media(operation: Operation, call: Caller) -> Problems:
    """What the operation cannot produce is a 406; files have the media type that the contract names."""
    offered = set(operation.get("produces", []))
    for refused in {"application/xml", "text/csv"} - offered:
        if _is_download(operation) or (refused == "text/csv" and not offered):
            continue
        answer = good(operation, call, accept=refused)
        if answer.status != 406 or not is_envelope(answer):
            yield f"Accept: {refused} is answered {answer} instead of a 406."
    for kind in offered - {JSON, "text/csv"}:
        for accept in (kind, f"{JSON};"):
            answer = good(operation, call, accept=accept)
            if answer.status != success(operation)["code"] or answer.headers.get("content-type") != kind:
                yield f"Accept: {accept} is answered {answer.status} as {answer.headers.get('content-type')}."


def methods(operation: Operation, call: Caller) -> Problems:
    """Methods that the contract does not list at this address are refused with 405."""
    listed = {other["method"] for other in operations() if other["path"] == operation["path"]}
    for method in set(METHODS) - listed:
        answer = call({**operation, "method": method}, body={})
        if answer.status != 405 or not is_envelope(answer):
            yield f"{method} is answered {answer} instead of a 405."
