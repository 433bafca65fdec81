"""Failed attempts block, for a while, what they came from and whom they were about; nothing else does."""

from datetime import timedelta

import pytest

from cpm.lib.errors import AuthenticationFailed, TooManyAttempts
from cpm.models import Attempts, AuditRecord
from cpm.services import attempts
from tests import factories
from tests.factories import NOW

pytestmark = pytest.mark.django_db
HERE, THERE = "203.0.113.5", "198.51.100.7"


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.CPM_LOGIN_ATTEMPTS = 3
    settings.CPM_LOGIN_ATTEMPTS_PER_SOURCE = 5
    settings.CPM_LOGIN_WINDOW_SECONDS = 60
    settings.CPM_LOGIN_BLOCK_SECONDS = 120


def fail(counters, at=NOW) -> None:
    with pytest.raises(AuthenticationFailed), attempts.counted(counters, now=at):
        raise AuthenticationFailed


def succeed(counters, at=NOW) -> None:
    with attempts.counted(counters, now=at):
        pass


def seconds_blocked(counters, at=NOW) -> int:
    with pytest.raises(TooManyAttempts) as blocked, attempts.counted(counters, now=at):
        raise AssertionError("nothing may be looked at")
    return blocked.value.seconds


def test_a_name_is_blocked_from_everywhere_and_other_names_are_not():
    for _ in range(3):
        fail(attempts.by_password(HERE, "anna"))

    assert seconds_blocked(attempts.by_password(THERE, "anna")) == 120
    succeed(attempts.by_password(HERE, "berta"))


def test_lock_outs_are_in_the_audit_log_without_what_may_be_a_password():
    user = factories.user(username="anna")
    for name in (user.username, "hunter2hunter2"):
        for _ in range(3):
            fail(attempts.by_password(THERE if name == "anna" else HERE, name))
    for _ in range(5):
        fail(attempts.by_key("192.0.2.200"))

    records = AuditRecord.objects.filter(event_type="login.blocked").order_by("id")
    first, second, *others = records.values_list("log", flat=True)

    assert first == "Logins of user “anna” blocked after 3 failures."
    assert second == "Logins of a name that no user has blocked after 3 failures."
    assert others == ["Logins from 192.0.2.200 blocked after 5 failures with API keys."]
    assert records.last().source == "192.0.2.200"


def test_an_address_is_blocked_for_all_names_and_other_addresses_are_not():
    for name in ("a", "b", "c", "d", "e"):
        fail(attempts.by_password(HERE, name))

    assert seconds_blocked(attempts.by_password(HERE, "f")) == 120
    succeed(attempts.by_password(THERE, "a"))
    succeed(attempts.by_key(HERE))


def test_a_block_ends_and_counting_starts_anew():
    counters = attempts.by_password(HERE, "anna")
    for _ in range(3):
        fail(counters)

    assert seconds_blocked(counters, NOW + timedelta(seconds=119)) == 1
    later = NOW + timedelta(seconds=120)
    fail(counters, later)
    fail(counters, later)
    succeed(counters, later)


def test_old_failures_do_not_add_up():
    counters = attempts.by_password(HERE, "anna")
    for minutes in range(4):
        fail(counters, NOW + timedelta(minutes=minutes))
        fail(counters, NOW + timedelta(minutes=minutes, seconds=59))

    succeed(counters, NOW + timedelta(minutes=4))


def test_success_forgets_failures_of_the_name_and_of_keys_but_not_of_passwords_from_the_address():
    name, keys = attempts.by_password(HERE, "anna"), attempts.by_key(HERE)
    for _ in range(2):
        fail(name)
        fail(keys)

    succeed(name)
    succeed(keys)

    assert [row.kind for row in Attempts.objects.all()] == ["login-source"]
    for other in ("b", "c", "d"):
        fail(attempts.by_password(HERE, other))
    assert seconds_blocked(name) == 120


def test_success_of_a_name_without_failures_writes_nothing(django_assert_num_queries):
    with django_assert_num_queries(1):
        succeed(attempts.by_password(HERE, "anna"))

    assert not Attempts.objects.exists()


def test_other_exceptions_are_no_failures():
    with pytest.raises(ZeroDivisionError), attempts.counted(attempts.by_key(HERE), now=NOW):
        raise ZeroDivisionError

    assert not Attempts.objects.exists()


def test_names_are_not_kept():
    fail(attempts.by_password(HERE, "my-secret-password"))

    assert not Attempts.objects.filter(key__contains="secret").exists()


def test_a_name_can_be_forgiven():
    for _ in range(3):
        fail(attempts.by_password(HERE, "anna"))

    attempts.forget("anna")

    succeed(attempts.by_password(HERE, "anna"))


def test_what_counts_no_more_is_purged():
    fail(attempts.by_password(HERE, "anna"))
    for _ in range(5):
        fail(attempts.by_key(HERE), NOW)

    assert attempts.purge(now=NOW + timedelta(seconds=30)) == 0
    assert attempts.purge(now=NOW + timedelta(seconds=90)) == 2
    assert attempts.purge(now=NOW + timedelta(seconds=121)) == 1
