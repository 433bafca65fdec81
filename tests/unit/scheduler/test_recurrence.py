from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from cpm.scheduler.recurrence import (
    DisableTime,
    Recurrence,
    between,
    latest_due,
    never_runs,
    next_after,
    validate,
)

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")
MON, TUE, SAT, SUN = 0, 1, 5, 6
EPSILON = timedelta(microseconds=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def recurrence(start: datetime, every: int, unit: str, zone: ZoneInfo = UTC_ZONE, **more) -> Recurrence:
    return Recurrence(start=start, every=every, unit=unit, timezone=zone, **more)


def local_runs(schedule: Recurrence, count: int) -> list[str]:
    runs = between(schedule, schedule.start - EPSILON, utc(2040, 1, 1), count)
    return [run.astimezone(schedule.timezone).strftime("%m-%d %H:%M") for run in runs]


def test_hourly_schedule_keeps_the_minute_of_its_start():
    schedule = recurrence(utc(2025, 1, 1, 8, 17), 1, "H")

    assert next_after(schedule, utc(2025, 6, 3, 14, 30)) == utc(2025, 6, 3, 15, 17)


def test_start_is_the_first_run_and_a_run_is_not_its_own_successor():
    schedule = recurrence(utc(2025, 1, 1, 8), 30, "M")

    assert next_after(schedule, utc(2020, 1, 1)) == utc(2025, 1, 1, 8)
    assert next_after(schedule, utc(2025, 1, 1, 8)) == utc(2025, 1, 1, 8, 30)


@pytest.mark.timeout(20)
def test_a_minute_schedule_fifty_years_old_is_answered_without_visiting_its_runs():
    schedule = recurrence(utc(1975, 1, 1), 1, "M", weekdays=frozenset({MON}))

    for _ in range(1000):
        assert next_after(schedule, utc(2025, 6, 3, 14, 30, 30)) == utc(2025, 6, 9)
        assert latest_due(schedule, utc(1975, 1, 1), utc(2025, 6, 3, 14, 30)) == utc(2025, 6, 2, 23, 59)


def test_daily_run_stays_at_ten_when_clocks_change():
    schedule = recurrence(datetime(2025, 3, 28, 10, tzinfo=BERLIN), 1, "D", BERLIN)

    runs = list(between(schedule, utc(2025, 3, 28), utc(2025, 4, 1), 10))

    assert [run.hour for run in runs] == [9, 9, 8, 8]


def test_hourly_schedule_stays_hourly_when_clocks_change():
    schedule = recurrence(datetime(2025, 10, 25, 23, tzinfo=BERLIN), 1, "H", BERLIN)

    runs = list(between(schedule, utc(2025, 10, 25, 21), utc(2025, 10, 26, 4), 20))

    assert {later - earlier for earlier, later in pairwise(runs)} == {timedelta(hours=1)}


def test_wall_time_that_does_not_exist_moves_forward_by_the_gap_on_that_day_only():
    schedule = recurrence(datetime(2025, 3, 29, 2, 30, tzinfo=BERLIN), 1, "D", BERLIN)

    assert local_runs(schedule, 3) == ["03-29 02:30", "03-30 03:30", "03-31 02:30"]


def test_gap_of_half_an_hour_moves_the_run_by_half_an_hour():
    lord_howe = ZoneInfo("Australia/Lord_Howe")
    schedule = recurrence(datetime(2025, 10, 4, 2, 10, tzinfo=lord_howe), 1, "D", lord_howe)

    assert local_runs(schedule, 3) == ["10-04 02:10", "10-05 02:40", "10-06 02:10"]


def test_repeated_wall_time_runs_once_at_its_first_occurrence():
    schedule = recurrence(datetime(2025, 10, 25, 2, 30, tzinfo=BERLIN), 1, "D", BERLIN)

    runs = list(between(schedule, utc(2025, 10, 25, 12), utc(2025, 10, 27), 10))

    assert runs == [utc(2025, 10, 26, 0, 30)]


def test_start_in_the_second_of_two_equal_hours_is_kept():
    start = datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1)
    schedule = recurrence(start, 1, "D", BERLIN)

    assert next_after(schedule, utc(2025, 10, 26)) == utc(2025, 10, 26, 1, 30)
    assert next_after(schedule, utc(2025, 10, 26, 1, 30)) == utc(2025, 10, 27, 1, 30)


def test_day_that_a_zone_left_out_gives_one_run_not_two():
    apia = ZoneInfo("Pacific/Apia")
    schedule = recurrence(datetime(2011, 12, 28, 10, tzinfo=apia), 1, "D", apia)

    assert local_runs(schedule, 4) == ["12-28 10:00", "12-29 10:00", "12-31 10:00", "01-01 10:00"]


def test_months_take_the_last_day_of_short_months_and_return_to_their_own():
    schedule = recurrence(utc(2024, 1, 31, 6), 1, "O")

    assert local_runs(schedule, 4) == ["01-31 06:00", "02-29 06:00", "03-31 06:00", "04-30 06:00"]


def test_yearly_schedule_of_the_29th_of_february():
    schedule = recurrence(utc(2024, 2, 29), 12, "O")

    assert local_runs(schedule, 5) == [
        "02-29 00:00",
        "02-28 00:00",
        "02-28 00:00",
        "02-28 00:00",
        "02-29 00:00",
    ]


@pytest.mark.parametrize(("unit", "second"), [("W", utc(2025, 1, 11)), ("O", utc(2025, 2, 4))])
def test_weekday_switches_are_ignored_for_weeks_and_months(unit, second):
    saturday = utc(2025, 1, 4)
    schedule = recurrence(saturday, 1, unit, weekdays=frozenset({MON}))

    assert next_after(schedule, saturday) == second


def test_weekday_is_that_of_the_schedules_zone():
    auckland = ZoneInfo("Pacific/Auckland")
    schedule = recurrence(utc(2025, 1, 1), 1, "H", auckland, weekdays=frozenset({MON}))

    # Monday 00:00 in Auckland is still Sunday morning in UTC.
    assert next_after(schedule, utc(2025, 1, 3)) == utc(2025, 1, 5, 11)


def test_two_daily_steps_skip_switched_off_weekdays():
    monday = utc(2025, 1, 6)
    schedule = recurrence(monday, 2, "D", weekdays=frozenset({MON, SAT, SUN}))

    assert local_runs(schedule, 4) == ["01-06 00:00", "01-12 00:00", "01-18 00:00", "01-20 00:00"]


def test_window_over_midnight_blocks_from_its_start_until_just_before_its_end():
    window = DisableTime("M", time(17), time(8))
    schedule = recurrence(utc(2025, 1, 1), 1, "H", disable_times=(window,))
    monday, tuesday = 6, 7

    assert next_after(schedule, utc(2025, 1, monday, 15)) == utc(2025, 1, monday, 16)
    assert next_after(schedule, utc(2025, 1, monday, 16)) == utc(2025, 1, tuesday, 8)
    assert next_after(schedule, utc(2025, 1, tuesday, 16)) == utc(2025, 1, tuesday, 17)


def test_sunday_window_over_midnight_reaches_into_monday():
    schedule = recurrence(utc(2025, 1, 1), 1, "H", disable_times=(DisableTime("U", time(22), time(3)),))

    assert next_after(schedule, utc(2025, 1, 5, 21)) == utc(2025, 1, 6, 3)


def test_equal_window_times_disable_a_whole_day():
    schedule = recurrence(utc(2025, 1, 1), 1, "H", disable_times=(DisableTime("T", time(0), time(0)),))

    assert next_after(schedule, utc(2025, 1, 6, 23)) == utc(2025, 1, 8)


def test_disabled_run_is_skipped_not_postponed():
    window = DisableTime("A", time(9, 30), time(10, 30))
    schedule = recurrence(utc(2025, 1, 1), 2, "H", disable_times=(window,))

    assert next_after(schedule, utc(2025, 1, 1, 8)) == utc(2025, 1, 1, 12)


def test_window_is_judged_by_the_clock_at_the_run_that_the_gap_moved():
    window = DisableTime("A", time(3), time(4))
    schedule = recurrence(
        datetime(2025, 3, 29, 2, 30, tzinfo=BERLIN), 1, "D", BERLIN, disable_times=(window,)
    )

    assert local_runs(schedule, 2) == ["03-29 02:30", "03-31 02:30"]


def test_minutes_find_a_rare_free_moment_that_only_a_clock_change_opens():
    # Elapsed days from 12:00 summer time meet the blocked noon until winter time moves them to 11:00.
    window = DisableTime("A", time(11, 30), time(11, 0))
    start = datetime(2025, 6, 1, 12, tzinfo=BERLIN)
    schedule = recurrence(start, 720, "M", BERLIN, disable_times=(window,))

    run = next_after(schedule, start)

    assert run == utc(2025, 10, 26, 10)


def test_run_exactly_at_a_clock_change_is_found_by_what_the_clocks_show_from_then_on():
    # 01:00 UTC is when 03:00 becomes 02:00 again.
    only_from_two = DisableTime("A", time(2, 30), time(2))
    schedule = recurrence(utc(2025, 10, 1), 30, "M", BERLIN, disable_times=(only_from_two,))

    assert next_after(schedule, utc(2025, 10, 26, 0)) == utc(2025, 10, 26, 1)


def test_catch_up_finds_the_last_run_before_a_clock_change():
    only_from_one = DisableTime("A", time(2), time(1))
    schedule = recurrence(utc(2025, 3, 1, 0, 30), 1, "H", BERLIN, disable_times=(only_from_one,))

    assert latest_due(schedule, utc(2025, 3, 1), utc(2025, 3, 30, 12)) == utc(2025, 3, 30, 0, 30)


def test_catch_up_past_disabled_runs_may_reach_the_start_but_not_the_run_already_made():
    only_from_one = DisableTime("A", time(2), time(1))
    start = utc(2025, 1, 1, 1)
    schedule = recurrence(start, 1, "H", disable_times=(only_from_one,))

    assert latest_due(schedule, start - EPSILON, utc(2025, 1, 1, 12)) == start
    assert latest_due(schedule, start, utc(2025, 1, 1, 12)) is None
    assert latest_due(schedule, utc(2025, 1, 2, 1), utc(2025, 1, 2, 12)) is None


def test_end_is_the_last_moment_at_which_a_run_still_happens():
    schedule = recurrence(utc(2025, 1, 1), 1, "H", end=utc(2025, 1, 1, 2))

    assert next_after(schedule, utc(2025, 1, 1, 1)) == utc(2025, 1, 1, 2)
    assert next_after(schedule, utc(2025, 1, 1, 2)) is None
    assert next_after(replace(schedule, end=utc(2025, 1, 1, 2) - EPSILON), utc(2025, 1, 1, 1)) is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("every", "unit"), [(1, "M"), (11, "M"), (1439, "M"), (24, "H"), (1, "D"), (1, "O")])
def test_schedule_disabled_for_ever_has_no_next_run(every, unit):
    window = DisableTime("A", time(0), time(0))
    schedule = recurrence(utc(2015, 1, 1), every, unit, BERLIN, disable_times=(window,))

    assert next_after(schedule, utc(2025, 1, 1)) is None
    assert latest_due(schedule, utc(2015, 1, 1), utc(2025, 1, 1)) is None
    assert never_runs(schedule, utc(2025, 1, 1))


@pytest.mark.timeout(20)
def test_thousands_of_windows_that_miss_every_free_minute_do_not_stall_the_search():
    windows = tuple(DisableTime("A", time(hour, minute), time(hour, minute + 1))
                    for hour in range(24) for minute in range(0, 60, 2))  # fmt: skip
    schedule = recurrence(utc(2015, 1, 1), 2, "M", disable_times=windows)

    assert next_after(schedule, utc(2025, 1, 1)) is None


def test_catch_up_after_downtime_is_one_run_the_newest():
    schedule = recurrence(utc(2025, 1, 1), 15, "M")

    due = latest_due(schedule, utc(2025, 1, 1, 6), utc(2025, 1, 3, 7, 20))

    assert due == utc(2025, 1, 3, 7, 15)


def test_nothing_is_owed_for_a_run_that_was_made():
    schedule = recurrence(utc(2025, 1, 1), 1, "D")

    assert latest_due(schedule, utc(2025, 1, 3), utc(2025, 1, 3, 23)) is None
    assert latest_due(schedule, utc(2025, 1, 3), utc(2025, 1, 2)) is None


def test_catch_up_does_not_reach_behind_the_end_or_before_the_start():
    schedule = recurrence(utc(2025, 1, 1), 1, "D", end=utc(2025, 1, 5, 12))

    assert latest_due(schedule, utc(2024, 1, 1), utc(2025, 6, 1)) == utc(2025, 1, 5)
    assert latest_due(schedule, utc(2024, 1, 1), utc(2024, 12, 31)) is None


def test_schedule_that_starts_next_year_or_runs_twice_a_year_is_not_called_dead():
    next_year = recurrence(utc(2026, 6, 1), 1, "D")
    # The first run falls on a disabled Sunday, the second half a year later does not.
    half_yearly = recurrence(utc(2025, 6, 1), 6, "O", disable_times=(DisableTime("U", time(0), time(0)),))

    assert not never_runs(next_year, utc(2025, 1, 1))
    assert not never_runs(half_yearly, utc(2025, 1, 1))


def test_schedule_that_has_ended_never_runs():
    schedule = recurrence(utc(2024, 1, 1), 1, "D", end=utc(2024, 2, 1))

    assert never_runs(schedule, utc(2025, 1, 1))


@pytest.mark.parametrize("unit", "MHDWO")
def test_interval_beyond_the_calendar_runs_once(unit):
    schedule = recurrence(utc(2025, 1, 1), 10**15, unit)

    assert next_after(schedule, utc(2024, 1, 1)) == utc(2025, 1, 1)
    assert next_after(schedule, utc(2025, 1, 1)) is None
    assert latest_due(schedule, utc(2024, 1, 1), utc(2030, 1, 1)) == utc(2025, 1, 1)


def test_end_on_the_last_day_of_the_calendar_means_never():
    far = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-5)))
    schedule = recurrence(utc(2025, 1, 1), 1, "D", end=far)

    assert validate(schedule) == []
    assert next_after(schedule, utc(2025, 1, 1)) == utc(2025, 1, 2)


def test_naive_moment_is_refused_instead_of_read_in_the_machines_zone():
    schedule = recurrence(utc(2025, 1, 1), 1, "D")

    with pytest.raises(ValueError, match="time zone"):
        next_after(schedule, datetime(2025, 1, 1))


def test_sound_schedule_has_no_problems():
    schedule = recurrence(utc(2025, 1, 1), 1, "W", weekdays=frozenset(), end=utc(2025, 1, 1))

    assert validate(schedule) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"every": 0}, "at least 1"),
        ({"unit": "Y"}, "unit must be"),
        ({"unit": ""}, "unit must be"),
        ({"weekdays": frozenset()}, "At least one weekday"),
        ({"weekdays": frozenset({7})}, "0 (Monday)"),
        ({"start": datetime(2025, 1, 1)}, "start needs a time zone"),
        ({"start": utc(1, 1, 1)}, "between the years"),
        ({"end": datetime(2025, 1, 1)}, "end needs a time zone"),
        ({"end": utc(2024, 12, 31)}, "before the start"),
        ({"disable_times": (DisableTime("X", time(1), time(2)),)}, "day of a disable time"),
        ({"disable_times": (DisableTime("A", time(1, tzinfo=UTC), time(2)),)}, "take no zone"),
    ],
)
def test_each_problem_is_named(change, words):
    schedule = replace(recurrence(utc(2025, 1, 1), 1, "D"), **change)

    problems = validate(schedule)

    assert len(problems) == 1
    assert words in problems[0]
