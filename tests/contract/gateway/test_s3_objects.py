"""Objects of S3 through our own client: against the simulator, against SeaweedFS, and against wrong answers."""

import base64
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from cpm.aws import errors, gateway
from cpm.aws.http_pool import Patience
from cpm.aws.identity import Keys
from cpm.aws.s3_objects import Placement, S3Objects
from tests.contract.gateway import wire as wires
from tests.contract.gateway.wire import Say
from tests.repository import seaweed

KEYS = Keys("AKIA", "secret")
ODD = [
    "plain",
    "with space",
    "a/b//c",
    "plus+and&=?#%",
    "größe/äöü",
    f"{'x' * 200}/{'y' * 200}",
    "dots/.hidden",
    "tilde~_-.",
]


@dataclass
class Server:
    url: str
    keys: Keys
    boto: object


@pytest.fixture(scope="module")
def other_s3(tmp_path_factory):
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as client:
        yield client


@pytest.fixture(params=["simulator", "seaweedfs"])
def server(request):
    if request.param == "simulator":
        aws = request.getfixturevalue("aws")
        return Server(aws.url, Keys(*aws.credentials()), aws.client("s3"))
    boto = request.getfixturevalue("other_s3")
    url = boto.meta.endpoint_url
    gateway.configure(gateway.GatewayConfig(endpoint_url=url))
    return Server(url, Keys(*seaweed.KEYS), boto)


def objects_of(server: Server, *, lock: bool = False, **more) -> S3Objects:
    bucket = f"cpm-{os.urandom(6).hex()}"
    server.boto.create_bucket(Bucket=bucket, **({"ObjectLockEnabledForBucket": True} if lock else {}))
    return S3Objects(server.keys, "us-east-1", bucket, **more)


@pytest.mark.parametrize("checksum", ["crc32", "sha256"])
def test_what_is_put_is_got_whole_and_in_parts(server: Server, checksum: str) -> None:
    objects = objects_of(server, checksum=checksum)
    data = os.urandom(3_000_000)

    etag = objects.put("packs/one", [data[:1_000_000], memoryview(data)[1_000_000:]])
    target = bytearray(2_000_000)
    filled = objects.read_into("packs/one", 2_500_000, memoryview(target))

    assert objects.get("packs/one") == data
    assert objects.get("packs/one", 10, 100) == data[10:110]
    assert objects.get("packs/one", 2_999_990, 100) == data[-10:]
    assert objects.get("packs/one", 2_999_990) == data[-10:]
    assert filled == 500_000 and target[:filled] == data[2_500_000:]
    assert objects.get("packs/one", 5_000_000, 10) == b"" == objects.get("packs/one", 0, 0)
    shown = server.boto.head_object(Bucket=objects.bucket, Key="packs/one")
    assert shown["ContentLength"] == len(data) and shown["ETag"].strip('"') == etag


def test_a_key_is_taken_once(server: Server) -> None:
    objects = objects_of(server)

    objects.put("manifest", b"first", only_if_absent=True)
    with pytest.raises(errors.AlreadyExists):
        objects.put("manifest", b"second", only_if_absent=True)
    objects.put("pointer", b"old")
    objects.put("pointer", b"new")

    assert objects.get("manifest") == b"first" and objects.get("pointer") == b"new"


def test_odd_keys_and_empty_objects(server: Server) -> None:
    objects = objects_of(server)

    for key in ODD:
        objects.put(key, key.encode())
    objects.put("empty", b"")

    # SeaweedFS keeps keys as paths, in which a double slash is none.
    kept = [key for key in ODD if "//" not in key]
    assert {key: bytes(objects.get(key)) for key in kept} == {key: key.encode() for key in kept}
    assert objects.get("empty") == b"" and objects.head("empty").size == 0
    assert {one.key for one in objects.list()} >= {*kept, "empty"}


def test_head_tells_size_and_time_and_absence(server: Server) -> None:
    objects = objects_of(server)
    objects.put("here", b"12345")

    shown = objects.head("here")

    assert (shown.size, shown.storage_class, shown.retrieval) == (5, "STANDARD", None)
    assert abs(datetime.now(UTC) - shown.modified) < timedelta(minutes=5)
    for ask in (objects.head, objects.get, lambda key: objects.get(key, 1, 2)):
        with pytest.raises(errors.NotFound):
            ask("absent")


def test_lists_are_whole_sorted_and_resumable(server: Server) -> None:
    objects = objects_of(server)
    keys = sorted(f"index/{number:05}" for number in range(1203))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: objects.put(key, b"x"), [*keys, "indey", "a"]))

    listed = list(objects.list("index/"))

    assert [one.key for one in listed] == keys
    assert {one.size for one in listed} == {1} and listed[0].modified.tzinfo is not None
    assert [one.key for one in objects.list("index/", after=keys[1100])] == keys[1101:]
    assert list(objects.list("none/")) == []
    assert objects.delete([*keys, "absent"]) == []
    assert [one.key for one in objects.list()] == ["a", "indey"]


def test_locked_objects_stay_and_locks_are_extended(server: Server) -> None:
    objects = objects_of(server, lock=True)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)

    objects.put("locked", b"kept", placement=Placement(retain_until=until, lock_mode="COMPLIANCE"))
    objects.retain("locked", until + timedelta(days=3), "COMPLIANCE")

    shown = objects.head("locked")
    assert (shown.lock_mode, shown.retain_until) == ("COMPLIANCE", until + timedelta(days=3))
    with pytest.raises(server.boto.exceptions.ClientError):
        server.boto.delete_object(Bucket=objects.bucket, Key="locked", VersionId=shown.version)


def test_a_bucket_that_is_not_there_is_not_found(server: Server) -> None:
    objects = S3Objects(server.keys, "us-east-1", "cpm-no-such-bucket")

    with pytest.raises(errors.NotFound) as caught:
        list(objects.list())

    assert caught.value.code == "NoSuchBucket"


def test_wrong_credentials_are_told(server: Server) -> None:
    objects = objects_of(server)
    wrong = S3Objects(Keys("AKIAWRONG", "secret"), "us-east-1", objects.bucket)

    with pytest.raises((errors.BadCredentials, errors.Denied)):
        wrong.get("key")


def test_archived_objects_are_retrieved_before_they_are_read(aws) -> None:
    server = Server(aws.url, Keys(*aws.credentials()), aws.client("s3"))
    objects = objects_of(server)
    objects.put("cold", b"ice", placement=Placement(storage_class="GLACIER"))

    with pytest.raises(errors.InvalidState):
        objects.get("cold")
    objects.restore("cold", days=2, tier="Bulk")
    shown = objects.head("cold")

    assert shown.storage_class == "GLACIER" and shown.retrieval is not None
    assert shown.retrieving or shown.retrieved_until is not None
    assert [one.storage_class for one in objects.list()] == ["GLACIER"]


def test_encryption_is_asked_for(aws) -> None:
    server = Server(aws.url, Keys(*aws.credentials()), aws.client("s3"))
    objects = objects_of(server)
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]

    objects.put("secret", b"data", placement=Placement(encryption="aws:kms", kms_key=key))
    objects.put("managed", b"data", placement=Placement(encryption="AES256", storage_class="STANDARD_IA"))

    secret = server.boto.head_object(Bucket=objects.bucket, Key="secret")
    managed = server.boto.head_object(Bucket=objects.bucket, Key="managed")
    assert secret["ServerSideEncryption"] == "aws:kms" and key in secret["SSEKMSKeyId"]
    assert (managed["ServerSideEncryption"], managed["StorageClass"]) == ("AES256", "STANDARD_IA")


# -- damage and loss --------------------------------------------------------------------------------------

DATA = os.urandom(100_000)
CRC = base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
FLIPPED = DATA[:-1] + bytes([DATA[-1] ^ 128])


def objects_at(wire: wires.Wire) -> S3Objects:
    gateway.configure(gateway.GatewayConfig(endpoint_url=wire.url, connect_timeout=3, read_timeout=2))
    objects = S3Objects(KEYS, "eu-west-1", "bucket")
    objects.pool.patience = Patience(attempts=3, seconds=10, first_pause=0.01)
    return objects


WHOLE = {
    "flipped bit": Say(body=FLIPPED, headers={"ETag": '"e"', "x-amz-checksum-crc32": CRC}),
    "cut": Say(body=DATA, headers={"ETag": '"e"'}, cut=500),
    "a proxy's page": Say(body=b"<html>Log in"),
    "slow down": Say(503, b"<Error><Code>SlowDown</Code><Message>slower</Message></Error>"),
}


@pytest.mark.parametrize("wrong", WHOLE.values(), ids=WHOLE)
def test_a_wrong_object_is_asked_for_again(wrong: Say) -> None:
    right = Say(body=DATA, headers={"ETag": '"e"', "x-amz-checksum-crc32": CRC})
    with wires.running(lambda seen, number: right if number else wrong) as wire:
        assert objects_at(wire).get("key") == DATA

    assert len(wire.seen) == 2 and wire.seen[0].path == "/bucket/key"


@pytest.mark.parametrize(
    ("body", "told"),
    [(DATA[10:20], "bytes 11-20/100000"), (DATA[10:19], "bytes 10-18/100000"), (DATA, "")],
    ids=["other place", "too short", "the whole object"],
)
def test_another_part_than_was_asked_for_is_an_error(body: bytes, told: str) -> None:
    headers = {"ETag": '"e"', **({"Content-Range": told} if told else {})}
    say = Say(206 if told else 200, body, headers)
    with wires.running(lambda seen, number: say) as wire, pytest.raises(errors.Unreachable):
        objects_at(wire).get("key", 10, 10)

    assert wire.seen[0].headers["range"] == "bytes=10-19"


@pytest.mark.parametrize("there", [DATA, FLIPPED], ids=["its own", "another's"])
def test_a_put_whose_answer_was_lost_knows_its_own_object(there: bytes) -> None:
    taken = Say(412, b"<Error><Code>PreconditionFailed</Code><Message>At least one</Message></Error>")
    shown = Say(body=there, headers={"ETag": '"e"', "Last-Modified": "Sat, 21 Nov 2026 09:00:00 GMT"})
    answers = [Say(reset=True), taken, shown, shown]
    with wires.running(lambda seen, number: answers[number]) as wire:
        objects = objects_at(wire)
        if there == DATA:
            assert objects.put("key", DATA, only_if_absent=True) == "e"
        else:
            with pytest.raises(errors.AlreadyExists):
                objects.put("key", DATA, only_if_absent=True)

    assert [one.method for one in wire.seen] == ["PUT", "PUT", "HEAD", "GET"]
    assert [one.headers["if-none-match"] for one in wire.seen[:2]] == ["*", "*"]


def test_a_key_that_is_taken_is_not_compared_without_reason() -> None:
    taken = Say(412, b"<Error><Code>PreconditionFailed</Code><Message>At least one</Message></Error>")
    with wires.running(lambda seen, number: taken) as wire, pytest.raises(errors.AlreadyExists):
        objects_at(wire).put("key", DATA, only_if_absent=True)

    assert len(wire.seen) == 1


def test_a_put_that_a_proxy_answered_is_not_done() -> None:
    with (
        wires.running(lambda seen, number: Say(body=b"<html>Log in")) as wire,
        pytest.raises(errors.Unreachable),
    ):
        objects_at(wire).put("key", DATA)


def test_what_could_not_be_deleted_is_told() -> None:
    told = (
        b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error><Key>b</Key><Code>AccessDenied</Code>'
        b"<Message>locked</Message></Error></DeleteResult>"
    )
    with wires.running(lambda seen, number: Say(body=told)) as wire:
        ((key, error),) = objects_at(wire).delete(["a", "b", "<&>"])

    assert key == "b" and isinstance(error, errors.Denied) and error.message == "locked"
    assert b"<Key>&lt;&amp;&gt;</Key>" in wire.seen[0].body


def test_what_could_not_be_deleted_this_time_is_deleted_the_next() -> None:
    busy = b"<DeleteResult><Error><Key>b</Key><Code>InternalError</Code><Message>busy</Message></Error></DeleteResult>"
    with wires.running(lambda seen, number: Say(body=b"<DeleteResult/>" if number == 2 else busy)) as wire:
        assert objects_at(wire).delete(["a", "b"]) == []
    with (
        wires.running(lambda seen, number: Say(body=busy)) as stuck,
        pytest.raises(errors.Unreachable, match="busy"),
    ):
        objects_at(stuck).delete(["a", "b"])

    assert len(wire.seen) == 3


@pytest.mark.parametrize(
    "answer",
    [b"<html/>", b"", b"not xml", b'<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult/>'],
    ids=range(4),
)
def test_what_is_no_list_is_never_an_empty_one(answer: bytes) -> None:
    with wires.running(lambda seen, number: Say(body=answer)) as wire, pytest.raises(errors.Unreachable):
        list(objects_at(wire).list())


def test_buckets_are_addressed_as_botocore_does() -> None:
    gateway.configure(gateway.GatewayConfig())

    plain = S3Objects(KEYS, "eu-west-1", "my-bucket").pool
    dotted = S3Objects(KEYS, "us-gov-west-1", "my.bucket").pool

    assert plain._route.authority == "my-bucket.s3.eu-west-1.amazonaws.com" and plain._prefix == ""
    assert dotted._route.authority == "s3.us-gov-west-1.amazonaws.com" and dotted._prefix == "/my.bucket"
    assert plain.secure
