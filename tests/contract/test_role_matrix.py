"""One test per implemented operation: called as every role it answers as `permissions.json` says."""

from collections.abc import Iterator

import pytest
from django.db import connections, transaction
from django.test.utils import override_settings

from tests import simulated_aws
from tests.contract import matrix, tenants
from tests.contract.asking import implemented
from tests.contract.facts import by_id, operations
from tests.contract.tenants import World
from tests.simulated_aws import SimulatedAws

# Without the mark no database is made when this module runs alone.
pytestmark = pytest.mark.django_db
IMPLEMENTED = [operation["id"] for operation in operations() if implemented(operation)]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def world(aws: SimulatedAws, django_db_setup: None, django_db_blocker) -> Iterator[World]:
    """One world for all operations; it is rolled back at the end."""
    # Every role changes its password, which a real hash makes slow on purpose.
    quick = override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
    with quick, django_db_blocker.unblock(), transaction.atomic():
        yield tenants.build(aws)
        transaction.set_rollback(True)
    connections.close_all()


@pytest.mark.parametrize("number", IMPLEMENTED)
def test_an_operation_lets_in_whom_the_contract_lets_in(number: str, world: World, django_db_blocker):
    with django_db_blocker.unblock():
        problems = matrix.check(by_id(number), world)

    assert not problems, "\n".join(problems)
