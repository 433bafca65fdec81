"""The device over a block source: right bytes, few fetches, from many threads."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpm.explore.blocks import BLOCK_SIZE, BlockCache, Device, FileObject, Slice
from cpm.explore.errors import SourceFailed

SIZE = 40 * BLOCK_SIZE + 1234
CONTENT = random.Random(5).randbytes(SIZE)
HOLES = {3, 4, 20}


class Counting:
    """A source in memory that counts and may fail."""

    def __init__(self) -> None:
        self.size = SIZE
        self.fetched: list[int] = []
        self.failing: set[int] = set()
        self.short: set[int] = set()
        self._lock = threading.Lock()

    def read_block(self, index: int) -> bytes | None:
        with self._lock:
            self.fetched.append(index)
        if index in self.failing:
            raise ConnectionError("the store did not answer")
        if index in HOLES:
            return None
        block = CONTENT[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
        return block[:-1] if index in self.short else block


def expected(offset: int, length: int) -> bytes:
    content = bytearray(CONTENT)
    for hole in HOLES:
        content[hole * BLOCK_SIZE : (hole + 1) * BLOCK_SIZE] = bytes(BLOCK_SIZE)
    return bytes(content[offset : offset + length])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SIZE + 10), st.integers(0, 3 * BLOCK_SIZE)), max_size=8))
def test_any_reads_give_the_bytes_of_the_volume(reads: list[tuple[int, int]]) -> None:
    with Device(Counting(), cached_blocks=8) as device:
        for offset, length in reads:
            assert device.read(offset, length) == expected(offset, length)


def test_a_block_is_fetched_once_also_for_many_threads() -> None:
    source = Counting()

    with Device(source, read_ahead=0) as device, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: device.read(7 * BLOCK_SIZE + number, 100), range(200)))

    assert answers == [expected(7 * BLOCK_SIZE + number, 100) for number in range(200)]
    assert source.fetched == [7]
    assert device.bytes_fetched == BLOCK_SIZE


def test_reading_on_fetches_ahead_and_jumping_does_not() -> None:
    source = Counting()

    with Device(source, read_ahead=3) as device:
        for index in (30, 10, 20):
            device.read(index * BLOCK_SIZE, 1)
        jumped = sorted(source.fetched)
        device.read(11 * BLOCK_SIZE, 1)
        device.read(14 * BLOCK_SIZE, 1)

    assert jumped == [10, 20, 30]
    assert {11, 12, 13, 14} <= set(source.fetched)
    assert len(source.fetched) == len(set(source.fetched))


def test_zeros_cost_no_bytes_and_the_cache_is_bounded() -> None:
    source = Counting()

    with Device(source, cached_blocks=1, read_ahead=0) as device:
        device.read(3 * BLOCK_SIZE, 2 * BLOCK_SIZE)
        of_holes = device.bytes_fetched
        for index in range(41):
            device.read(index * BLOCK_SIZE, 1)
        device.read(0, 1)

        assert len(device._cache) <= 24
    assert of_holes == 0
    assert source.fetched.count(0) == 2


def test_devices_that_share_a_cache_share_its_memory_and_not_their_blocks() -> None:
    cache, sources = BlockCache(24), [Counting() for _ in range(3)]
    devices = [Device(source, cache=cache, read_ahead=0) for source in sources]

    for index in range(12):
        for device in devices:
            assert device.read(index * BLOCK_SIZE, 9) == expected(index * BLOCK_SIZE, 9)
    for device in devices:
        device.read(11 * BLOCK_SIZE, 9)
        device.close()

    assert len(cache) == 24
    assert [source.fetched for source in sources] == [list(range(12))] * 3


def test_a_source_that_fails_is_an_error_and_is_asked_again() -> None:
    source = Counting()
    source.failing = {5}

    with Device(source, read_ahead=0) as device:
        with pytest.raises(SourceFailed, match="the store did not answer"):
            device.read(5 * BLOCK_SIZE, 10)
        source.failing = set()

        assert device.read(5 * BLOCK_SIZE, 10) == expected(5 * BLOCK_SIZE, 10)


def test_a_block_that_is_too_short_is_an_error() -> None:
    source = Counting()
    source.short = {40}

    with (
        Device(source) as device,
        pytest.raises(SourceFailed, match="block 40 has 1233 bytes instead of 1234"),
    ):
        device.read(SIZE - 10, 10)


def test_a_slice_never_reads_outside_itself() -> None:
    with Device(Counting()) as device:
        part = Slice(device, BLOCK_SIZE, 1000)
        beyond = Slice(device, SIZE - 10, 1000)

        assert part.read(990, 100) == expected(BLOCK_SIZE + 990, 10)
        assert part.read(2000, 10) == b""
        assert beyond.size == 10


def test_a_file_object_reads_and_seeks_as_files_do() -> None:
    with Device(Counting()) as device:
        file = FileObject(Slice(device, 0, 1000))

        assert file.read(10) == CONTENT[:10]
        assert file.seek(-5, 2) == 995
        assert file.read() == CONTENT[995:1000]
        assert file.tell() == file.get_size() == 1000
