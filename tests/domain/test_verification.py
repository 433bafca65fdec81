"""Verification of repositories: which backups suffer from what, when it is due, and how the next copy heals."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from typer.testing import CliRunner

from cpm import cli
from cpm.commands import terminal
from cpm.flows.s3 import repositories as flow
from cpm.flows.s3 import verification
from cpm.flows.table import ENGINE
from cpm.jobs import runner
from cpm.lib.states import SnapshotKind, SnapshotStatus, Tier, VerifyDepth, VerifyResult
from cpm.models import Alert, Job, LogLine, S3Copy, S3Repository
from cpm.repository import pack_reading
from cpm.services import repositories
from tests import factories
from tests.domain import stored
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
BUCKET = "verified-bucket"


@pytest.fixture
def row(world: World) -> S3Repository:
    world.region_id("us-east-1")
    factories.bucket(world.aws, BUCKET)
    return repositories.create(
        actor=world.actor,
        account=world.account.pk,
        name="main",
        aws_bucket_name=BUCKET,
        aws_region="us-east-1",
    )


def copies(world: World, row: S3Repository, *contents: list[int], **policy: Any) -> list[S3Copy]:
    """One backup for each content, each of one volume."""
    made = world.policy(name="web", s3_repository=row, **policy)
    found = []
    for number, seeds in enumerate(contents):
        start = timezone.now() - timedelta(days=len(contents) - number)
        backup = stored.backup(made, start_time=start)
        found.append(stored.copy(row, backup.snapshots.get(kind=SnapshotKind.VOLUME), seeds))
    return found


def verify(
    world: World, row: S3Repository, depth: VerifyDepth = VerifyDepth.FULL
) -> verification.Verification:
    found = repositories.verify(actor=world.actor, repository=row, depth=depth)
    row.refresh_from_db()
    return found


def pack_of(row: S3Repository, copy: S3Copy) -> str:
    """The key of the pack that the copy wrote."""
    [info] = flow.opened(row).store.list(f"packs/{copy.copy_id[:16]}")
    return f"{row.prefix}{info.key}"


def corrupt(world: World, key: str) -> None:
    s3 = world.aws.client("s3")
    body = bytearray(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    body[len(body) // 3] ^= 1
    s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(body))


def damaged(row: S3Repository) -> set[int]:
    return set(S3Copy.objects.filter(repository=row, damaged=True).values_list("pk", flat=True))


def test_damage_names_exactly_the_backups_that_suffer_and_the_next_copy_heals_them(
    world: World, row: S3Repository
) -> None:
    first, second, other = copies(world, row, [2, 4], [2, 4, 6], [8])
    corrupt(world, pack_of(row, first))

    found = verify(world, row)

    affected = {copy.pk for copy in found.affected}
    assert affected <= {first.pk, second.pk} and first.pk in affected and damaged(row) == affected
    assert row.last_verify_result == VerifyResult.DAMAGED
    assert f"Backup {first.backup.pk} of policy web" in row.last_verify_details
    assert f"{other.backup.pk} of policy" not in row.last_verify_details
    alert = Alert.objects.get(category="repository_damaged")
    assert alert.severity == "C" and "main" in alert.title and first.snapshot.source_id in alert.message_body

    # The listing alone knows what was noted, so nothing is forgotten by looking less closely.
    assert {copy.pk for copy in verify(world, row, VerifyDepth.LIST).affected} == affected
    assert damaged(row) == affected
    healing = stored.copy(row, second.snapshot, [2, 4, 6])
    assert not verify(world, row, VerifyDepth.LIST).affected and damaged(row) == set()
    assert verify(world, row).result == VerifyResult.SOUND
    assert not Alert.objects.filter(category="repository_damaged").exists()
    for copy in (first, second, healing):
        assert stored.content(row, copy.copy_id)[:2] == [stored.block(2), stored.block(4)]


def test_a_copy_that_the_bucket_lacks_is_damage_and_one_that_no_record_knows_is_told(
    world: World, row: S3Repository
) -> None:
    kept, lost, unknown, deleted = copies(world, row, [2], [4], [6], [8])
    repository = flow.opened(row)
    for copy in (lost, deleted):
        repository.delete_copy(copy.copy_id)
    S3Copy.objects.filter(pk=deleted.pk).update(status=SnapshotStatus.DELETED)
    S3Copy.objects.filter(pk=unknown.pk).delete()

    found = verify(world, row, VerifyDepth.LIST)

    assert [copy.pk for copy in found.affected] == [lost.pk] and damaged(row) == {lost.pk}
    assert found.strangers == [unknown.copy_id]
    assert (
        "the manifest is missing" in row.last_verify_details
        and "1 copies are in the bucket" in row.last_verify_details
    )
    assert kept.copy_id in found.report.sound


def test_an_archive_is_missed_under_its_own_id_and_not_called_sound_unread(
    world: World, row: S3Repository
) -> None:
    [copy] = copies(world, row, [2])
    S3Copy.objects.filter(pk=copy.pk).update(tier=Tier.ARCHIVE, archive_id="ab" * 16)
    assert verify(world, row, VerifyDepth.LIST).affected == [copy]

    S3Copy.objects.filter(pk=copy.pk).update(archive_id=copy.copy_id)
    assert verify(world, row).affected == [] and damaged(row) == {copy.pk}
    S3Copy.objects.filter(pk=copy.pk).update(retrieve_status="available")
    assert verify(world, row).affected == [] and damaged(row) == set()


def test_the_command_names_the_backups(
    world: World, row: S3Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    victim, unknown = copies(world, row, [2], [4])
    corrupt(world, pack_of(row, victim))
    S3Copy.objects.filter(pk=unknown.pk).delete()

    said = CliRunner().invoke(cli.app, ["repo", "verify", "main", "--depth", "full"])

    assert said.exit_code == 1 and "1 copies of 1 backups" in said.output, said.output
    for words in ("web", str(victim.backup.pk), victim.snapshot.source_id, victim.copy_id, unknown.copy_id):
        assert words in said.output


def test_verification_goes_on_where_its_worker_died(
    world: World, row: S3Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copies(world, row, [2], [4], [6])
    first_read = min(made, key=lambda copy: pack_of(row, copy))
    sound = world.aws.client("s3").get_object(Bucket=BUCKET, Key=pack_of(row, first_read))["Body"].read()
    corrupt(world, pack_of(row, first_read))
    monkeypatch.setattr(pack_reading, "BATCH", 1)
    monkeypatch.setattr(verification, "SLICE_SECONDS", 0.0)
    repositories.start_verification(actor=world.actor, repository=row, depth=VerifyDepth.FULL)
    runner.drain("s3", engine=ENGINE, budget=0)
    step = Job.objects.get().steps.get()
    assert step.cursor["after"] and step.finished_at is None
    # Read again, it would be found sound.
    world.aws.client("s3").put_object(Bucket=BUCKET, Key=pack_of(row, first_read), Body=sound)

    world.run()

    row.refresh_from_db()
    assert row.last_verify_result == VerifyResult.DAMAGED and damaged(row) == {first_read.pk}
    assert LogLine.objects.filter(level="Error", message__contains="are not").exists()


def test_verifications_fall_due_and_are_started_once(world: World, row: S3Repository) -> None:
    copies(world, row, [2])
    now = timezone.now()
    assert repositories.verify_due(now=now) == []
    later = now + timedelta(days=8)

    [job] = repositories.verify_due(now=later)
    assert repositories.verify_due(now=later) == []
    world.run()
    row.refresh_from_db()
    assert job.kind == "verification" and row.last_verify_result == VerifyResult.SOUND
    assert row.last_verify_depth == VerifyDepth.SAMPLE
    assert repositories.verify_due(now=timezone.now() + timedelta(days=6)) == []
    S3Repository.objects.update(verify_every_days=0)
    assert repositories.verify_due(now=later + timedelta(days=30)) == []


def test_a_repository_that_cannot_be_read_alerts_and_is_tried_again_the_next_day(
    world: World, row: S3Repository
) -> None:
    world.aws.client("s3").delete_object(Bucket=BUCKET, Key=f"{row.prefix}config")
    repositories.start_verification(actor=world.actor, repository=row, depth=VerifyDepth.LIST)
    world.run()

    row.refresh_from_db()
    assert row.last_verify_result == VerifyResult.FAILED and "config" in row.last_verify_details
    assert Alert.objects.get().title == "S3 repository not verified: main"
    assert len(repositories.verify_due(now=timezone.now() + timedelta(hours=25))) == 1
    repositories.delete(actor=world.actor, repository=row, force=True)
    world.run()
    assert not Alert.objects.exists()
