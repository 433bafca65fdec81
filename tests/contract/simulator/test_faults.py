"""The control endpoint's faults, call log and timing. Our own design, except where a docstring names AWS."""

import time

import pytest
import requests
from botocore.exceptions import ClientError, HTTPClientError

from tests.simulated_aws import SimulatedAws, wait_for

OTHER = "210987654321"


def test_fault_strikes_as_often_as_told_and_only_where_told(aws: SimulatedAws, refused) -> None:
    ec2 = aws.client("ec2")
    aws.fault(action="Describe*", region="us-east-1", account="123456789012", error="Unavailable", count=2)

    for _ in range(2):
        with refused("Unavailable"):
            ec2.describe_volumes()

    ec2.describe_volumes()
    aws.fault(action="DescribeVolumes", account=OTHER, error="Unavailable")
    ec2.describe_volumes()
    with refused("Unavailable"):
        aws.client("ec2", account=OTHER).describe_volumes()
    aws.clear_faults()
    aws.client("ec2", account=OTHER).describe_volumes()


def test_lost_response_is_executed_all_the_same(aws: SimulatedAws) -> None:
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.fault(action="CreateSnapshot", lost_response=True, count=1)

    with pytest.raises(HTTPClientError):
        ec2.create_snapshot(VolumeId=volume)

    assert len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_list_lag_hides_what_is_young(aws: SimulatedAws, refused) -> None:
    """AWS: EC2 API Reference, Eventual consistency."""
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.fault(action="DescribeSnapshots", list_lag_seconds=0.5)

    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]

    assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    with refused("InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[snapshot])
    wait_for(lambda: len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1)


def test_throttling_answers_request_limit_exceeded(aws: SimulatedAws) -> None:
    """AWS: EC2 API Reference, Request throttling."""
    ec2 = aws.client("ec2")
    aws.fault(service="ec2", rate_per_second=5)
    codes = []

    for _ in range(12):
        try:
            ec2.describe_volumes()
        except ClientError as error:
            codes.append(
                (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
            )

    assert set(codes) == {("RequestLimitExceeded", 503)} and 3 <= len(codes) <= 7


def test_latency_delays_the_call(aws: SimulatedAws) -> None:
    ec2 = aws.client("ec2")
    ec2.describe_volumes()
    aws.fault(action="DescribeVolumes", latency_seconds=0.3, count=1)

    started = time.monotonic()
    ec2.describe_volumes()

    assert time.monotonic() - started >= 0.3


def test_every_call_is_logged_with_its_caller_and_its_error(aws: SimulatedAws) -> None:
    since = aws.last_call()
    ec2 = aws.client("ec2", "eu-west-1", OTHER)

    with pytest.raises(ClientError):
        ec2.delete_snapshot(SnapshotId="snap-0123456789abcdef0")
    aws.client("ebs").start_snapshot(VolumeSize=1)

    first, second = aws.calls(since)
    assert (first["service"], first["action"], first["account"], first["region"], first["error"]) == (
        "ec2",
        "DeleteSnapshot",
        OTHER,
        "eu-west-1",
        "InvalidSnapshot.NotFound",
    )
    assert first["ids"] == {"SnapshotId": "snap-0123456789abcdef0"} and first["seq"] == since + 1
    assert (second["action"], second["error"]) == ("StartSnapshot", None)
    assert aws.count(since)["total"] == 2


def test_objects_show_everything_with_tags(aws: SimulatedAws) -> None:
    ec2 = aws.client("ec2")
    instance, _ = aws.instance()
    ec2.create_tags(Resources=[instance], Tags=[{"Key": "step", "Value": "9"}])

    found = aws.objects()

    assert found["counts"] == {"volumes": 1, "snapshots": 1, "images": 1, "instances": 1}
    assert found["instances"][0]["tags"] == {"step": "9"} and found["volumes"][0]["account"] == "123456789012"


def test_deleted_data_leaves_the_disk(aws: SimulatedAws) -> None:
    ec2 = aws.client("ec2")
    volume = aws.volume()
    aws.write(volume, bytes(range(256)) * 8192)
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    stored = aws.control("GET", "/health")["stored_bytes"]

    ec2.delete_volume(VolumeId=volume)
    still = aws.control("GET", "/health")["stored_bytes"]
    ec2.delete_snapshot(SnapshotId=snapshot)

    assert stored == still > 0 == aws.control("GET", "/health")["stored_bytes"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/faults", {"action": "X"}),
        ("POST", "/faults", {"nonsense": 1}),
        ("POST", "/timing", {"nonsense": 1}),
        ("POST", "/timing", {"snapshot_seconds": -1}),
        ("POST", "/accounts", {"account_number": "12"}),
        ("GET", "/volumes/vol-0/content", None),
        ("GET", "/nowhere", None),
    ],
)
def test_control_refuses_what_makes_no_sense(
    aws: SimulatedAws, method: str, path: str, body: dict | None
) -> None:
    response = requests.request(method, aws.control_url + path, json=body, timeout=10)

    assert response.status_code in (400, 404) and response.json()["message"]


def test_contents_of_databases_are_opaque_bytes(aws: SimulatedAws) -> None:
    url = f"{aws.control_url}/contents/arn:aws:rds:us-east-1:123456789012:db:orders/x"

    written = requests.put(url, data=b"\x00{rows}", timeout=10)

    assert written.json() == {"bytes": 7}
    assert requests.get(url, timeout=10).content == b"\x00{rows}"
    assert requests.get(url + "y", timeout=10).content == b""
