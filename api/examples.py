"""Examples for the OpenAPI document: values that look like real ones, chosen by the name and the type of a field."""

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

NOW = "2026-11-21T05:00:00Z"
# By the name of the field; the first pattern that fits counts, if its value has the field's type.
VALUES: tuple[tuple[str, Any], ...] = (
    (r"username", "alice"),
    (r"(old_|new_|http_proxy_|confirm_)?password\w*", "correct horse battery staple"),
    (r"email\w*|\w*_email|user_email", "alice@example.com"),
    (r"api_key", "cpm_3yJ0mKq5s8uVxZ1bC4dE7fG9hJ2kL6nP0rT3wY5aB8c"),
    (r"access|refresh", "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoiNyJ9.c2lnbmF0dXJl"),
    (r"\w*access_key", "AKIAIOSFODNN7EXAMPLE"),
    (r"\w*secret_key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    (r"\w*account_number", "111122223333"),
    (r"account_name|existing_account\w*", "production"),
    (r"policy_name", "web_servers"),
    (r"role_name", "cpm"),
    (r"external_id", "cpm-7f3a"),
    (r"timezone", "Europe/Berlin"),
    (r"zone|\w*availability_zone|placement_zone", "us-east-1a"),
    (r"(aws_|snapshot_|ses_|sns_)?region(_name)?", "us-east-1"),
    (r"disp_name", "US East (N. Virginia)"),
    (r"display_name", "(UTC+01:00) Europe/Berlin"),
    (r"dr_regions|dr_account_regions|scan_regions", [1]),
    (r"schedules|related_policies", [1]),
    (r"start_time|end_time", "22:00"),
    (r"\w*(_time|_date|_at|date|last_modified)", NOW),
    (r"aws_instance_type|instance_type", "t3.small"),
    (r"aws_image_id|image_id|ami\w*|\w*_image_id", "ami-0123456789abcdef0"),
    (r"\w*subnet\w*", "subnet-0123456789abcdef0"),
    (r"\w*security_groups?", ["sg-0123456789abcdef0"]),
    (r"vpc\w*", "vpc-0123456789abcdef0"),
    (r"\w*snapshot_id|snap\w*", "snap-0123456789abcdef0"),
    (r"activation_key", "0123456789abcdef"),
    (r"cpm_name", "backup-server"),
    (r"\w*_interval", 6),
    (r"aws_resource_id|\w*instance_id", "i-0123456789abcdef0"),
    (r"\w*volume_id|recovered_resource_ids", "vol-0123456789abcdef0"),
    (r"device|aws_root_device|root_device", "/dev/xvda"),
    (r"\w*architecture", "x86_64"),
    (r"\w*instance_profile_arn|\w*arn", "arn:aws:iam::111122223333:instance-profile/web"),
    (r"\w*ip_address|ip\w*", "10.0.0.5"),
    (r"http_proxy_address|\w*proxy_address", "proxy.example.com"),
    (r"\w*port", 8080),
    (r"log|message_body", "The snapshot of vol-0123456789abcdef0 is complete."),
    (r"log_type|level", "Info"),
    (r"title", "Policy web_servers failed"),
    (r"category", "backup_failed"),
    (r"enabled|succeeded", True),
    (r"description", "Web servers of the shop"),
    (r"tag_name|aws_tag_name", "environment"),
    (r"tag_value|aws_tag_value", "production"),
    (r"name|label", "web_servers"),
    (r"generations", 30),
    (r"capacity", 8),
    (r"iops", 3000),
    (r"\w*progress_percent|progress", 100),
    (r"every_how_many", 1),
    (r"every_unit", "D"),
    (r"generations|keep_\w+|days_\w+", 30),
    (r"\w*(_num|_count)|count|num_\w+", 4),
    (r"api_version", "1.5.0"),
    (r"cpm_version|version", "1.0.0"),
    (r"id|\w+_id|account|user|policy|schedule|\w*_record", 1),
)  # fmt: skip
# Optional fields of a body that an example shows nevertheless; the other ones would only hide what matters.
SHOWN = frozenset({
    "assume_from_account", "account_number", "description", "enabled", "end_time", "generations", "repository", "role_name",
    "schedules", "start_time", "timezone",
})  # fmt: skip
_COMPILED = [(re.compile(pattern), value) for pattern, value in VALUES]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,),
}  # fmt: skip
FORMATS = {
    "date-time": NOW,
    "date": "2026-11-21",
    "time": "22:00:00",
    "uri": "https://cpm.example.com/api/policies/?page=2",
}
PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": False, "null": None}


def of_media(schema: Schema, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The `example`, or the named `examples` where a body may have one of two shapes."""
    if "oneOf" in schema:
        whole, page = schema["oneOf"]
        rows = _of(whole, "", schemas)
        return {
            "examples": {
                "list": {"summary": "Without page and page_size", "value": rows},
                "page": {
                    "summary": "With page=1",
                    "value": {
                        **_of(page, "", schemas),
                        "previous": None,
                        "next": None,
                        "count": 1,
                        "results": rows,
                    },
                },
            }
        }
    return {"example": _of(schema, "", schemas)}


def csv_of(row: Schema) -> str:
    """The header line and one line of a CSV answer with these fields."""
    text = io.StringIO()
    csv.writer(text).writerows([list(row["properties"]), list(_of(row, "", {}).values())])
    return text.getvalue()


def singular(name: str) -> str:
    """policies → policy; a word that is no plural stays."""
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if name.endswith(("ses", "xes")):
        return name[:-2]
    return name if name.endswith(("ss", "us", "efs")) else name.removesuffix("s")


def _of(schema: Schema, name: str, schemas: Mapping[str, Schema]) -> Any:
    if "$ref" in schema:
        return _of(schemas[schema["$ref"].rpartition("/")[2]], name, schemas)
    for several in ("allOf", "oneOf", "anyOf"):
        if several in schema:
            return _of(schema[several][0], name, schemas)
    if "enum" in schema:
        return next((value for value in schema["enum"] if value not in (None, "")), None)
    if "default" in schema:
        return schema["default"]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    known = _by_name(name, kind, schema)
    if known is not None:
        return known
    if kind == "object":
        return _object(schema, schemas)
    if kind == "array":
        return [_of(schema["items"], singular(name), schemas)]
    if kind == "string" and schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    if kind in ("integer", "number"):
        return max(PLAIN[kind], schema.get("minimum", 1))
    return PLAIN[kind]


def _by_name(name: str, kind: str, schema: Schema) -> Any:
    if kind == "object" or (kind == "array" and "$ref" in schema["items"]):
        return None
    if schema.get("format") in FORMATS:
        return None
    for pattern, value in _COMPILED:
        if pattern.fullmatch(name) and isinstance(value, TYPES.get(kind, ())) and _fits(value, schema):
            return value
    return None


def _fits(value: Any, schema: Schema) -> bool:
    if isinstance(value, str):
        return (
            len(value) <= schema.get("maxLength", len(value))
            and re.search(schema.get("pattern", ""), value) is not None
        )
    if isinstance(value, list):
        kinds = schema["items"].get("type", "string")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        return all(isinstance(item, TYPES[kind]) for item in value)
    return schema.get("minimum", value) <= value <= schema.get("maximum", value)


def _object(schema: Schema, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Every field of an answer; of a body, those that it needs and a few more."""
    fields = schema.get("properties", {})
    required = set(schema.get("required", ()))
    shown = {name for name in fields if name in required or name in SHOWN} or set(fields)
    return {name: _of(field, name, schemas) for name, field in fields.items() if name in shown}
