import pytest

from cpm.flows.identities import decrypt_secret
from cpm.lib.states import FleetKind, Role
from cpm.models import Account, AuditRecord, FleetMember, Job, Region, Step, WorkerConfiguration, WorkerTest
from cpm.services import worker_configurations
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db
PASSWORD = "planted proxy password"


def region(name: str = "us-east-1", **fields) -> int:
    return Region.objects.update_or_create(aws_region=name, defaults={"disp_name": name, **fields})[0].pk


def body(of: Account, **fields):
    return {
        "account": of.pk, "region": region(), "aws_vpc": "vpc-0123456789abcdef0",
        "aws_security_group": "sg-0123abcd", **fields,
    }  # fmt: skip


PROXY = {
    "requires_http_proxy": True, "http_proxy_address": "proxy.example.com", "http_proxy_port": 3128,
    "http_proxy_user_name": "cpm", "http_proxy_password_encrypted": PASSWORD,
}  # fmt: skip


def test_a_configuration_is_made_read_changed_and_deleted():
    owner = factories.user()
    call, of = Caller(owner), factories.account(owner)

    created, made = call(
        "POST", "workers/", body(of, aws_subnet="subnet-0123456789abcdef0", aws_key_pair="ops")
    )
    address = f"workers/{made['id']}/"
    changed, put = call("PUT", address, body(of, region=region("eu-west-1"), aws_subnet=None, **PROXY))

    assert (created, changed) == (201, 200)
    assert (made["user"], made["aws_subnet"], made["aws_key_pair"]) == (
        owner.pk,
        "subnet-0123456789abcdef0",
        "ops",
    )
    assert (put["region"], put["aws_subnet"], put["aws_key_pair"]) == (region("eu-west-1"), None, "ops")
    assert (put["http_proxy_address"], put["http_proxy_port"]) == ("proxy.example.com", 3128)
    listed = call("GET", "workers/")[1]
    for operation, content in (
        ("28.1", made),
        ("28.2", listed),
        ("28.5", call("GET", address)[1]),
        ("28.6", put),
    ):
        facts.check(operation, content)
    assert call("DELETE", address) == (204, b"")
    assert call("GET", address)[0] == 404


def test_the_password_of_the_proxy_is_kept_encrypted_and_never_shown():
    owner = factories.user()
    call, of = Caller(owner), factories.account(owner)

    _, made = call("POST", "workers/", body(of, **PROXY))

    row = WorkerConfiguration.objects.get()
    assert PASSWORD not in row.http_proxy_password
    assert decrypt_secret(row.http_proxy_password) == PASSWORD
    shown = str([made, call("GET", "workers/")[1], list(AuditRecord.objects.values())])
    assert PASSWORD not in shown and row.http_proxy_password not in shown


def test_a_stored_password_stays_with_its_proxy():
    owner = factories.user()
    call, of = Caller(owner), factories.account(owner)
    _, made = call("POST", "workers/", body(of, **PROXY))
    address = f"workers/{made['id']}/"

    kept = call("PUT", address, body(of, aws_key_pair="x"))
    elsewhere = call("PUT", address, body(of, http_proxy_address="other.example.com"))
    again = call(
        "PUT", address, body(of, http_proxy_address="other.example.com", http_proxy_password_encrypted="")
    )

    assert kept[0] == 200
    assert (elsewhere[0], codes(elsewhere[1])) == (400, {"http_proxy_password_encrypted": ["required"]})
    assert again[0] == 200
    assert WorkerConfiguration.objects.get().http_proxy_password == ""


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"aws_vpc": "my vpc"}, {"aws_vpc": ["invalid"]}),
        ({"aws_vpc": "vpc-0123456789ABCDEF0"}, {"aws_vpc": ["invalid"]}),
        ({"aws_security_group": "vpc-0123456789abcdef0"}, {"aws_security_group": ["invalid"]}),
        ({"aws_subnet": "subnet-123"}, {"aws_subnet": ["invalid"]}),
        ({"aws_key_pair": " ops"}, {"aws_key_pair": ["invalid"]}),
        ({"aws_key_pair": "schlüssel"}, {"aws_key_pair": ["invalid"]}),
        (
            {"requires_http_proxy": True},
            {"http_proxy_address": ["required"], "http_proxy_port": ["required"]},
        ),
        ({**PROXY, "http_proxy_address": "http://proxy"}, {"http_proxy_address": ["invalid"]}),
        ({**PROXY, "http_proxy_address": "169.254.169.254"}, {"http_proxy_address": ["invalid"]}),
        ({**PROXY, "http_proxy_address": "fe80::1"}, {"http_proxy_address": ["invalid"]}),
        ({**PROXY, "http_proxy_port": 0}, {"http_proxy_port": ["invalid"]}),
        ({**PROXY, "http_proxy_port": 65536}, {"http_proxy_port": ["invalid"]}),
        ({**PROXY, "http_proxy_user_name": "a:b"}, {"http_proxy_user_name": ["invalid"]}),
        ({**PROXY, "http_proxy_password_encrypted": "ü"}, {"http_proxy_password_encrypted": ["invalid"]}),
        ({"region": 999_999}, {"region": ["not_found"]}),
        ({"account": 999_999}, {"account": ["not_found"]}),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(fields, refused):
    owner = factories.user()

    status, content = Caller(owner)("POST", "workers/", body(factories.account(owner), **fields))

    assert (status, codes(content)) == (400, refused)
    assert not WorkerConfiguration.objects.exists()


def test_a_region_must_be_enabled():
    owner = factories.user()
    off = region("af-south-1", enabled=False)

    status, content = Caller(owner)("POST", "workers/", body(factories.account(owner), region=off))

    assert (status, codes(content)) == (400, {"region": ["not_found"]})


def test_an_account_has_one_configuration_for_a_region():
    owner = factories.user()
    call, of = Caller(owner), factories.account(owner)
    call("POST", "workers/", body(of))
    _, other = call("POST", "workers/", body(of, region=region("eu-west-1")))

    again = call("POST", "workers/", body(of))
    moved = call("PUT", f"workers/{other['id']}/", body(of))

    for status, content in (again, moved):
        assert (status, codes(content)) == (400, {"region": ["unique"]})


def test_lists_are_filtered_and_ordered():
    root, managed = factories.root(), factories.user(Role.MANAGED, username="anna")
    one, two = factories.account(root, name="b"), factories.account(managed, name="a")
    region("us-west-2"), region("eu-west-1")
    first = factories.worker_configuration(one, region=Region.objects.get(aws_region="us-west-2")).pk
    second = factories.worker_configuration(two, region=Region.objects.get(aws_region="eu-west-1")).pk
    call = Caller(root)

    def ids(query: str) -> list[int]:
        return [row["id"] for row in call("GET", f"workers/?{query}")[1]]

    assert ids(f"account={two.pk}") == [second]
    assert ids(f"user={root.pk}") == [first]
    assert ids("ordering=account") == [second, first]
    assert ids("ordering=region") == [second, first]
    assert ids("ordering=-username") == [first, second]
    assert call("GET", "workers/?page=1&page_size=1")[1]["count"] == 2


def test_others_configurations_do_not_exist_and_their_accounts_neither():
    theirs = factories.worker_configuration()
    test = factories.worker_test(theirs)
    mine = factories.worker_configuration()
    call = Caller(mine.user)

    assert [row["id"] for row in call("GET", "workers/")[1]] == [mine.pk]
    for method, path, sent in (
        ("GET", "", None), ("PUT", "", body(mine.account)), ("DELETE", "", None), ("POST", "test/", None),
        ("GET", f"test/{test.pk}/", None),
    ):  # fmt: skip
        assert call(method, f"workers/{theirs.pk}/{path}", sent)[0] == 404
    assert call("GET", f"workers/{mine.pk}/test/{test.pk}/")[0] == 404
    for method, path in (("POST", "workers/"), ("PUT", f"workers/{mine.pk}/")):
        status, content = call(method, path, body(theirs.account))
        assert (status, codes(content)) == (400, {"account": ["not_found"]})


def test_root_moves_no_configuration_from_one_user_to_another():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    own, theirs = factories.account(root), factories.account(managed)
    row = factories.worker_configuration(own)

    status, content = Caller(root)("PUT", f"workers/{row.pk}/", body(theirs))

    assert (status, codes(content)) == (400, {"account": ["not_found"]})
    assert Caller(root)("POST", "workers/", body(theirs))[1]["user"] == managed.pk


def test_delegates_need_the_flag_for_accounts_to_change_and_to_test():
    owner = factories.user()
    row = factories.worker_configuration(factories.account(owner))
    test = factories.worker_test(row)
    without = Caller(factories.delegate(owner, allow_backup_changes=True))
    allowed = Caller(factories.delegate(owner, allow_account_changes=True))

    assert without("GET", f"workers/{row.pk}/")[0] == 200
    for method, path, sent, good in (
        ("POST", f"workers/{row.pk}/test/", None, 202),
        ("GET", f"workers/{row.pk}/test/{test.pk}/", None, 200),
        ("PUT", f"workers/{row.pk}/", body(row.account), 200),
        ("DELETE", f"workers/{row.pk}/", None, 204),
    ):
        assert without(method, path, sent)[0] == 403
        assert allowed(method, path, sent)[0] == good


def test_a_test_is_started_and_asked_about():
    row = factories.worker_configuration(factories.account(account_number="123456789012"))
    FleetMember.objects.create(name="near", kind=FleetKind.WORKER, queues=["s3@123456789012:us-east-1"])
    call = Caller(row.user)

    status, started = call("POST", f"workers/{row.pk}/test/")
    address = f"workers/{row.pk}/test/{started['id']}/"

    assert status == 202
    facts.check("28.3", started)
    assert (started["session_status"], started["configuration"], started["worker"]) == ("I", row.pk, None)
    assert call("GET", address) == (200, started)
    step = Step.objects.get(job__subject_id=started["id"])
    assert (step.job.kind, step.queue) == ("worker_test", "s3@123456789012:us-east-1")

    WorkerTest.objects.update(status="F", details="EC2: no.", worker_id=7, end_time=factories.NOW)
    ended = call("GET", address)[1]
    facts.check("28.4", ended)
    assert (ended["session_status"], ended["test_session_fail_desc"], ended["worker"]) == ("F", "EC2: no.", 7)


def test_a_repeated_request_with_the_same_key_starts_one_test():
    row = factories.worker_configuration()
    call = Caller(row.user)

    answers = [call("POST", f"workers/{row.pk}/test/", **{"Idempotency-Key": "once"}) for _ in range(2)]

    assert answers[0] == answers[1]
    assert Job.objects.filter(kind="worker_test").count() == 1


def test_old_tests_go_when_new_ones_start():
    row = factories.worker_configuration()
    open_one = factories.worker_test(row).pk
    for _ in range(worker_configurations.TESTS_KEPT + 3):
        factories.worker_test(row, status="S")

    _, started = Caller(row.user)("POST", f"workers/{row.pk}/test/")

    left = set(row.tests.values_list("pk", flat=True))
    assert len(left) == worker_configurations.TESTS_KEPT + 1
    assert {open_one, started["id"]} <= left
