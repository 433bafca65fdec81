"""The protected resources report: one line per resource, with the policies and schedules that cover it."""

from django.contrib.postgres.aggregates import ArrayAgg
from django.db.models import Case, Max, Q, TextField, Value, When
from django.db.models.functions import NullIf

from cpm.models import Target
from cpm.reports.base import Report
from cpm.reports.columns import Names, Text
from cpm.resources.registry import WHOLE

# What the report calls the types of resources; others go by their own name.
TYPE_NAMES = {
    "instances": "instance",
    "volumes": "independent_volume",
    **{kind.key: kind.report_word for kind in WHOLE if kind.report_word},
}
_TYPE = Case(
    *(When(resource_type=key, then=Value(name)) for key, name in TYPE_NAMES.items()),
    default="resource_type",
    output_field=TextField(),
)
_NAME = Case(When(resource_type="instances", then=NullIf(Max("name"), Value(""))), output_field=TextField())


def _names(path: str) -> ArrayAgg:
    """The distinct names over all targets of the resource, in order."""
    return ArrayAgg(
        path, distinct=True, order_by=path, filter=Q(**{f"{path}__isnull": False}), default=Value([])
    )


PROTECTED_RESOURCES = Report(
    name="protected-resources",
    model=Target,
    columns=(
        Text("resource_type", "Resource Type", _TYPE),
        Text("aws_resource_id", "Resource ID", "aws_resource_id"),
        Text("aws_resource_name", "Resource Name", _NAME),
        Text("aws_region", "Region", "aws_region"),
        Text("account_name", "Account", "policy__account__name"),
        Names("policies", "Policies", _names("policy__name")),
        Names("schedules", "Schedules", _names("policy__schedules__name")),
        Text("username", "User", "policy__user__username"),
    ),
    order=("policy__account_id", "resource_type", "aws_region", "aws_resource_id"),
    keys=("policy__account_id", "resource_type", "aws_region", "aws_resource_id"),
)
