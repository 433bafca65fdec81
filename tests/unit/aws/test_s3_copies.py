"""Server-side copies: what is asked of S3, and answers that say 200 and mean no. The pool is replaced at the gateway."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cpm.aws import errors, gateway, s3_copies
from cpm.aws.answers import Damaged
from cpm.aws.errors import AwsError
from cpm.aws.http_connection import Answer
from cpm.aws.http_pool import Request
from cpm.aws.identity import Keys
from cpm.aws.s3_copies import Origin, S3Copies
from cpm.aws.translate import Call, from_botocore
from cpm.s3_sync.iam_actions import IAM_ACTIONS, NEEDS

ORIGIN = Origin("from", "ä b", "etag")


class Pool:
    """Answers every request with the same text, and remembers the requests."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sent: list[Request] = []

    def send(self, request: Request) -> Answer:
        self.sent.append(request)
        answer = Answer(200, {}, bytearray(self.text.encode()))
        if request.check is not None:
            request.check(answer)
        return answer

    def told(self, action: str, code: str, message: str) -> AwsError:
        told = {"Error": {"Code": code, "Message": message}}
        return from_botocore(ClientError(told, action), Call("s3", action, "us-east-1"))


@pytest.fixture
def saying(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Pool, S3Copies]]:
    def build(text: str) -> tuple[Pool, S3Copies]:
        pool = Pool(text)
        monkeypatch.setattr(gateway, "pool", lambda *_: pool)
        return pool, S3Copies(Keys("a", "b"), "us-east-1", "to")

    return build


def test_a_copy_is_of_the_version_that_was_listed(saying: Callable) -> None:
    pool, copies = saying("<CopyObjectResult/>")

    copies.copy(ORIGIN, "to this", storage_class="STANDARD_IA", tags=True)

    sent = pool.sent[0]
    assert sent.path == "/to%20this"
    assert sent.headers == {
        "x-amz-copy-source": "from/%C3%A4%20b",
        "x-amz-copy-source-if-match": '"etag"',
        "x-amz-metadata-directive": "COPY",
        "x-amz-tagging-directive": "COPY",
        "x-amz-storage-class": "STANDARD_IA",
    }


def test_a_failure_within_a_good_status_is_a_failure(saying: Callable) -> None:
    _, copies = saying("\n\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
    _, busy = saying("<Error><Code>SlowDown</Code></Error>")

    with pytest.raises(errors.Denied):
        copies.copy(ORIGIN, "a", storage_class="STANDARD", tags=True)
    # The pool repeats a request whose answer is damaged.
    with pytest.raises(Damaged):
        busy.copy(ORIGIN, "a", storage_class="STANDARD", tags=True)


def test_a_page_of_a_proxy_is_no_empty_list(saying: Callable) -> None:
    _, copies = saying("<html><body>Sign in</body></html>")

    with pytest.raises(Damaged):
        copies.page("", None, None)


def test_a_cut_list_without_a_way_on_is_an_error(saying: Callable) -> None:
    _, copies = saying("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>")

    with pytest.raises(AwsError, match="MissingToken"):
        copies.page("", None, None)


def test_retrieved_objects_count_as_readable_while_they_are(saying: Callable) -> None:
    entry = (
        "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag>"
        "<StorageClass>GLACIER</StorageClass>{}</Contents>"
    )
    until = "<RestoreStatus><RestoreExpiryDate>{}</RestoreExpiryDate></RestoreStatus>"
    listed = [
        entry.format("a%20+b", ""),
        entry.format("b", until.format("2999-01-01T00:00:00.000Z")),
        entry.format("c", until.format("2026-01-02T00:00:00.000Z")),
    ]
    pool, copies = saying(
        f"<ListBucketResult><EncodingType>url</EncodingType>{''.join(listed)}</ListBucketResult>"
    )

    found, _ = copies.page("", None, None)

    assert [(one.key, one.archived) for one in found] == [("a  b", True), ("b", False), ("c", True)]
    assert pool.sent[0].headers == {"x-amz-optional-object-attributes": "RestoreStatus"}


def test_keys_that_are_not_deleted_are_told_and_those_beyond_xml_go_alone(saying: Callable) -> None:
    refusal = "<Error><Key>a</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
    pool, copies = saying(f"<DeleteResult>{refusal}</DeleteResult>")

    refused = copies.delete(["a", "b\r\n<&", "c\x01"])

    batch, alone = pool.sent
    assert [(key, type(error)) for key, error in refused] == [("a", errors.Denied)]
    assert b"<Key>b&#13;&#10;&lt;&amp;</Key>" in bytes(batch.body[0])
    assert b"c\x01" not in bytes(batch.body[0])
    assert (alone.action, alone.method, alone.path) == ("DeleteObject", "DELETE", "/c%01")


def test_every_request_has_its_rights_declared() -> None:
    tree = ast.walk(ast.parse(Path(s3_copies.__file__).read_text()))
    calls = [node for node in tree if isinstance(node, ast.Call) and node.args]
    requested = {
        node.args[0].value
        for node in calls
        if isinstance(node.args[0], ast.Constant)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"Request", "_ask", "_with_body"}
    }

    assert requested == set(NEEDS)
    assert frozenset().union(*NEEDS.values()) == {one.action for one in IAM_ACTIONS}
