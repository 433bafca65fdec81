"""Declaring what an answer contains.

An endpoint declares its rows once:

    FIELDS = Fields(
        id=Integer("id"),
        status=Choice("status", BackupStatus),
        start_time=Moment("start_time"),
        s3_copy_status=Object(status=Choice("s3_copy_status", CopyStatus), progress_percent=Integer("s3_copy_progress")),
    )

A source is a path of model fields (`"policy__name"`, `"details__iops"`) or any Django expression. From the declaration
come the SQL that builds the JSON (`api.rows`), the OpenAPI schema and the CSV header. No serializer is involved.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import (
    CharField,
    Expression,
    F,
    Func,
    JSONField,
    Model,
    QuerySet,
    Subquery,
    TextField,
    Value,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Coalesce, NullIf

from cpm.lib.states import LabelledEnum

Source = str | Expression | Subquery


class Field:
    """One value of a row. Subclasses give its OpenAPI type and, where needed, dress its SQL."""

    schema: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, source: Source) -> None:
        self.source = source

    def expression(self) -> Any:
        """The ORM expression for the value; `row_to_json` turns it into JSON."""
        return F(self.source) if isinstance(self.source, str) else self.source

    def describe(self) -> dict[str, Any]:
        """The OpenAPI schema. Any field may be null: a record outlives what it refers to."""
        kind = self.schema["type"]
        return {**self.schema, "type": [kind, "null"]}


class Integer(Field):
    schema = {"type": "integer", "format": "int64"}


class Boolean(Field):
    schema = {"type": "boolean"}


class Text(Field):
    schema = {"type": "string"}


class TextOrNull(Text):
    """A text that the contract shows as null where we keep an empty one."""

    def expression(self) -> Any:
        return NullIf(super().expression(), Value(""), output_field=TextField())


class NumberAsText(Text):
    """A number that the contract shows as a string."""

    def expression(self) -> Any:
        return Cast(super().expression(), TextField())


class Moment(Field):
    """A time, in UTC to the second: 2026-11-21T05:00:00Z."""

    schema = {"type": "string", "format": "date-time"}

    def expression(self) -> Any:
        return Func(
            super().expression(),
            function="to_char",
            template="to_char((%(expressions)s) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
            output_field=CharField(),
        )


class Choice(Field):
    """One of the values of an enumeration, or null where nothing was chosen."""

    def __init__(self, source: Source, values: type[LabelledEnum]) -> None:
        super().__init__(source)
        self.values = values

    def expression(self) -> Any:
        return NullIf(super().expression(), Value(""), output_field=TextField())

    def describe(self) -> dict[str, Any]:
        labels = ", ".join(f"`{member.value}` {member.label}" for member in self.values)
        values = {"type": "string", "enum": [member.value for member in self.values]}
        return {"oneOf": [values, {"type": "null"}], "description": labels}


class Items(Field):
    """A list. The source is an array column, an `ArraySubquery` or a key of a JSON column; missing means empty."""

    def __init__(self, source: Source, of: str) -> None:
        super().__init__(source)
        self.of = of

    def expression(self) -> Any:
        return Coalesce(
            Func(super().expression(), function="to_jsonb", output_field=JSONField()),
            Value([], output_field=JSONField()),
        )

    def describe(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": self.of}}


class Nothing(Field):
    """Always null: a field of the contract whose feature this server does not have (yet)."""

    def __init__(self, kind: str = "string") -> None:
        super().__init__(Value(None, output_field=TextField()))
        self.kind = kind

    def describe(self) -> dict[str, Any]:
        return {"type": [self.kind, "null"]}


class Always(Field):
    """The same value in every row, with its OpenAPI schema."""

    def __init__(self, value: Any, schema: Mapping[str, Any]) -> None:
        super().__init__(Value(value, output_field=JSONField()))
        self.shown = dict(schema)

    def describe(self) -> dict[str, Any]:
        return self.shown


class Object(Field):
    """Fields within a field."""

    def __init__(self, **fields: Field) -> None:
        self.fields = fields

    def expression(self) -> Any:
        # Names come from declarations in this package, never from clients, so they may stand in the SQL as they are.
        pairs = ", ".join(f"'{name}', %s" for name in self.fields)
        return _JsonObject(pairs, [field.expression() for field in self.fields.values()])

    def describe(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: field.describe() for name, field in self.fields.items()},
        }


class _JsonObject(Func):
    """`json_build_object` with its keys in the text; `pairs` has one %s per value."""

    def __init__(self, pairs: str, expressions: list[Any]) -> None:
        super().__init__(*expressions, output_field=JSONField())
        self.pairs = pairs

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> Any:  # type: ignore[override]  # needs no template
        texts, parameters = [], []
        for expression in self.source_expressions:
            sql, values = compiler.compile(expression)
            texts.append(sql)
            parameters.extend(values)
        return f"json_build_object({self.pairs % tuple(texts)})", parameters


ROW = "json_row"


class Fields:
    """The fields of a row, in the order in which clients see them."""

    def __init__(self, **fields: Field) -> None:
        self.fields = fields
        self._prepared: dict[type[Model], QuerySet[Any, Any]] = {}

    @property
    def names(self) -> list[str]:
        return list(self.fields)

    def on(self, model: type[Model]) -> QuerySet[Any, Any]:
        """A queryset of the model whose rows are these fields as one JSON text.

        The ORM works the columns out once and they become one piece of SQL, so that a request pays for its filters
        only. The joins that the columns need stay in the query.
        """
        if model not in self._prepared:
            columns = self.columns(model)
            compiler = columns.query.get_compiler(columns.db)
            compiler.pre_sql_setup()
            selected = [sql for _, sql, _ in compiler.select]
            pairs = zip(self.names, selected, strict=True)
            # Unlike json_build_object this has no limit of fifty fields.
            texts = ", ".join(f'{sql} AS "{name}"' for name, (sql, _) in pairs)
            values = [value for _, parameters in selected for value in parameters]
            # The names come from declarations in this package, the rest from the ORM.
            sql = f"SELECT row_to_json(r)::text FROM (SELECT {texts}) AS r"  # noqa: S608
            row = RawSQL(sql, values, TextField())  # noqa: S611
            columns.query.clear_select_clause()
            columns.query.annotations.clear()
            self._prepared[model] = columns.annotate(**{ROW: row}).values_list(ROW, flat=True)
        return self._prepared[model].all()

    def columns(self, model: type[Model]) -> QuerySet[Any, Any]:
        """A queryset of the model whose rows are these fields as values."""
        columns = {f"json_{name}": field.expression() for name, field in self.fields.items()}
        return model._default_manager.annotate(**columns).values_list(*columns)

    def without(self, *names: str) -> "Fields":
        return Fields(**{name: field for name, field in self.fields.items() if name not in names})

    def extended(self, **fields: Field) -> "Fields":
        return Fields(**dict(sorted({**self.fields, **fields}.items())))

    def describe(self) -> dict[str, Any]:
        """The OpenAPI schema of one row. Every field is always present."""
        return {
            "type": "object",
            "properties": {name: field.describe() for name, field in self.fields.items()},
            "required": self.names,
        }
