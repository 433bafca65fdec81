"""Whatever a REST call changes is recorded: by whom, from where, and without secrets."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction

from cpm.lib.secrets import is_secret_name
from cpm.lib.states import Role
from cpm.models import AuditRecord, User
from tests import simulated_aws
from tests.contract import conformance, recipes
from tests.contract.asking import Caller, needed_query
from tests.contract.facts import by_id, operations
from tests.contract.populated import populate

pytestmark = pytest.mark.django_db
REQUEST, MARK = "audited-request", "MarkOfASecretThatMustNotBeSeen"
# These answer a POST and change nothing that lasts: tokens, a test of the proxy, and that a session is still wanted.
CHANGE_NOTHING = {"11.5", "25.1", "25.2", "23.48"}
# What makes a good body change something, where it is how a new server is.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "23.14": {"cpm_log_mode": "DEBUG"},
    "23.49": {"encryption_key_detection": "A"},
}
WRITES = [
    operation["id"]
    for operation in operations()
    if operation["method"] != "GET"
    and conformance.implemented(operation)
    and operation["id"] not in CHANGE_NOTHING
]
# Ids of the populated server that are secrets.
SECRETS = ("api_key", "refresh", "access", "aws_secret_key", "password")


class Recording(Caller):
    """Root's client, which keeps what was recorded of a request before it is undone."""

    records: list[dict[str, Any]]

    def before_undoing(self) -> None:
        self.records = list(AuditRecord.objects.filter(request_id=REQUEST).order_by("id").values())


@pytest.fixture(scope="module")
def call(
    tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker
) -> Iterator[Recording]:
    """One populated server for all operations; it is rolled back at the end."""
    aws = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    with django_db_blocker.unblock(), transaction.atomic():
        yield Recording(populate(aws))
        transaction.set_rollback(True)
    aws.stop()
    connections.close_all()


def marked(value: Any, name: str = "") -> Any:
    """The body with a text that is easily found wherever a secret stands for which any text will do."""
    if isinstance(value, dict):
        return {key: marked(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, name) for item in value]
    return MARK if value == "text" and is_secret_name(name) else value


def secrets_of(value: Any, name: str = "") -> set[str]:
    """Texts in a body whose fields are named like secrets."""
    if isinstance(value, dict):
        return {text for key, item in value.items() for text in secrets_of(item, key)}
    if isinstance(value, list):
        return {text for item in value for text in secrets_of(item, name)}
    return {value} if value and isinstance(value, str) and is_secret_name(name) else set()


@pytest.mark.parametrize("number", WRITES)
def test_every_write_over_rest_is_recorded_without_secrets(number: str, call: Recording, django_db_blocker):
    operation = by_id(number)
    body = None
    if "body" in operation:
        body = {**marked(recipes.body_of(operation, call.server)), **OTHER_VALUES.get(number, {})}

    with django_db_blocker.unblock():
        answer = call(operation, body=body, query=needed_query(operation, call), x_request_id=REQUEST)
        root = User.objects.get(role=Role.ROOT)

    assert answer.status < 300, answer
    assert call.records, f"{operation['method']} {operation['path']} leaves no record."
    for record in call.records:
        assert (record["user_id"], record["username"], record["user_type"]) == (
            root.pk,
            root.username,
            "root",
        )
        assert record["source"] == "127.0.0.1" and record["log"] and record["subject_id"]
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", record["event_type"])
    written = json.dumps(call.records, default=str)
    known = {str(call.server.ids[name]) for name in SECRETS if name in call.server.ids}
    assert not [secret for secret in known | secrets_of(body) if secret in written]
