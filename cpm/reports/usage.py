"""The usage reports: what is protected, by account or by user, with names or without.

Without names an account is called `account-12` and a user `user-3` after their ids, which say nothing outside this
server and stay the same from report to report. Such a report is filtered and ordered by these names as well.
"""

from django.contrib.postgres.aggregates import BoolOr
from django.db.models import Expression, F, Max, Min, Sum, TextField, Value
from django.db.models.functions import Cast, Concat

from cpm.models import UsageRecord
from cpm.reports.base import Report, Rows
from cpm.reports.columns import Column, Flag, Number, Numeral, Text

# Name in the API, heading, column of the record.
MEASURES = (
    ("num_instances", "Instances", "instances"),
    ("num_gib_of_independent_volumes", "Independent Volumes (GiB)", "independent_volumes_gib"),
    ("num_gib_of_rds", "RDS (GiB)", "rds_gib"),
    ("num_gib_of_redshift", "Redshift (GiB)", "redshift_gib"),
    ("num_gib_of_dynamo_db", "DynamoDB (GiB)", "dynamodb_gib"),
    ("num_efs", "EFS", "efs"),
    ("num_controlled_entities", "Controlled Entities", "controlled_entities"),
)
COPIED = (
    ("num_instances_dr", "Instances with DR", "instances_dr"),
    ("num_instances_s3", "Instances with S3 Copy", "instances_s3"),
)
STORAGE = F("independent_volumes_gib") + F("rds_gib") + F("redshift_gib") + F("dynamodb_gib")
TOTAL = ("total_non_instance_storage", "Total Non-Instance Storage (GiB)")
SWITCHES = (
    ("scanning_tags", "Tag Scan"),
    ("capturing_vpcs", "VPC Capture"),
)


def _named(rows: Rows) -> Rows:
    return rows.alias(account_shown=F("account_name"), user_shown=F("username"))


def _nameless(rows: Rows) -> Rows:
    return rows.alias(
        account_shown=_without_name("account", "account_id"), user_shown=_without_name("user", "user_id")
    )


def _without_name(noun: str, path: str) -> Expression:
    return Concat(Value(f"{noun}-"), Cast(path, TextField()), output_field=TextField())


def _day() -> Column:
    """The date of a line: numbers are kept by day, so its time of day would say nothing."""
    return Text("report_time", "Report Date", Cast("day", TextField()))


def _measures(kind: type[Number], measures: tuple[tuple[str, str, str], ...]) -> tuple[Column, ...]:
    return tuple(kind(name, title, path) for name, title, path in measures)


def _detailed(name: str, *, named: bool) -> Report:
    """One line per account and day."""
    return Report(
        name=name,
        model=UsageRecord,
        columns=(
            Number("user_id", "User ID"),
            Text("username", "User", "user_shown"),
            Number("account_id", "Account ID"),
            Text("account_name", "Account", "account_shown"),
            *_measures(Numeral, MEASURES + COPIED),
            *(Flag(switch, title) for switch, title in SWITCHES),
            Numeral(*TOTAL, STORAGE),
            _day(),
        ),
        order=("day", "user_id", "account_id"),
        prepare=_named if named else _nameless,
        signed=True,
    )


def _summary(name: str, *, named: bool) -> Report:
    """One line per user and day."""
    return Report(
        name=name,
        model=UsageRecord,
        columns=(
            Number("user_id", "User ID", "user_id"),
            Text("username", "User", Max("user_shown")),
            *(Numeral(field, title, Sum(path)) for field, title, path in MEASURES + COPIED),
            *(Flag(switch, title, BoolOr(switch)) for switch, title in SWITCHES),
            Numeral(*TOTAL, Sum(STORAGE)),
            _day(),
        ),
        order=("day", "user_id"),
        keys=("day", "user_id"),
        # A line of several accounts has its place by the first of them.
        sortable={"first_account": Min("account_shown"), "whose": Max("user_shown")},
        prepare=_named if named else _nameless,
        signed=True,
    )


DETAILED = _detailed("usage-detailed", named=True)
DETAILED_ANONYMOUS = _detailed("usage-detailed-anonymous", named=False)
SUMMARY = _summary("usage-summary", named=True)
SUMMARY_ANONYMOUS = _summary("usage-summary-anonymous", named=False)

# The two reports of old, replaced by those above.
USAGE = Report(
    name="usage",
    model=UsageRecord,
    columns=(
        Text("username", "User"),
        Text("account_name", "Account"),
        *_measures(Number, MEASURES),
        Number(*TOTAL, STORAGE, only_csv=True),
    ),
    order=("day", "user_id", "account_id"),
    signed=True,
)
ANONYMIZED = Report(
    name="usage-anonymized",
    model=UsageRecord,
    columns=(
        Numeral("user_id", "User ID"),
        Numeral("account_id", "Account ID"),
        *_measures(Number, MEASURES[:-1]),
        Number("controlled_entities", "Controlled Entities"),
        Number(*TOTAL, STORAGE, only_csv=True),
    ),
    order=("day", "user_id", "account_id"),
    signed=True,
)
