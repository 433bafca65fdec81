"""Filters, ordering and search, declared by each list and parsed here.

    filters = {"account": Ids("account_id"), "status": Choices("status", BackupStatus), "from_time": Since("start_time")}
    ordering = {"account": "account_id", "status": "status"}
    search = ("name", "description")

Values that make no sense and unknown ordering fields are a 400 that names the parameter; parameters that a list does
not know are ignored, as REST clients expect.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_date, parse_datetime
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from api.parsers import has_control_characters
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import LabelledEnum

Rows = QuerySet[Any, Any]
BIGGEST = 2**63 - 1


class Filter:
    """One query parameter. `apply` narrows the rows or raises ValueError with words for the client."""

    schema: ClassVar[Mapping[str, Any]] = {"type": "string"}
    description = ""
    required = False

    def __init__(self, path: str = "") -> None:
        self.path = path

    def apply(self, rows: Rows, text: str) -> Rows:
        return rows.filter(**{self.path: text})

    @classmethod
    def read(cls, text: str) -> Any:
        """The parameter's value, for operations that do not filter rows with it. Raises ValueError."""
        return text

    def describe(self) -> dict[str, Any]:
        return dict(self.schema)


class Exactly(Filter):
    """The text as it is."""


class Ids(Filter):
    """One id or several with commas between them."""

    description = "An id, or several with commas between them."

    def apply(self, rows: Rows, text: str) -> Rows:
        ids = self.read(text)
        return rows.filter(**({self.path: ids[0]} if len(ids) == 1 else {f"{self.path}__in": ids}))

    @classmethod
    def read(cls, text: str) -> Any:
        return [cls._id(part) for part in text.split(",")]

    @staticmethod
    def _id(text: str) -> int:
        text = text.strip()
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > BIGGEST:
            raise ValueError("This must be an id: a whole number.")
        return int(text)


class Id(Ids):
    """One id."""

    description = "An id."

    @classmethod
    def read(cls, text: str) -> Any:
        return cls._id(text)


class Number(Filter):
    """A whole number that the operation cannot do without."""

    schema = {"type": "integer", "minimum": 0}
    required = True

    def __init__(self, description: str) -> None:
        super().__init__()
        self.description = description

    @classmethod
    def read(cls, text: str) -> int:
        # Clients that take the contract's type at its word send 3.0.
        if not re.fullmatch(r"[0-9]{1,9}(\.0+)?", text.strip(), re.ASCII):
            raise ValueError("This must be a whole number.")
        return int(text.strip().partition(".")[0])


class Choices(Filter):
    """One value of an enumeration or several with commas between them."""

    def __init__(self, path: str, values: type[LabelledEnum]) -> None:
        super().__init__(path)
        self.values = values
        names = ", ".join(f"`{member.value}` {member.label}" for member in values)
        self.description = f"{names}; several with commas between them."

    def apply(self, rows: Rows, text: str) -> Rows:
        wanted = [part.strip() for part in text.split(",")]
        if unknown := [value for value in wanted if value not in set(self.values)]:
            raise ValueError(f"“{unknown[0]}” is none of {', '.join(self.values)}.")
        return rows.filter(**{f"{self.path}__in": wanted})


class Flag(Filter):
    """true or false; 1 and 0, yes and no are understood."""

    schema = {"type": "boolean"}
    words: ClassVar[Mapping[str, bool]] = {
        "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False,
    }  # fmt: skip

    def apply(self, rows: Rows, text: str) -> Rows:
        return rows.filter(**{self.path: self.read(text)})

    @classmethod
    def read(cls, text: str) -> bool:
        try:
            return cls.words[text.strip().lower()]
        except KeyError:
            raise ValueError("This must be true or false.") from None


class Moments(Filter):
    """A time as answers show it, or a day. It finds the rows of that second or day."""

    description = "A time such as 2026-11-21T05:00:00Z (UTC if it names no zone), or a day."

    def apply(self, rows: Rows, text: str) -> Rows:
        start, end = read_moment(text)
        return rows.filter(**{f"{self.path}__gte": start, f"{self.path}__lt": end})


class Since(Moments):
    """Rows from this time on."""

    def apply(self, rows: Rows, text: str) -> Rows:
        return rows.filter(**{f"{self.path}__gte": read_moment(text)[0]})


class Until(Moments):
    """Rows up to this time, or up to the end of this day."""

    def apply(self, rows: Rows, text: str) -> Rows:
        return rows.filter(**{f"{self.path}__lt": read_moment(text)[1]})


class Matching(Filter):
    """Rows that a function of the declaring module picks: `function(rows, text) -> rows`."""

    def __init__(self, function: Callable[[Rows, str], Rows], description: str = "") -> None:
        super().__init__()
        self.function, self.description = function, description

    def apply(self, rows: Rows, text: str) -> Rows:
        return self.function(rows, text)


def values_of(request: Request, filters: Mapping[str, Filter]) -> dict[str, Any]:
    """The parameters that a client gave, read as their kinds. Raises `ValidationFailed`."""
    found = {}
    for name, filter in filters.items():
        text = request.query_params.get(name, "")
        if has_control_characters(text):
            raise ValidationFailed.one(name, "Control characters are not allowed.", "control_characters")
        if not text.strip() and filter.required:
            raise ValidationFailed.one(name, "This parameter is required.", "required")
        if text.strip():
            try:
                found[name] = filter.read(text)
            except ValueError as error:
                raise ValidationFailed.one(name, str(error)) from error
    return found


def read_moment(text: str) -> tuple[datetime, datetime]:
    """The half-open span that a time or a day means. Raises ValueError."""
    # A plus sign in a URL arrives as a space unless the client escaped it.
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", text.strip())
    try:
        day, moment = parse_date(text), parse_datetime(text)
        if day:
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            return start, start + timedelta(days=1)
        if moment:
            start = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            start = start.astimezone(UTC)
            return start, start + (timedelta(microseconds=1) if start.microsecond else timedelta(seconds=1))
    except (ValueError, OverflowError):
        pass
    raise ValueError("This must be a time such as 2026-11-21T05:00:00Z, or a day such as 2026-11-21.")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks of a list: the filters it names with their texts, the search, the ORM's order."""

    filters: Mapping[str, str]
    search: str
    ordering: tuple[str, ...]


class ContractFilterBackend(BaseFilterBackend):
    """Applies what a view declares as `filters`, `ordering`, `search` and `default_ordering`."""

    def asked(self, request: Request, view: Any) -> Asked:
        parameters = request.query_params.dict()
        for name, text in parameters.items():
            known = name in view.filters or name in ("search", "ordering")
            if known and has_control_characters(text):
                raise ValidationFailed.one(name, "Control characters are not allowed.", "control_characters")
        filters = {name: text for name in view.filters if (text := parameters.get(name, ""))}
        search = parameters.get("search", "").strip() if view.search else ""
        return Asked(filters, search, self._ordering(parameters.get("ordering", ""), view))

    @staticmethod
    def _ordering(text: str, view: Any) -> tuple[str, ...]:
        wanted = [part.strip() for part in text.split(",") if part.strip()] if view.ordering else []
        chosen: list[str] = []
        for part in wanted:
            name = part.removeprefix("-")
            if name not in view.ordering:
                known = ", ".join(sorted(view.ordering))
                raise ValidationFailed.one("ordering", f"“{name}” is none of {known}.")
            sign = "-" if part.startswith("-") else ""
            chosen.append(sign + view.ordering[name])
        if not chosen:
            return tuple(view.default_ordering)
        # Rows that are equal in the chosen fields still need one order, or pages would overlap.
        return *chosen, "-id" if chosen[-1].startswith("-") else "id"

    def filter_queryset(self, request: Request, queryset: Rows, view: Any) -> Rows:
        return self.narrow(self.asked(request, view), queryset, view).order_by(*view.asked.ordering)

    def narrow(self, asked: Asked, rows: Rows, view: Any) -> Rows:
        """The rows that the filters and the search leave, in no order yet."""
        view.asked = asked
        for name, text in asked.filters.items():
            try:
                rows = view.filters[name].apply(rows, text)
            except ValueError as error:
                raise ValidationFailed.one(name, str(error)) from error
        return searched(rows, view.search, asked.search) if asked.search else rows

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        found = [
            parameter(name, filter.description, filter.describe()) for name, filter in view.filters.items()
        ]
        if view.ordering:
            names = ", ".join(f"`{name}`" for name in view.ordering)
            text = f"One of {names}, or several with commas between them; a minus sign turns the order round."
            found.append(parameter("ordering", text, {"type": "string"}))
        if view.search:
            found.append(parameter("search", "Words that must all occur.", {"type": "string"}))
        return found


def parameter(name: str, description: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    """A query parameter in OpenAPI's terms."""
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def searched(rows: Rows, paths: Sequence[str], text: str) -> Rows:
    """Rows in which every word occurs in one of the paths. Paths over to-many relations do not double rows."""
    found = rows.model._default_manager.all()
    for word in text.split():
        condition = Q()
        for path in paths:
            condition |= Q(**{f"{path}__icontains": word})
        if any("__" in path for path in paths):
            rows = rows.filter(pk__in=found.filter(condition).order_by().values("pk"))
        else:
            rows = rows.filter(condition)
    return rows
