"""Whatever is sent to whatever the OpenAPI document names: never a 5xx, and every answer is as the document says.

A few examples for each operation by default; `CPM_FUZZ_SECONDS=120` spreads that time over the operations instead.
"""

import os
import time
from collections.abc import Iterator

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode

from api import authentication
from cpm.aws import gateway
from cpm.models import User
from tests import factories

EXAMPLES = 6
SECONDS = float(os.environ.get("CPM_FUZZ_SECONDS", "0"))
# The id of the rows that exist; the sequences do not get there.
KNOWN = 7_000_001
# Checks that ask for something else than the contract: a body of the right shape may name what does not exist (400),
# and numbers are taken as texts, 0 and 1 as booleans, because clients in the wild send them so.
EXEMPT = {"positive_data_acceptance", "negative_data_rejection"}

load_all_checks()
CHECKED = [check for check in CHECKS.get_all() if check.__name__ not in EXEMPT]
SCHEMA = schemathesis.openapi.from_wsgi("/api/schema/", get_wsgi_application())
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Requests leave the connection of the test's transaction open, as those of Django's own test client do."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def headers(db: None, one_connection: None) -> dict[str, str]:
    """Root's token. AWS does not answer."""
    gateway.configure(gateway.GatewayConfig(endpoint_url="http://127.0.0.1:9", redis_url="", attempts=1))
    root = factories.root()
    backup = factories.backup(factories.policy(factories.account(root), pk=KNOWN), pk=KNOWN)
    factories.snapshot(backup, pk=KNOWN)
    return {"Authorization": f"Bearer {_token(root)}"}


def _token(user: User) -> str:
    return str(authentication.obtain(factories.api_key(user)).access_token)


def test_every_check_of_the_tool_is_applied_but_those_with_a_reason():
    names = {check.__name__ for check in CHECKS.get_all()}

    assert names >= EXEMPT
    assert {check.__name__ for check in CHECKED} >= {
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "ignored_auth", "unsupported_method", "use_after_free",
    }  # fmt: skip


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_answer_is_as_the_document_says(label: str, headers: dict[str, str]):
    operation = OPERATIONS[label]
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    end = time.monotonic() + SECONDS / len(OPERATIONS)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=st.one_of(modes))
    def answers(case: schemathesis.Case) -> None:
        if not isinstance(case.path_parameters, NotSet | None):
            # Half of the ids are those of rows that exist.
            case.path_parameters = {
                name: KNOWN if isinstance(value, int) and value % 2 else value
                for name, value in case.path_parameters.items()
            }
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKED, headers=headers)

    answers()
    while time.monotonic() < end:
        answers()
