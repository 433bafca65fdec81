"""Guessing keys and passwords over HTTP: it is counted, it blocks, and it blocks nobody else."""

import threading

import pytest
from django.db import connection, connections, transaction
from django.test import Client

from cpm.lib.source import trusted_proxies
from cpm.models import ApiKey, Attempts, User
from tests import factories
from tests.api.caller import Caller, codes

HERE, THERE = "203.0.113.5", "198.51.100.7"
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.CPM_LOGIN_ATTEMPTS = 3
    settings.CPM_LOGIN_ATTEMPTS_PER_SOURCE = 4
    settings.CPM_LOGIN_WINDOW_SECONDS = settings.CPM_LOGIN_BLOCK_SECONDS = 600


def obtain(key: str, source: str = HERE, **headers: str):
    return Client(REMOTE_ADDR=source).post(
        "/api/token/obtain/api_key/", {"api_key": key}, "application/json", headers=headers
    )


def login(name: str, password: str, source: str = HERE):
    return Client(REMOTE_ADDR=source).post("/admin/login/", {"username": name, "password": password})


def with_password(**fields) -> User:
    user = factories.user(**fields)
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.mark.django_db
def test_wrong_keys_block_their_address_and_no_other():
    key = factories.api_key(factories.user())
    statuses = [obtain("cpm_wrong").status_code for _ in range(4)]

    refused = obtain(key)

    assert statuses == [401] * 4
    assert (refused.status_code, codes(refused.json())) == (429, {"non_field_errors": ["too_many_attempts"]})
    assert 0 < int(refused["Retry-After"]) <= 600
    assert obtain(key, source=THERE).status_code == 200
    token = obtain(key, source=THERE).json()["access"]
    listed = Client(REMOTE_ADDR=HERE).get("/api/regions/", headers={"authorization": f"Bearer {token}"})
    assert listed.status_code == 200


@pytest.mark.django_db
def test_refresh_tokens_count_like_keys():
    for _ in range(4):
        Client(REMOTE_ADDR=HERE).post("/api/token/refresh/", {"refresh": "x"}, "application/json")

    assert obtain("cpm_wrong").status_code == 429


@pytest.mark.django_db
def test_clients_that_fetch_a_token_for_every_call_are_not_blocked():
    key = factories.api_key(factories.user())

    assert {obtain(key).status_code for _ in range(20)} == {200}
    assert not Attempts.objects.exists()


@pytest.mark.django_db
def test_a_right_key_forgets_the_wrong_ones_before():
    key = factories.api_key(factories.user())
    for _ in range(3):
        for _ in range(3):
            obtain("cpm_wrong")
        assert obtain(key).status_code == 200


@pytest.mark.django_db
def test_malformed_requests_do_not_count():
    for body in ({}, {"api_key": ""}, {"api_key": ["x"]}, []):
        for _ in range(2):
            Client(REMOTE_ADDR=HERE).post("/api/token/obtain/api_key/", body, "application/json")

    assert not Attempts.objects.exists()


@pytest.mark.django_db
def test_only_trusted_proxies_say_where_a_request_comes_from(settings):
    settings.CPM_TRUSTED_PROXIES = ()
    for number in range(4):
        obtain("cpm_wrong", **{"x-forwarded-for": f"192.0.2.{number}"})
    assert obtain("cpm_wrong").status_code == 429


@pytest.mark.django_db
def test_behind_a_trusted_proxy_clients_are_counted_one_by_one(settings):
    settings.CPM_TRUSTED_PROXIES = trusted_proxies("10.0.0.0/8")
    guesser, other = {"x-forwarded-for": HERE}, {"x-forwarded-for": THERE}
    for _ in range(4):
        obtain("cpm_wrong", source="10.0.0.1", **guesser)

    key = factories.api_key(factories.user())

    assert obtain(key, source="10.0.0.1", **guesser).status_code == 429
    assert obtain(key, source="10.0.0.1", **other).status_code == 200


@pytest.mark.django_db
def test_the_admin_login_blocks_a_name_and_says_so():
    user = with_password()
    for number in range(3):
        assert login(user.username, "wrong", source=f"192.0.2.{number}").status_code == 200

    refused = login(user.username, PASSWORD, source=THERE)

    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert "too many failed attempts" in refused.content.decode()
    assert "_auth_user_id" not in refused.client.session


@pytest.mark.django_db
def test_a_good_admin_login_forgets_the_typing_errors_before():
    user = with_password()
    for _ in range(2):
        login(user.username, "wrong")

    assert login(user.username, PASSWORD).status_code == 302
    login(user.username, "wrong")
    login(user.username, "wrong", source=THERE)
    assert login(user.username, PASSWORD, source=THERE).status_code == 302


@pytest.mark.django_db
def test_an_empty_password_neither_counts_nor_forgives():
    user = with_password()
    for _ in range(2):
        login(user.username, "wrong")
    login(user.username, "")
    login(user.username, "wrong", source=THERE)

    assert login(user.username, PASSWORD, source=THERE).status_code == 429


@pytest.mark.django_db
def test_wrong_old_passwords_count_and_block():
    user = with_password()
    caller = Caller(user)
    guess = {"old_password": "wrong", "new_password": "a-long-and-winding-word"}
    answers = [caller("POST", "users/me/change_password/", guess) for _ in range(4)]

    assert [status for status, _ in answers] == [400, 400, 400, 429]
    assert codes(answers[0][1]) == {"old_password": ["wrong_password"]}
    assert login(user.username, PASSWORD).status_code == 429
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


@pytest.mark.django_db(transaction=True)
def test_failures_at_the_same_moment_all_count(settings):
    settings.CPM_LOGIN_ATTEMPTS_PER_SOURCE = 100
    barrier = threading.Barrier(8)

    def guess() -> None:
        barrier.wait()
        obtain("cpm_wrong")
        connections.close_all()

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Attempts.objects.get().count == 8


@pytest.mark.django_db(transaction=True)
def test_a_failure_stays_counted_when_its_request_is_undone():
    user = with_password()
    caller = Caller(user)

    caller("POST", "users/me/change_password/", {"old_password": "wrong", "new_password": "x" * 20})

    assert not connection.in_atomic_block
    with transaction.atomic():
        assert Attempts.objects.filter(count=1).count() == 2


@pytest.mark.django_db
def test_the_use_of_a_key_is_noted():
    user = factories.user()
    key = factories.api_key(user)

    obtain(key)

    assert ApiKey.objects.get(user=user).last_used_at is not None
