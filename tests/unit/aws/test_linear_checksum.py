"""The checksum of a snapshot from those of its blocks, whatever order they end in."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.aws.linear_checksum import LinearChecksum


def digest_of(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


@given(st.sets(st.integers(0, 10_000), max_size=50).flatmap(lambda chosen: st.permutations(sorted(chosen))))
def test_it_is_that_of_the_digests_in_order_of_index(ended: list[int]) -> None:
    total = LinearChecksum()

    for index in sorted(ended):
        total.begin(index)
    for index in ended:
        total.end(index, digest_of(index))

    assert total.digest() == hashlib.sha256(b"".join(digest_of(index) for index in sorted(ended))).digest()
    assert total.count == len(ended)


@given(st.sets(st.integers(0, 10_000), max_size=60), st.sets(st.integers(0, 60), max_size=5))
def test_it_is_the_same_when_its_state_is_stored_on_the_way(indexes: set[int], stops: set[int]) -> None:
    total = LinearChecksum.resumed(None)

    for number, index in enumerate(sorted(indexes)):
        if number in stops:
            total = LinearChecksum.resumed(json.loads(json.dumps(total.state())))
        total.begin(index)
        total.end(index, digest_of(index))

    assert total.digest() == hashlib.sha256(b"".join(digest_of(index) for index in sorted(indexes))).digest()
    assert total.count == len(indexes)


def test_a_resumed_one_goes_on_after_the_last_block() -> None:
    total = LinearChecksum()
    total.begin(7)
    with pytest.raises(ValueError, match="not been written"):
        total.state()
    total.end(7, digest_of(7))

    resumed = LinearChecksum.resumed(total.state())

    with pytest.raises(ValueError, match="ascending"):
        resumed.begin(7)


def test_blocks_that_are_not_written_or_not_in_order_are_told() -> None:
    total = LinearChecksum()
    total.begin(3)

    with pytest.raises(ValueError, match="ascending"):
        total.begin(3)
    with pytest.raises(ValueError, match="not been written"):
        total.digest()
    total.end(3, digest_of(3))

    assert total.digest() == hashlib.sha256(digest_of(3)).digest()
