"""The table of rights says what the contract's permissions say, for every operation that is implemented."""

import pytest

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


def right_of(operation: Operation) -> str | None:
    view = view_of(operation)
    right: str | None = view.cls.operations[view.actions[operation["method"].lower()]].right
    return right


@pytest.mark.parametrize("number", [o["id"] for o in operations() if conformance.implemented(o)])
def test_an_operation_needs_the_right_that_the_contract_states(number: str):
    operation = next(o for o in operations() if o["id"] == number)

    expected, right = rule(operation), right_of(operation)

    if right is None:
        assert set(expected["roles"].values()) == {"public"}
        return
    row = RIGHTS[right]
    assert {caller: row.reach[Caller(caller)] for caller in expected["roles"]} == {
        caller: REACHES[reach] for caller, reach in expected["roles"].items()
    }
    assert sorted(row.flags) == sorted(expected["delegate_flags"])
