"""Explore sessions over real file systems in the simulated AWS, from snapshots and from copies in S3."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cpm.explore.errors import PathNotFound, SessionClosed, SourceFailed
from cpm.flows.explore_sessions.explore_open import HERE
from cpm.flows.identities import encrypt_secret
from cpm.lib.errors import NotFound, PreconditionFailed, ValidationFailed
from cpm.lib.states import FleetKind, SnapshotStatus
from cpm.models import (
    AuditRecord,
    ExploreSession,
    FileLevelRecoverySettings,
    FleetMember,
    Job,
    LogLine,
    S3Copy,
    Snapshot,
    Step,
)
from cpm.services import explore_files, explore_sessions
from tests import factories
from tests.domain import exploring
from tests.domain.exploring import back_up_image, copy_to_s3, digests, downloaded, explore, listed
from tests.domain.world import World
from tests.explore.images import manifest

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def closed_sessions() -> Iterator[None]:
    yield
    exploring.close_all()


def test_files_are_listed_and_downloaded_from_the_snapshot_without_making_anything(world: World) -> None:
    backup, row = back_up_image(world, "ext4-dirty")
    before = world.aws.last_call()

    session = explore(world, backup)
    names = {node.entry.name.decode("latin-1") for node in listed(world, session, f"/{row.source_id}")}
    got = downloaded(world, session, [f"/{row.source_id}"])

    assert {path[1:] for path in manifest("ext4-dirty") if path.count("/") == 1} <= names
    assert set(got.values()) == digests("ext4-dirty")
    assert session.explore_type == "V" and session.snapshots == [row.pk] and session.s3_copies == []
    assert {call["action"] for call in world.aws.calls(before)} <= {
        "ListSnapshotBlocks", "GetSnapshotBlock", "GetCallerIdentity",
    }  # fmt: skip
    recorded = AuditRecord.objects.filter(event_type__startswith="explore_session.").order_by("id")
    assert [record.event_type for record in recorded] == [
        "explore_session.started", "explore_session.downloaded",
    ]  # fmt: skip


def test_files_come_from_the_copy_in_s3_when_the_snapshot_is_gone(world: World) -> None:
    backup, row = back_up_image(world, "ext4-dirty")
    copy = copy_to_s3(world, row)
    world.aws.client("ec2").delete_snapshot(SnapshotId=row.aws_id)

    session = explore(world, backup, aws_volume_ids=[row.source_id])
    got = downloaded(world, session, [f"/{row.source_id}"])

    assert set(got.values()) == digests("ext4-dirty")
    assert session.s3_copies == [copy.pk] and session.snapshots == []


def test_volumes_of_an_instance_are_one_session_with_its_logical_volumes(world: World) -> None:
    instance, devices = world.aws.instance((1, 1))
    for number, volume in enumerate(devices.values(), 1):
        exploring.fill(world.aws, volume, f"lvm-pair-{number}")
    backup = world.back_up(world.policy(instance), status="B")

    session = explore(world, backup, aws_instance_id=instance)
    names = [node.entry.name.decode() for node in listed(world, session)]
    got = downloaded(world, session, ["/pair-linear"])

    assert (session.explore_type, set(session.volume_ids)) == ("I", set(devices.values()))
    assert {"pair-linear", "pair-striped"} <= set(names)
    assert set(got.values()) == digests("pair-linear")


def test_a_region_that_is_asked_for_is_where_it_is_read(world: World) -> None:
    backup, row = back_up_image(world, "fat12")
    west = world.region_id("us-west-2")
    with pytest.raises(PreconditionFailed, match="in that region and account"):
        explore(world, backup, region=west)
    ec2 = world.aws.client("ec2", "us-west-2")
    copied = ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=row.aws_id)["SnapshotId"]
    dr = Snapshot.objects.create(
        backup=backup, original=row, kind="dr_volumes", resource_type="volumes", account=world.account,
        account_name="", region="us-west-2", aws_id=copied, source_id=row.source_id, capacity=row.capacity,
        status=SnapshotStatus.COMPLETED, succeeded=True,
    )  # fmt: skip

    session = explore(world, backup, region=west, from_account=world.account.pk)

    assert session.snapshots == [dr.pk]
    assert set(downloaded(world, session, ["/"]).values()) == digests("fat12")


def test_a_session_is_opened_where_its_data_is(world: World) -> None:
    backup, row = back_up_image(world, "fat12")
    copy_to_s3(world, row)
    number = world.account.account_number
    [near, far] = [f"s3@{number}:us-east-1", "s3@210987654321:us-east-1"]
    now = timezone.now()
    FleetMember.objects.create(
        name="near", kind=FleetKind.WORKER, queues=[near, far], started_at=now, last_seen_at=now
    )

    for status in (SnapshotStatus.COMPLETED, SnapshotStatus.DELETED):
        Snapshot.objects.filter(pk=row.pk).update(status=status)
        explore_sessions.create(actor=world.actor, backup_record=backup.pk, now=now)

    assert list(Step.objects.filter(kind="explore.open").values_list("queue", flat=True)) == [near, near]


def test_an_archive_is_explored_once_it_is_retrieved(world: World) -> None:
    backup, row = back_up_image(world, "fat12")
    copy = copy_to_s3(world, row)
    exploring.archive(copy)
    Snapshot.objects.filter(pk=row.pk).update(status=SnapshotStatus.DELETED)

    with pytest.raises(PreconditionFailed, match="Retrieve it from the archive first"):
        explore(world, backup)
    later = timezone.now() + timedelta(days=1)
    S3Copy.objects.filter(pk=copy.pk).update(retrieve_status="available", retrieve_expiration=later)

    assert set(downloaded(world, explore(world, backup), ["/"]).values()) == digests("fat12")


HOSTILE = (
    "..", "/..", "/{volume}/..", "/{volume}/../{volume}", "../../../../etc/passwd", "/etc/passwd",
    "/{volume}/%2e%2e/%2e%2e", "/{volume}/~2E~2E", "/{volume}/hello.txt/..", "/{volume}/~00", "/{volume}~2F..~2F..",
    "/{volume}/hello.txt\x00.zip", "\\\\..\\..", "file:///etc/passwd", "/{volume}/link-absolute/passwd",
)  # fmt: skip


def test_no_path_leads_out_of_the_session_and_no_link_is_followed(world: World) -> None:
    backup, row = back_up_image(world, "ext2")
    session = explore(world, backup)

    for path in (template.replace("{volume}", row.source_id) for template in HOSTILE):
        with pytest.raises(PathNotFound):
            listed(world, session, path)
        with pytest.raises(PathNotFound):
            downloaded(world, session, ["/", path])
    nodes = {node.entry.name: node.entry for node in listed(world, session, f"/{row.source_id}")}

    assert nodes[b"link-absolute"].what == "a symbolic link to /etc/passwd"
    assert downloaded(world, session, [f"/{row.source_id}/link-absolute"]) == {}
    with pytest.raises(ValidationFailed):
        downloaded(world, session, [])
    with pytest.raises(ValidationFailed):
        downloaded(world, session, ["/"] * 1001)


def test_a_name_that_is_no_text_can_be_downloaded_as_the_command_line_gives_it(world: World) -> None:
    backup, row = back_up_image(world, "ext4")
    session = explore(world, backup)
    path = f"/{row.source_id}/".encode() + b"latin-\xe9\xff.txt"

    _, stream = explore_files.content(
        actor=world.actor, session=session, path=path.decode("utf-8", "surrogateescape")
    )

    with closing(stream):
        assert b"".join(stream) == b"odd latin-\xe9\xff.txt"
    text = AuditRecord.objects.get(event_type="explore_session.downloaded").log
    assert "latin-\ufffd\ufffd.txt" in text


def test_folders_are_shown_down_to_the_depth_and_searched(world: World) -> None:
    backup, row = back_up_image(world, "fat12")
    session = explore(world, backup)
    volume = f"/{row.source_id}"

    root = listed(world, session, depth=2)
    folder = next(node for node in root[0].children if node.entry.name == b"deep0")
    found = listed(world, session, volume, search="DEEP", depth=3)
    name = next(path for path, facts in manifest("fat12").items() if facts[0] == "F" and path.count("/") == 1)
    file = listed(world, session, volume + name)

    assert (root[0].depth, folder.depth) == (2, 1)
    assert [(n.path, n.depth, n.children) for n in folder.children] == [(folder.path + b"/deep1", 0, [])]
    assert [n.entry.name for n in found] == [b"deep0", b"deep1", b"deep2", b"deep3"]
    assert [(n.entry.kind, n.path.decode()) for n in file] == [("F", volume + name)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"LUKS\xba\xbe\0\1", "it is encrypted with LUKS"),
        (b"", "it holds no file system, its beginning is all zeros"),
    ],
)
def test_what_cannot_be_explored_fails_with_its_reason(world: World, content: bytes, words: str) -> None:
    volume = world.aws.volume()
    if content:
        world.aws.write(volume, content)
    backup = world.back_up(world.policy(volume))

    session = explore(world, backup, status="F")

    assert words in session.failure and session.end_time is not None
    with pytest.raises(PreconditionFailed, match="could not be opened"):
        listed(world, session)


def test_an_unfinished_log_of_xfs_is_said_in_the_log_of_the_session(world: World) -> None:
    backup, row = back_up_image(world, "xfs-dirty")

    session = explore(world, backup)

    lines = LogLine.objects.filter(subject_type="explore_session", subject_id=session.pk, level="Warning")
    assert [line.message.split(":")[0] for line in lines] == [row.source_id]
    assert "log" in lines[0].message


def test_a_missing_right_is_named_and_file_level_settings_stand_in(world: World) -> None:
    backup, _ = back_up_image(world, "fat12")
    denied = {
        "service": "ebs",
        "action": "ListSnapshotBlocks",
        "error": "AccessDeniedException",
        "status": 403,
    }

    world.aws.fault(**denied)
    refused = explore(world, backup, status="F")
    world.aws.clear_faults()
    world.aws.fault(**denied, count=1)
    key, secret = world.aws.credentials()
    FileLevelRecoverySettings.objects.update_or_create(
        pk=1, defaults={"enabled": True, "access_key": key, "secret_key": encrypt_secret(secret)}
    )
    explore(world, backup)

    assert "ebs:ListSnapshotBlocks" in refused.failure and "missing" in refused.failure


def test_tokens_of_blocks_are_renewed_when_they_expire(world: World) -> None:
    backup, _ = back_up_image(world, "fat12")
    world.aws.limits(block_token_seconds=1)
    session = explore(world, backup)
    listed(world, session)

    time.sleep(1.5)
    world.aws.limits(block_token_seconds=600)

    assert set(downloaded(world, session, ["/"]).values()) == digests("fat12")


def test_a_download_that_fails_is_no_zip_and_gives_the_session_back(world: World) -> None:
    backup, _ = back_up_image(world, "ext4-dirty")
    session = explore(world, backup)
    stream = explore_files.download(actor=world.actor, session=session, chosen=["/"])
    world.aws.fault(service="ebs", action="GetSnapshotBlock", error="ValidationException", status=400)

    sent = io.BytesIO()
    with pytest.raises(SourceFailed), closing(stream):
        sent.writelines(stream)
    world.aws.clear_faults()

    assert not zipfile.is_zipfile(sent)
    assert set(downloaded(world, session, ["/"]).values()) == digests("ext4-dirty")


def test_a_client_that_leaves_gives_the_session_back(world: World, settings) -> None:
    backup, _ = back_up_image(world, "fat12")
    session = explore(world, backup)
    settings.CPM_EXPLORE_OPEN_SESSIONS = 0

    stream = explore_files.download(actor=world.actor, session=session, chosen=["/"])
    next(stream)
    while_sending = HERE.ids()
    stream.close()

    assert (while_sending, HERE.ids()) == ([session.pk], [])


def test_a_session_that_is_ended_closes_at_once_here_and_soon_elsewhere(world: World) -> None:
    backup, _ = back_up_image(world, "fat12")
    session, now = explore(world, backup), timezone.now()
    stream = explore_files.download(actor=world.actor, session=session, chosen=["/"])

    explore_sessions.end(actor=world.actor, session=session, now=now)
    session.refresh_from_db()
    expiring = session.status
    with closing(stream), pytest.raises(SessionClosed):
        list(stream)
    with pytest.raises(PreconditionFailed, match="has ended"):
        listed(world, session)
    early = explore_sessions.end_idle(now=now)
    late = explore_sessions.end_idle(now=now + explore_sessions.CLOSING_TIME)
    explore_sessions.end(actor=world.actor, session=session, now=now)

    session.refresh_from_db()
    assert (expiring, early, late, session.status) == ("P", 0, 1, "S")
    assert session.end_time is not None and HERE.ids() == []


def test_reading_goes_on_notices_that_the_session_was_ended_elsewhere(world: World, monkeypatch) -> None:
    backup, _ = back_up_image(world, "fat12")
    session = explore(world, backup)
    monkeypatch.setattr(explore_files, "NOTED_EVERY", timedelta(0))
    stream = explore_files.download(actor=world.actor, session=session, chosen=["/"])
    next(stream)

    ExploreSession.objects.filter(pk=session.pk).update(status="P")

    with closing(stream), pytest.raises(PreconditionFailed, match="has ended"):
        list(stream)
    assert HERE.ids() == []


def test_a_session_ends_by_itself_unless_it_is_used(world: World, settings) -> None:
    backup, _ = back_up_image(world, "fat12")
    settings.CPM_EXPLORE_IDLE_MINUTES = 60
    session, start = explore(world, backup), timezone.now()

    later = start + timedelta(minutes=59)
    explore_sessions.used(session, now=later)
    too_early = explore_sessions.end_idle(now=start + timedelta(minutes=100))
    explore_sessions.keep_alive(actor=world.actor, session=session, now=start + timedelta(minutes=110))
    still_open = explore_sessions.end_idle(now=start + timedelta(minutes=160))
    ended = explore_sessions.end_idle(now=start + timedelta(minutes=171))

    session.refresh_from_db()
    assert (too_early, still_open, ended, session.status) == (0, 0, 1, "S")
    with pytest.raises(PreconditionFailed):
        explore_sessions.keep_alive(actor=world.actor, session=session, now=timezone.now())


def test_a_session_that_nobody_opens_fails_in_the_end_and_one_ended_before_stays_so(world: World) -> None:
    backup, _ = back_up_image(world, "fat12")
    now = timezone.now()
    forgotten, ended = (
        explore_sessions.create(actor=world.actor, backup_record=backup.pk, now=now) for _ in range(2)
    )

    explore_sessions.end(actor=world.actor, session=ended, now=now)
    explore_sessions.end_idle(now=now + timedelta(hours=2))
    world.run()

    forgotten.refresh_from_db()
    ended.refresh_from_db()
    assert (forgotten.status, ended.status) == ("F", "S")
    assert "No worker" in forgotten.failure
    assert set(Job.objects.filter(kind="explore").values_list("state", flat=True)) == {"cancelled"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "P"}, "backup_running"),
        ({"status": "F"}, "backup_not_recoverable"),
        ({"status": "D"}, "backup_not_recoverable"),
        ({"deleted_at": timezone.now()}, "backup_not_recoverable"),
    ],
)
def test_backups_without_anything_to_explore_are_refused(
    world: World, changes: dict[str, Any], code: str
) -> None:
    backup = factories.backup(factories.policy(world.account), **changes)
    factories.snapshot(backup, capacity=1)

    with pytest.raises(PreconditionFailed) as refusal:
        explore(world, backup)

    assert refusal.value.error_code() == code and not ExploreSession.objects.exists()


def test_what_the_backup_does_not_hold_is_refused_by_name(world: World) -> None:
    backup = factories.backup(factories.policy(world.account))
    row = factories.snapshot(backup, capacity=1, instance_id="i-1")
    elsewhere = factories.account()

    for wanted, field in (
        ({"aws_instance_id": "i-2"}, "aws_instance_id"),
        ({"aws_volume_ids": ["vol-0"]}, "aws_volume_ids"),
        ({"aws_instance_id": "i-1", "aws_volume_ids": [row.source_id, "vol-0"]}, "aws_volume_ids"),
        ({"region": 999_999}, "region"),
        ({"from_account": elsewhere.pk + 1}, "from_account"),
    ):
        with pytest.raises((ValidationFailed, NotFound)) as refusal:
            explore(world, backup, **wanted)
        assert refusal.value.field == field
