"""The arithmetic against an oracle that visits every slot, in zones with every kind of clock."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from cpm.scheduler.recurrence import DisableTime, Recurrence, between, latest_due, never_runs, next_after
from tests.unit.scheduler.naive_oracle import naive_allows, naive_runs, naive_slots

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Casablanca",
]
# Clock changes of those zones, so that most examples have one in reach.
CHANGES = [datetime(2025, 3, 30), datetime(2025, 10, 26), datetime(2025, 3, 9), datetime(2025, 11, 2)]
CHANGES += [datetime(2025, 4, 5, 15), datetime(2025, 10, 4, 15), datetime(2025, 2, 23), datetime(2025, 4, 6)]
EPSILON = timedelta(microseconds=1)
# A span of time per unit that holds some hundreds of slots at most.
REACH = {"M": 10, "H": 40, "D": 200, "W": 700, "O": 2500}
EVERY = {
    "M": st.sampled_from([7, 15, 30, 60, 90, 361, 1439, 1440, 2000]),
    "H": st.sampled_from([1, 2, 5, 7, 12, 23, 24, 25, 168]),
    "D": st.integers(1, 9),
    "W": st.integers(1, 5),
    "O": st.integers(1, 14),
}

times = st.one_of(
    st.sampled_from([time(0), time(1, 30), time(2), time(2, 30), time(3), time(12), time(23, 59)]), st.times()
)
windows = st.builds(DisableTime, day=st.sampled_from("AMTWHFSU"), start=times, end=times)
weekdays = st.one_of(st.just(frozenset(range(7))), st.frozensets(st.integers(0, 6)))


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    unit = draw(st.sampled_from("MHDWO"))
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    lead = draw(st.integers(0, min(REACH[unit] * 24 * 60, 60 * 24 * 40)))
    start = draw(st.sampled_from(CHANGES)).replace(tzinfo=UTC) - timedelta(minutes=lead)
    end = draw(
        st.one_of(st.none(), st.integers(0, REACH[unit] * 24).map(lambda hours: timedelta(hours=hours)))
    )
    return Recurrence(
        start=start.astimezone(draw(st.sampled_from([UTC, zone]))),
        every=draw(EVERY[unit]),
        unit=unit,
        timezone=zone,
        weekdays=draw(weekdays),
        end=None if end is None else start + end,
        disable_times=tuple(draw(st.lists(windows, max_size=4))),
    )


def reach_of(recurrence: Recurrence) -> datetime:
    return recurrence.start.astimezone(UTC) + timedelta(days=REACH[recurrence.unit])


@st.composite
def recurrences_with_moment(draw: st.DrawFn) -> tuple[Recurrence, datetime]:
    """A moment from before the start to the end of the oracle's reach, often exactly on or beside a slot."""
    recurrence = draw(recurrences())
    slots = naive_slots(recurrence, reach_of(recurrence))
    anywhere = st.integers(-100, REACH[recurrence.unit] * 24 * 60).map(
        lambda minutes: recurrence.start.astimezone(UTC) + timedelta(minutes=minutes)
    )
    beside = st.builds(lambda slot, step: slot + step * EPSILON, st.sampled_from(slots), st.integers(-1, 1))
    return recurrence, draw(st.one_of(anywhere, beside))


@given(recurrences())
@settings(max_examples=300, deadline=None)
def test_lists_exactly_the_runs_that_the_rules_allow(recurrence):
    until = reach_of(recurrence)

    runs = list(between(recurrence, recurrence.start - EPSILON, until, limit=10_000))

    assert runs == naive_runs(recurrence, until)


@given(recurrences_with_moment())
@settings(max_examples=300, deadline=None)
def test_next_run_is_the_first_allowed_slot_strictly_after_the_moment(case):
    recurrence, moment = case
    expected = [run for run in naive_runs(recurrence, reach_of(recurrence)) if run > moment]

    run = next_after(recurrence, moment)

    if expected:
        assert run == expected[0]
    else:
        assert run is None or run > reach_of(recurrence)


@given(recurrences_with_moment())
@settings(max_examples=200, deadline=None)
def test_next_run_lies_on_the_grid_outside_every_disable_window_and_is_found_again(case):
    recurrence, moment = case

    run = next_after(recurrence, moment)

    if run is not None:
        assert run > moment
        assert run.tzinfo is UTC
        assert recurrence.end is None or run <= recurrence.end
        assert naive_allows(recurrence, run.astimezone(recurrence.timezone).replace(tzinfo=None, fold=0))
        assert next_after(recurrence, run - EPSILON) == run
        if run <= reach_of(recurrence):
            assert run in naive_slots(recurrence, run)


@given(recurrences_with_moment(), st.integers(0, 60 * 24 * 30))
@settings(max_examples=300, deadline=None)
def test_latest_due_is_the_newest_allowed_slot_of_the_downtime(case, minutes_down):
    recurrence, now = case
    after = now - timedelta(minutes=minutes_down)
    missed = [run for run in naive_runs(recurrence, now) if after < run]

    due = latest_due(recurrence, after, now)

    assert due == (missed[-1] if missed else None)


@given(recurrences_with_moment())
@settings(max_examples=100, deadline=None)
def test_latest_due_since_ever_and_next_run_leave_no_slot_between_them(case):
    recurrence, moment = case

    due = latest_due(recurrence, datetime(1980, 1, 1, tzinfo=UTC), moment)

    if due is not None:
        assert due <= moment
        assert next_after(recurrence, due) == next_after(recurrence, moment)


@given(recurrences(), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_listing_stops_at_the_limit_and_is_ordered(recurrence, limit):
    runs = list(between(recurrence, recurrence.start, reach_of(recurrence), limit))

    assert runs == list(between(recurrence, recurrence.start, reach_of(recurrence), 10_000))[:limit]
    assert all(earlier < later for earlier, later in pairwise(runs))


@given(recurrences())
@settings(max_examples=100, deadline=None)
def test_warning_is_given_only_when_the_next_run_is_far_or_absent(recurrence):
    now = recurrence.start - EPSILON
    soon = next_after(recurrence, now)

    warned = never_runs(recurrence, now)

    if soon is None:
        assert warned
    elif soon <= recurrence.start + timedelta(days=60):
        assert not warned


@given(recurrences_with_moment())
@settings(max_examples=100, deadline=None)
def test_the_zone_in_which_the_start_is_written_does_not_matter(case):
    recurrence, moment = case
    elsewhere = replace(recurrence, start=recurrence.start.astimezone(ZoneInfo("Pacific/Auckland")))

    assert next_after(elsewhere, moment.astimezone(ZoneInfo("Asia/Tokyo"))) == next_after(recurrence, moment)
