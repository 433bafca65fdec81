"""`cpm repo rebuild`: a lost database comes back from the bucket and a key, and what it records can be recovered."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.commands import terminal
from cpm.flows.s3 import repositories as flow
from cpm.lib.errors import PermissionDenied, PreconditionFailed, ValidationFailed
from cpm.lib.states import BackupStatus, CopyStatus, Role, SnapshotKind, SnapshotStatus, Tier, VerifyDepth
from cpm.models import (
    Account,
    Actor,
    Backup,
    Job,
    Policy,
    Recovery,
    S3Copy,
    S3Repository,
    ServerSettings,
    Snapshot,
)
from cpm.repository.archiving import CopySource
from cpm.repository.copying import copy_volume
from cpm.repository.keys import Password, RawKey, Secret
from cpm.repository.manifest import Draft
from cpm.repository.reader import Reader
from cpm.services import catalogue, repositories, repository_keys, repository_rebuild
from cpm.services.repository_rebuild import RebuildResult
from tests import factories
from tests.domain import restoring, stored
from tests.domain.copying import BUCKET, repository
from tests.domain.recovering import ids, instance_row, volumes_of
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
SECRET = Password("correct horse battery")


def keyed(world: World) -> S3Repository:
    """A repository with a password beside the server's own key."""
    world.region_id("us-east-1")
    row = repository(world)
    repository_keys.add(actor=world.actor, repository=row, secret=SECRET, name="safe")
    return row


def lose_database(*, server: bool = True) -> None:
    """What is left is the user and the account."""
    for model in (Recovery, S3Copy, Snapshot, Backup, Policy, S3Repository, Job):
        model.objects.all().delete()
    if server:
        ServerSettings.objects.update(server_id=uuid.uuid4())


def rebuild(world: World, secret: Secret = SECRET, **more: Any) -> RebuildResult:
    given = {"bucket": BUCKET, "region": "us-east-1", "folder": "cpm/main", "take_over": True, **more}
    return repository_rebuild.rebuild(
        actor=world.actor, account=world.account, secret=secret, now=timezone.now(), **given
    )


def shown(model: Any, *left_out: str) -> list[dict[str, Any]]:
    rows = model.objects.order_by("pk").values()
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def test_an_instance_is_recovered_from_what_the_bucket_tells(world: World) -> None:
    row = keyed(world)
    made, volumes = world.aws.instance((1, 1))
    for number, volume in enumerate(volumes.values()):
        world.aws.write(volume, bytes([65 + number]) * 4096, number << 20)
    fingerprints = {device: world.aws.fingerprint(volume) for device, volume in volumes.items()}
    backup = world.back_up(world.policy(made, name="web", generations=7), status="B")
    for child in instance_row(backup).children.filter(kind=SnapshotKind.VOLUME):
        restoring.copied(world, child, row)
    restoring.lose_snapshots(world, backup)
    before = instance_row(backup).details
    lose_database()

    result = rebuild(world)

    assert result.problems == []
    assert (result.found, result.copies, result.backups, result.policies) == (2, 2, 1, 1)
    again = Backup.objects.get()
    assert (again.pk, again.status, again.s3_copy_status) == (
        backup.pk,
        BackupStatus.MOVED_TO_S3,
        CopyStatus.COMPLETED,
    )
    assert (again.start_time, again.tracker_id) == (backup.start_time, backup.tracker_id)
    policy = Policy.objects.get()
    assert (policy.name, policy.enabled) == ("web", False) and policy.s3_generations >= 100_000
    assert policy.generations >= 100_000 and policy.s3_repository == result.repository
    assert instance_row(again).details == before
    recovery = restoring.recover(world, instance_row(again))
    [recovered] = ids(recovery)
    disks = volumes_of(world, recovered)
    assert {device: world.aws.fingerprint(disk["VolumeId"]) for device, disk in disks.items()} == fingerprints
    found = repositories.verify(actor=world.actor, repository=result.repository, depth=VerifyDepth.FULL)
    assert not found.report.damage and found.strangers == []


def test_rebuilding_again_adds_nothing(world: World) -> None:
    row = keyed(world)
    policy = world.policy(name="web")
    for age in (2, 1):
        backup = stored.backup(policy, volumes=2, start_time=timezone.now() - timedelta(days=age))
        for volume in backup.snapshots.filter(kind=SnapshotKind.VOLUME):
            stored.copy(row, volume, [2 * age, 3])
        stored.move(backup)
    lose_database()
    first = rebuild(world)
    tables = (S3Copy, Snapshot, Backup, Policy)
    before = [shown(model) for model in tables]

    again = rebuild(world, take_over=False)

    assert (first.copies, first.backups) == (4, 2)
    assert (again.found, again.known, again.copies, again.backups, again.policies) == (4, 4, 0, 0, 0)
    after = [shown(model) for model in tables]
    for one, other in zip(before, after, strict=True):
        assert [{**row, "last_modified": None} for row in one] == [
            {**row, "last_modified": None} for row in other
        ]
    assert S3Repository.objects.count() == 1
    assert [slot.name for slot, _ in repository_keys.slots(actor=world.actor, repository=first.repository)] == [
        "server", "safe", "server"
    ]  # fmt: skip


def test_snapshots_that_aws_still_has_and_what_the_catalogue_knows_are_not_doubled(world: World) -> None:
    row = keyed(world)
    volume = world.aws.volume(size=1)
    backup = world.back_up(world.policy(volume, name="web"), status="B")
    native = backup.snapshots.get(kind=SnapshotKind.VOLUME)
    stored.copy(row, native, [2])
    lose_database(server=False)
    catalogue.rebuild(
        actor=world.actor, account=world.account, regions=["us-east-1"], server_id=None, now=timezone.now()
    )
    assert Backup.objects.count() == 1 and Snapshot.objects.count() == 1

    result = rebuild(world, take_over=False)

    assert (result.backups, result.policies, result.copies) == (0, 0, 1)
    assert Snapshot.objects.get().status == SnapshotStatus.COMPLETED
    assert (
        S3Copy.objects.get().snapshot.aws_id == native.aws_id
        and Backup.objects.get().status == BackupStatus.SUCCESSFUL
    )
    lose_database(server=False)
    assert rebuild(world).backups == 1
    assert Snapshot.objects.get().status == SnapshotStatus.COMPLETED and Backup.objects.get().status == "B"


def test_archives_come_back_as_archives(world: World) -> None:
    row = keyed(world)
    backup = stored.backup(world.policy(name="web"))
    copy = stored.copy(row, backup.snapshots.get(kind=SnapshotKind.VOLUME), [2, 3])
    opened = flow.opened(row, archive_class="DEEP_ARCHIVE")
    source = Reader(opened, opened.copy(copy.copy_id))
    draft = source.manifest.draft
    archived = Draft(
        "ab" * 16, draft.volume, draft.size, draft.created, draft.snapshot, copy.copy_id, archive=True,
        metadata=draft.metadata,
    )  # fmt: skip
    copy_volume(opened, archived, CopySource(source), changed=[0, 1])
    opened.delete_copy(copy.copy_id)
    lose_database()

    assert rebuild(world).problems == []

    made = S3Copy.objects.get()
    assert (made.tier, made.archive_class, made.stored_id) == (Tier.ARCHIVE, "DEEP_ARCHIVE", "ab" * 16)
    assert made.copy_id == copy.copy_id and made.archived_at is not None
    again = Backup.objects.get()
    assert (again.status, again.archive_status, again.s3_copy_status) == ("G", "S", "D")
    # Nobody has chosen how long archives are kept: the usual time would end some with the next cleanup.
    assert again.policy is not None
    assert (again.policy.archive_keep, again.policy.archive_keep_unit) == (100, "Y")


def test_damaged_manifests_and_missing_copies_are_named(world: World) -> None:
    row = keyed(world)
    policy = world.policy(name="web")
    backup = stored.backup(policy, volumes=2)
    one, two = [
        stored.copy(row, volume, [2])
        for volume in backup.snapshots.filter(kind=SnapshotKind.VOLUME).order_by("pk")
    ]
    key = f"{row.prefix}copies/{one.copy_id}"
    world.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"rotten")
    strange = Draft("cd" * 16, "vol-x", 1 << 20, "2026-11-21T10:00:00+00:00")
    copy_volume(flow.opened(row), strange, stored.Sparse([2], strange.size))
    lose_database()

    result = rebuild(world)

    assert [copy.copy_id for copy in S3Copy.objects.all()] == [two.copy_id]
    assert Backup.objects.get().s3_copy_status == CopyStatus.PARTIAL
    said = "\n".join(result.problems)
    assert one.copy_id in said and "cd" * 16 in said and "1 of 2 copies" in said


def test_ids_that_are_taken_and_policies_that_exist_are_respected(world: World) -> None:
    row = keyed(world)
    backup = stored.backup(world.policy(name="web"), tracker_id=4711)
    stored.copy(row, backup.snapshots.get(kind=SnapshotKind.VOLUME), [2])
    lose_database()
    mine = world.policy(name="web", generations=3)
    other = factories.backup(world.policy(name="db"), pk=backup.pk, tracker_id=4711)

    result = rebuild(world)

    made = Backup.objects.exclude(pk=other.pk).get()
    assert made.pk != backup.pk and made.tracker_id is None and made.policy == mine and result.policies == 0
    mine.refresh_from_db()
    assert (mine.generations, mine.enabled) == (3, True) and mine.s3_generations >= 100_000


def test_what_must_not_be_is_refused_and_leaves_no_record(world: World) -> None:
    row = keyed(world)
    lose_database()

    with pytest.raises(PreconditionFailed, match="belongs to server"):
        rebuild(world, take_over=False)
    with pytest.raises(PreconditionFailed, match="No key slot"):
        rebuild(world, Password("wrong horse"))
    with pytest.raises(PreconditionFailed, match="no config"):
        rebuild(world, folder="cpm/other")
    with pytest.raises(ValidationFailed, match="not in eu-west-1"):
        rebuild(world, region="eu-west-1")
    tenant = factories.user(Role.INDEPENDENT)
    with pytest.raises(PermissionDenied):
        repository_rebuild.rebuild(
            actor=Actor.of(tenant), account=world.account, bucket=BUCKET, region="us-east-1", folder=row.prefix,
            secret=SECRET, take_over=True, now=timezone.now(),
        )  # fmt: skip

    assert not S3Repository.objects.exists()


def test_a_stored_key_that_cannot_be_read_any_more_is_replaced(world: World) -> None:
    row = keyed(world)
    S3Repository.objects.update(secret="v9:unreadable")

    rebuild(world)

    row.refresh_from_db()
    assert flow.opened(row).owner() == ServerSettings.current().server_id


def cpm(*arguments: str, **more: str) -> Result:
    return CliRunner().invoke(cli.app, ["repo", "rebuild", *arguments], **more)


def test_the_command_adds_the_account_and_says_what_it_found(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})
    monkeypatch.setattr(terminal.console, "width", 240)
    row = keyed(world)
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    repository_keys.add(actor=world.actor, repository=row, secret=RawKey(key.read_bytes()), name="file")
    backup = stored.backup(world.policy(name="web"))
    stored.copy(row, backup.snapshots.get(kind=SnapshotKind.VOLUME), [2])
    lose_database()
    Account.objects.all().delete()
    access, secret = world.aws.credentials()
    place = ("--bucket", BUCKET, "--region", "us-east-1", "--folder", "cpm/main", "--account", "prod")

    nobody = cpm(*place, input=f"{SECRET.text}\n")
    refused = cpm(*place, "--access-key", access, "--key-file", str(key), input=f"{secret}\n")
    done = cpm(*place, "--take-over", input=f"{SECRET.text}\n")

    assert nobody.exit_code == 1 and "There is no account prod" in nobody.output
    assert refused.exit_code == 1 and "belongs to server" in refused.output
    assert done.exit_code == 0 and "Repository main, rebuilt" in done.output, done.output
    assert secret not in refused.output and SECRET.text not in done.output
    assert S3Copy.objects.get().backup.account.name == "prod"
