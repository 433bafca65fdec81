"""What a sync does about errors, dates, prefixes and sizes, against two buckets in memory."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.s3_sync.buckets import Listed, Page
from cpm.s3_sync.comparing import is_changed
from cpm.s3_sync.counts import Counts
from cpm.s3_sync.errors import Halted, Unsuitable
from cpm.s3_sync.large import MOST_PARTS, Sizes, plan
from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.slices import Limits, run
from tests.s3_sync.fake import START, FakeBuckets

LIMITS = Limits(threads=2, ahead=100)
WHOLE = Mirror("one", "two", delete_extra=True)


def never() -> bool:
    return False


def seen(seconds: int, *, size: int = 1, etag: str = "e") -> Listed:
    return Listed("k", size, START + timedelta(seconds=seconds), etag)


class BrokenSource(FakeBuckets):
    """The second page of the source cannot be had."""

    broken = True

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        if token and self.broken:
            raise Halted("AccessDenied", transient=False)
        return super().list_source(prefix, after, token)


def test_a_source_that_cannot_be_listed_is_not_an_empty_one() -> None:
    buckets = BrokenSource(page=2)
    for name in "abcdef":
        buckets.write(name, "x")
    for name in ("aa", "bb", "x", "y", "z"):
        buckets.destination.put(name, "x", buckets.now, "x")

    broken = run(WHOLE, buckets, cursor=None, stop=never, limits=LIMITS)
    left = set(buckets.destination.contents())
    buckets.broken = False
    rest = run(WHOLE, buckets, cursor=broken.cursor, stop=never, limits=LIMITS)

    assert broken.halted and not broken.finished and broken.counts.deleted == 0
    assert left >= {"aa", "bb", "x", "y", "z"}
    assert rest.finished and set(buckets.destination.contents()) == set("abcdef")


def test_an_empty_source_empties_its_mirror_and_nothing_beside_it() -> None:
    mirror = Mirror("one", "two", "logs", "copies", keep_source_prefix=True, delete_extra=True)
    buckets = FakeBuckets()
    for key in ("copies/logs/a", "copies/other", "copies/logs", "copies/logs/"):
        buckets.destination.put(key, "x", buckets.now, "x")

    done = run(mirror, buckets, cursor=None, stop=never)

    assert done.finished and done.counts.deleted == 1
    assert set(buckets.destination.contents()) == {"copies/other", "copies/logs", "copies/logs/"}


def test_a_list_out_of_order_is_refused_before_anything_is_deleted() -> None:
    buckets = FakeBuckets(page=10)
    buckets.list_source = lambda *_: Page([seen(0), Listed("a", 1, START, "e")], None)
    buckets.destination.put("b", "x", buckets.now, "x")

    done = run(WHOLE, buckets, cursor=None, stop=never, limits=LIMITS)

    assert done.halted and "out of order" in str(done.halted)
    assert "b" in buckets.destination.contents()


def test_a_sync_without_rights_does_not_try_every_object() -> None:
    buckets = FakeBuckets(page=1000)
    for number in range(500):
        buckets.write(f"{number:03}", "x")
    buckets.refused = set(buckets.source.objects)

    done = run(WHOLE, buckets, cursor=None, stop=never, limits=Limits(threads=2, hopeless=20))

    assert done.halted and not done.halted.transient and "AccessDenied" in str(done.halted)
    assert 20 <= done.counts.failed.count < 60


def test_archived_objects_are_named_and_do_not_hold_up_the_rest() -> None:
    buckets = FakeBuckets()
    buckets.write("a", "x")
    buckets.source.objects["b"] = ("x", Listed("b", 1, START, "e", archived=True))
    buckets.write("c", "x")

    done = run(WHOLE, buckets, cursor=None, stop=never)

    assert done.finished and done.counts.copied == 2 and not done.counts.complete
    assert done.counts.skipped["archived"].first == [["b", ""]]


def test_counts_survive_storage_and_add_up() -> None:
    first, second = Counts(copied=1, kept=2), Counts(copied=3, copied_bytes=5)
    first.failed.add("a", "no")
    second.failed.add("b", "no")

    total = Counts.restored(json.loads(json.dumps(first.stored()))) + second

    assert (total.copied, total.copied_bytes, total.kept, total.failed.count) == (4, 5, 2, 2)
    assert total.failed.first == [["a", "no"], ["b", "no"]]


@pytest.mark.parametrize(
    ("source", "copy", "changed"),
    [
        (seen(0), seen(1), False),
        (seen(1), seen(1), True),
        (seen(2), seen(1), True),
        (seen(0, size=2), seen(1), True),
        (seen(0), seen(1, etag="other"), False),
        (seen(0, etag="e-7"), seen(3600), True),
        (seen(0, etag="e-7"), seen(3601), False),
        (seen(0), seen(1, etag="e-7"), False),
    ],
)
def test_what_counts_as_changed(source: Listed, copy: Listed, changed: bool) -> None:
    assert is_changed(source, copy) is changed


@pytest.mark.parametrize(
    ("source", "destination", "keep"),
    [("", "", False), ("", "to", False), ("a", "a", False), ("a", "a/b", False), ("a/b", "a", False),
     ("a/b", "", False), ("a", "", True)],
)  # fmt: skip
def test_a_bucket_is_not_mirrored_into_itself(source: str, destination: str, keep: bool) -> None:
    with pytest.raises(Unsuitable):
        Mirror("one", "one", source, destination, keep_source_prefix=keep)


@pytest.mark.parametrize(
    ("source", "destination", "keep", "base"),
    [
        ("a", "b", False, "b/"),
        ("a", "ab", False, "ab/"),
        ("a/", "b", True, "b/a/"),
        ("a/b", "a", True, "a/a/b/"),
    ],
)
def test_folders_of_one_bucket_may_mirror_each_other(
    source: str, destination: str, keep: bool, base: str
) -> None:
    assert Mirror("one", "one", source, destination, keep_source_prefix=keep).destination_base == base


@given(st.integers(1, 48 * 1024**4), st.text(max_size=5))
def test_parts_cover_an_object_and_tell_its_version(size: int, etag: str) -> None:
    source = Listed("k", size, START, etag)

    found = plan("bucket", source, Sizes())

    last = found.numbers[-1]
    assert len(found.numbers) <= MOST_PARTS and found.part <= 5 * 1024**3
    assert found.start(last) + found.length(last) == size and 0 < found.length(last) <= found.part
    assert found.part == plan("bucket", source, Sizes()).part
    assert len({plan("bucket", Listed("k", size, START, f"{etag}{n}"), Sizes()).part for n in range(5)}) > 1
