"""Mirrors between real buckets of the simulator, over the gateway: odd keys, accounts, large objects, trouble."""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.aws.s3_copies import S3Copies
from cpm.s3_sync import s3_buckets, slices
from cpm.s3_sync.large import Sizes
from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.s3_buckets import S3Buckets
from tests import simulated_aws
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

OTHER = "210987654321"
EUROPE = "eu-west-1"
MIB = 1024 * 1024
# S3 takes no smaller parts than these.
IN_PARTS = Sizes(at_once=6 * MIB, usual_part=5 * MIB, spread=64 * 1024, parts_at_once=2)
ODD_KEYS = (
    "a", "a/", "a/b c", "a/b+c", "a/b%20c", "a/ü", "a/😀", "a/<&>\"'", "a//b", "a/./b", "a/../b", "a/x\ty", "~!*'()",
)  # fmt: skip


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    aws = simulated_aws.start(tmp_path_factory.mktemp("simulator"))
    yield aws
    aws.stop()


@pytest.fixture
def aws(running: SimulatedAws) -> SimulatedAws:
    running.clear_faults()
    gateway.configure(gateway.GatewayConfig(endpoint_url=running.url))
    return running


def two_buckets(aws: SimulatedAws, account: str = OTHER, **more: Any) -> tuple[Mirror, S3Buckets, Any, Any]:
    """A mirror into a bucket of another region and by default of another account, and boto3 clients of both sides."""
    name = uuid.uuid4().hex[:12]
    ours, theirs = aws.client("s3"), aws.client("s3", EUROPE, account)
    ours.create_bucket(Bucket=f"from-{name}")
    theirs.create_bucket(Bucket=f"to-{name}", CreateBucketConfiguration={"LocationConstraint": EUROPE})
    mirror = Mirror(f"from-{name}", f"to-{name}", **more)
    buckets = s3_buckets.connect(
        mirror,
        reader=Keys(*aws.credentials()),
        source_region="us-east-1",
        writer=Keys(*aws.credentials(account)),
        destination_region=EUROPE,
        storage_class="STANDARD_IA",
    )
    return mirror, buckets, ours, theirs


def keys(client: Any, bucket: str) -> set[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {each["Key"] for page in pages for each in page.get("Contents", ())}


def in_parts(aws: SimulatedAws, mirror: Mirror) -> S3Buckets:
    source = S3Copies(Keys(*aws.credentials()), "us-east-1", mirror.source_bucket)
    return S3Buckets(
        source, S3Copies(Keys(*aws.credentials(OTHER)), EUROPE, mirror.destination_bucket), sizes=IN_PARTS
    )


def calls_since(aws: SimulatedAws, since: int) -> Counter[str]:
    return Counter(call["action"] for call in aws.calls(since))


def test_odd_keys_are_copied_kept_and_deleted(aws: SimulatedAws) -> None:
    mirror, buckets, ours, theirs = two_buckets(aws, destination_prefix="to", delete_extra=True)
    for key in ODD_KEYS:
        ours.put_object(Bucket=mirror.source_bucket, Key=key, Body=key.encode())
    theirs.put_object(Bucket=mirror.destination_bucket, Key="beside", Body=b"x")

    first = slices.run(mirror, buckets, cursor=None, stop=never)
    copied = {
        key: theirs.get_object(Bucket=mirror.destination_bucket, Key=f"to/{key}")["Body"].read()
        for key in ODD_KEYS
    }
    for key in ODD_KEYS:
        ours.delete_object(Bucket=mirror.source_bucket, Key=key)
    second = slices.run(mirror, buckets, cursor=None, stop=never)

    assert (first.finished, first.counts.copied, first.counts.complete) == (True, len(ODD_KEYS), True)
    assert copied == {key: key.encode() for key in ODD_KEYS}
    assert (second.finished, second.counts.deleted) == (True, len(ODD_KEYS))
    assert keys(theirs, mirror.destination_bucket) == {"beside"}


def test_a_copy_has_the_metadata_and_tags_and_the_storage_class_of_the_mirror(aws: SimulatedAws) -> None:
    # Within one account, because moto loses tags on the way to another.
    mirror, buckets, ours, theirs = two_buckets(
        aws, DEFAULT_ACCOUNT, source_prefix="in", keep_source_prefix=True
    )
    ours.put_object(
        Bucket=mirror.source_bucket,
        Key="in/a",
        Body=b"x",
        ContentType="text/x",
        Metadata={"m": "1"},
        Tagging="t=2",
    )
    ours.put_object(Bucket=mirror.source_bucket, Key="inside", Body=b"x")

    slices.run(mirror, buckets, cursor=None, stop=never)

    place = {"Bucket": mirror.destination_bucket, "Key": "in/a"}
    head = theirs.head_object(**place)
    assert keys(theirs, mirror.destination_bucket) == {"in/a"}
    assert (head["ContentType"], head["Metadata"], head["StorageClass"]) == (
        "text/x",
        {"m": "1"},
        "STANDARD_IA",
    )
    assert theirs.get_object_tagging(**place)["TagSet"] == [{"Key": "t", "Value": "2"}]


def test_a_large_object_is_copied_over_slices_and_no_part_twice(aws: SimulatedAws) -> None:
    mirror, _, ours, theirs = two_buckets(aws)
    content = b"".join(bytes([number]) * MIB for number in range(18))
    ours.put_object(
        Bucket=mirror.source_bucket,
        Key="large",
        Body=content,
        ContentType="text/x",
        Metadata={"m": "1"},
        Tagging="t=2",
    )
    buckets, since = in_parts(aws, mirror), aws.last_call()

    first = slices.run(mirror, buckets, cursor=None, stop=lambda: True)
    number = 1
    done = first
    while not done.finished:
        done = slices.run(mirror, in_parts(aws, mirror), cursor=done.cursor, stop=lambda: True)
        number += 1

    place = {"Bucket": mirror.destination_bucket, "Key": "large"}
    got = theirs.get_object(**place)
    called = calls_since(aws, since)
    assert not first.finished and first.cursor is None and number == 4 and done.counts.copied == 1
    assert called["UploadPartCopy"] == 4 and called["CreateMultipartUpload"] == 1
    assert got["Body"].read() == content
    assert (got["ContentType"], got["Metadata"], got["TagCount"]) == ("text/x", {"m": "1"}, 1)
    assert not theirs.list_multipart_uploads(Bucket=mirror.destination_bucket).get("Uploads")


def test_parts_of_an_older_version_are_not_taken(aws: SimulatedAws) -> None:
    mirror, _, ours, theirs = two_buckets(aws)
    place = {"Bucket": mirror.source_bucket, "Key": "large"}
    ours.put_object(**place, Body=b"1" * (11 * MIB))
    slices.run(mirror, in_parts(aws, mirror), cursor=None, stop=lambda: True)
    ours.put_object(**place, Body=b"2" * (11 * MIB))

    done = slices.run(mirror, in_parts(aws, mirror), cursor=None, stop=never)

    got = theirs.get_object(Bucket=mirror.destination_bucket, Key="large")["Body"].read()
    assert done.finished and got == b"2" * (11 * MIB)
    assert not theirs.list_multipart_uploads(Bucket=mirror.destination_bucket).get("Uploads")


def test_a_large_copy_that_is_refused_leaves_no_upload(aws: SimulatedAws) -> None:
    mirror, _, ours, theirs = two_buckets(aws)
    ours.put_object(Bucket=mirror.source_bucket, Key="large", Body=b"1" * (11 * MIB))
    aws.fault(service="s3", action="UploadPartCopy", error="AccessDenied", status=403)

    done = slices.run(mirror, in_parts(aws, mirror), cursor=None, stop=never)

    assert done.finished and done.counts.failed.count == 1
    assert "AccessDenied" in done.counts.failed.first[0][1]
    assert not theirs.list_multipart_uploads(Bucket=mirror.destination_bucket).get("Uploads")


def test_a_list_that_fails_deletes_nothing(aws: SimulatedAws) -> None:
    mirror, buckets, _, theirs = two_buckets(aws, delete_extra=True)
    theirs.put_object(Bucket=mirror.destination_bucket, Key="a", Body=b"x")
    missing = replace(mirror, source_bucket=f"{mirror.source_bucket}-missing")
    absent = s3_buckets.connect(
        missing, reader=Keys(*aws.credentials()), source_region="us-east-1",
        writer=Keys(*aws.credentials(OTHER)), destination_region=EUROPE,
    )  # fmt: skip
    aws.fault(service="s3", action="ListObjectsV2", error="AccessDenied", status=403, region="us-east-1")

    denied = slices.run(mirror, buckets, cursor=None, stop=never)
    aws.clear_faults()
    gone = slices.run(missing, absent, cursor=None, stop=never)

    assert denied.halted and "AccessDenied" in str(denied.halted) and not denied.halted.transient
    assert gone.halted and "NoSuchBucket" in str(gone.halted)
    assert keys(theirs, mirror.destination_bucket) == {"a"}


def test_archived_objects_are_skipped_whether_the_list_knows_it_or_not(aws: SimulatedAws) -> None:
    mirror, buckets, ours, theirs = two_buckets(aws)
    for key, kind in (("a", "STANDARD"), ("b", "GLACIER"), ("c", "STANDARD"), ("d", "STANDARD")):
        ours.put_object(Bucket=mirror.source_bucket, Key=key, Body=b"x", StorageClass=kind)
    aws.fault(service="s3", action="CopyObject", error="InvalidObjectState", status=403, count=1)

    done = slices.run(mirror, buckets, cursor=None, stop=never)

    skipped = done.counts.skipped["archived"]
    assert done.finished and done.counts.copied == 2 and skipped.count == 2
    assert ["b", ""] in skipped.first and keys(theirs, mirror.destination_bucket) < {"a", "c", "d"}


def test_missing_rights_for_tags_cost_the_tags_and_not_the_object(aws: SimulatedAws) -> None:
    mirror, buckets, ours, theirs = two_buckets(aws)
    ours.put_object(Bucket=mirror.source_bucket, Key="a", Body=b"x", Tagging="t=2")
    aws.fault(service="s3", action="CopyObject", error="AccessDenied", status=403, count=1)

    done = slices.run(mirror, buckets, cursor=None, stop=never)

    assert done.finished and done.counts.copied == 1 and done.counts.untagged == 1
    assert not theirs.get_object_tagging(Bucket=mirror.destination_bucket, Key="a")["TagSet"]


def test_lost_answers_change_nothing_wrong(aws: SimulatedAws) -> None:
    mirror, buckets, ours, theirs = two_buckets(aws, delete_extra=True)
    for key in "abc":
        ours.put_object(Bucket=mirror.source_bucket, Key=key, Body=b"x")
        theirs.put_object(Bucket=mirror.destination_bucket, Key=f"{key}-extra", Body=b"x")
    for action in ("CopyObject", "DeleteObjects", "ListObjectsV2"):
        aws.fault(service="s3", action=action, lost_response=True, count=1)

    done = slices.run(mirror, buckets, cursor=None, stop=never)

    assert done.finished and (done.counts.copied, done.counts.deleted) == (3, 3)
    assert keys(theirs, mirror.destination_bucket) == set("abc")
