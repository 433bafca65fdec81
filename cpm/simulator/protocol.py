"""Requests into dictionaries and dictionaries into responses, both driven by botocore's service models.

Handlers see parameters under the names boto3 uses and answer dictionaries with the names boto3 shows.
The writers are compiled once for each shape, because describing thousands of snapshots is mostly writing XML.
"""

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from cpm.simulator.errors import AwsError, invalid, missing

Writer = Callable[[Any, list[str]], None]
Tree = dict[str, Any]


@cache
def service_model(service: str) -> ServiceModel:
    """The newest model of a service, by its botocore name."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def operation_model(service: str, action: str) -> OperationModel:
    """The model of one action."""
    return service_model(service).operation_model(action)


# -- requests ---------------------------------------------------------------------------------------------


def parse_query(service: str, action: str, form: dict[str, str]) -> dict[str, Any]:
    """Parameters of an EC2 or query protocol request; raises MissingParameter like AWS."""
    operation = operation_model(service, action)
    tree: Tree = {}
    for key, value in form.items():
        node = tree
        *parents, leaf = key.split(".")
        for part in parents:
            child = node.setdefault(part, {})
            node = child if isinstance(child, dict) else node.setdefault(part + ".", {})
        node[leaf] = value
    shape = operation.input_shape
    if shape is None:
        return {}
    params = _structure(shape, tree, operation.service_model.metadata["protocol"] == "ec2")
    for name in shape.required_members:
        if name not in params:
            raise missing(name)
    return params


def parse(service: str, action: str, form: dict[str, str], body: bytes) -> dict[str, Any]:
    """Parameters of a request in the service's own protocol."""
    if not speaks_json(service):
        return parse_query(service, action, form)
    try:
        params: dict[str, Any] = json.loads(body or b"{}")
    except ValueError as broken:
        raise AwsError("SerializationException", "The request body is not JSON") from broken
    shape = operation_model(service, action).input_shape
    for name in shape.required_members if shape else []:
        if name not in params:
            raise AwsError("ValidationException", f"{name} must not be null")
    return params


def speaks_json(service: str) -> bool:
    """Whether a service takes and gives JSON bodies."""
    return str(service_model(service).metadata["protocol"]) == "json"


def _structure(shape: StructureShape, tree: Tree, ec2: bool) -> dict[str, Any]:
    found = {}
    for name, member in shape.members.items():
        node = tree.get(_query_name(name, member, ec2))
        if node is not None:
            found[name] = _value(member, node, ec2)
    return found


def _query_name(name: str, member: Shape, ec2: bool) -> str:
    if not ec2:
        return str(member.serialization.get("name", name))
    if "queryName" in member.serialization:
        return str(member.serialization["queryName"])
    located = str(member.serialization.get("name", name))
    return located[0].upper() + located[1:]


def _value(shape: Shape, node: Any, ec2: bool) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, node, ec2) if isinstance(node, dict) else {}
    if isinstance(shape, ListShape):
        if not isinstance(node, dict):
            return []
        element = str(shape.member.serialization.get("name", "member"))
        items = node.get(element, node) if not ec2 else node
        numbered = sorted((int(key), item) for key, item in items.items() if key.isdigit())
        return [_value(shape.member, item, ec2) for _, item in numbered]
    if shape.type_name in ("integer", "long"):
        if not str(node).lstrip("-").isdigit():
            raise invalid(f"Invalid integer value {node}")
        return int(node)
    if shape.type_name == "boolean":
        return str(node).lower() == "true"
    if shape.type_name in ("float", "double"):
        return float(node)
    return node


# -- responses --------------------------------------------------------------------------------------------


def stamp(moment: datetime) -> str:
    """A time as AWS's XML protocols write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def write_xml(service: str, action: str, result: dict[str, Any], request_id: str) -> bytes:
    """The body of a successful EC2 or query protocol answer."""
    operation = operation_model(service, action)
    out: list[str] = []
    space = operation.service_model.metadata.get("xmlNamespace", "http://ec2.amazonaws.com/doc/2016-11-15/")
    if operation.service_model.metadata["protocol"] == "ec2":
        out.append(f'<{action}Response xmlns="{space}"><requestId>{request_id}</requestId>')
        if operation.output_shape is None:
            out.append("<return>true</return>")
        else:
            _members(service, operation.output_shape.name)(result, out)
    else:
        out.append(f'<{action}Response xmlns="{space}"><{action}Result>')
        if operation.output_shape is not None:
            _members(service, operation.output_shape.name)(result, out)
        out.append(
            f"</{action}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        )
    out.append(f"</{action}Response>")
    return "".join(out).encode()


@cache
def _members(service: str, shape_name: str) -> Writer:
    """Writer of a structure's members, without the element around them."""
    shape = service_model(service).shape_for(shape_name)
    assert isinstance(shape, StructureShape)
    named = {
        name: (str(member.serialization.get("name", name)), member) for name, member in shape.members.items()
    }
    writers: dict[str, Writer] = {}

    def write(value: dict[str, Any], out: list[str]) -> None:
        for key, item in value.items():
            if item is None:
                continue
            writer = writers.get(key)
            if writer is None:
                # Compiled on first use: shapes such as KMS policies refer to themselves.
                element, member = named[key]
                writer = writers[key] = _element(service, element, member)
            writer(item, out)

    return write


def _element(service: str, element: str, shape: Shape) -> Writer:
    opening, closing = f"<{element}>", f"</{element}>"
    if isinstance(shape, StructureShape):
        inner = _members(service, shape.name)

        def structure(value: Any, out: list[str]) -> None:
            out.append(opening)
            inner(value, out)
            out.append(closing)

        return structure
    if isinstance(shape, ListShape):
        item_name = str(shape.member.serialization.get("name", "item" if service == "ec2" else "member"))
        item = _element(service, item_name, shape.member)

        def sequence(value: Any, out: list[str]) -> None:
            out.append(opening)
            for one in value:
                item(one, out)
            out.append(closing)

        return sequence
    if isinstance(shape, MapShape):
        key, item = _element(service, "key", shape.key), _element(service, "value", shape.value)

        def mapping(value: Any, out: list[str]) -> None:
            out.append(opening)
            for name, one in value.items():
                out.append("<entry>")
                key(name, out)
                item(one, out)
                out.append("</entry>")
            out.append(closing)

        return mapping
    to_text = _scalar(shape.type_name)

    def scalar(value: Any, out: list[str]) -> None:
        out.append(opening + to_text(value) + closing)

    return scalar


def _scalar(type_name: str) -> Callable[[Any], str]:
    if type_name == "boolean":
        return lambda value: "true" if value else "false"
    if type_name == "timestamp":
        return stamp
    if type_name in ("integer", "long", "float", "double"):
        return str
    return lambda value: escape(str(value))


def write_json(result: dict[str, Any]) -> bytes:
    """The body of a JSON protocol answer; times become seconds since 1970."""
    return json.dumps(result, default=_json_default).encode()


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"cannot be written as JSON: {type(value)}")


def write_error(
    service: str, error: AwsError, request_id: str, as_json: bool = False
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an error in the format of the service's protocol."""
    code, message = escape(error.code), escape(error.message)
    if service == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    elif as_json or _answers_json(service):
        body = json.dumps(
            {"__type": error.code, "message": error.message, "Message": error.message, **error.extra}
        )
        return body.encode(), {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": error.code}
    elif service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
    else:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return body.encode(), {"Content-Type": "text/xml;charset=UTF-8"}


def _answers_json(service: str) -> bool:
    try:
        return str(service_model(service).metadata["protocol"]) in ("json", "rest-json")
    except UnknownServiceError:
        # Some services sign with another name than botocore's.
        return False
