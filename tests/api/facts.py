"""What the contract says of an operation's answer, read from the facts, for comparison with real answers."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent.parent / "contract" / "cpm.facts.json"
TYPES = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "array": list,
    "object": dict,
    "enum": str,
    "number": (int, float),
}


@cache
def _facts() -> dict[str, Any]:
    return json.loads(FACTS.read_text())


def check(operation_id: str, data: Any) -> None:
    """Asserts that the data has exactly the fields of the operation's success answer, each null or of its type."""
    operation = next(item for item in _facts()["operations"] if item["id"] == operation_id)
    success = next(item for item in operation["responses"] if item["code"] < 300)
    rows = data if isinstance(data, list) else [data]
    assert rows, "an empty list proves nothing"
    for row in rows:
        _check_row(row, success["schema"])


def _check_row(row: dict[str, Any], schema: str) -> None:
    fields = {field["name"]: field for field in _facts()["schemas"][schema]["fields"]}
    assert sorted(row) == sorted(fields)
    for name, field in fields.items():
        if row[name] is None:
            continue
        assert isinstance(row[name], TYPES[field["type"]]), (name, row[name])
        if field["type"] == "enum":
            assert row[name] in {choice["value"] for choice in field["enum"]}
        if field.get("ref"):
            _check_row(row[name], field["ref"])
        for item in row[name] if field["type"] == "array" else ():
            reference = field["items"].get("ref")
            if reference:
                _check_row(item, reference)
            else:
                assert isinstance(item, TYPES[field["items"]["type"]])
