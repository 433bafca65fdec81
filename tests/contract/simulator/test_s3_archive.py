"""Archived objects: unreadable, then being retrieved, then readable until their days are over."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulated_aws import wait_for

BUCKET = "cold-things"


def cold(aws: Any, storage_class: str = "GLACIER") -> Any:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="a/b c", Body=b"ice", StorageClass=storage_class)
    return s3


def ask(s3: Any, days: int = 2, tier: str = "Standard") -> int:
    request = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
    answer = s3.restore_object(Bucket=BUCKET, Key="a/b c", RestoreRequest=request)
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    code: str = caught.value.response["Error"]["Code"]
    return code


def restore_header(s3: Any) -> str | None:
    found: str | None = s3.head_object(Bucket=BUCKET, Key="a/b c").get("Restore")
    return found


def test_a_retrieval_takes_its_time_and_what_it_brings_goes_again(aws: Any) -> None:
    s3 = cold(aws)
    aws.timing(retrieval_seconds=0.5, archive_day_seconds=0.4)

    assert refused(s3.get_object, Bucket=BUCKET, Key="a/b c") == "InvalidObjectState"
    assert restore_header(s3) is None
    assert ask(s3) == 202
    assert restore_header(s3) == 'ongoing-request="true"'
    assert refused(ask, s3) == "RestoreAlreadyInProgress"
    assert refused(s3.get_object, Bucket=BUCKET, Key="a/b c") == "InvalidObjectState"
    wait_for(lambda: "expiry-date" in (restore_header(s3) or ""))
    assert s3.get_object(Bucket=BUCKET, Key="a/b c")["Body"].read() == b"ice"
    wait_for(lambda: restore_header(s3) is None)
    assert refused(s3.get_object, Bucket=BUCKET, Key="a/b c") == "InvalidObjectState"


def test_asking_again_lets_it_stay_longer(aws: Any) -> None:
    s3 = cold(aws, "DEEP_ARCHIVE")
    assert ask(s3, days=1, tier="Bulk") == 202
    before = restore_header(s3)

    assert ask(s3, days=9) == 200
    assert restore_header(s3) != before


def test_what_s3_does_not_offer_is_refused(aws: Any) -> None:
    s3 = cold(aws, "DEEP_ARCHIVE")
    s3.put_object(Bucket=BUCKET, Key="warm", Body=b"water")
    warm = {"Days": 1, "GlacierJobParameters": {"Tier": "Bulk"}}

    assert refused(ask, s3, tier="Expedited") == "InvalidArgument"
    assert refused(ask, s3, days=0) == "MalformedXML"
    assert refused(s3.restore_object, Bucket=BUCKET, Key="warm", RestoreRequest=warm) == "InvalidObjectState"
    assert refused(s3.restore_object, Bucket=BUCKET, Key="gone", RestoreRequest=warm) == "NoSuchKey"
