"""Work by many threads with results as they come: complete, bounded, and ended by the first error."""

import threading
import time

import pytest

from cpm.aws.parallel import Parallel


def parallel(work, items, *, threads: int = 8, ahead: int = 16) -> Parallel:
    return Parallel(work, items, threads=lambda: threads, ahead=ahead, name="test")


def ended(name: str = "test") -> bool:
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_every_item_is_worked_on_once() -> None:
    assert sorted(parallel(lambda n: n * n, range(1000))) == [n * n for n in range(1000)]
    assert list(parallel(str, [])) == []
    assert ended()


def test_several_threads_may_take_results() -> None:
    results = parallel(lambda n: n, range(2000))
    taken: list[int] = []

    takers = [threading.Thread(target=lambda: taken.extend(results)) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(10)

    assert sorted(taken) == list(range(2000)) and ended()


def test_items_are_not_taken_far_ahead_of_their_results() -> None:
    begun = 0

    def items():
        nonlocal begun
        for number in range(100):
            begun += 1
            yield number

    results = parallel(lambda n: n, items(), ahead=10)
    time.sleep(0.1)
    before = begun
    next(results)
    time.sleep(0.1)

    assert (before, begun) == (10, 11)
    assert len(list(results)) == 99 and ended()


@pytest.mark.parametrize("where", ["work", "items"])
def test_the_first_error_ends_it(where: str) -> None:
    def items():
        for number in range(1000):
            if where == "items" and number == 50:
                raise KeyError("listing")
            yield number

    def work(number: int) -> int:
        if where == "work" and number == 50:
            raise KeyError("block")
        return number

    taken: list[int] = []
    results = parallel(work, items())
    with pytest.raises(KeyError):
        taken.extend(results)
    with pytest.raises(KeyError):
        next(results)

    assert len(taken) < 100 and ended()


def test_leaving_early_ends_the_threads() -> None:
    with parallel(lambda n: n, iter(int, 1), threads=20) as results:
        for _ in range(100):
            next(results)

    assert ended()
