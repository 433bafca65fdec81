"""Which action of S3 a request is: S3 says it by method, path, query and headers, not by a name."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cpm.simulator.protocol import service_model

Pattern = tuple[str, frozenset[tuple[str, str]], frozenset[str], frozenset[str]]


def action(method: str, path: str, query: str, headers: Mapping[str, str]) -> str:
    """The name as AWS writes it. The most demanding operation whose demands the request meets."""
    bucket, _, key = path.lstrip("/").partition("/")
    depth = 2 if key else 1 if bucket else 0
    given = dict(parse_qsl(query, keep_blank_values=True))
    found = ""
    most = -1
    for name, (verb, fixed, queries, wanted) in _patterns()[depth].items():
        fits = verb == method and all(given.get(k) == v for k, v in fixed)
        if fits and queries <= given.keys() and wanted <= headers.keys():
            demands = len(fixed) + len(queries) + len(wanted)
            if demands > most:
                found, most = name, demands
    return found or f"{method} {bucket}".strip()


@cache
def _patterns() -> tuple[dict[str, Pattern], dict[str, Pattern], dict[str, Pattern]]:
    """Operations of the service, of buckets and of objects, with what botocore's model says they must carry."""
    levels: tuple[dict[str, Pattern], dict[str, Pattern], dict[str, Pattern]] = ({}, {}, {})
    model = service_model("s3")
    for name in sorted(model.operation_names):
        operation: Any = model.operation_model(name)
        address = urlsplit(operation.http["requestUri"])
        depth = 2 if "{Key+}" in address.path else 1 if "{Bucket}" in address.path else 0
        shape = operation.input_shape
        members = [shape.members[one].serialization for one in shape.required_members] if shape else []
        fixed = {(k, v) for k, v in parse_qsl(address.query, keep_blank_values=True) if k != "x-id"}
        queries = {one["name"] for one in members if one.get("location") == "querystring"}
        wanted = {one["name"].lower() for one in members if one.get("location") == "header"}
        levels[depth][name] = (
            operation.http["method"],
            frozenset(fixed),
            frozenset(queries),
            frozenset(wanted),
        )
    return levels
