"""What holds for every address: versions, slashes, aliases, error bodies, ids, sizes."""

import json

import pytest
from django.test import Client

from api import authentication
from cpm.lib.states import Role
from tests import factories

pytestmark = pytest.mark.django_db
REGIONS = "/api/regions/?page=1"


@pytest.fixture
def headers() -> dict[str, str]:
    token = authentication.obtain(factories.api_key(factories.root()))
    return {"authorization": f"Bearer {token.access_token}"}


def codes(response) -> dict[str, list[str]]:
    (fields,) = json.loads(response.content)["errors"]
    return {name: [error["code"] for error in errors] for name, errors in fields.items()}


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200), ("*/*", 200), ("*/*;", 200), ("application/json;", 200), ("application/json; version=1.0", 200),
        ("application/json;version=1.5.0;", 200), ("application/*", 200), ('application/json; version="1.2.0"', 200),
        ("text/html, application/json;q=0.9", 200), ("application/json; version=2.0.0", 406), ("text/xml", 406),
        ("application/json; version=", 406), ("application/json;q=0", 406), ("nonsense", 406),
        ("application/json; version=9, application/json; version=1.1.0; q=0.5", 200),
    ],
)  # fmt: skip
def test_accept_chooses_type_and_version(headers, accept, status):
    response = Client().get(REGIONS, headers={**headers, "accept": accept})

    assert response.status_code == status
    if status == 406:
        assert codes(response) == {"non_field_errors": ["not_acceptable"]}


def test_an_address_newer_than_the_asked_version_does_not_exist(headers):
    old = {**headers, "accept": "application/json; version=1.3.0"}

    assert Client().get("/api/resource_types/", headers=old).status_code == 404
    assert Client().get("/api/resource_types/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/api//regions/", "/api/regions", "//api/regions//", "/api/aws/regions/", "/api/aws//regions"]
)
def test_addresses_are_forgiving(headers, path):
    response = Client().get("/", PATH_INFO=path, headers=headers)

    assert response.status_code == 200


def test_links_lead_back_to_the_address_that_was_asked(headers):
    page = Client().get("/api/aws/regions/?page=2&page_size=2", headers=headers).json()

    assert page["next"].endswith("/api/aws/regions/?page=3&page_size=2")
    assert page["previous"].endswith("/api/aws/regions/?page=1&page_size=2")


def test_every_kind_of_refusal_has_the_envelope(headers):
    client = Client(raise_request_exception=False)
    big = b'"' + b"x" * (1024 * 1024 + 1) + b'"'
    responses = {
        400: client.post("/api/token/refresh/", b"{", content_type="application/json"),
        401: client.get(REGIONS),
        404: client.get("/api/no/such/address/", headers=headers),
        405: client.delete(REGIONS, headers=headers),
        413: client.post("/api/token/refresh/", big, content_type="application/json"),
        415: client.post("/api/token/refresh/", b"<a/>", content_type="text/xml"),
    }

    for status, response in responses.items():
        assert response.status_code == status
        assert list(codes(response)) == ["non_field_errors"]
        assert response["X-Request-ID"]
    assert responses[401]["WWW-Authenticate"] == 'Bearer realm="CPM"'


def test_a_crash_is_answered_in_the_envelope_without_details(headers, monkeypatch):
    def crash(*_args, **_kwargs):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("api.endpoints.lookups.Regions.list", crash)

    response = Client(raise_request_exception=False).get(REGIONS, headers=headers)

    assert response.status_code == 500
    assert codes(response) == {"non_field_errors": ["server_error"]}
    assert b"secret detail" not in response.content


def test_a_request_keeps_the_id_that_the_client_gave(headers):
    given = Client().get(REGIONS, headers={**headers, "x-request-id": "abc-1"})
    forged = Client().get(REGIONS, headers={**headers, "x-request-id": "a b\tc"})

    assert given["X-Request-ID"] == "abc-1"
    assert forged["X-Request-ID"] != "a b\tc"


@pytest.mark.parametrize("path", ["0", "9223372036854775808", "1" * 40, "x", "-1", "1.5", "%00"])
def test_ids_that_cannot_exist_are_not_found(headers, path):
    assert Client().get(f"/api/backups/{path}/", headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=x", "page"), ("page=0", "page"), ("page=-1", "page"), ("page=1e3", "page"), ("page_size=x", "page_size"),
        (f"page={'9' * 40}", "page"), ("account=x", "account"), ("account=99999999999999999999", "account"),
        ("account=1,,2", "account"), ("status=nonsense", "status"), ("is_freezer_item=maybe", "is_freezer_item"),
        ("start_time=yesterday", "start_time"), ("start_time=2026-13-01", "start_time"), ("ordering=password", "ordering"),
        ("ordering=user__password", "ordering"), ("search=%00", "search"), ("account=%00", "account"),
        ("start_time=0000-00-00T99:99:99Z", "start_time"),
    ],
)  # fmt: skip
def test_nonsense_in_the_query_is_a_400_that_names_the_parameter(headers, query, field):
    response = Client().get(f"/api/backups/?{query}", headers=headers)

    assert response.status_code == 400
    assert list(codes(response)) == [field]


def test_unknown_parameters_are_ignored(headers):
    assert Client().get(f"{REGIONS}&no_such=1", headers=headers).status_code == 200


def test_names_with_control_characters_are_refused(headers):
    backup = factories.backup(factories.policy(factories.account(factories.root())))
    body = {"name": "a\u0000b", "description": "d"}

    response = Client().post(
        f"/api/backups/{backup.pk}/to_freezer/", body, "application/json", headers=headers
    )

    assert response.status_code == 400
    assert codes(response) == {"name": ["control_characters"]}


def test_the_document_and_its_pages_need_no_token_and_no_other_server():
    pages = [Client().get(path) for path in ("/api/schema/", "/api/docs/", "/api/docs/redoc/")]

    assert [page.status_code for page in pages] == [200, 200, 200]
    assert all(b"cdn." not in page.content for page in pages[1:])


def test_a_delegate_of_root_reaches_managed_users_only_where_the_contract_says_so():
    delegate = factories.delegate(factories.root())
    token = authentication.obtain(factories.api_key(delegate))
    headers = {"authorization": f"Bearer {token.access_token}"}
    managed = factories.backup(factories.policy(factories.account(factories.user(Role.MANAGED))))

    listed = Client().get(f"/api/backups/{managed.pk}/snapshots/", headers=headers)
    shown = Client().get(f"/api/backups/{managed.pk}/", headers=headers)

    assert (listed.status_code, shown.status_code) == (200, 404)
