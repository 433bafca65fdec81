"""Reports as JSON and as CSV."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from django.db import DatabaseError, connection
from django.test import Client
from psycopg.pq import TransactionStatus

from api import authentication
from cpm.lib.states import SnapshotKind
from cpm.models import Backup, ServerSettings, UsageRecord, User
from cpm.reports import signature, stream
from cpm.reports.backups import BACKUPS
from cpm.reports.base import Report
from cpm.reports.columns import Number, Text
from cpm.reports.stream import CsvFile
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

REPORTS = {
    "17.2": "reports/backups/", "17.3": "reports/protected-resources/", "17.5": "reports/snapshots/",
    "17.6": "reports/usage/", "17.7": "reports/usage/anonymized/", "17.8": "reports/usage/detailed/",
    "17.9": "reports/usage/detailed/anonymous/", "17.10": "reports/usage/summary/",
    "17.11": "reports/usage/summary/anonymous/",
}  # fmt: skip
SIGNED = [number for number in REPORTS if number not in ("17.2", "17.3", "17.5")]


@pytest.fixture
def root(db: None) -> User:
    return factories.root()


def something(owner: User, **names: Any):
    """A backup with a snapshot, and an instance under a policy with a schedule."""
    account = factories.account(owner, **({"name": names["account"]} if "account" in names else {}))
    policy = factories.policy(account, (factories.schedule(owner),), dr_enabled=True)
    target = factories.target(policy)
    backup = factories.backup(policy)
    return policy, target, backup, factories.snapshot(backup)


def table(content: bytes) -> list[dict[str, str]]:
    """The lines of a CSV file without its signature, by heading."""
    text = content.decode().partition("Signature: ")[0]
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("number", REPORTS)
def test_every_report_has_the_documented_fields_and_a_table(root, number):
    something(root)
    something(factories.user())

    status, content = Caller(root)("GET", REPORTS[number])
    facts.check(number, content)
    csv_status, text = Caller(root, accept="text/csv;")("GET", REPORTS[number])

    assert (status, csv_status) == (200, 200)
    assert len(table(text)) == len(content) == (2 if number not in ("17.2", "17.5") else 1)
    assert (b"\nSignature: ed25519 " in text) is (number in SIGNED)
    assert not any(set(line.values()) == {""} for line in table(text))


@pytest.mark.parametrize("number", REPORTS)
def test_pages_are_cut_from_the_whole_report_and_csv_ignores_them(root, number):
    for _ in range(3):
        something(factories.user("managed"))
    call = Caller(root)

    whole = call("GET", REPORTS[number])[1]
    _, page = call("GET", f"{REPORTS[number]}?page=2&page_size=1")
    _, text = Caller(root, accept="text/csv")("GET", f"{REPORTS[number]}?page=2&page_size=1")

    assert len(table(text)) == len(whole) == 3
    if number == "17.7":
        assert page == whole
    else:
        assert (page["count"], page["results"]) == (3, whole[1:2])
        assert call("GET", f"{REPORTS[number]}?page=4&page_size=1")[0] == 404
        assert codes(call("GET", f"{REPORTS[number]}?page=x")[1]) == {"page": ["invalid"]}


def test_backups_are_found_by_every_documented_filter(root):
    policy, _, backup, _ = something(root)
    factories.backup(
        factories.policy(factories.account(root)), status="F", dr_status="F", is_retry=True,
        marked_for_deletion=True, start_time=factories.NOW - timedelta(days=2),
    )  # fmt: skip
    managed = something(factories.user("managed"))[2]
    call = Caller(root)
    # A plus sign that a client did not escape arrives as a space.
    moments = ("2026-11-21T05:00:00Z", "2026-11-21T06:00:00+01:00", "2026-11-21")

    def found(query: str) -> set[str]:
        return {row["backup_id"] for row in call("GET", f"reports/backups/?{query}")[1]}

    both = {str(backup.pk), str(managed.pk)}
    for moment in moments:
        assert found(f"from_time={moment}") == both
        assert not found(f"to_time={moment}&from_time=2026-11-22")
    assert found("status=B") == found("dr_status=N") == found("is_retry=false") == both
    assert found("marked_for_deletion=no") == both
    assert found(f"backup_id={backup.pk}") == found(f"account={policy.account_id}") == {str(backup.pk)}
    assert (
        found(f"account_name={policy.account.name}")
        == found(f"policy_name={policy.name}")
        == {str(backup.pk)}
    )
    assert (
        found(f"user={root.pk}&status=B") == found(f"username={root.username}&is_retry=0") == {str(backup.pk)}
    )


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("backups", "status=QQ", "status"), ("backups", "from_time=yesterday", "from_time"),
        ("backups", "account=x", "account"), ("backups", "backup_id=1;drop", "backup_id"),
        ("backups", "is_retry=perhaps", "is_retry"), ("backups", "ordering=secret_key", "ordering"),
        ("backups", "ordering=user__password", "ordering"), ("backups", "username=a%00b", "username"),
        ("protected-resources", "user=-1", "user"), ("snapshots", "to_time=2026-13-01", "to_time"),
        ("usage/detailed", "from_time=x", "from_time"), ("usage/summary", "to_time=x", "to_time"),
        ("usage/summary/anonymous", "user=x", "user"), ("usage", "ordering=report_time", "ordering"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_nonsense_is_refused_by_name(root, path, query, field, accept):
    status, content = Caller(root, accept=accept)("GET", f"reports/{path}/?{query}")

    content = content if isinstance(content, dict) else orjson.loads(content)
    assert (status, list(codes(content))) == (400, [field])


def test_nobody_sees_what_is_not_theirs(root):
    managed, independent = factories.user("managed"), factories.user()
    for owner in (root, managed, independent):
        something(owner)
    delegate, roots = factories.delegate(independent), factories.delegate(root)

    def names(user: User, report: str) -> set[str]:
        status, lines = Caller(user)("GET", f"reports/{report}/")
        return {line["username"] for line in lines} if status == 200 else {str(status)}

    own = {independent.username}
    everybody = {user.username for user in (root, managed, independent)}
    for report in ("backups", "snapshots"):
        assert names(root, report) == names(roots, report) == everybody - own
        assert names(independent, report) == names(delegate, report) == own
    for report in ("protected-resources", "usage", "usage/detailed", "usage/summary"):
        assert names(root, report) == names(roots, report) == everybody
        assert names(independent, report) == names(delegate, report) == own
        assert Caller(independent)("GET", f"reports/{report}/?username={root.username}")[1] == []
    assert names(independent, "usage/anonymized") == names(delegate, "usage/anonymized") == {"403"}
    assert {line["user_id"] for line in Caller(roots)("GET", "reports/usage/anonymized/")[1]} == {
        str(user.pk) for user in (root, managed, independent)
    }


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("http://x","y")', "a,b\n=c"]
)
def test_names_never_become_formulas(root, name):
    snapshot = something(root, account=name)[-1]
    snapshot.backup.account_name = name
    snapshot.backup.save()

    for report in ("backups", "snapshots", "protected-resources", "usage", "usage/detailed"):
        content = Caller(root, accept="text/csv")("GET", f"reports/{report}/")[1]
        expected = name if name.startswith("a") else f"'{name}"
        lines = list(csv.DictReader(io.StringIO(content.decode().partition("Signature: ")[0], newline="")))
        assert lines[0]["Account"] == expected, report
    assert Caller(root)("GET", "reports/usage/")[1][0]["account_name"] == name


@pytest.mark.parametrize(
    "name", ["it's", "100%s", "%", "\\'; SELECT 1 --", 'a"b', "{}", "$1", "\u00e4\u6f22"]
)
def test_a_filter_in_csv_is_only_a_value(root, name):
    something(root)
    something(root, account=name)

    for report in ("protected-resources", "usage", "usage/detailed"):
        path = f"reports/{report}/?account_name={quote(name)}"
        status, content = Caller(root, accept="text/csv")("GET", path)
        assert (status, [line["Account"] for line in table(content)]) == (200, [name]), report
        assert len(Caller(root)("GET", path)[1]) == 1


def test_times_are_utc_in_json_and_the_servers_in_csv(root, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    policy = factories.policy(factories.account(root))
    winter, summer = (
        datetime(2026, 10, 25, 1, 30, 59, 999999, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    )
    for moment in (winter, summer, datetime(2026, 7, 1, 23, 0, tzinfo=UTC)):
        factories.snapshot(factories.backup(policy, start_time=moment, end_time=None), end_time=moment)

    shown = [line["start_time"] for line in Caller(root)("GET", "reports/backups/")[1]]
    lines = table(Caller(root, accept="text/csv")("GET", "reports/backups/")[1])
    snapshots = table(Caller(root, accept="text/csv")("GET", "reports/snapshots/")[1])

    assert shown == ["2026-10-25T01:30:59Z", "2026-10-25T00:30:00Z", "2026-07-01T23:00:00Z"]
    local = ["2026-10-25 02:30:59", "2026-10-25 02:30:00", "2026-07-02 01:00:00"]
    assert [line["Start Time (Europe/Berlin)"] for line in lines] == local
    assert [line["End Time (Europe/Berlin)"] for line in lines] == ["", "", ""]
    assert sorted(line["End Time (Europe/Berlin)"] for line in snapshots) == sorted(local)


def test_the_user_column_is_left_out_where_one_user_applies(root):
    managed = factories.user("managed")
    for owner in (root, managed, factories.user()):
        something(owner)

    def headings(user: User, query: str = "", report: str = "backups") -> list[str]:
        content = Caller(user, accept="text/csv")("GET", f"reports/{report}/{query}")[1]
        return content.decode().splitlines()[0].split(",")

    for report in ("backups", "protected-resources", "usage", "usage/detailed", "usage/summary"):
        assert "User" in headings(root, report=report)
        assert "User" not in headings(root, f"?username={managed.username}", report)
        assert "User" not in headings(managed, report=report)
    assert "User" in headings(root, report="snapshots")
    assert "User" not in headings(root, f"?user={managed.pk}")
    assert "User" in headings(root, f"?user={managed.pk},{root.pk}")
    assert "User" not in headings(managed, "?ordering=-username", "usage/summary")
    assert headings(root, report="usage/detailed")[-2:-1] == ["Total Non-Instance Storage (GiB)"]
    for report in ("usage", "usage/anonymized"):
        assert headings(root, report=report)[-1] == "Total Non-Instance Storage (GiB)"


def test_codes_are_words_in_csv(root):
    policy = factories.policy(factories.account(root))
    factories.backup(policy, status="D", status_before_deletion="A", is_retry=True)

    (line,) = table(Caller(root, accept="text/csv")("GET", "reports/backups/")[1])
    (row,) = Caller(root)("GET", "reports/backups/")[1]

    assert (line["Status"], line["Status Before Deletion"]) == (
        "All Snapshots Deleted",
        "Backup Partially Successful",
    )
    assert (line["DR Status"], line["Retry"], line["Marked for Deletion"]) == ("N/A", "Yes", "No")
    assert (row["status"], row["status_before_deletion"], row["is_retry"]) == ("D", "A", True)


def test_a_resource_is_one_line_with_all_that_covers_it(root):
    account = factories.account(root)
    daily, hourly = factories.schedule(root, name="daily"), factories.schedule(root, name="a; hourly")
    first = factories.policy(account, (daily, hourly), name="one")
    second = factories.policy(account, (daily,), name="=two")
    for policy in (first, second):
        factories.target(policy, aws_resource_id="i-0123456789abcdef0", name="web")
    factories.target(second, aws_resource_id="i-0123456789abcdef0", aws_region="us-west-2")
    factories.target(factories.policy(account), resource_type="volumes", aws_resource_id="vol-1", name="data")

    rows = Caller(root)("GET", "reports/protected-resources/")[1]
    lines = table(Caller(root, accept="text/csv")("GET", "reports/protected-resources/")[1])

    assert [(row["resource_type"], row["aws_region"], row["aws_resource_name"] is None) for row in rows] == [
        ("instance", "us-east-1", False), ("instance", "us-west-2", False), ("independent_volume", "us-east-1", True),
    ]  # fmt: skip
    assert (sorted(rows[0]["policies"]), sorted(rows[0]["schedules"])) == (
        ["=two", "one"],
        ["a; hourly", "daily"],
    )
    assert (len(rows[2]["policies"]), rows[2]["schedules"]) == (1, [])
    assert lines[0]["Policies"] == "'=two; one"
    assert lines[2]["Resource Name"] == ""


def test_the_snapshots_report_shows_what_was_taken(root):
    backup = factories.backup(factories.policy(factories.account(root)))
    dr = factories.account(root, is_dr_account=True)
    factories.snapshot(backup, SnapshotKind.INSTANCE)
    volume = factories.snapshot(backup, instance_id="i-1", instance_name="web", cbt_valid_size_mb=5)
    copy = factories.snapshot(
        backup, SnapshotKind.DR_VOLUME, account=dr, account_name=dr.name, succeeded=False
    )

    rows = Caller(root)("GET", "reports/snapshots/")[1]

    assert [(row["snapshot_id"], row["snapshot_type"]) for row in rows] == [
        (copy.aws_id, "ebs_copy"), (volume.aws_id, "ebs"),
    ]  # fmt: skip
    assert [(row["instance_id"], row["cbt_valid_size_mb"]) for row in rows] == [(None, None), ("i-1", 5)]
    assert [row["snapshot_account_name"] for row in rows] == [dr.name, backup.account_name]
    assert {row["account_name"] for row in rows} == {backup.account_name}
    assert {row["status"] for row in rows} == {"B"}
    assert not Caller(root)("GET", f"reports/snapshots/?account={dr.pk}")[1]
    assert (
        len(Caller(root)("GET", f"reports/snapshots/?account={backup.account_id}&from_time=2026-11-21")[1])
        == 2
    )


def test_usage_without_names_is_told_apart_by_ids(root):
    policy = something(root)[0]
    account = policy.account
    call = Caller(root)

    for kind in ("detailed", "summary"):
        (row,) = call("GET", f"reports/usage/{kind}/anonymous/")[1]
        assert (row["user_id"], row["username"]) == (root.pk, f"user-{root.pk}")
        assert call("GET", f"reports/usage/{kind}/anonymous/?username=user-{root.pk}")[1] == [row]
        assert call("GET", f"reports/usage/{kind}/anonymous/?username={root.username}")[1] == []
        assert call("GET", f"reports/usage/{kind}/anonymous/?account_name=account-{account.pk}")[1] == [row]
        text = Caller(root, accept="text/csv")("GET", f"reports/usage/{kind}/anonymous/")[1].decode()
        assert root.username not in text
        assert account.name not in text
    (row,) = call("GET", "reports/usage/anonymized/")[1]
    assert (row["user_id"], row["account_id"], row["num_instances"]) == (str(root.pk), str(account.pk), 1)


def test_usage_of_a_range_has_a_line_for_each_day(root):
    policy = something(root)[0]
    call = Caller(root)
    for days in (1, 2):
        moment = factories.NOW - timedelta(days=days)
        UsageRecord.objects.create(
            day=moment.date(), report_time=moment, user_id=root.pk, username=root.username,
            account_id=policy.account_id, account_name="old name", instances=days, rds_gib=7, independent_volumes_gib=3,
        )  # fmt: skip

    (today,) = call("GET", "reports/usage/detailed/")[1]
    past = call("GET", "reports/usage/detailed/?from_time=2026-11-19&to_time=2026-11-20")[1]
    summary = call("GET", "reports/usage/summary/?from_time=2026-11-20T00:00:00Z&to_time=2026-11-20")[1]

    assert (today["num_instances"], today["account_name"]) == ("1", policy.account.name)
    assert [(line["num_instances"], line["report_time"]) for line in past] == [
        ("2", "2026-11-19"), ("1", "2026-11-20"),
    ]  # fmt: skip
    assert [line["total_non_instance_storage"] for line in past] == ["10", "10"]
    assert [(line["num_instances"], line["num_gib_of_rds"]) for line in summary] == [("1", "7")]


def test_a_summary_adds_up_the_accounts_of_a_user(root):
    ServerSettings.objects.create(id=1, scan_resources=True)
    for number in (1, 2):
        account = factories.account(root, scan_tagged_resources=number == 1)
        policy = factories.policy(account)
        factories.target(policy)
        factories.target(policy, resource_type="volumes", aws_resource_id="vol-1", details={"capacity": 8})

    (row,) = Caller(root)("GET", "reports/usage/summary/?ordering=-account_name")[1]

    facts.check("17.10", [row])
    assert (row["num_instances"], row["num_gib_of_independent_volumes"]) == ("2", "16")
    assert (row["total_non_instance_storage"], row["scanning_tags"], row["capturing_vpcs"]) == (
        "16",
        True,
        False,
    )


@pytest.mark.django_db(transaction=True)
def test_a_client_that_goes_away_ends_the_copy(monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 1)
    owner = factories.root()
    for _ in range(3):
        something(owner)
    token = authentication.obtain(factories.api_key(owner)).access_token

    response = Client().get(
        "/api/reports/backups/", headers={"authorization": f"Bearer {token}", "accept": "text/csv"}
    )
    begun = next(iter(response))
    response.close()

    assert begun.startswith(b"Backup ID,Account,")
    assert not connection.in_atomic_block
    assert Backup.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("line", [1, 3])
def test_a_failure_breaks_the_file_off_without_a_signature(monkeypatch, line):
    monkeypatch.setattr(stream, "PIECE", 1)
    policy = factories.policy(factories.account())
    for _ in range(3):
        factories.backup(policy)
    backups = list(Backup.objects.order_by("id").values_list("id", flat=True))

    class Broken(Number):
        def as_cell(self, sql: str) -> str:
            return f"1 / ({sql} - {backups[line - 1]})"

    broken = [Broken("id", "ID")]
    lines = Report("broken", Backup, broken, ("id",)).lines(Backup.objects.all(), broken)
    key = signature.Ed25519PrivateKey.generate()
    sent: list[bytes] = []

    with pytest.raises(DatabaseError):
        sent.extend(CsvFile(broken, lines, lambda pieces: signature.signed(pieces, key)))

    assert len(sent) == line - 1
    assert b"Signature" not in b"".join(sent)
    assert not connection.in_atomic_block


def test_an_empty_report_is_a_heading(root):
    content = Caller(root, accept="text/csv")("GET", "reports/backups/")[1]

    assert content.count(b"\n") == 1
    assert Caller(root)("GET", "reports/backups/")[1] == []


class Wide(Text):
    """More bytes than a connection buffers."""

    def as_cell(self, sql: str) -> str:
        return f"repeat(({sql})::text, 20000000)"


@pytest.mark.django_db(transaction=True)
def test_nothing_is_read_ahead_and_a_copy_that_is_left_is_cancelled(monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 1)
    policy = factories.policy(factories.account())
    for _ in range(3):
        factories.backup(policy)
    wide = [Wide("id", "ID")]
    file = CsvFile(wide, Report("wide", Backup, wide, ("id",)).lines(Backup.objects.all(), wide))
    status = connection.connection.info

    first = next(file)
    during = status.transaction_status
    file.close()

    assert len(first) > 20_000_000
    assert (during, status.transaction_status) == (TransactionStatus.ACTIVE, TransactionStatus.IDLE)
    assert Backup.objects.count() == 3
    with pytest.raises(StopIteration):
        next(file)


def test_times_look_alike_whatever_the_style_of_the_session(root, settings):
    settings.TIME_ZONE = "America/St_Johns"
    factories.backup(factories.policy(factories.account(root)))
    lines = BACKUPS.lines(Backup.objects.all(), BACKUPS.columns)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL DateStyle TO 'German'")

    (line,) = table(b"".join(CsvFile(BACKUPS.columns, lines)))

    assert line["Start Time (America/St_Johns)"] == "2026-11-21 01:30:00"


def test_logs_are_csv_files_by_the_same_rules(root):
    factories.log_line("cleanup", None, '=1+1,"x"\ny')

    content = Caller(root, accept="text/csv")("GET", "settings/cleanup/logs/")[1]

    (line,) = csv.DictReader(io.StringIO(content.decode(), newline=""))
    assert (line["log"], line["log_time"]) == ('\'=1+1,"x"\ny', "2026-11-21T05:00:00Z")


def test_usage_of_users_who_are_gone_is_there_for_root_alone(root):
    gone = factories.user()
    UsageRecord.objects.create(
        day="2026-11-20", report_time=factories.NOW - timedelta(days=1), user_id=gone.pk, username=gone.username,
        account_id=1, account_name="of old", instances=4,
    )  # fmt: skip
    independent = factories.user()
    gone.delete()
    path = "reports/usage/detailed/?from_time=2026-11-20&to_time=2026-11-20"

    (row,) = Caller(root)("GET", path)[1]
    (line,) = table(Caller(root, accept="text/csv")("GET", path)[1])

    assert (row["account_name"], row["num_instances"], line["User"]) == ("of old", "4", row["username"])
    assert Caller(independent)("GET", path)[1] == []
