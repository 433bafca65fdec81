"""The sessions that one process has open: opened once, closed when they are not wanted, never under somebody's hands."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from cpm.flows.explore_sessions.explore_open import Opened, Registry
from tests.simulated_aws import wait_for


class Fake:
    """What a registry needs to know of an open session."""

    def __init__(self) -> None:
        self.files = object()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def two_at_most(settings: Any) -> None:
    settings.CPM_EXPLORE_OPEN_SESSIONS = 2


def opener(*made: Fake, after: float = 0.0) -> Callable[[], Opened]:
    """Hands out the fakes one after the other."""
    left = list(made)

    def open_it() -> Opened:
        time.sleep(after)
        return cast(Opened, left.pop(0))

    return open_it


def test_many_requests_at_once_open_a_session_once() -> None:
    registry, one = Registry(), Fake()
    open_it = opener(one, after=0.05)

    def request(_: int) -> object:
        with registry.use(1, open_it) as files:
            return files

    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(request, range(32)))

    assert got == {one.files} and one.closed == 0 and registry.ids() == [1]


def test_the_one_that_was_used_longest_ago_gives_way_but_not_while_it_is_used() -> None:
    registry, fakes = Registry(), [Fake() for _ in range(4)]

    with registry.use(0, opener(fakes[0])):
        for pk in (1, 2, 3):
            with registry.use(pk, opener(fakes[pk])):
                pass
        busy = registry.ids()
        with registry.use(0, opener()):
            pass

    assert busy == [0, 3]
    assert [one.closed for one in fakes] == [0, 1, 1, 0]
    assert registry.ids() == [3, 0]


def test_a_session_that_was_dropped_is_closed_at_once_and_opened_anew_for_the_next() -> None:
    registry, first, second = Registry(), Fake(), Fake()

    with registry.use(1, opener(first)):
        registry.drop(1)
        closed_under_use = first.closed
        with registry.use(1, opener(second)) as files:
            assert files is second.files

    assert closed_under_use == 1 and second.closed == 0
    registry.drop_all()
    assert second.closed == 1 and registry.ids() == []


def test_a_session_that_was_dropped_while_it_was_being_opened_is_closed_by_its_user() -> None:
    registry, one, opening, dropped = Registry(), Fake(), threading.Event(), threading.Event()

    def open_it() -> Opened:
        opening.set()
        dropped.wait(10)
        return cast(Opened, one)

    def request() -> None:
        with registry.use(1, open_it):
            pass

    worker = threading.Thread(target=request)
    worker.start()
    opening.wait(10)
    registry.drop(1)
    dropped.set()
    worker.join(10)

    assert one.closed == 1 and registry.ids() == []


def test_a_session_that_cannot_be_opened_leaves_nothing_behind() -> None:
    registry = Registry()

    def fails() -> Opened:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), registry.use(1, fails):
        pass

    assert registry.ids() == []


def test_what_nobody_uses_is_closed_after_a_while_and_the_keeper_ends() -> None:
    registry, idle, busy = Registry(unused_seconds=0.05, looks_every=0.01), Fake(), Fake()

    with registry.use(2, opener(busy)):
        with registry.use(1, opener(idle)):
            pass
        wait_for(lambda: idle.closed == 1)
        kept = busy.closed
    wait_for(lambda: busy.closed == 1)

    assert kept == 0 and registry.ids() == []
    wait_for(lambda: registry._keeper is None)
