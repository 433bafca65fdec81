import pytest

from cpm.flows.tags import MOST_TAGS
from cpm.flows.workers import worker_tags as flow
from cpm.lib.states import Role
from cpm.models import AuditRecord, WorkerTag
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db


def test_a_tag_is_made_read_changed_and_deleted():
    owner = factories.user()
    call, of = Caller(owner), factories.account(owner)

    created, made = call("POST", "worker_tags/", {"account": of.pk, "key": "cost centre", "value": "42"})
    address = f"worker_tags/{made['id']}/"
    changed, put = call("PUT", address, {"account": of.pk, "key": "team", "value": "storage"})

    assert (created, changed) == (201, 200)
    assert made == {"account": of.pk, "id": made["id"], "key": "cost centre", "value": "42"}
    assert put == {"account": of.pk, "id": made["id"], "key": "team", "value": "storage"}
    listed = call("GET", "worker_tags/")[1]
    for operation, content in (
        ("27.1", made),
        ("27.2", listed),
        ("27.3", call("GET", address)[1]),
        ("27.4", put),
    ):
        facts.check(operation, content)
    assert call("DELETE", address) == (204, b"")
    assert call("GET", address)[0] == 404
    events = AuditRecord.objects.order_by("id").values_list("event_type", flat=True)
    assert list(events)[-3:] == ["worker_tag.created", "worker_tag.updated", "worker_tag.deleted"]


def test_a_value_that_is_left_out_stays():
    tag = factories.worker_tag(value="kept")
    call = Caller(tag.account.user)

    _, put = call("PUT", f"worker_tags/{tag.pk}/", {"account": tag.account_id, "key": "new"})

    assert (put["key"], put["value"]) == ("new", "kept")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"key": ""}, {"key": ["blank"]}),
        ({"key": "  "}, {"key": ["required"]}),
        ({"key": "k" * 129}, {"key": ["max_length"]}),
        ({"value": "v" * 257}, {"value": ["max_length"]}),
        ({"key": "aws:cloudformation"}, {"key": ["reserved"]}),
        ({"key": "AWS:x"}, {"key": ["reserved"]}),
        ({"key": "cpm_step_id"}, {"key": ["reserved"]}),
        ({"key": "semi;colon"}, {"key": ["invalid"]}),
        ({"value": "<b>"}, {"value": ["invalid"]}),
    ],
)
def test_what_aws_does_not_take_as_a_tag_is_refused(fields, refused):
    owner = factories.user()
    of = factories.account(owner)

    status, content = Caller(owner)("POST", "worker_tags/", {"account": of.pk, "key": "key", **fields})

    assert (status, codes(content)) == (400, refused)
    assert not WorkerTag.objects.exists()


def test_letters_of_every_script_and_an_empty_value_are_taken():
    owner = factories.user()
    of = factories.account(owner)

    status, made = Caller(owner)(
        "POST", "worker_tags/", {"account": of.pk, "key": "Kostenstelle/ümlaut @ 費用"}
    )

    assert (status, made["value"]) == (201, "")


def test_an_account_has_a_key_once_and_fifty_tags_at_most():
    owner = factories.user()
    call, of, other = Caller(owner), factories.account(owner), factories.account(owner)
    factories.worker_tag(of, key="team")

    again = call("POST", "worker_tags/", {"account": of.pk, "key": "team"})
    elsewhere = call("POST", "worker_tags/", {"account": other.pk, "key": "team"})
    for _ in range(MOST_TAGS - 1):
        factories.worker_tag(of)
    too_many = call("POST", "worker_tags/", {"account": of.pk, "key": "one more"})
    moved = call("PUT", f"worker_tags/{elsewhere[1]['id']}/", {"account": of.pk, "key": "other"})

    assert (again[0], codes(again[1])) == (400, {"key": ["unique"]})
    assert elsewhere[0] == 201
    for status, content in (too_many, moved):
        assert (status, codes(content)) == (400, {"non_field_errors": ["limit_exceeded"]})


def test_lists_are_filtered_searched_and_ordered():
    root, managed = factories.root(), factories.user(Role.MANAGED, username="anna")
    one, two = factories.account(root, name="b"), factories.account(managed, name="a")
    factories.worker_tag(one, key="team", value="storage")
    factories.worker_tag(two, key="cost", value="42")
    call = Caller(root)

    def keys(query: str) -> list[str]:
        return [row["key"] for row in call("GET", f"worker_tags/?{query}")[1]]

    assert keys(f"account={one.pk}") == ["team"]
    assert keys("key=cost") == ["cost"]
    assert keys(f"user={managed.pk}") == ["cost"]
    assert keys("search=stor") == ["team"]
    assert keys("ordering=key") == ["cost", "team"]
    assert keys("ordering=-account") == ["team", "cost"]
    assert keys("ordering=username") == ["cost", "team"]
    page = call("GET", "worker_tags/?page=2&page_size=1&ordering=key")[1]
    assert (page["count"], [row["key"] for row in page["results"]]) == (2, ["team"])


def test_others_tags_do_not_exist_and_their_accounts_neither():
    tag = factories.worker_tag()
    mine = factories.worker_tag()
    call = Caller(mine.account.user)
    theirs = {"account": tag.account_id, "key": "x"}

    assert [row["id"] for row in call("GET", "worker_tags/")[1]] == [mine.pk]
    for method, body in (("GET", None), ("PUT", theirs), ("DELETE", None)):
        assert call(method, f"worker_tags/{tag.pk}/", body)[0] == 404
    for status, content in (
        call("POST", "worker_tags/", theirs),
        call("PUT", f"worker_tags/{mine.pk}/", theirs),
    ):
        assert (status, codes(content)) == (400, {"account": ["not_found"]})


def test_root_moves_no_tag_from_one_user_to_another():
    root, managed = factories.root(), factories.user(Role.MANAGED)
    own, theirs = factories.account(root), factories.account(managed)
    tag = factories.worker_tag(own)

    status, content = Caller(root)("PUT", f"worker_tags/{tag.pk}/", {"account": theirs.pk, "key": "x"})

    assert (status, codes(content)) == (400, {"account": ["not_found"]})
    assert Caller(root)("POST", "worker_tags/", {"account": theirs.pk, "key": "x"})[0] == 201


def test_delegates_need_the_flag_for_accounts():
    owner = factories.user()
    body = {"account": factories.account(owner).pk, "key": "x"}
    without = Caller(factories.delegate(owner, allow_backup_changes=True))
    allowed = Caller(factories.delegate(owner, allow_account_changes=True))

    assert without("POST", "worker_tags/", body)[0] == 403
    status, made = allowed("POST", "worker_tags/", body)

    assert status == 201
    assert without("GET", f"worker_tags/{made['id']}/")[0] == 200
    assert without("DELETE", f"worker_tags/{made['id']}/")[0] == 403


def test_what_workers_make_carries_the_tags_of_the_account_beside_ours():
    of = factories.account()
    factories.worker_tag(of, key="team", value="storage")
    factories.worker_tag(of, key="cpm", value="no")
    factories.worker_tag(key="other", value="account")

    assert flow.of(of) == {"team": "storage", "cpm": "no"}
    assert flow.beside({"cpm": "ours"}, of) == {"cpm": "ours", "team": "storage"}
    full = {f"ours{number}": "" for number in range(MOST_TAGS)}
    assert flow.beside(full, of) == full
