"""The OpenAPI document is valid, complete and the same as what the server does; its pages need no other host."""

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from django.test import Client
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.schema import Document, operations_of, tag_of
from tests.contract import conformance
from tests.contract.facts import Operation, operations

DOCUMENT: dict[str, Any] = Document().get_schema()
OPERATIONS = dict(operations_of(DOCUMENT))
IMPLEMENTED = [operation for operation in operations() if conformance.implemented(operation)]
PAGES = ("/api/docs/", "/api/docs/redoc/")


def described(operation: Operation) -> dict[str, Any]:
    return OPERATIONS[f"{operation['method']} {operation['path']}"]


def media_of(operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Media types of the body and of the answers, shared refusals left out."""
    answers = [answer for answer in operation["responses"].values() if "$ref" not in answer]
    bodies = [body for body in (operation.get("requestBody"), *answers) if body]
    return [pair for body in bodies for pair in body.get("content", {}).items()]


def assert_example_fits(schema: dict[str, Any], example: Any) -> None:
    OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def test_the_document_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_making_the_document_warns_of_nothing(tmp_path):
    file = tmp_path / "openapi.json"

    call_command(
        "spectacular", "--fail-on-warn", "--validate", "--format", "openapi-json", "--file", str(file)
    )

    assert set(json.loads(file.read_text())["paths"]) == set(DOCUMENT["paths"])


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_says_what_a_client_needs(name: str):
    operation = OPERATIONS[name]

    assert re.fullmatch(r"[a-z][a-z0-9_]*", operation["operationId"])
    assert operation["summary"] and not operation["summary"].endswith(".")
    assert operation["x-since"] in operation["description"]
    assert len(operation["tags"]) == 1
    assert operation["security"] in ([{"bearer": []}], [{}])
    for parameter in operation.get("parameters", []):
        assert parameter["description"] and parameter["schema"], parameter["name"]
    for kind, media in media_of(operation):
        assert media["schema"], kind
        shown = (
            [media["example"]]
            if "example" in media
            else [e["value"] for e in media.get("examples", {}).values()]
        )
        assert shown or media["schema"].get("format") == "binary", kind
        for example in shown:
            assert_example_fits(media["schema"], example)
    for status, answer in operation["responses"].items():
        assert int(status) < 400 or answer["$ref"].startswith("#/components/responses/")


def test_ids_of_operations_are_unique_and_do_not_change():
    ids = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(ids) == len(set(ids))
    assert not [name for name in ids if re.search(r"_\d+$", name)]
    assert set(ids) >= {
        "policies_list", "policies_create", "policies_retrieve", "policies_update", "policies_delete",
        "policies_backups_run", "policies_targets_instances_volumes_create", "policies_custom_tags_retrieve",
        "accounts_list", "accounts_backup_list", "alerts_delete_all", "backups_to_freezer",
        "backups_snapshots_volumes_recover", "settings_cleanup_run", "settings_cleanup_change",
        "system_dashboard_activity_retrieve", "system_support_logs_retrieve", "token_obtain_api_key", "token_refresh",
    }  # fmt: skip


@pytest.mark.parametrize("number", [operation["id"] for operation in IMPLEMENTED])
def test_an_operation_is_described_as_the_contract_has_it(number: str):
    operation = next(item for item in IMPLEMENTED if item["id"] == number)
    ours = described(operation)

    assert ours["x-since"] == operation["initial_release"]
    assert ours["tags"] == [tag_of(operation["path"].split("/")[2])]
    assert bool(ours.get("deprecated")) == bool(operation.get("deprecated"))
    if operation.get("deprecated"):
        assert operation["deprecated_since"] in ours["description"]
    success = next(answer for status, answer in ours["responses"].items() if int(status) < 400)
    produced = set(operation.get("produces", [])) if success.get("content") else set()
    assert set(success.get("content", {})) >= produced
    assert ours["responses"].keys() >= {
        str(answer["code"]) for answer in operation["responses"] if answer["code"] >= 400
    }


def test_refusals_are_shared_and_their_examples_fit():
    for name, response in DOCUMENT["components"]["responses"].items():
        media = response["content"]["application/json"]
        assert media["schema"] == {"$ref": "#/components/schemas/Errors"}, name
        assert_example_fits(media["schema"], media["example"])


def test_the_document_is_served_as_json_and_yaml_without_a_token():
    as_json = Client().get("/api/schema/", headers={"accept": "application/json"})
    as_yaml = Client().get("/api/schema/")

    assert as_json.json()["info"]["license"]["identifier"] == "Apache-2.0"
    assert as_json.json()["paths"].keys() == DOCUMENT["paths"].keys()
    assert as_yaml.content.startswith(b"openapi: 3.1")


class Links(HTMLParser):
    """Everything that a page loads: sources, style sheets, icons and what its own scripts name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href", "data", "action") and value]

    def handle_data(self, data: str) -> None:
        self.found += re.findall(r"""["'](https?://[^"']+|//[^"']+)["']""", data)


@pytest.mark.parametrize("page", PAGES)
def test_a_docs_page_loads_only_what_this_server_has(page: str):
    answer = Client().get(page)
    links = Links(answer.content.decode()).found

    assert answer.status_code == 200
    assert any(link.endswith(".js") for link in links)
    for link in links:
        parts = urlsplit(link)
        assert not parts.netloc and parts.scheme in ("", "data"), link
        if not parts.scheme:
            assert Client().get(parts.path).status_code == 200, link


@pytest.mark.parametrize("page", PAGES)
def test_a_docs_page_lets_the_browser_load_nothing_from_elsewhere(page: str):
    policy = Client().get(page).headers["Content-Security-Policy"]

    allowed = {source for rule in policy.split(";") for source in rule.split()[1:]}
    assert allowed <= {"'self'", "'unsafe-inline'", "'unsafe-eval'", "'none'", "data:", "blob:"}
    assert "default-src 'self'" in policy


def test_the_swagger_page_asks_no_public_validator():
    assert b'"validatorUrl": null' in Client().get("/api/docs/").content
