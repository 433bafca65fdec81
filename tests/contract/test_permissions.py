"""The table of rights says what the contract's permissions say, for every operation that is implemented."""

import pytest

from api.views import Operation as Declared
from cpm.permissions import RIGHTS, Caller, Reach
from tests.contract import conformance
from tests.contract.facts import Operation, operations
from tests.contract.rules import rule, view_of

# Our words for the contract's reaches; a delegate's own objects are those of its original user.
REACHES = {
    "none": Reach.NONE, "own": Reach.OWN, "original_user": Reach.OWN, "own+managed": Reach.OWN_AND_MANAGED,
    "original_user+managed": Reach.OWN_AND_MANAGED, "shared": Reach.SHARED, "server": Reach.SERVER,
    "all": Reach.ALL, "others": Reach.OTHERS, "self": Reach.SELF,
}  # fmt: skip


def declared(operation: Operation) -> Declared:
    view = view_of(operation)
    found: Declared = view.cls.operations[view.actions[operation["method"].lower()]]
    return found


@pytest.mark.parametrize("number", [o["id"] for o in operations() if conformance.implemented(o)])
def test_an_operation_needs_the_right_that_the_contract_states(number: str):
    operation = next(o for o in operations() if o["id"] == number)

    expected, right = rule(operation), declared(operation).right

    if right is None:
        assert set(expected["roles"].values()) == {"public"}
        return
    row = RIGHTS[right]
    assert {caller: row.reach[Caller(caller)] for caller in expected["roles"]} == {
        caller: REACHES[reach] for caller, reach in expected["roles"].items()
    }
    assert sorted(row.flags) == sorted(expected["delegate_flags"])


@pytest.mark.parametrize("number", [o["id"] for o in operations() if conformance.implemented(o)])
def test_an_operation_needs_the_feature_that_the_contract_states(number: str):
    operation = next(o for o in operations() if o["id"] == number)

    feature = declared(operation).feature

    assert ([feature] if feature else []) == rule(operation)["features"]
