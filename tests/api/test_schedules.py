from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

WINDOW = {"day": "M", "start_time": "17:00", "end_time": "08:00:00"}


def body(owner, **fields):
    return {"name": "hourly", "user": owner.pk, "every_how_many": 1, "every_unit": "H", **fields}


def test_a_schedule_is_made_read_changed_and_deleted():
    owner = factories.user()
    call = Caller(owner)

    created, made = call(
        "POST", "schedules/", body(owner, disable_times=[WINDOW], end_date="2099-01-01T00:00:00Z")
    )
    address = f"schedules/{made['id']}/"
    changed, put = call("PUT", address, {"name": "renamed", "every_how_many": 2, "end_date": None})
    listed, rows = call("GET", "schedules/")

    assert (created, changed, listed) == (201, 200, 200)
    for operation, content in (
        ("22.1", made),
        ("22.4", put),
        ("22.2", rows),
        ("22.3", call("GET", address)[1]),
    ):
        facts.check(operation, content)
    (window,) = put["disable_times"]
    assert window | {"id": 0} == {"day": "M", "start_time": "17:00:00", "end_time": "08:00:00", "id": 0}
    assert (made["end_date"], put["end_date"], put["every_how_many"]) == ("2099-01-01T00:00:00Z", None, 2)
    assert (put["every_unit"], put["user"]) == ("H", owner.pk)
    assert call("DELETE", address) == (204, b"")
    assert call("GET", address)[0] == 404


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"every_how_many": 0}, {"every_how_many": ["min_value"]}),
        ({"every_unit": "Y"}, {"every_unit": ["invalid_choice"]}),
        ({"timezone": "Mars/Olympus"}, {"timezone": ["unknown_timezone"]}),
        ({"start_date": "yesterday"}, {"start_date": ["invalid"]}),
        ({"disable_times": [{**WINDOW, "start_time": "25:00"}]}, {"disable_times.0.start_time": ["invalid"]}),
        ({"disable_times": "never"}, {"disable_times": ["not_a_list"]}),
        ({"name": "two words"}, {"name": ["invalid_name"]}),
        ({"user": 10**18}, {"user": ["not_found"]}),
    ],
)
def test_nonsense_is_refused_by_name(fields, expected):
    owner = factories.user()

    status, content = Caller(owner)("POST", "schedules/", body(owner, **fields))

    assert (status, codes(content)) == (400, expected)


def test_disable_times_are_listed_added_and_deleted():
    owner = factories.user()
    schedule = factories.schedule(owner)
    call, address = Caller(owner), f"schedules/{schedule.pk}/disable_times/"

    created, made = call("POST", address, {"start_time": "01:00", "end_time": "02:00"})
    one = f"{address}{made['id']}/"

    assert created == 201
    assert made["day"] == "A"
    facts.check("22.6", made)
    facts.check("22.7", call("GET", address)[1])
    facts.check("22.8", call("GET", one)[1])
    assert call("GET", f"schedules/{factories.schedule(owner).pk}/disable_times/{made['id']}/")[0] == 404
    assert call("DELETE", one) == (204, b"")
    assert call("GET", address) == (200, [])


def test_run_times_show_the_schedules_and_the_servers_clock(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    owner = factories.user()
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    schedule = factories.schedule(owner, start_date=start, timezone="Europe/Berlin")
    call = Caller(owner)

    status, rows = call("GET", f"schedules/{schedule.pk}/run_times/?days_ahead=2")

    assert status == 200
    facts.check("22.10", rows)
    assert [datetime.fromisoformat(row["time"]) for row in rows] == [start, start + timedelta(days=1)]
    assert {datetime.fromisoformat(rows[0][name]) for name in ("time", "schedule_time", "system_time")} == {
        start
    }
    assert rows[0]["system_time"].endswith("+09:00")
    assert (rows[0]["schedule_timezone"], rows[0]["system_timezone"]) == ("Europe/Berlin", "Asia/Tokyo")


@pytest.mark.parametrize(
    ("days", "code"), [("", "required"), ("x", "invalid"), ("0", "invalid"), ("9999", "invalid")]
)
def test_run_times_need_a_sensible_number_of_days(days, code):
    owner = factories.user()
    schedule = factories.schedule(owner)

    status, content = Caller(owner)("GET", f"schedules/{schedule.pk}/run_times/?days_ahead={days}")

    assert (status, codes(content)) == (400, {"days_ahead": [code]})


def test_lists_are_filtered_ordered_and_searched_in_few_queries():
    owner = factories.user()
    account = factories.account(owner)
    schedules = [factories.schedule(owner, name=name) for name in ("b", "a", "c")]
    policy = factories.policy(account, (schedules[0], schedules[2]), name="nightly")
    factories.policy(account, (schedules[0],), name="nightly-too")
    call = Caller(owner)

    with CaptureQueriesContext(connection) as queries:
        _, ordered = call("GET", "schedules/?ordering=-name")
    _, of_policy = call("GET", f"schedules/?policy={policy.pk}&ordering=name")
    _, found = call("GET", "schedules/?search=nightly&ordering=username,name")
    _, page = call("GET", "schedules/?page=1&page_size=2&ordering=name")

    assert [row["name"] for row in ordered] == ["c", "b", "a"]
    assert [row["num_policies"] for row in ordered] == [1, 2, 0]
    assert [row["name"] for row in of_policy] == ["b", "c"]
    assert [row["name"] for row in found] == ["b", "c"]
    assert (page["count"], len(page["results"])) == (3, 2)
    assert len([query for query in queries if "SELECT" in query["sql"]]) <= 3
    assert call("GET", "schedules/?scheduled_report=1") == (200, [])


def test_others_schedules_do_not_exist():
    schedule = factories.schedule()
    call = Caller(factories.user())

    for method, address in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "disable_times/"),
        ("GET", "run_times/?days_ahead=1"),
    ):
        assert call(method, f"schedules/{schedule.pk}/{address}")[0] == 404
