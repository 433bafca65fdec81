"""Filters and pages, as EC2's describe actions take them."""

import base64
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.world import Placed

T = TypeVar("T", bound=Placed)
Lookup = Callable[[Any], Any]


@lru_cache(maxsize=4096)
def _pattern(value: str) -> re.Pattern[str]:
    """AWS: EC2 User Guide, Filtering: ``*`` and ``?`` are wildcards, a backslash takes them literally."""
    parts = re.split(r"(\\[*?\\]|[*?])", value)
    wild = {"*": ".*", "?": "."}
    return re.compile(
        "".join(wild.get(part) or re.escape(part[1:] if part[:1] == "\\" else part) for part in parts), re.S
    )


def _equal(actual: Any, wanted: list[str]) -> bool:
    if actual is None:
        return False
    if isinstance(actual, bool):
        actual = "true" if actual else "false"
    if isinstance(actual, list | set | tuple):
        return any(_equal(one, wanted) for one in actual)
    text = str(actual)
    return any(
        text == value or (("*" in value or "?" in value) and _pattern(value).fullmatch(text))
        for value in wanted
    )


def matching(
    items: Iterable[T],
    filters: list[dict[str, Any]],
    lookups: dict[str, Lookup],
    tags_of: Callable[[T], dict[str, str]],
) -> list[T]:
    """The items that pass every filter; a filter that the action does not document is InvalidParameterValue."""
    for one in filters:
        name = one.get("Name", "")
        if name not in lookups and name not in ("tag-key", "tag-value") and not name.startswith("tag:"):
            raise invalid(f"The filter '{name}' is invalid")

    def passes(item: T) -> bool:
        for one in filters:
            name, values = one["Name"], one.get("Values", [])
            if name.startswith("tag:"):
                actual: Any = tags_of(item).get(name[4:])
            elif name == "tag-key":
                actual = list(tags_of(item))
            elif name == "tag-value":
                actual = list(tags_of(item).values())
            else:
                actual = lookups[name](item)
            if not _equal(actual, values):
                return False
        return True

    return [item for item in items if passes(item)]


def page(
    items: list[T], params: dict[str, Any], ids: str, least: int = 5, most: int = 1000
) -> tuple[list[T], str | None]:
    """One page and the token of the next. The token marks an object, so objects that vanish shift nothing.

    AWS: EC2 API Reference, Pagination: MaxResults 5 to 1000, and not together with a list of ids.
    """
    token, limit = params.get("NextToken"), params.get("MaxResults")
    if limit is not None and params.get(ids):
        raise AwsError(
            "InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter MaxResults"
        )
    if limit is not None and limit < least:
        raise invalid(
            f"Value ( {limit} ) for parameter maxResults is invalid. Expecting a value greater than {least - 1}."
        )
    if token:
        after = _serial(token)
        items = [item for item in items if item.serial > after]
    if limit is None or len(items) <= limit:
        return items, None
    shown = items[: min(limit, most)]
    return shown, base64.urlsafe_b64encode(f"after:{shown[-1].serial}".encode()).decode()


def _serial(token: str) -> int:
    try:
        kind, serial = base64.urlsafe_b64decode(token.encode()).decode().split(":")
        if kind == "after":
            return int(serial)
    except ValueError:
        # Falls through to the refusal: bad base64, bad UTF-8 and bad numbers are all ValueErrors.
        kind = ""
    raise AwsError("InvalidNextToken", f"The token '{token[:60]}' is invalid")
