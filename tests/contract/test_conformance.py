"""One test per operation that is implemented or promised: it answers as the contract says."""

from collections.abc import Iterator

import pytest
from django.db import connections, transaction

from tests import simulated_aws
from tests.contract import conformance
from tests.contract.facts import by_id, operations, promised
from tests.contract.populated import populate
from tests.simulated_aws import SimulatedAws

# Without the mark no database is made when this module runs alone.
pytestmark = pytest.mark.django_db
CHECKED = [o["id"] for o in operations() if o["id"] in set(promised()) or conformance.implemented(o)]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def call(aws: SimulatedAws, django_db_setup: None, django_db_blocker) -> Iterator[conformance.Caller]:
    """One populated server for all operations; it is rolled back at the end."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield conformance.Caller(populate(aws))
        transaction.set_rollback(True)
    connections.close_all()


@pytest.mark.parametrize("number", CHECKED)
def test_operation_answers_as_the_contract_says(number: str, call: conformance.Caller, django_db_blocker):
    with django_db_blocker.unblock():
        problems = conformance.check(by_id(number), call)

    assert not problems, "\n".join(problems)
