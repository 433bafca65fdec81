"""What a report is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Expression, Model, QuerySet

from cpm.reports.columns import Column

Rows = QuerySet[Any, Any]


def _all(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True, slots=True)
class Report:
    """Which rows of a model make a report, and what it shows of them.

    With `keys` the rows are grouped: one line for each combination of them, and columns may be aggregates. `order`
    must settle the order of all lines; `sortable` names values that are no columns but may order them. `prepare`
    leaves out rows that never belong in, or names values for filters. The last line of a `signed` report's CSV is a
    signature.
    """

    name: str
    model: type[Model]
    columns: Sequence[Column]
    order: tuple[str, ...]
    keys: tuple[str, ...] = ()
    sortable: Mapping[str, Expression] = field(default_factory=dict)
    prepare: Callable[[Rows], Rows] = _all
    signed: bool = False

    def rows(self) -> Rows:
        """All rows of the model, to be scoped and filtered."""
        return self.prepare(self.model._default_manager.all())

    def lines(self, rows: Rows, columns: Sequence[Column], ordering: Sequence[str] = ()) -> Rows:
        """A queryset whose rows are the plain values of these columns, in this order, or else the report's."""
        values = {f"shown_{column.name}": column.value() for column in columns}
        if self.keys:
            # Grouped lines have no id to settle their order.
            rows = rows.values(*self.keys)
            ordering = *(part for part in ordering if part not in ("id", "-id")), *self.order
        sorts = ordering or self.order
        return rows.annotate(**self.sortable, **values).order_by(*sorts).values_list(*values)

    def json_columns(self) -> list[Column]:
        return [column for column in self.columns if not column.only_csv]

    def csv_columns(self, *without: str) -> list[Column]:
        return [column for column in self.columns if column.name not in without]
