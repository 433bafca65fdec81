"""Databases in S3: exported by RDS, packed into the repository as an image of files, and kept like volumes."""

import pytest

from cpm.aws.ebs_direct import BLOCK
from cpm.flows.s3 import copy, export, export_pack
from cpm.flows.s3 import repositories as flow
from cpm.lib.states import VerifyDepth
from cpm.models import S3Copy, S3Repository, Snapshot
from cpm.services import backup_deletion, repositories, repository_rebuild
from tests.domain import copying, exporting
from tests.domain.exporting import CONTENT, copy_of, database, files, policy_over, staged, tasks
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

@pytest.fixture
def repository(world: World) -> S3Repository:
    return exporting.repository(world)


def test_a_database_is_exported_and_packed_beside_volumes(world: World, repository: S3Repository) -> None:
    volume = world.aws.volume()
    copying.write(world, volume, _0=1)
    policy = policy_over(world, repository, database(world, "shop"), volumes=(volume,))

    backup = copying.copied(world, policy)

    copy = copy_of(backup)
    [task] = tasks(world)
    found = files(copy)
    assert f"export_info_{task['ExportTaskIdentifier']}.json" in found and len(found) == 3
    assert [data for name, data in found.items() if name.endswith(".parquet")] == [CONTENT]
    assert task["S3Prefix"] == f"{repository.prefix}exports" and staged(world) == []
    assert (copy.succeeded, backup.s3_copy_progress, copy.snapshot.cbt_valid_size_mb) == (True, 100, None)
    assert "1 volumes and 1 databases copied to S3." in world.log(backup)
    report = repositories.verify(actor=world.actor, repository=repository, depth=VerifyDepth.FULL).report
    assert report.findings == [] and len(report.sound) == 2


def test_what_has_not_changed_in_an_export_is_stored_once(world: World, repository: S3Repository) -> None:
    large = b"".join(copying.block(seed) for seed in range(3))
    policy = policy_over(world, repository, database(world, "shop", content=large))
    copying.copied(world, policy)

    second = copy_of(copying.copied(world, policy))

    # The lists of files name their task, so the block that they are in is another one.
    assert (second.bytes_read, second.bytes_new) == (5 * BLOCK, BLOCK)
    assert large in files(second).values()


def test_other_engines_and_databases_that_cannot_be_exported_are_left_out(world: World, repository: S3Repository) -> None:
    volume = world.aws.volume()
    policy = policy_over(world, repository, database(world, "old", "mariadb"), volumes=(volume,))

    first = world.back_up(policy, s3_copy_status="V")
    S3Repository.objects.filter(pk=repository.pk).update(export_role_arn="")
    second = world.back_up(policy_over(world, repository, database(world, "shop"), volumes=(volume,)), s3_copy_status="V")

    assert "1 volumes copied to S3; 1 targets cannot be copied." in world.log(first)
    assert any("--export-role" in line for line in world.log(second)) and tasks(world) == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"aws_region": "eu-west-1"}, "within a region"),
        ({"export_role_arn": "arn:aws:iam::999999999999:role/export"}, "not one of its account"),
        ({"export_kms_key_id": ""}, "no key"),
    ],
)
def test_why_a_database_is_left_out_is_told(row: dict[str, str], why: str) -> None:
    fields = {"export_role_arn": "arn:aws:iam::123456789012:role/export", "export_kms_key_id": "k", "aws_region": "us-east-1"}
    snapshot = Snapshot(region="us-east-1", aws_account_number="123456789012")

    assert export.why_not(snapshot, S3Repository(name="main", **fields)) == ""
    assert why in export.why_not(snapshot, S3Repository(name="main", **{**fields, **row}))


def test_an_export_that_fails_fails_its_database_alone(world: World, repository: S3Repository) -> None:
    names = [database(world, "shop"), database(world, "till")]
    world.aws.fault(service="rds", action="StartExportTask", snapshots_error=True, resource_id="till")

    backup = world.back_up(policy_over(world, repository, *names), s3_copy_status="R")

    assert copy_of(backup).succeeded and "injected failure" in copy_of(backup, "till").error
    assert staged(world) == []


def test_a_lost_answer_starts_no_second_task(world: World, repository: S3Repository) -> None:
    policy = policy_over(world, repository, database(world, "shop"))
    world.aws.fault(action="StartExportTask", lost_response=True, count=1)

    backup = copying.copied(world, policy)

    assert len(tasks(world)) == 1 and CONTENT in files(copy_of(backup)).values()


def test_a_worker_that_dies_while_packing_has_a_successor(
    world: World, repository: S3Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"".join(copying.block(seed) for seed in range(8))
    policy = policy_over(world, repository, database(world, "shop", content=large))
    read = export_pack.Image.block
    died: list[int] = []

    def dying(image: export_pack.Image, number: int) -> bytes:
        if number == 6 and not died:
            died.append(number)
            raise SystemExit
        return read(image, number)

    monkeypatch.setattr(export_pack.Image, "block", dying)
    with pytest.raises(SystemExit):
        world.back_up(policy)
    world.expire_leases()
    world.run()

    [copy] = S3Copy.objects.all()
    assert copy.succeeded and large in files(copy).values() and len(tasks(world)) == 1 and staged(world) == []


def test_an_aborted_copy_cancels_the_export_and_leaves_nothing(world: World, repository: S3Repository) -> None:
    policy = policy_over(world, repository, database(world, "shop"))
    backup = copying.backed_up(world, policy)
    world.aws.timing(database_snapshot_seconds=60)
    while not tasks(world):
        world.work()

    assert copy.abort(backup)
    world.run()

    backup.refresh_from_db()
    assert backup.s3_copy_status == "A" and [task["Status"] for task in tasks(world)] == ["CANCELED"]
    assert staged(world) == [] and copy_of(backup).succeeded is False


def test_a_copied_database_goes_with_its_backup(world: World, repository: S3Repository) -> None:
    backup = copying.copied(world, policy_over(world, repository, database(world, "shop")))

    backup_deletion.delete_snapshots(actor=world.actor, backup=backup)
    world.run()

    [gone] = S3Copy.objects.all()
    assert gone.status == "deleted"
    assert list(flow.opened(repository).copies()) == []


def test_a_rebuild_finds_copies_of_databases(world: World, repository: S3Repository) -> None:
    backup = copying.copied(world, policy_over(world, repository, database(world, "shop")))
    before = copy_of(backup)
    backup.delete()

    result = repository_rebuild.rebuild(
        actor=world.actor, account=world.account, bucket=repository.aws_bucket_name, region=repository.aws_region,
        folder=repository.prefix.rstrip("/"), secret=flow.key_of(repository), take_over=False,
        now=world.now(),
    )  # fmt: skip

    assert result.copies == 1 and result.problems == []
    [found] = S3Copy.objects.all()
    assert (found.copy_id, found.image_bytes) == (before.copy_id, before.image_bytes)
    assert (found.snapshot.kind, found.snapshot.details["engine"]) == ("rds_databases", "postgres")
