"""Path parameters."""

from django.urls import register_converter

from api.filters import BIGGEST


class IdConverter:
    """A positive 64-bit id. Anything else is not found rather than an error of the database."""

    regex = "[0-9]{1,19}"

    def to_python(self, value: str) -> int:
        number = int(value)
        if number > BIGGEST:
            raise ValueError("larger than any id")
        return number

    def to_url(self, value: int) -> str:
        return str(value)


register_converter(IdConverter, "id")
