"""The contract as data: operations and schemas of `cpm.facts.json`."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

Operation = dict[str, Any]
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0")

# What this release promises, by number. Conformance fails if one of them is missing.
PROMISED = re.compile(
    r"4\.([1-8]|1[1-9]|2[0-2])|6\.[1-4]|10\.[1-6]|11\.[1-7]|7\.[1-9][0-9]?|12\.1"
    r"|13\.[1-9][0-9]?|14\.[1-5]|16\.1|17\.([1-35-9]|1[01])|19\.1|20\.[1-6]|22\.([1-9]|10)"
    r"|23\.([1-36-9]|1[0-9]|2[0-5]|4[1-9]|5[0-2])|24\.[1-5]|25\.[12]|26\.[1-7]"
)


@cache
def facts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("cpm.facts.json").read_text())
    return loaded


def operations() -> list[Operation]:
    found: list[Operation] = facts()["operations"]
    return found


def schema(name: str) -> list[dict[str, Any]]:
    """The fields of a schema."""
    found: list[dict[str, Any]] = facts()["schemas"][name]["fields"]
    return found


def by_id(number: str) -> Operation:
    return next(operation for operation in operations() if operation["id"] == number)


def promised() -> list[str]:
    return [operation["id"] for operation in operations() if PROMISED.fullmatch(operation["id"])]


def success(operation: Operation) -> dict[str, Any]:
    """The documented answer to a good request; where there are two, the first, and for what is gone 204."""
    answers = [answer for answer in operation["responses"] if answer["code"] < 400]
    return answers[-1 if operation["method"] == "DELETE" else 0]


def parameters(operation: Operation) -> list[str]:
    """Names of the query parameters. The guide also lists pages for answers that are no lists; they mean nothing."""
    names = [parameter["name"] for parameter in operation.get("query_params", [])]
    return names if success(operation).get("array") else [n for n in names if n not in ("page", "page_size")]
