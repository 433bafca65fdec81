"""Tokens: what opens the door, and what closes it."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from api import authentication
from cpm.models import Actor, ApiKey, User
from cpm.services import users
from tests import factories

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"


def get(token: object) -> int:
    return Client().get("/api/regions/", headers={"authorization": f"Bearer {token}"}).status_code


def obtained(user: User) -> dict[str, str]:
    body = {"api_key": factories.api_key(user)}
    return Client().post("/api/token/obtain/api_key/", body, "application/json").json()


def test_a_key_is_exchanged_as_json_and_as_a_form():
    key = factories.api_key(factories.user())

    as_json = Client().post("/api/token/obtain/api_key/", {"api_key": key}, "application/json")
    as_form = Client().post("/api//token/obtain/api_key/", f"api_key={key}", FORM)

    assert [get(answer.json()["access"]) for answer in (as_json, as_form)] == [200, 200]


def test_a_refresh_token_gives_a_new_access_token():
    refresh = obtained(factories.user())["refresh"]

    answer = Client().post("/api//token/refresh/", {"refresh": refresh}, "application/json")

    assert list(answer.json()) == ["access"]
    assert get(answer.json()["access"]) == 200


@pytest.mark.parametrize("body", [{}, {"api_key": ""}, {"api_key": None}, {"api_key": "cpm_" + "x" * 43}, []])
def test_a_wrong_key_is_refused(body):
    answer = Client().post("/api/token/obtain/api_key/", body, "application/json")

    assert answer.status_code in (400, 401)
    assert "errors" in answer.json()


def test_tokens_die_with_their_key_and_only_with_theirs():
    user = factories.user()
    first, second = obtained(user), obtained(user)
    ApiKey.objects.filter(user=user).order_by("pk")[0:1].get()
    ApiKey.objects.filter(pk=ApiKey.objects.filter(user=user).earliest("pk").pk).update(
        revoked_at=factories.NOW
    )

    assert (get(first["access"]), get(second["access"])) == (401, 200)
    refused = Client().post("/api/token/refresh/", {"refresh": first["refresh"]}, "application/json")
    assert refused.status_code == 401


def test_inactive_users_and_delegates_of_inactive_users_are_refused():
    owner = factories.user()
    delegate = factories.delegate(owner)
    tokens = [obtained(owner)["access"], obtained(delegate)["access"]]

    User.objects.filter(pk=owner.pk).update(is_active=False)

    assert [get(token) for token in tokens] == [401, 401]


def forged(claims: dict[str, object], key: str = "", algorithm: str = "none") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def test_forged_and_foreign_tokens_are_refused():
    user = factories.user()
    factories.api_key(user)
    key = ApiKey.objects.get(user=user)
    good = obtained(user)
    later = datetime.now(UTC) + timedelta(hours=1)
    claims = {"token_type": "access", "exp": later, "jti": "1", "user_id": str(user.pk), "key": key.pk}
    other = {**claims, "user_id": str(factories.user().pk)}

    refused = [
        forged(claims),
        forged(claims, "x" * 40, "HS256"),
        forged(other, settings.SECRET_KEY, "HS256"),
        forged({**claims, "key": "1 OR 1=1"}, settings.SECRET_KEY, "HS256"),
        forged({**claims, "key": 2**70}, settings.SECRET_KEY, "HS256"),
        forged({**claims, "exp": datetime.now(UTC) - timedelta(hours=1)}, settings.SECRET_KEY, "HS256"),
        good["refresh"], "", "a b", "\u00e9",
    ]  # fmt: skip

    assert [get(token) for token in refused] == [401] * len(refused)
    assert get(forged(claims, settings.SECRET_KEY, "HS256")) == 200


def test_another_scheme_is_refused():
    answer = Client().get("/api/regions/", headers={"authorization": "Basic abc"})

    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer realm="CPM"')


def test_a_request_asks_once_who_it_is(django_assert_num_queries):
    token = authentication.obtain(factories.api_key(factories.delegate(factories.user()))).access_token

    with django_assert_num_queries(1):
        Client().get("/api/no/such/", headers={"authorization": f"Bearer {token}"})
        Client().get("/api/backups/?page=x", headers={"authorization": f"Bearer {token}"})


def test_tokens_from_before_their_end_are_refused_and_later_ones_are_not():
    user, other = factories.user(), factories.user()
    before, theirs = obtained(user), obtained(other)

    users.revoke_tokens(actor=Actor.of(user), user=user, now=timezone.now())
    after = obtained(user)

    assert [get(tokens["access"]) for tokens in (before, after, theirs)] == [401, 200, 200]
    refused = Client().post("/api/token/refresh/", {"refresh": before["refresh"]}, "application/json")
    assert refused.status_code == 401
    renewed = Client().post("/api/token/refresh/", {"refresh": after["refresh"]}, "application/json")
    assert get(renewed.json()["access"]) == 200


def test_an_access_token_is_as_old_as_its_refresh_token():
    user = factories.user()
    tokens = obtained(user)
    access = Client().post("/api/token/refresh/", {"refresh": tokens["refresh"]}, "application/json")
    moment = jwt.decode(tokens["access"], options={"verify_signature": False})["obtained"]

    User.objects.filter(pk=user.pk).update(tokens_valid_from=datetime.fromtimestamp(moment, UTC))

    assert get(access.json()["access"]) == 401


def test_a_delegate_keeps_its_tokens_when_its_users_end():
    owner = factories.user()
    token = obtained(factories.delegate(owner))["access"]

    users.revoke_tokens(actor=Actor.of(owner), user=owner, now=timezone.now())

    assert get(token) == 200


def test_every_401_says_how_to_log_in():
    client = Client()
    answers = [
        client.get("/api/policies/"),
        client.get("/api/policies/", headers={"authorization": "Bearer nonsense"}),
        client.get("/api/policies/", headers={"authorization": "Basic abc"}),
        client.post("/api/token/obtain/api_key/", {"api_key": "cpm_wrong"}, "application/json"),
        client.post("/api/token/refresh/", {"refresh": "wrong"}, "application/json"),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer["WWW-Authenticate"] for answer in answers} == {'Bearer realm="CPM"'}
