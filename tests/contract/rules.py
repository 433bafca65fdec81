"""Who may call what, as `permissions.json` states it, without a look at our own table; and what an operation is about."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from django.urls import resolve

from tests.contract import recipes
from tests.contract.facts import Operation
from tests.contract.populated import Server

Rule = dict[str, Any]
# A delegate holds what its profile lacks as another flag says; `flags` of the file explains it.
STANDS_FOR = {
    "allow_file_level_recovery": "allow_recovery",
    "allow_resource_control": "allow_backup_changes",
}
# The flags that users' own profiles have; every other one they hold.
PROFILE_FLAGS = frozenset({"allow_file_level_recovery", "allow_cost_explorer"})


@cache
def stated() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("permissions.json").read_text())
    return found


def rule(operation: Operation) -> Rule:
    """The stated rule with what is proposed laid over it, key by key, roles one by one."""
    row = stated()["operations"][f"{operation['method']} {operation['path']}"]
    merged = {**row, "roles": dict(row["roles"])}
    for layer in ("fills", "tightens"):
        proposed = (row["proposed"] or {}).get(layer) or {}
        merged["roles"] |= proposed.get("roles", {})
        merged |= {key: value for key, value in proposed.items() if key != "roles"}
    return merged


def opened_to_delegates(operation: Operation) -> bool:
    """Whether it is one of root's settings that an option of the server opens to root's delegates."""
    opened = stated()["options"]["settings_by_root_delegates"]["operations"]
    return f"{operation['method']} {operation['path']}" in opened


def ids_in_path(operation: Operation, server: Server) -> dict[str, Any]:
    """What the recipes put in place of each parameter of the path."""
    return {
        match.group(1): server.ids[recipes.object_named(operation, operation["path"][: match.end()])]
        for match in re.finditer(r"\{(\w+)\}", operation["path"])
    }


def view_of(operation: Operation) -> Any:
    """The view behind the address, as Django has it: with `cls` and `actions`."""
    return resolve(re.sub(r"\{\w+\}", "1", operation["path"])).func
