"""Lists: pages, streams, constant query counts, and repeated requests."""

import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from api import authentication, rows
from api.endpoints.backups import FIELDS
from cpm.lib.states import SnapshotKind
from cpm.models import Backup, Recovery, User
from tests import factories
from tests.api.caller import Caller


def backups(owner: User, count: int) -> list[Backup]:
    policy = factories.policy(factories.account(owner))
    return [
        factories.backup(policy, start_time=factories.NOW - timedelta(hours=7 * number))
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "query", ["", "&ordering=-start_time", "&ordering=start_time", "&ordering=-status", "&status=B"]
)
def test_pages_put_together_are_the_whole_list(owner, query):
    backups(owner, 23)
    backups(factories.user(), 3)
    call = Caller(owner)

    whole = call("GET", f"backups/?{query.lstrip('&')}")[1]
    pages = [call("GET", f"backups/?page={number}&page_size=5{query}")[1] for number in range(1, 6)]

    assert [page["count"] for page in pages] == [23] * 5
    assert [row for page in pages for row in page["results"]] == whole
    assert call("GET", f"backups/?page=6&page_size=5{query}")[0] == 404


def test_filters_narrow_and_count(owner):
    first, second = backups(owner, 4), backups(owner, 2)
    call = Caller(owner)

    by_account = call("GET", f"backups/?page=2&page_size=1&account={second[0].account_id}")[1]
    both = call("GET", f"backups/?page=1&account={second[0].account_id},{first[0].account_id}")[1]
    foreign = call("GET", f"backups/?page=1&account={backups(factories.user(), 1)[0].account_id}")[1]
    moment = call("GET", f"backups/?start_time={by_account['results'][0]['start_time']}")[1]

    assert (by_account["count"], [row["id"] for row in by_account["results"]]) == (2, [second[1].pk])
    assert (both["count"], foreign["count"], foreign["results"]) == (6, 0, [])
    assert {row["id"] for row in moment} == {first[1].pk, second[1].pk}


def test_backups_are_found_by_what_they_protect(owner):
    backup, other = backups(owner, 2)
    factories.snapshot(backup, SnapshotKind.INSTANCE, source_id="i-0abc", details={"tags": {"Team": "blue"}})
    factories.snapshot(other, SnapshotKind.VOLUME, source_id="vol-0def", source_name="data")
    call = Caller(owner)

    def found(query: str) -> list[int]:
        return [row["id"] for row in call("GET", f"backups/?{query}")[1]]

    assert found("search_by_instance=0AB") == found("search_by_instance=blue") == [backup.pk]
    assert found("search_by_volume=data") == [other.pk]
    assert found("search_by_volume=0abc") == found("search_by_rds=x") == []


@pytest.mark.parametrize(
    "path", ["backups/?page=1", "backups/{id}/snapshots/volumes/?page=1", "recoveries/?page=1"]
)
def test_a_list_costs_the_same_queries_for_one_row_and_for_many(owner, path, django_assert_max_num_queries):
    call = Caller(owner)
    backup = backups(owner, 1)[0]
    for _ in range(15):
        factories.recovery(factories.snapshot(backup))

    with django_assert_max_num_queries(4):
        status, page = call("GET", path.format(id=backup.pk))

    assert (status, page["count"] > 0) == (200, True)


@pytest.mark.django_db(transaction=True)
def test_a_stream_ends_its_transaction_when_the_client_goes_away():
    owner = factories.user()
    backups(owner, 3)
    token = authentication.obtain(factories.api_key(owner)).access_token

    response = Client().get("/api/backups/", headers={"authorization": f"Bearer {token}"})
    begun = next(iter(response))
    response.close()

    assert begun == b"["
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_a_failure_at_the_start_of_a_stream_is_raised_before_the_answer_begins():
    backups(factories.user(), 1)
    broken = FIELDS.on(Backup).extra(where=["1 / 0 = 1"])

    with pytest.raises(DatabaseError):
        rows.JsonArray(broken)

    assert not connection.in_atomic_block


def recover(call: Caller, snapshot, key: str, body: dict[str, object] | None = None):
    path = f"backups/{snapshot.backup_id}/snapshots/volumes/{snapshot.pk}/recover/"
    return call("POST", path, body or {"zone": "us-east-1a"}, **{"Idempotency-Key": key})


def test_a_repeated_request_gets_the_first_answer_and_starts_nothing(owner):
    snapshot = factories.snapshot(backups(owner, 1)[0], capacity=1)
    call = Caller(owner)

    first, again, other = (recover(call, snapshot, key) for key in ("a", "a", "b"))

    assert first[0] == 202
    assert again == first
    assert other[1]["id"] != first[1]["id"]
    assert Recovery.objects.count() == 2


def test_a_key_with_another_body_is_refused_and_a_refusal_is_not_kept(owner):
    snapshot = factories.snapshot(backups(owner, 1)[0], capacity=1)
    call = Caller(owner)

    refused = recover(call, snapshot, "a", {"capacity": "x"})
    accepted = recover(call, snapshot, "a")
    other_body = recover(call, snapshot, "a", {"zone": "us-east-1b"})

    assert (refused[0], accepted[0], other_body[0]) == (400, 202, 400)
    assert list(other_body[1]["errors"][0]) == ["Idempotency-Key"]


@pytest.mark.django_db(transaction=True)
def test_the_same_request_at_the_same_moment_starts_one_recovery():
    owner = factories.user()
    snapshot = factories.snapshot(backups(owner, 1)[0], capacity=1)
    calls = [Caller(owner) for _ in range(4)]
    answers = []

    def send(call: Caller) -> None:
        try:
            answers.append(recover(call, snapshot, "once"))
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert Recovery.objects.count() == 1


def test_a_first_page_and_its_count_are_one_query_also_when_nothing_is_there(owner):
    recovery = factories.recovery(factories.snapshot(backups(owner, 1)[0]))
    call = Caller(owner)
    empty = {"count": 0, "next": None, "previous": None, "results": []}

    with CaptureQueriesContext(connection) as queries:
        shown = call("GET", "recoveries/?page=1&page_size=5")[1]

    asked = [query["sql"] for query in queries if "cpm_recovery" in query["sql"]]
    assert (shown["count"], [row["id"] for row in shown["results"]], len(asked)) == (1, [recovery.pk], 1)
    assert call("GET", "recoveries/?page=1&status=F")[1] == empty
    assert call("GET", "recoveries/?page=1&recovery_scenario_record=1")[1] == empty
    assert call("GET", "recoveries/?page=2&recovery_scenario_record=1")[0] == 404
