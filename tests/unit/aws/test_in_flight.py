"""Adaptive concurrency: grows while it is the limit, shrinks once per storm."""

import threading

from cpm.aws.in_flight import Bounds, InFlight


def fill(flight: InFlight, size: int = 1) -> list[int]:
    return [flight.enter(size) for _ in range(int(flight.limit))]


def round_trip(flight: InFlight, *, slow_down: bool = False) -> None:
    """As many requests at once as may be, all answered."""
    for ticket in fill(flight):
        flight.leave(ticket, 1, slow_down=slow_down)


def test_it_grows_by_one_for_each_answer_at_first_and_no_further_than_allowed() -> None:
    flight = InFlight(Bounds(first=4, largest=64))
    tickets = fill(flight)

    for _ in range(100):
        flight.leave(tickets.pop(0), 1, slow_down=False)
        while flight.now < int(flight.limit):
            tickets.append(flight.enter(1))

    assert flight.limit == 64 == flight.most


def test_it_does_not_grow_while_there_is_too_little_to_do() -> None:
    flight = InFlight(Bounds(first=8))

    for _ in range(100):
        ticket = flight.enter(1)
        flight.leave(ticket, 1, slow_down=False)

    assert flight.limit == 8


def test_one_storm_halves_it_once_and_the_next_again() -> None:
    flight = InFlight(Bounds(first=32))

    round_trip(flight, slow_down=True)
    once = flight.limit
    round_trip(flight, slow_down=True)

    assert (once, flight.limit, flight.cuts) == (16, 8, 2)


def test_after_a_cut_it_grows_by_one_in_a_round_trip() -> None:
    flight = InFlight(Bounds(first=32))
    round_trip(flight, slow_down=True)

    for _ in range(16):
        held = fill(flight)
        flight.leave(held.pop(), 1, slow_down=False)
        for ticket in held:
            flight.leave(ticket, 1, slow_down=False)

    assert 16.5 < flight.limit < 18


def test_it_never_stops_altogether() -> None:
    flight = InFlight(Bounds(first=2))

    for _ in range(10):
        round_trip(flight, slow_down=True)

    assert flight.limit == 1


def test_whoever_waits_for_room_gets_it() -> None:
    flight = InFlight(Bounds(first=4, largest_bytes=100))
    first = flight.enter(80)
    entered = threading.Event()

    def second() -> None:
        flight.leave(flight.enter(50), 50, slow_down=False)
        entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.1)
    flight.leave(first, 80, slow_down=False)

    assert entered.wait(5)
    thread.join()
    assert (flight.now, flight.bytes) == (0, 0)
