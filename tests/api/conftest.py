"""A user, and that user at the API."""

import pytest

from cpm.models import User
from tests import factories
from tests.api.caller import Caller


@pytest.fixture
def owner(db: None) -> User:
    return factories.user()


@pytest.fixture
def call(owner: User) -> Caller:
    return Caller(owner)
