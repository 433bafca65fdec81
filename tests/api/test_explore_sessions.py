"""Explore sessions over REST: shapes, pages, names that are no text, downloads and refusals."""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from cpm.aws import gateway
from cpm.explore.errors import SourceFailed
from cpm.flows.explore_sessions.explore_open import HERE
from cpm.flows.identities import encrypt_secret
from cpm.models import ExploreSession, Job
from cpm.services import explore_files
from tests import factories, simulated_aws
from tests.api import facts
from tests.api.caller import Caller, codes
from tests.domain.exploring import fill
from tests.explore.images import manifest
from tests.simulated_aws import DEFAULT_ACCOUNT, SimulatedAws

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedAws]:
    running = simulated_aws.start(tmp_path_factory.mktemp("aws"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def snapshots(simulator: SimulatedAws) -> dict[str, tuple[str, str]]:
    """Volume and snapshot of images with files."""
    made = {}
    for name in ("ext2", "ext4"):
        volume = simulator.volume()
        fill(simulator, volume, name)
        snapshot = simulator.client("ec2").create_snapshot(VolumeId=volume)["SnapshotId"]
        made[name] = volume, snapshot
    return made


@pytest.fixture
def aws(simulator: SimulatedAws) -> Iterator[SimulatedAws]:
    gateway.configure(
        gateway.GatewayConfig(endpoint_url=simulator.url, redis_url=os.environ["CPM_REDIS_URL"])
    )
    yield simulator
    simulator.clear_faults()
    HERE.drop_all()


def session_of(aws: SimulatedAws, source: tuple[str, str], **fields) -> ExploreSession:
    access_key, secret_key = aws.credentials(DEFAULT_ACCOUNT)
    account = factories.account(
        factories.user(), authentication="C", access_key=access_key, role_name="",
        secret_key=encrypt_secret(secret_key),
    )  # fmt: skip
    volume, snapshot = source
    backup = factories.backup(factories.policy(account))
    row = factories.snapshot(backup, source_id=volume, aws_id=snapshot, capacity=1)
    return factories.explore_session(row, **fields)


def entries(session: ExploreSession, path: str = "", **query: object):
    more = "".join(f"&{name}={value}" for name, value in query.items())
    address = f"explore_sessions/{session.pk}/file_system_entries/?path={quote(path)}{more}"
    return Caller(session.user)("GET", address)


def test_a_session_is_created_shown_listed_kept_and_ended(aws, snapshots):
    session = session_of(aws, snapshots["ext2"], status="U")
    call, backup, volume = Caller(session.user), session.backup, session.volume_ids[0]

    accepted, made = call(
        "POST", "explore_sessions/", {"backup_record": backup.pk, "aws_volume_ids": [volume]}
    )
    _, shown = call("GET", f"explore_sessions/{made['id']}/")
    _, everything = call("GET", f"explore_sessions/?backup_record={backup.pk}&status=U")
    early, not_open = call("POST", f"explore_sessions/{made['id']}/keep_alive/")
    ExploreSession.objects.filter(pk=made["id"]).update(status="N")
    kept, nothing = call("POST", f"explore_sessions/{made['id']}/keep_alive/")
    ended, _ = call("DELETE", f"explore_sessions/{made['id']}/")
    again, _ = call("DELETE", f"explore_sessions/{made['id']}/")

    facts.check("11.1", made)
    facts.check("11.2", everything)
    facts.check("11.6", shown)
    assert (accepted, kept, nothing, ended, again) == (202, 200, b"", 204, 204)
    assert (early, codes(not_open)) == (412, {"non_field_errors": ["explore_session_opening"]})
    assert shown == made and [row["id"] for row in everything] == [made["id"], session.pk]
    assert (made["explore_type"], made["attached_volume_ids"], made["session_path"]) == ("V", volume, "/")
    assert call("GET", f"explore_sessions/{made['id']}/")[1]["status"] == "P"


def test_a_repeated_request_with_the_same_key_starts_one_session(aws, snapshots):
    session = session_of(aws, snapshots["ext2"])
    call = Caller(session.user)

    answers = [
        call("POST", "explore_sessions/", {"backup_record": session.backup_id}, idempotency_key="one")
        for _ in range(2)
    ]

    assert answers[0] == answers[1] and answers[0][0] == 202
    assert Job.objects.filter(kind="explore").count() == 1


def test_every_entry_is_found_by_its_friendly_path_whatever_its_name(aws, snapshots):
    session = session_of(aws, snapshots["ext2"])
    (volume,) = entries(session)[1]

    found = {}
    waiting = [volume["url_friendly_path"]]
    while waiting:
        for row in entries(session, waiting.pop())[1]:
            found[row["url_friendly_path"]] = row
            waiting += [row["url_friendly_path"]] if row["type"] == "D" else []
    files = {path: entries(session, path)[1] for path, row in found.items() if row["type"] == "F"}

    facts.check("11.4", [volume])
    assert (volume["type"], volume["path"], volume["parent"]) == ("D", f"/{session.volume_ids[0]}", "/")
    assert len(found) == len(manifest("ext2"))
    assert all(rows == [found[path]] for path, rows in files.items())
    # Links are files to clients, and have a length of their own.
    assert {facts_of[1] for facts_of in manifest("ext2").values() if facts_of[0] == "F"} <= {
        row["size"] for row in found.values() if row["type"] == "F"
    }


def test_pages_and_the_whole_of_a_large_folder_are_the_same(aws, snapshots):
    session = session_of(aws, snapshots["ext4"])
    many = f"/{session.volume_ids[0]}/many"

    _, whole = entries(session, many)
    _, page = entries(session, many, page=2, page_size=100)
    behind, _ = entries(session, many, page=1000, page_size=100)
    _, nested = entries(session, f"/{session.volume_ids[0]}", depth=1)

    assert entries(session, many, depth=1)[1] == whole
    assert page["count"] == len(whole) > 5000 and page["results"] == whole[100:200]
    assert behind == 404
    assert next(row for row in nested if row["name"] == "many")["children"] == whole


def test_a_search_goes_down_to_the_depth_and_says_when_there_may_be_more(aws, snapshots, monkeypatch):
    session = session_of(aws, snapshots["ext4"])
    root = f"/{session.volume_ids[0]}"
    address = f"/api/explore_sessions/{session.pk}/file_system_entries/?path={root}"
    client = Caller(session.user).client

    complete = client.get(f"{address}&search=DEEP&depth=3")
    monkeypatch.setattr(explore_files, "MOST_FOUND", 10)
    cut = client.get(f"{address}&search=e&depth=1&page_size=4")

    assert "X-Incomplete" not in complete.headers
    assert [row["name"] for row in complete.json()] == ["deep0", "deep1", "deep2", "deep3"]
    assert (cut.json()["count"], len(cut.json()["results"])) == (10, 4)
    assert cut.headers["X-Incomplete"] == "more than 10 entries match"


def test_a_zip_is_downloaded_by_either_kind_of_path(aws, snapshots):
    session = session_of(aws, snapshots["ext2"])
    root = f"/{session.volume_ids[0]}"
    odd = next(
        row for row in entries(session, root)[1] if "~" in row["url_friendly_path"] and row["type"] == "F"
    )
    client = Caller(session.user).client
    address = f"/api/explore_sessions/{session.pk}/download/"

    answer = client.post(
        address, {"paths": [f"{root}/hello.txt", odd["url_friendly_path"]]}, content_type="application/json"
    )
    content = b"".join(answer)

    assert (answer.status_code, answer.headers["Content-Type"]) == (201, "application/zip")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="explore-{session.pk}.zip"'
    with zipfile.ZipFile(io.BytesIO(content)) as unpacked:
        got = {hashlib.sha256(unpacked.read(each)).hexdigest() for each in unpacked.infolist()}
    assert len(got) == 2 and got <= {entry[2] for entry in manifest("ext2").values()}


@pytest.mark.parametrize(
    ("paths", "field"),
    [
        ([], "paths"), (["/nowhere"], "paths"), (["../../etc/passwd"], "paths"), ([""], "paths.0"), ("x", "paths"),
        ([1.5, {}], "paths.1"), (["/a\x00b"], "paths"), (["/"] * 1001, "paths"), (["/" + "a" * 40_000], "paths.0"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_before_the_zip_begins(aws, snapshots, paths, field):
    session = session_of(aws, snapshots["ext2"])

    status, answer = Caller(session.user)(
        "POST", f"explore_sessions/{session.pk}/download/", {"paths": paths}
    )

    assert status == 400 and field in codes(answer)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("path=/nowhere", 400), ("path=..%2f..%2fetc", 400), ("path=%00", 400), ("depth=-1", 400), ("depth=x", 400),
        ("depth=33", 400), ("page=0", 400), ("search=%01", 400), ("path=/&depth=0", 200), ("path=&search=", 200),
    ],
)  # fmt: skip
def test_listing_what_is_not_there_is_refused(aws, snapshots, query, status):
    session = session_of(aws, snapshots["ext2"])

    answered, _ = Caller(session.user)("GET", f"explore_sessions/{session.pk}/file_system_entries/?{query}")

    assert answered == status


def test_a_zip_breaks_off_when_the_source_fails(aws, snapshots):
    session = session_of(aws, snapshots["ext4"])
    client = Caller(session.user).client
    answer = client.post(
        f"/api/explore_sessions/{session.pk}/download/", {"paths": ["/"]}, content_type="application/json"
    )
    aws.fault(service="ebs", action="GetSnapshotBlock", error="ValidationException", status=400)

    with pytest.raises(SourceFailed):
        b"".join(answer)
    aws.clear_faults()

    assert answer.status_code == 201
    assert entries(session, f"/{session.volume_ids[0]}")[0] == 200


def test_aws_in_trouble_is_412_and_the_same_request_works_later(aws, snapshots):
    session = session_of(aws, snapshots["ext2"])
    aws.fault(service="ebs", action="ListSnapshotBlocks", error="AccessDeniedException", status=403)

    status, refusal = entries(session)
    aws.clear_faults()

    assert (status, codes(refusal)) == (412, {"non_field_errors": ["aws_denied"]})
    assert entries(session)[0] == 200
