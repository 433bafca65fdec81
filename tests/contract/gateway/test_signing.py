"""The signatures of block I/O are those that botocore itself computes for the same requests."""

from datetime import UTC, datetime
from urllib.parse import unquote

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from cpm.aws.signing import EMPTY, UNSIGNED, Signer, path_of, query_of

MOMENT = datetime(2026, 11, 21, 9, 30, 59, tzinfo=UTC)
HOST = "bucket.s3.eu-west-1.amazonaws.com"
CREDENTIALS = st.builds(
    ReadOnlyCredentials,
    st.just("AKIAEXAMPLE"),
    st.text("abcdefgh/+1234", min_size=1, max_size=40),
    st.none() | st.text("token+/=", min_size=1, max_size=300),
)
KEYS = st.text(min_size=1, max_size=40).filter(lambda key: not key.startswith("/"))


def by_botocore(kind, credentials, service, method, path, query, headers, payload) -> str:
    url = f"https://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=method, url=url, headers={**headers, "X-Amz-Content-SHA256": payload})
    auth = kind(credentials, service, "eu-west-1")
    # S3's own variant would hash the body again; here the hash is given.
    auth.payload = lambda request: payload
    auth.add_auth(request)
    return request.headers["Authorization"]


@pytest.fixture(autouse=True, scope="module")
def clock():
    patch = pytest.MonkeyPatch()
    patch.setattr(botocore.auth, "get_current_datetime", lambda: MOMENT.replace(tzinfo=None))
    yield
    patch.undo()


@given(
    credentials=CREDENTIALS,
    method=st.sampled_from(["GET", "PUT", "HEAD", "POST"]),
    key=KEYS,
    query=st.lists(
        st.tuples(st.text("abcXYZ-_ /é", min_size=1), st.text(max_size=20)),
        max_size=4,
        unique_by=lambda q: q[0],
    ),
    headers=st.dictionaries(
        st.sampled_from(["x-amz-checksum-crc32", "If-None-Match", "Range", "x-amz-meta-note", "Content-MD5"]),
        st.text("abc =/+*  ", min_size=1, max_size=20).map(lambda value: f"v{value}v"),
    ),
    payload=st.sampled_from([UNSIGNED, EMPTY]),
)
def test_s3_requests_are_signed_as_botocore_signs_them(
    credentials, method, key, query, headers, payload
) -> None:
    signer = Signer(lambda: credentials, "s3", "eu-west-1", clock=MOMENT.timestamp)
    path, text = path_of(key), query_of(query)

    ours = signer.headers(method, path, text, HOST, headers, payload)

    theirs = by_botocore(S3SigV4Auth, credentials, "s3", method, path, text, headers, payload)
    assert ours["Authorization"] == theirs
    assert unquote(path)[1:] == key
    assert ours.get("X-Amz-Security-Token") == credentials.token


@given(credentials=CREDENTIALS, index=st.integers(0, 2**31), token=st.text("AB+/=xyz", max_size=120))
def test_ebs_requests_are_signed_as_botocore_signs_them(credentials, index, token) -> None:
    signer = Signer(lambda: credentials, "ebs", "eu-west-1", clock=MOMENT.timestamp)
    path = path_of("snapshots", "snap-0123456789abcdef0", "blocks", str(index))
    query = query_of([("blockToken", token)])

    ours = signer.headers("GET", path, query, HOST, {}, EMPTY)

    theirs = by_botocore(SigV4Auth, credentials, "ebs", "GET", path, query, {}, EMPTY)
    assert ours["Authorization"] == theirs


def test_the_key_of_the_day_is_not_kept_for_another_day_or_other_credentials() -> None:
    days = [MOMENT, MOMENT.replace(day=22), MOMENT]
    given_keys = [ReadOnlyCredentials("AKIA", secret, None) for secret in ("one", "one", "two")]
    current = list(zip(days, given_keys, strict=True))

    def clock() -> float:
        return current[0][0].timestamp()

    signer = Signer(lambda: current[0][1], "ebs", "eu-west-1", clock=clock)
    fresh = []
    kept = []

    while current:
        moment, keys = current[0]
        kept.append(signer.headers("GET", "/", "", HOST, {}, EMPTY)["Authorization"])
        other = Signer(lambda keys=keys: keys, "ebs", "eu-west-1", clock=moment.timestamp)
        fresh.append(other.headers("GET", "/", "", HOST, {}, EMPTY)["Authorization"])
        current.pop(0)

    assert kept == fresh and len(set(kept)) == 3
