"""Report 17.1 in JSON and CSV."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from cpm.lib.states import Role
from cpm.models import AuditRecord
from tests import factories
from tests.api import facts
from tests.api.caller import Caller

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 7, 21, 12, tzinfo=UTC)


def call() -> Caller:
    return Caller(factories.root(), accept="application/json")


def report(query: str = "") -> list[dict[str, str]]:
    status, rows = call()("GET", f"reports/audit/{query}")
    assert status == 200, rows
    return rows


def sheet(query: str = "") -> list[list[str]]:
    status, content = call()("GET", f"reports/audit/{query}", Accept="text/csv")
    assert status == 200, content
    return list(csv.reader(io.StringIO(content.decode())))


def records() -> tuple[AuditRecord, AuditRecord]:
    """What a user and its delegate did, an hour apart."""
    owner = factories.user(username="olga")
    helper = factories.delegate(owner, username="dora")
    return (
        factories.audit_record(
            owner, event_time=NOON, event_type="policy.created", log="Policy “web” created."
        ),
        factories.audit_record(
            helper, event_time=NOON + timedelta(hours=1), log="=Policy “db” changed: generations 7 → 10."
        ),
    )


def test_json_shows_the_latest_first_with_the_original_user_of_delegates():
    records()

    rows = report()

    facts.check("17.1", rows)
    assert rows == [
        {
            "event_time": "2026-07-21T13:00:00Z", "event_type": "policy.updated", "username": "dora",
            "log": "=Policy “db” changed: generations 7 → 10.", "user_type": "delegate", "original_user": "olga",
        },
        {
            "event_time": "2026-07-21T12:00:00Z", "event_type": "policy.created", "username": "olga",
            "log": "Policy “web” created.", "user_type": "independent", "original_user": "olga",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("event_type=policy.created", ["olga"]), ("event_type=nothing", []), ("from_time=2026-07-21T12:30:00Z", ["dora"]),
        ("to_time=2026-07-21T12:00:00Z", ["olga"]), ("from_time=2026-07-21&to_time=2026-07-21", ["dora", "olga"]),
        ("from_time=2026-07-22", []), ("username=dora", ["dora"]), ("original_user=olga", ["dora", "olga"]),
        ("original_user=dora", []), ("search=generations+db", ["dora"]), ("search=nowhere", []),
        ("user={olga}", ["olga"]), ("user_id={dora}", ["dora"]), ("user={olga},{dora}", ["dora", "olga"]),
        ("ordering=event_time", ["olga", "dora"]), ("ordering=-username", ["olga", "dora"]), ("ordering=username", ["dora", "olga"]),
    ],
)  # fmt: skip
def test_filters_search_and_order(query: str, found: list[str]):
    first, second = records()

    rows = report("?" + query.format(olga=first.user_id, dora=second.user_id))

    assert [row["username"] for row in rows] == found


@pytest.mark.parametrize(
    "query", ["from_time=yesterday", "user=olga", "user_id=1.5", "ordering=log", "page=x"]
)
def test_nonsense_is_refused_by_name(query: str):
    status, content = call()("GET", f"reports/audit/?{query}")

    assert status == 400 and set(content["errors"][0]) == {query.partition("=")[0]}


def test_pages_are_for_json_only():
    records()

    _, page = call()("GET", "reports/audit/?page=2&page_size=1")

    assert (page["count"], [row["username"] for row in page["results"]]) == (2, ["olga"])
    assert len(sheet("?page=2&page_size=1")) == 3


def test_csv_has_local_times_delegates_and_no_formulas(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    records()

    header, later, earlier = sheet()

    assert header == ["Event Time (Europe/Berlin)", "Event Type", "Log", "User", "User Type", "Delegate of"]
    assert later == [
        "2026-07-21 15:00:00", "policy.updated", "'=Policy “db” changed: generations 7 → 10.", "dora", "delegate", "olga",
    ]  # fmt: skip
    assert earlier[-1] == "N/A"


def test_csv_of_one_user_has_no_user_columns():
    records()

    assert sheet("?username=dora")[0] == ["Event Time (UTC)", "Event Type", "Log"]
    assert len(sheet("?username=dora")) == 2
    assert len(sheet("?username=nobody")) == 1


def test_records_of_users_who_are_gone_stay_readable():
    records()
    gone = factories.user(username="gone")
    factories.audit_record(gone)
    gone.delete()

    assert "gone" in {row["username"] for row in report()}


@pytest.mark.parametrize("role", [Role.INDEPENDENT, Role.MANAGED])
def test_only_root_reads_the_log(role: Role):
    records()
    user = factories.user(role)
    helpers = (factories.delegate(user), factories.delegate(factories.root(), allow_settings_changes=True))

    for caller in (user, *helpers):
        for accept in ("application/json", "text/csv"):
            status, content = Caller(caller)("GET", "reports/audit/?search=web", Accept=accept)
            assert status == 403 and b"olga" not in str(content).encode()
