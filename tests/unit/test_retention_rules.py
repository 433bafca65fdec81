"""The retention rule, by examples and properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.flows.cleanup.retention_rules import Candidate, judge

START = datetime(2026, 1, 1, tzinfo=UTC)


def runs(letters: str) -> list[Candidate]:
    """Oldest first: c clean, f failed without snapshots, p partial, h held."""
    return [
        Candidate(n, START + timedelta(days=n), clean=letter == "c", live=letter != "f", held=letter == "h")
        for n, letter in enumerate(letters)
    ]


@pytest.mark.parametrize(
    ("letters", "generations", "expired"),
    [
        ("", 1, ()),
        ("c", 1, ()),
        ("cc", 1, (0,)),
        ("fc", 1, (0,)),
        ("cf", 1, ()),
        ("cpc", 1, (0, 1)),
        ("cpp", 1, ()),
        ("ccpcc", 2, (0, 1, 2)),
        ("hcc", 1, (1,)),
        ("chc", 1, (0,)),
    ],
)
def test_what_is_older_than_the_oldest_kept_clean_backup_goes(letters, generations, expired):
    assert judge(runs(letters), generations).expired == expired


@pytest.mark.parametrize(
    ("letters", "generations", "since"),
    [
        ("cc", 1, None),
        ("cp", 1, 1),
        ("cpp", 2, 1),
        ("ccp", 2, None),
        ("cppc", 1, None),
        ("pp", 1, 0),
        ("p", 1, None),
    ],
)
def test_retention_is_stuck_since_the_first_of_the_unclean_runs_at_the_end(letters, generations, since):
    expected = None if since is None else START + timedelta(days=since)

    assert judge(runs(letters), generations).stuck_since == expected


def test_a_policy_without_generations_is_refused():
    with pytest.raises(ValueError, match="one generation"):
        judge(runs("c"), 0)


@given(st.text("cfph", max_size=30), st.integers(1, 10))
def test_kept_backups_always_hold_enough_clean_ones_and_nothing_held_goes(letters, generations):
    candidates = runs(letters)

    expired = set(judge(candidates, generations).expired)

    clean = [c.id for c in candidates if c.clean]
    assert set(clean[-generations:]).isdisjoint(expired)
    assert not any(c.held for c in candidates if c.id in expired)
    if expired:
        assert len(clean) >= generations
        boundary = clean[-generations]
        assert expired == {c.id for c in candidates if c.id < boundary and not c.held}
