"""Reports as JSON and as CSV."""

import csv
import io
from typing import Any

import pytest

from cpm.models import User
from tests import factories
from tests.api import facts
from tests.api.caller import Caller, codes

REPORTS = {
    "17.2": "reports/backups/", "17.3": "reports/protected-resources/", "17.5": "reports/snapshots/",
    "17.6": "reports/usage/", "17.7": "reports/usage/anonymized/", "17.8": "reports/usage/detailed/",
    "17.9": "reports/usage/detailed/anonymous/", "17.10": "reports/usage/summary/",
    "17.11": "reports/usage/summary/anonymous/",
}  # fmt: skip
SIGNED = [number for number in REPORTS if number not in ("17.2", "17.3", "17.5")]


@pytest.fixture
def root(db: None) -> User:
    return factories.root()


def something(owner: User, **names: Any):
    """A backup with a snapshot, and an instance under a policy with a schedule."""
    account = factories.account(owner, **({"name": names["account"]} if "account" in names else {}))
    policy = factories.policy(account, (factories.schedule(owner),), dr_enabled=True)
    target = factories.target(policy)
    backup = factories.backup(policy)
    return policy, target, backup, factories.snapshot(backup)


def table(content: bytes) -> list[dict[str, str]]:
    """The lines of a CSV file without its signature, by heading."""
    text = content.decode().partition("Signature: ")[0]
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("number", REPORTS)
def test_every_report_has_the_documented_fields_and_a_table(root, number):
    something(root)
    something(factories.user())

    status, content = Caller(root)("GET", REPORTS[number])
    facts.check(number, content)
    csv_status, text = Caller(root, accept="text/csv;")("GET", REPORTS[number])

    assert (status, csv_status) == (200, 200)
    assert len(table(text)) == len(content) == (2 if number not in ("17.2", "17.5") else 1)
    assert (b"\nSignature: ed25519 " in text) is (number in SIGNED)
    assert not any(set(line.values()) == {""} for line in table(text))


@pytest.mark.parametrize("number", REPORTS)
def test_pages_are_cut_from_the_whole_report_and_csv_ignores_them(root, number):
    for _ in range(3):
        something(factories.user("managed"))
    call = Caller(root)

    whole = call("GET", REPORTS[number])[1]
    _, page = call("GET", f"{REPORTS[number]}?page=2&page_size=1")
    _, text = Caller(root, accept="text/csv")("GET", f"{REPORTS[number]}?page=2&page_size=1")

    assert len(table(text)) == len(whole) == 3
    if number == "17.7":
        assert page == whole
    else:
        assert (page["count"], page["results"]) == (3, whole[1:2])
        assert call("GET", f"{REPORTS[number]}?page=4&page_size=1")[0] == 404
        assert codes(call("GET", f"{REPORTS[number]}?page=x")[1]) == {"page": ["invalid"]}
