"""REST with JSON bodies: from method and path to action and parameters, and back, as botocore's models describe it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from cpm.simulator.errors import AwsError
from cpm.simulator.protocol import operation_model, service_model

# The names that these services sign with, and those of their models.
MODELS = {"backup": "backup", "elasticfilesystem": "efs"}

LABEL = re.compile(r"{(\w+)(\+?)}")
Answer = tuple[int, list[tuple[str, str]], bytes]
Json = dict[str, Any]


@dataclass(frozen=True)
class Route:
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    labels: tuple[str, ...]
    action: str


def speaks(service: str) -> bool:
    """Whether this module serves a service, which is named as it signs."""
    return service in MODELS


@cache
def _routes(service: str) -> tuple[Route, ...]:
    """The most specific first: a word in a path beats a label."""
    model = service_model(MODELS[service])
    routes = [_route(action, model.operation_model(action)) for action in model.operation_names]
    return tuple(sorted(routes, key=lambda route: (len(route.labels), -len(route.query))))


def _route(action: str, operation: OperationModel) -> Route:
    template, _, query = operation.http["requestUri"].partition("?")
    pieces, labels, end = [], [], 0
    for label in LABEL.finditer(template):
        pieces += [re.escape(template[end : label.start()]), "(.+)" if label[2] else "([^/]+)"]
        labels.append(label[1])
        end = label.end()
    pieces.append(re.escape(template[end:].rstrip("/")))
    words = frozenset(word.split("=")[0] for word in query.split("&") if word)
    return Route(operation.http["method"], re.compile("".join(pieces)), words, tuple(labels), action)


def route(service: str, request: Json) -> tuple[str, dict[str, str]] | None:
    """The action that a request means and what stands in its path, by label; None when it means none.

    The path is taken as the client wrote it, because an ARN in it has slashes of its own, encoded.
    """
    path = (request["raw_path"] or request["path"]).rstrip("/")
    asked = {name for name, _ in parse_qsl(request["query"], keep_blank_values=True)}
    for one in _routes(service):
        match = one.path.fullmatch(path) if one.method == request["method"] else None
        if match and one.query <= asked:
            found = zip(one.labels, match.groups(), strict=True)
            return one.action, {label: unquote(value) for label, value in found}
    return None


# -- requests ---------------------------------------------------------------------------------------------


def parse(service: str, action: str, request: Json) -> Json:
    """The parameters of a request, under the names boto3 uses; what the model forbids is refused."""
    routed = route(service, request)
    assert routed is not None
    operation = operation_model(MODELS[service], action)
    shape = operation.input_shape
    if shape is None:
        return {}
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(request["query"], keep_blank_values=True):
        query.setdefault(name, []).append(value)
    body = _body(operation, request["body"])
    params = {}
    for name, member in shape.members.items():
        value = _located(operation, name, member, routed[1], query, request["headers"], body)
        if value is not None:
            params[name] = value
    for name in shape.required_members:
        if name not in params:
            raise _refusal(operation, ("MissingParameterValueException",), f"{name} is required")
    for name, value in params.items():
        _check(operation, name, shape.members[name], value)
    return params


def _body(operation: OperationModel, body: bytes) -> Json:
    try:
        found = json.loads(body or b"{}")
    except ValueError as broken:
        raise _refusal(operation, (), "The request body is not JSON") from broken
    if not isinstance(found, dict):
        raise _refusal(operation, (), "The request body is not an object")
    return found


def _located(
    operation: OperationModel,
    name: str,
    member: Shape,
    labels: dict[str, str],
    query: dict[str, list[str]],
    headers: dict[str, str],
    body: Json,
) -> Any:
    location, key = member.serialization.get("location"), member.serialization.get("name", name)
    if location is None:
        return None if body.get(key) is None else _from_json(operation, member, body[key])
    if location == "querystring" and isinstance(member, ListShape):
        return [_from_text(operation, member.member, text) for text in query[key]] if key in query else None
    texts = {
        "uri": labels.get(key),
        "querystring": query.get(key, [None])[0],
        "header": headers.get(key.lower()),
    }
    text = texts[location]
    return None if text is None else _from_text(operation, member, text)


def _from_text(operation: OperationModel, shape: Shape, text: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {
        "integer": int, "long": int, "float": float, "double": float, "timestamp": _moment,
        "boolean": lambda value: {"true": True, "false": False}[value.lower()],
    }  # fmt: skip
    try:
        return readers.get(shape.type_name, str)(text)
    except (ValueError, KeyError) as wrong:
        raise _refusal(operation, (), f"{text[:60]!r} is not a {shape.type_name}") from wrong


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _from_json(operation: OperationModel, shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        named = {
            member.serialization.get("name", name): (name, member) for name, member in shape.members.items()
        }
        found = {named[key][0]: (named[key][1], one) for key, one in value.items() if key in named}
        return {name: _from_json(operation, *pair) for name, pair in found.items() if pair[1] is not None}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_from_json(operation, shape.member, one) for one in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _from_json(operation, shape.value, one) for key, one in value.items()}
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "boolean": (bool,), "integer": (int,), "long": (int,), "float": (int, float),
        "double": (int, float), "timestamp": (int, float),
    }  # fmt: skip
    if not isinstance(value, kinds.get(shape.type_name, ())):
        raise _refusal(operation, ("InvalidRequestException",), f"a {shape.type_name} was expected")
    if shape.type_name == "timestamp" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return value


def _check(operation: OperationModel, name: str, shape: Shape, value: Any) -> None:
    """What clients leave to the service: patterns and enumerations. They check lengths and numbers themselves."""
    if not isinstance(shape, StringShape):
        return
    pattern = shape.metadata.get("pattern")
    if (shape.enum and value not in shape.enum) or (pattern and not re.search(pattern, value)):
        raise _refusal(operation, (), f"{name} has a value that is not valid: {value[:60]}")


def _refusal(operation: OperationModel, better: tuple[str, ...], message: str) -> AwsError:
    """The first fitting error that the action declares."""
    declared = {shape.name for shape in operation.error_shapes}
    fitting = (*better, "InvalidParameterValueException", "BadRequest")
    code = next((code for code in fitting if code in declared), "ValidationException")
    return AwsError(code, message)


# -- responses --------------------------------------------------------------------------------------------


def write(service: str, action: str, result: Json) -> Answer:
    """The answer of a successful call."""
    operation = operation_model(MODELS[service], action)
    status = int(operation.http.get("responseCode", 200))
    shape = operation.output_shape
    body = b"" if shape is None else json.dumps(_to_json(shape, result)).encode()
    return status, [("Content-Type", "application/json")], body


def _to_json(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        members = {name: member for name, member in shape.members.items() if value.get(name) is not None}
        return {
            member.serialization.get("name", name): _to_json(member, value[name])
            for name, member in members.items()
        }
    if isinstance(shape, ListShape):
        return [_to_json(shape.member, one) for one in value]
    if isinstance(shape, MapShape):
        return {key: _to_json(shape.value, one) for key, one in value.items()}
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    return value


def write_error(service: str, error: AwsError) -> Answer:
    """An error with the status and the members that the model gives it."""
    model = service_model(MODELS[service])
    shape = next((one for one in model.error_shapes if one.name == error.code), None)
    members = set(shape.members) if shape else set()
    status = error.status
    if shape and status == 400:
        status = int(shape.metadata.get("error", {}).get("httpStatusCode", status))
    body = {"Message": error.message, **error.extra}
    if "ErrorCode" in members:
        body["ErrorCode"] = error.code
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", error.code)]
    return status, headers, json.dumps(body).encode()
