"""The rules of retention in S3 and of the archive, by examples and properties."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cpm.flows.s3.retention_rules import (
    ArchiveRules,
    Candidate,
    Rules,
    Span,
    archive_over,
    expired,
    expires_at_once,
    fate,
)
from cpm.lib.states import RetentionUnit

DAY, WEEK, MONTH, YEAR = RetentionUnit
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def copies(letters: str, every: timedelta = timedelta(days=1), now: datetime = NOW) -> list[Candidate]:
    """Oldest first, the last one so long before now: g good, p partial, h good and held, a good and archived in part."""
    first = now - every * len(letters)
    return [
        Candidate(n, first + every * n, good=letter != "p", held=letter == "h", part_archived=letter == "a")
        for n, letter in enumerate(letters)
    ]


def gone(letters: str, rules: Rules) -> tuple[int, ...]:
    return tuple(one.id for one in expired(copies(letters), rules, NOW))


@pytest.mark.parametrize(
    ("letters", "rules", "ids"),
    [
        ("", Rules(1), ()),
        ("ggg", Rules(), ()),
        ("g", Rules(1), ()),
        ("gg", Rules(1), (0,)),
        ("gpgpg", Rules(2), (0, 1)),
        ("gpp", Rules(1), ()),
        ("gppg", Rules(2), ()),
        ("pg", Rules(1), (0,)),
        ("pp", Rules(1), ()),
        ("hgg", Rules(1), (1,)),
        ("gggg", Rules(time=Span(3, DAY)), (0, 1)),
        ("gppp", Rules(time=Span(1, DAY)), ()),
        ("ggpp", Rules(time=Span(1, DAY)), (0,)),
        ("ppp", Rules(time=Span(1, DAY)), ()),
        ("gggg", Rules(1, Span(3, DAY)), (0, 1)),
        ("gggg", Rules(3, Span(1, DAY)), (0,)),
        ("ggggg", Rules(1, Span(1, YEAR)), ()),
    ],
)
def test_what_both_rules_let_go_goes_but_for_the_newest_good_copy(letters, rules, ids):
    assert gone(letters, rules) == ids


def test_a_policy_without_generations_is_refused():
    with pytest.raises(ValueError, match="one generation"):
        expired(copies("gg"), Rules(0), NOW)


@pytest.mark.parametrize(
    ("start", "span", "end"),
    [
        (datetime(2026, 1, 31, 8, tzinfo=UTC), Span(1, MONTH), datetime(2026, 2, 28, 8, tzinfo=UTC)),
        (datetime(2024, 2, 29, tzinfo=UTC), Span(1, YEAR), datetime(2025, 2, 28, tzinfo=UTC)),
        (datetime(2024, 2, 29, tzinfo=UTC), Span(4, YEAR), datetime(2028, 2, 29, tzinfo=UTC)),
        (datetime(2026, 11, 30, tzinfo=UTC), Span(14, MONTH), datetime(2028, 1, 30, tzinfo=UTC)),
        (datetime(2026, 12, 25, tzinfo=UTC), Span(2, WEEK), datetime(2027, 1, 8, tzinfo=UTC)),
        (datetime(2026, 3, 1, tzinfo=UTC), Span(30, DAY), datetime(2026, 3, 31, tzinfo=UTC)),
        (datetime(2026, 3, 1, tzinfo=UTC), Span(9000, YEAR), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_months_and_years_go_by_the_calendar(start, span, end):
    assert span.after(start) == end


@given(st.datetimes(timezones=st.just(UTC)), st.integers(1, 40_000), st.sampled_from(list(RetentionUnit)))
def test_a_later_backup_never_expires_earlier(start, count, unit):
    span = Span(count, unit)

    assert (
        start < span.after(start) <= span.after(start + timedelta(hours=1)) or span.after(start).year == 9999
    )


@given(
    st.text("gph", max_size=25),
    st.none() | st.integers(1, 8),
    st.none() | st.integers(1, 30),
    st.integers(1, 3),
)
def test_kept_copies_always_satisfy_every_rule(letters, generations, days, apart):
    candidates = copies(letters, timedelta(days=apart))
    time = None if days is None else Span(days, DAY)

    goes = {one.id for one in expired(candidates, Rules(generations, time), NOW)}

    good = [one.id for one in candidates if one.good]
    kept_good = [one for one in good if one not in goes]
    assert set(good[-(generations or 1) :]).isdisjoint(goes)
    for one in candidates:
        if one.id in goes:
            assert not one.held
            assert any(newer > one.id for newer in kept_good)
            assert time is None or time.after(one.start) <= NOW
    if generations is None and time is None:
        assert not goes


EVERY_MONTH = ArchiveRules(every=Span(1, MONTH), keep=Span(1, YEAR))


def test_one_backup_of_every_period_is_archived_and_the_rest_waits_until_that_is_done():
    due = copies("gggggg", timedelta(days=14))

    found = fate(due, EVERY_MONTH, None, NOW)
    again = fate(due[1:3], EVERY_MONTH, due[0].start, NOW)

    assert (found.archive, found.waiting, found.delete, found.late) == ((0, 3, 5), (1, 2, 4), (), ())
    assert (again.archive, again.delete, again.waiting) == ((), (1, 2), ())


def test_the_period_runs_on_from_what_was_archived_before():
    due = copies("ggg", timedelta(days=14))

    found = fate(due, EVERY_MONTH, due[0].start - timedelta(days=7), NOW)

    assert found.archive == (2,)


def test_only_good_copies_are_archived_and_the_rest_of_a_part_follows():
    due = copies("paga", timedelta(days=3))

    found = fate(due, EVERY_MONTH, due[1].start, NOW)

    assert (found.archive, found.delete, found.waiting) == ((1, 3), (0,), (2,))


def test_without_an_archive_all_is_deleted():
    assert fate(copies("gp"), None, None, NOW).delete == (0, 1)


def test_what_comes_too_late_for_a_month_in_the_archive_stays_in_s3_until_its_time_is_over():
    rules = ArchiveRules(every=Span(1, DAY), keep=Span(6, WEEK))
    due = [Candidate(n, NOW - timedelta(days=days), good=True) for n, days in enumerate((50, 30, 5))]

    found = fate(due, rules, None, NOW)

    assert (found.delete, found.late, found.archive) == ((0,), (1,), (2,))


@given(st.text("gpa", max_size=25), st.integers(1, 60), st.integers(30, 400), st.integers(1, 40))
def test_every_due_copy_has_one_fate_and_no_two_of_a_period_are_archived(letters, every, keep, apart):
    rules = ArchiveRules(Span(every, DAY), Span(keep, DAY))
    due = copies(letters, timedelta(days=apart))

    found = fate(due, rules, None, NOW)

    assert sorted(found.archive + found.delete + found.late + found.waiting) == [one.id for one in due]
    by_id = {one.id: one for one in due}
    fresh = [by_id[one] for one in found.archive if not by_id[one].part_archived]
    assert all(one.good for one in fresh)
    for before, after in pairwise(fresh):
        assert after.start - before.start >= timedelta(days=every)
    stays = found.archive + found.late + found.waiting
    assert not any(archive_over(by_id[one].start, rules, NOW) for one in stays)


@given(
    st.integers(0, 3000),
    st.integers(1, 120),
    st.integers(1, 500),
    st.sampled_from(list(RetentionUnit)),
    st.sampled_from(list(RetentionUnit)),
    st.integers(0, 120),
)
def test_with_times_that_are_allowed_a_copy_that_leaves_s3_days_late_is_archived(
    days, in_s3, kept, unit, archive_unit, hours
):
    start = NOW - timedelta(days=days)
    rules, archive = Rules(time=Span(in_s3, unit)), ArchiveRules(Span(1, DAY), Span(kept, archive_unit))
    assume(not expires_at_once(rules, archive))
    now = rules.time.after(start) + timedelta(hours=hours)

    found = fate([Candidate(1, start, good=True)], archive, None, now)

    assert found.archive == (1,)


@pytest.mark.parametrize(
    ("in_s3", "archived", "at_once"),
    [
        (Span(1, YEAR), Span(1, YEAR), True),
        (Span(1, YEAR), Span(12, MONTH), True),
        (Span(1, YEAR), Span(13, MONTH), False),
        (Span(2, WEEK), Span(1, MONTH), True),
        (Span(2, WEEK), Span(2, MONTH), False),
    ],
)
def test_an_archive_must_outlive_the_copy_in_s3_by_a_month(in_s3, archived, at_once):
    archive = ArchiveRules(every=Span(1, MONTH), keep=archived)

    assert expires_at_once(Rules(time=in_s3), archive) is at_once
    assert expires_at_once(Rules(5, in_s3), archive) is at_once
    assert not expires_at_once(Rules(5), archive)
