"""Whatever is sent to whatever the OpenAPI document names: never a 5xx, and every refusal in the envelope."""

import json
from urllib.parse import urlencode

import pytest
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis.core import NotSet

from api import authentication
from cpm.aws import gateway
from tests import factories
from tests.contract import conformance

# Few examples for each of more than a hundred operations: together they stay within a minute.
EXAMPLES = 6
# The id of the rows that exist; the sequences do not get there.
KNOWN = 7_000_001
OPERATIONS = {
    found.ok().label: found.ok()
    for found in schemathesis.openapi.from_dict(conformance.document()).get_all_operations()
}


@pytest.fixture
def headers(db: None) -> dict[str, str]:
    """Root's token. AWS does not answer."""
    gateway.configure(gateway.GatewayConfig(endpoint_url="http://127.0.0.1:9", redis_url=""))
    root = factories.root()
    backup = factories.backup(factories.policy(factories.account(root), pk=KNOWN), pk=KNOWN)
    factories.snapshot(backup, pk=KNOWN)
    return {"Authorization": f"Bearer {authentication.obtain(factories.api_key(root)).access_token}"}


def test_the_document_is_valid_openapi():
    validate(conformance.document())


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_no_request_breaks_the_server(label: str, headers: dict[str, str]):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=OPERATIONS[label].as_strategy())
    def answers(case: schemathesis.Case) -> None:
        # Half of the ids are those of rows that exist.
        parameters = case.path_parameters or {}
        case.path_parameters = {
            name: KNOWN if int(value) % 2 else value for name, value in parameters.items()
        }

        response = Client(raise_request_exception=False).generic(
            case.method,
            case.formatted_path,
            b"" if isinstance(case.body, NotSet) else json.dumps(case.body),
            "application/json",
            headers={**headers, "accept": "application/json"},
            QUERY_STRING=urlencode(case.query or {}, doseq=True),
        )
        content = response.getvalue()

        assert response.status_code < 500, content
        if response.status_code >= 400:
            (fields,) = json.loads(content)["errors"]
            assert all({"message", "code"} == set(error) for errors in fields.values() for error in errors)

    answers()
