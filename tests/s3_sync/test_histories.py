"""Any history of writes, syncs cut anywhere and deaths ends in a true mirror, and harms nothing beside it."""

from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.slices import Limits, Slice, run
from tests.s3_sync.fake import FakeBuckets

LIMITS = Limits(threads=3, ahead=4)
NAMES = ["", "a", "a/", "a/b", "b c", "b+c", "b%20c", "c", "d", "e", "é", "\uffff", "😀"]
CONTENTS = ["a", "b", "cc"]

places = st.integers(0, 3)
writes = st.tuples(st.just("write"), places, st.sampled_from(CONTENTS))
uploads = st.tuples(st.just("upload"), places, st.integers(1, 3600))
removals = st.tuples(st.just("remove"), places, st.none())
foreign = st.tuples(st.just("foreign"), places, st.sampled_from(CONTENTS))
slices = st.tuples(st.just("slice"), st.integers(0, 6), st.none() | st.integers(0, 8))
runs = st.tuples(st.just("run"), st.integers(0, 6), st.lists(st.integers(0, 9), max_size=3))
steps = st.lists(
    st.tuples(writes | writes | uploads | removals | foreign | slices | runs, st.sampled_from([0, 0, 1])),
    max_size=30,
)
mirrors = st.builds(
    Mirror,
    source_bucket=st.just("one"),
    destination_bucket=st.just("two"),
    source_prefix=st.sampled_from(["", "from", "from/"]),
    destination_prefix=st.sampled_from(["", "to/", "to"]),
    keep_source_prefix=st.booleans(),
    delete_extra=st.booleans(),
)


def stop_after(calls: int) -> Callable[[], bool]:
    left = [calls]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


def whole_run(mirror: Mirror, buckets: FakeBuckets, stops: int, halts: Sequence[int] = ()) -> list[Slice]:
    """Slices until one is finished, the first of which are halted after so many calls."""
    done: list[Slice] = []
    rest = iter(halts)
    while not done or not done[-1].finished:
        cursor = done[-1].cursor if done else None
        buckets.left = next(rest, None)
        halting = buckets.left is not None
        done.append(run(mirror, buckets, cursor=cursor, stop=stop_after(stops), limits=LIMITS))
        assert halting or done[-1].finished or done[-1].cursor != cursor or buckets.interrupted
    return done


def act(
    mirror: Mirror, buckets: FakeBuckets, names: Sequence[str], step: tuple, cursor: str | None
) -> str | None:
    """One step of a history; where the next slice begins, which after a death is where this one began."""
    what, first, second = step
    if what == "run":
        whole_run(mirror, buckets, first, second)
        return None
    if what == "slice":
        buckets.left = second
        done = run(mirror, buckets, cursor=cursor, stop=stop_after(first), limits=LIMITS)
        buckets.left = None
        return cursor if second is not None or done.finished else done.cursor
    name = names[first % len(names)]
    key = mirror.source_key(name)
    if what == "write" and key:
        buckets.write(key, second)
    elif what == "upload" and key:
        buckets.write(key, f"u{second % 10}", uploaded_for=second)
    elif what == "remove":
        buckets.source.objects.pop(key, None)
    elif what == "foreign" and key not in buckets.source.objects and name:
        buckets.destination.put(mirror.destination_key(name), second, buckets.now, "foreign")
    return cursor


@settings(max_examples=200, deadline=None)
@given(
    mirrors,
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    steps,
    st.integers(0, 5),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_every_history_ends_in_a_true_mirror(
    mirror: Mirror, names: list, steps: list, stops: int, halts: list
) -> None:
    buckets, cursor = FakeBuckets(), None
    outside = dict.fromkeys(
        ("t", "to-other", "zz/a", "other/b") if mirror.destination_base else (), "untouched"
    )
    for key, content in outside.items():
        buckets.destination.put(key, content, buckets.now, "x")

    for step, seconds in steps:
        buckets.pass_time(seconds)
        cursor = act(mirror, buckets, names, step, cursor)
    before = buckets.destination.contents().keys()
    whole_run(mirror, buckets, stops, halts)

    expected = {
        mirror.destination_base + key.removeprefix(mirror.source_base): content
        for key, content in buckets.source.contents().items()
        if key.startswith(mirror.source_base)
    }
    expected.pop("", None)
    held = buckets.destination.contents()
    assert {key: held.get(key) for key in expected} == expected
    assert {key: held.get(key) for key in outside} == outside
    extra = held.keys() - expected.keys() - outside.keys()
    if mirror.delete_extra:
        assert extra <= {mirror.destination_base} - {""}
    else:
        assert extra == before - expected.keys() - outside.keys()


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(0, 6))
def test_nothing_is_counted_twice_however_a_run_is_cut(present: set, refused: set, stops: int) -> None:
    mirror, buckets = Mirror("one", "two", delete_extra=True), FakeBuckets()
    for number in range(61):
        if number in present:
            buckets.write(f"{number:02}", "x")
        else:
            buckets.destination.put(f"{number:02}", "x", buckets.now, "x")
    buckets.refused = {f"{number:02}" for number in refused}

    done = whole_run(mirror, buckets, stops)

    counts = sum((each.counts for each in done[1:]), done[0].counts)
    assert counts.failed.count == len(refused)
    assert [key for key, _ in counts.failed.first] == sorted(buckets.refused)[: len(counts.failed.first)]
    assert counts.copied == counts.copied_bytes == len(present - refused)
    assert counts.seen == 61
    assert counts.deleted == 61 - len(present | refused)
    assert buckets.source.contents().keys() | buckets.refused >= buckets.destination.contents().keys()
