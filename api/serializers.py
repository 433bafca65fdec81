"""Building blocks for request bodies. Bodies are checked for shape here, for meaning in the services."""

import re
from typing import Any

from rest_framework import serializers

from cpm.lib.states import LabelledEnum

_LINE_BREAKS = re.compile(r"[\t\n\r]")


class Body(serializers.Serializer[Any]):
    """A request body. Unknown fields are ignored; `validated_data` has only what the client sent, plus defaults."""


class Name(serializers.CharField):
    """A one-line name of up to 128 characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_length": 128, **options})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        value = super().run_validation(data)
        if isinstance(value, str) and _LINE_BREAKS.search(value):
            raise serializers.ValidationError("A name is one line.", code="control_characters")
        return value


class Whole(serializers.IntegerField):
    """A whole number that PostgreSQL can hold: from 0 up unless declared otherwise."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 2**31 - 1, **options})


class Id(serializers.IntegerField):
    """An id of another object; the service looks it up within what the caller sees."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 1, "max_value": 2**63 - 1, **options})


class Choice(serializers.ChoiceField):
    """One value of an enumeration."""

    def __init__(self, values: type[LabelledEnum], **options: Any) -> None:
        super().__init__(choices=values.choices(), **options)


class Words(serializers.CharField):
    """Free text that may be left out or be empty; null means empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{"required": False, "allow_blank": True, "allow_null": True, "max_length": 4096, **options}
        )

    def run_validation(self, data: Any = serializers.empty) -> Any:
        value = super().run_validation(data)
        return "" if value is None else value
