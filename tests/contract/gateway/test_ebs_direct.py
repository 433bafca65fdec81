"""Blocks of snapshots through our own client: against the simulator, and against answers that are wrong."""

import base64
import hashlib
import json
import os
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from cpm.aws import errors, gateway
from cpm.aws.ebs_direct import BLOCK, Changed, EbsDirect
from cpm.aws.http_pool import Patience
from cpm.aws.identity import AssumedRole, Keys
from cpm.aws.linear_checksum import LinearChecksum
from tests import simulated_aws
from tests.contract.gateway import wire as wires
from tests.contract.gateway.wire import Say
from tests.simulated_aws import SimulatedAws, wait_for

SNAPSHOT = "snap-0123456789abcdef0"
CONTENT = os.urandom(BLOCK)


def keys_of(aws: SimulatedAws, account: str | None = None) -> Keys:
    return Keys(*aws.credentials(account), account_number=account or simulated_aws.DEFAULT_ACCOUNT)


def direct(aws: SimulatedAws, **more) -> EbsDirect:
    ebs = EbsDirect(keys_of(aws), simulated_aws.REGION, **more)
    ebs.pool.patience = Patience(attempts=4, seconds=20, first_pause=0.02)
    return ebs


def volume_with(aws: SimulatedAws, blocks: dict[int, bytes]) -> str:
    volume = aws.volume(size=1)
    for index, data in blocks.items():
        aws.write(volume, data, index * BLOCK)
    return volume


def snapshot_of(aws: SimulatedAws, volume: str) -> str:
    ec2 = aws.client("ec2")
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    wait_for(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed")
    return snapshot


def some_blocks(*indexes: int) -> dict[int, bytes]:
    return {index: os.urandom(BLOCK) for index in indexes}


def test_a_snapshot_is_listed_and_read_block_by_block(aws: SimulatedAws) -> None:
    blocks = some_blocks(0, 3, 700, 2047)
    snapshot = snapshot_of(aws, volume_with(aws, blocks))
    ebs = direct(aws)

    listed = list(ebs.list_blocks(snapshot))
    with ebs.read_blocks(snapshot, listed) as reading:
        read = {index: bytes(data) for index, data in reading}

    assert [index for index, _ in listed] == [0, 3, 700, 2047]
    assert [index for index, _ in ebs.list_blocks(snapshot, 4)] == [700, 2047]
    assert read == blocks
    assert bytes(ebs.get_block(snapshot, *listed[2])) == blocks[700]


def test_the_memory_of_a_block_that_is_given_back_is_used_again(aws: SimulatedAws) -> None:
    blocks = some_blocks(0, 1, 2)
    snapshot = snapshot_of(aws, volume_with(aws, blocks))
    ebs = direct(aws)
    refs = list(ebs.list_blocks(snapshot))
    first = ebs.get_block(snapshot, *refs[0])
    kept = ebs.get_block(snapshot, *refs[1])

    ebs.recycle(first)
    third = ebs.get_block(snapshot, *refs[2])

    assert isinstance(first, memoryview) and isinstance(third, memoryview)
    assert third.obj is first.obj and bytes(third) == blocks[2]
    assert bytes(kept) == blocks[1]


def test_differences_are_listed_from_where_they_are_wanted(aws: SimulatedAws) -> None:
    volume = volume_with(aws, some_blocks(1, 2, 3))
    first = snapshot_of(aws, volume)
    changed = some_blocks(2, 9)
    for index, data in changed.items():
        aws.write(volume, data, index * BLOCK)
    second = snapshot_of(aws, volume)
    ebs = direct(aws)

    found = list(ebs.list_changed_blocks(first, second))
    back = list(ebs.list_changed_blocks(second, first, 3))
    with ebs.read_blocks(second, [(one.index, one.second) for one in found]) as reading:
        read = {index: bytes(data) for index, data in reading}

    assert [one.index for one in found] == [2, 9] and found[1].first is None
    assert [(one.index, one.second) for one in back] == [(9, None)]
    assert isinstance(back[0], Changed) and read == changed


def test_pages_follow_each_other_and_one_that_repeats_is_an_error() -> None:
    def script(seen, number):
        query = parse_qs(urlsplit(seen.path).query)
        page = int(query.get("pageToken", ["0"])[0])
        blocks = [{"BlockIndex": page * 100 + n, "BlockToken": "t"} for n in range(100)]
        assert query["maxResults"] == ["10000"]
        return Say(
            body=json.dumps(
                {"Blocks": blocks, "BlockSize": BLOCK, "NextToken": str(min(page + 1, 3))}
            ).encode()
        )

    with wires.running(script) as wire:
        listed = ebs_to(wire).list_blocks(SNAPSHOT)
        first = [next(listed)[0] for _ in range(400)]
        with pytest.raises(errors.Unknown, match="repeats"):
            next(listed)

    assert first == list(range(400))


def test_a_list_that_goes_back_is_an_error() -> None:
    def script(seen, number):
        token = {"NextToken": "1"} if number == 0 else {}
        return Say(
            body=json.dumps(
                {"Blocks": [{"BlockIndex": 7, "BlockToken": "t"}], "BlockSize": BLOCK, **token}
            ).encode()
        )

    with wires.running(script) as wire, pytest.raises(errors.Unknown, match="go forward"):
        list(ebs_to(wire).list_blocks(SNAPSHOT))


def test_a_page_without_blocks_is_not_the_end() -> None:
    """EBS: a page may be empty although more follow."""
    pages = [
        {"Blocks": [], "NextToken": "1"},
        {"Blocks": [{"BlockIndex": 5, "BlockToken": "t"}], "NextToken": "2"},
        {"Blocks": []},
    ]
    with wires.running(
        lambda seen, n: Say(body=json.dumps({"BlockSize": BLOCK, **pages[n]}).encode())
    ) as wire:
        listed = list(ebs_to(wire).list_blocks(SNAPSHOT))

    assert listed == [(5, "t")]


def test_other_block_sizes_and_pages_of_a_proxy_are_no_lists() -> None:
    strange = [Say(body=b"<html>Log in"), Say(body=b"{}"), Say(body=b'{"BlockSize": 4096, "Blocks": []}')]
    for say in strange:
        with wires.running(lambda seen, number, say=say: say) as wire, pytest.raises(errors.AwsError):
            list(ebs_to(wire).list_blocks(SNAPSHOT))


# -- damage and loss --------------------------------------------------------------------------------------


def ebs_to(wire: wires.Wire) -> EbsDirect:
    gateway.configure(gateway.GatewayConfig(endpoint_url=wire.url, connect_timeout=3, read_timeout=2))
    ebs = EbsDirect(Keys("AKIA", "secret"), "eu-west-1")
    ebs.pool.patience = Patience(attempts=3, seconds=10, first_pause=0.01)
    return ebs


def block_answer(data: bytes, **headers: str) -> Say:
    told = {
        "x-amz-Data-Length": str(BLOCK),
        "x-amz-Checksum": base64.b64encode(hashlib.sha256(CONTENT).digest()).decode(),
        "x-amz-Checksum-Algorithm": "SHA256",
    }
    return Say(body=data, headers={**told, **headers})


FLIPPED = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
WRONG = {
    "flipped bit": block_answer(FLIPPED),
    "short": block_answer(CONTENT[:-1]),
    "no checksum": Say(body=CONTENT),
    "other algorithm": block_answer(CONTENT, **{"x-amz-Checksum-Algorithm": "MD5"}),
    "other length": block_answer(CONTENT, **{"x-amz-Data-Length": "4096"}),
    "a proxy's page": Say(body=b"<html>Log in", headers={"Content-Type": "text/html"}),
    "cut": Say(body=CONTENT, headers=block_answer(b"").headers, cut=1000),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_block_is_asked_for_again(wrong: Say) -> None:
    with wires.running(lambda seen, number: block_answer(CONTENT) if number else wrong) as wire:
        assert ebs_to(wire).get_block(SNAPSHOT, 1, "token") == CONTENT

    assert len(wire.seen) == 2


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_block_that_stays_wrong_is_never_given_out(wrong: Say) -> None:
    with wires.running(lambda seen, number: wrong) as wire:
        ebs = ebs_to(wire)
        with pytest.raises(errors.Unreachable):
            ebs.get_block(SNAPSHOT, 1, "token")
        with pytest.raises(errors.Unreachable), ebs.read_blocks(SNAPSHOT, [(1, "token")]) as reading:
            list(reading)

    assert len(wire.seen) == 6


def test_a_block_that_is_stored_with_another_checksum_is_sent_again() -> None:
    right = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(FLIPPED).digest()).decode()

    def script(seen, number):
        assert seen.headers["x-amz-checksum"] == right and "x-amz-checksum" in seen.headers["authorization"]
        assert seen.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        return Say(201, b"", {"x-amz-Checksum": right if number else wrong})

    with wires.running(script) as wire:
        assert ebs_to(wire).put_block(SNAPSHOT, 1, CONTENT) == hashlib.sha256(CONTENT).digest()

    assert len(wire.seen) == 2


@pytest.mark.parametrize("reason", ["CONFLICTING_BLOCK_UPDATE", "WRITE_REQUEST_TIMEOUT"])
def test_a_block_whose_earlier_try_is_still_being_written_waits(reason: str) -> None:
    right = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    refusal = Say(
        400,
        json.dumps({"Reason": reason, "Message": "busy"}).encode(),
        {"x-amzn-ErrorType": "ValidationException"},
    )
    with wires.running(lambda seen, n: Say(201, b"", {"x-amz-Checksum": right}) if n else refusal) as wire:
        ebs_to(wire).put_block(SNAPSHOT, 1, CONTENT)

    assert len(wire.seen) == 2


def test_reading_goes_on_through_storms_and_lost_answers(aws: SimulatedAws) -> None:
    blocks = some_blocks(*range(40))
    snapshot = snapshot_of(aws, volume_with(aws, blocks))
    ebs = direct(aws)
    aws.fault(service="ebs", action="GetSnapshotBlock", error="RequestThrottledException", probability=0.3)
    aws.fault(service="ebs", action="GetSnapshotBlock", lost_response=True, count=5)
    aws.fault(
        service="ebs", action="ListSnapshotBlocks", error="InternalServerException", status=500, count=1
    )

    with ebs.read_blocks(snapshot, ebs.list_blocks(snapshot)) as reading:
        read = {index: bytes(data) for index, data in reading}

    assert read == blocks
    assert ebs.pool.in_flight.cuts > 0


def test_expired_tokens_are_replaced_by_a_new_list(aws: SimulatedAws) -> None:
    blocks = some_blocks(*range(12))
    snapshot = snapshot_of(aws, volume_with(aws, blocks))
    ebs = direct(aws)
    aws.limits(block_token_seconds=1)
    refs = list(ebs.list_blocks(snapshot))
    aws.limits(block_token_seconds=600)
    time.sleep(2.1)
    since = aws.last_call()

    with pytest.raises(errors.Invalid, match="INVALID_BLOCK_TOKEN"):
        ebs.get_block(snapshot, *refs[0])
    with ebs.read_blocks(snapshot, refs) as reading:
        read = {index: bytes(data) for index, data in reading}

    assert read == blocks
    lists = [call for call in aws.calls(since) if call["action"] == "ListSnapshotBlocks"]
    assert 1 <= len(lists) <= 2


def test_a_token_of_a_block_that_is_not_there_stays_an_error(aws: SimulatedAws) -> None:
    snapshot = snapshot_of(aws, volume_with(aws, some_blocks(1)))
    ebs = direct(aws)

    with pytest.raises(errors.Invalid), ebs.read_blocks(snapshot, [(5, "bm9uZQ==")]) as reading:
        list(reading)


def test_a_missing_snapshot_is_not_found_and_a_foreign_one_too(aws: SimulatedAws) -> None:
    ebs = direct(aws)

    with pytest.raises(errors.NotFound) as caught:
        list(ebs.list_blocks(SNAPSHOT))
    with pytest.raises(ValueError, match="not the id"):
        next(ebs.list_blocks("snap-1/../../volumes"))

    assert caught.value.code == "ResourceNotFoundException" and SNAPSHOT in caught.value.message


# -- writing ----------------------------------------------------------------------------------------------


def test_a_snapshot_is_written_with_every_checksum(aws: SimulatedAws) -> None:
    blocks = some_blocks(*range(0, 200, 5))
    ebs, total = direct(aws), LinearChecksum()
    begun = ebs.start_snapshot(1, client_token="once", tags={"cpm_server_id": "s"}, description="restored")
    again = ebs.start_snapshot(1, client_token="once", tags={"cpm_server_id": "s"}, description="restored")

    with ebs.write_blocks(begun["SnapshotId"], blocks.items(), total) as writing:
        digests = dict(writing)
    with pytest.raises(errors.Invalid):
        ebs.complete_snapshot(begun["SnapshotId"], total.count, hashlib.sha256(b"other").digest())
    with pytest.raises(errors.Invalid):
        ebs.complete_snapshot(begun["SnapshotId"], total.count + 1, total.digest())
    ebs.complete_snapshot(begun["SnapshotId"], total.count, total.digest())

    assert again["SnapshotId"] == begun["SnapshotId"] and begun["BlockSize"] == BLOCK
    assert digests == {index: hashlib.sha256(data).digest() for index, data in blocks.items()}
    shown = aws.client("ec2").describe_snapshots(SnapshotIds=[begun["SnapshotId"]])["Snapshots"][0]
    assert {"Key": "cpm_server_id", "Value": "s"} in shown["Tags"] and shown["Description"] == "restored"
    for index, data in blocks.items():
        assert aws.read(begun["SnapshotId"], index * BLOCK, BLOCK) == data


def test_writing_goes_on_through_storms_and_lost_answers(aws: SimulatedAws) -> None:
    blocks = some_blocks(*range(30))
    ebs, total = direct(aws), LinearChecksum()
    aws.fault(service="ebs", action="StartSnapshot", lost_response=True, count=1)
    aws.fault(service="ebs", action="PutSnapshotBlock", error="RequestThrottledException", probability=0.3)
    aws.fault(service="ebs", action="PutSnapshotBlock", lost_response=True, count=4)
    aws.fault(service="ebs", action="CompleteSnapshot", lost_response=True, count=1)

    begun = ebs.start_snapshot(1, client_token="stormy")["SnapshotId"]
    with ebs.write_blocks(begun, blocks.items(), total) as writing:
        list(writing)
    status = ebs.complete_snapshot(begun, total.count, total.digest())

    assert status in ("pending", "completed")
    assert len(aws.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1
    for index, data in blocks.items():
        assert aws.read(begun, index * BLOCK, BLOCK) == data


def test_encryption_and_parents(aws: SimulatedAws) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    base = some_blocks(1, 2)
    parent = snapshot_of(aws, volume_with(aws, base))
    ebs = direct(aws)

    secret = ebs.start_snapshot(1, client_token="a", encrypted=True, kms_key=key)
    child = ebs.start_snapshot(1, client_token="b", parent=parent, encrypted=True)
    change = os.urandom(BLOCK)
    ebs.put_block(child["SnapshotId"], 2, change, progress=100)
    ebs.complete_snapshot(child["SnapshotId"], 1)

    assert secret["KmsKeyArn"] == key and child["ParentSnapshotId"] == parent
    assert aws.read(child["SnapshotId"], BLOCK, 2 * BLOCK) == base[1] + change


def test_a_block_of_another_size_is_refused_before_it_is_sent(aws: SimulatedAws) -> None:
    since = aws.last_call()

    with pytest.raises(ValueError, match="bytes"):
        direct(aws).put_block(SNAPSHOT, 0, b"short")

    assert aws.calls(since) == []


def test_an_error_among_many_writes_ends_them(aws: SimulatedAws) -> None:
    ebs = direct(aws)
    begun = ebs.start_snapshot(1, client_token="end")["SnapshotId"]
    aws.fault(service="ebs", action="PutSnapshotBlock", error="AccessDeniedException", status=403, count=1)

    with pytest.raises(errors.Denied), ebs.write_blocks(begun, some_blocks(*range(20)).items()) as writing:
        list(writing)


def test_roles_are_assumed_and_sign_the_requests(aws: SimulatedAws) -> None:
    other = "222222222222"
    aws.credentials(other)
    role = aws.client("iam", account=other).create_role(
        RoleName="cpm",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
            }
        ),
    )["Role"]["Arn"]
    volume = aws.volume(account=other)
    aws.write(volume, CONTENT)
    snapshot = aws.client("ec2", account=other).create_snapshot(VolumeId=volume)["SnapshotId"]
    ebs = EbsDirect(AssumedRole(keys_of(aws), role), simulated_aws.REGION)

    with ebs.read_blocks(snapshot, ebs.list_blocks(snapshot)) as reading:
        read = list(reading)

    assert [(index, bytes(data)) for index, data in read] == [(0, CONTENT)]
    with pytest.raises(errors.NotFound):
        list(direct(aws).list_blocks(snapshot))
