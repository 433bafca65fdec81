"""Does an operation answer as the contract says? Asked over HTTP, against a populated server.

`check` returns what is wrong with one operation, nothing if it is green. Every request runs in a transaction that
is rolled back, so that operations may be checked in any order.
"""

from collections.abc import Callable

from tests.contract import check_answers, check_bodies, check_lists
from tests.contract.asking import Answer, Caller, Problems, implemented
from tests.contract.facts import Operation

__all__ = ["Answer", "Caller", "check", "implemented"]

CHECKS: tuple[Callable[[Operation, Caller], Problems], ...] = (
    check_answers.documented, check_answers.answer, check_answers.media, check_answers.methods,
    check_answers.versions, check_answers.identity, check_answers.absence,
    check_lists.filters, check_lists.filters_narrow, check_lists.searches, check_lists.orders, check_lists.pages,
    check_lists.csv_file,
    check_bodies.required, check_bodies.types, check_bodies.enumerations,
)  # fmt: skip


def check(operation: Operation, call: Caller) -> list[str]:
    """Everything in which the operation differs from the contract."""
    if not implemented(operation):
        return ["The route or the method is missing."]
    return [problem for one in CHECKS for problem in one(operation, call)]
