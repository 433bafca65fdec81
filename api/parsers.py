"""JSON bodies. What PostgreSQL cannot store or a terminal would obey is refused here, once for all endpoints."""

import re
from typing import IO, Any

import orjson
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import BaseParser

# Everything below space except tab, line feed and carriage return, and DEL.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def has_control_characters(text: str) -> bool:
    return bool(_CONTROL.search(text))


class JsonParser(BaseParser):
    """Reads `application/json`. Malformed JSON and control characters in any string are a 400."""

    media_type = "application/json"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            data = orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The body is not valid JSON: {error}.") from error
        if isinstance(data, dict):
            for name, value in data.items():
                _refuse_control_characters(name, value)
        return data


def _refuse_control_characters(field: str, value: Any) -> None:
    waiting = [field, value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if has_control_characters(item):
                name = "non_field_errors" if item is field else field
                raise ValidationError(
                    {name: ["Control characters are not allowed."]}, code="control_characters"
                )
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
