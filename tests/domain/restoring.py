"""Copies in S3 as a finished copy flow leaves them, for tests of what reads them."""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.flows.identities import identity_of
from cpm.flows.s3 import records
from cpm.flows.s3 import repositories as flow
from cpm.models import Backup, Recovery, S3Copy, S3Repository, Snapshot
from cpm.repository.copying import copy_volume
from cpm.services import recoveries
from tests import factories
from tests.domain import copying, recovering
from tests.domain.world import World
from tests.simulated_aws import SimulatedAws

MIB = 1 << 20


class Blocks:
    """A snapshot's blocks as the source of a copy."""

    def __init__(self, found: Mapping[int, bytes], size: int) -> None:
        self.found, self.size = found, size

    def read_into(self, block: int, target: memoryview) -> int:
        data = self.found.get(block, bytes(BLOCK))
        target[: len(data)] = data
        return len(data)


def copied(world: World, row: Snapshot, to: S3Repository, **fields: Any) -> S3Copy:
    """The snapshot of a volume copied to the repository, with its record."""
    assert row.account and row.capacity
    copy = factories.s3_copy(row, repository=to, start_time=timezone.now(), end_time=timezone.now(), **fields)
    ebs = EbsDirect(identity_of(row.account, session="test"), row.region)
    with ebs.read_blocks(row.aws_id, ebs.list_blocks(row.aws_id)) as reading:
        found = {index: bytes(data) for index, data in reading}
    source = Blocks(found, row.capacity * records.GIB)
    copy_volume(flow.opened(to), records.draft(copy), source, changed=sorted(found))
    return copy


def copy_of_volume(
    world: World, aws: SimulatedAws, *, lost: bool = True, **options: Any
) -> tuple[str, Snapshot, S3Copy]:
    """A volume with data here and there, and the copy of its backup in S3; the native snapshot is gone."""
    volume = aws.volume(**options)
    for place in (0, 1, 700, 1023):
        aws.write(volume, f"at {place}".encode() * 50, place * MIB)
    backup = world.back_up(world.policy(volume), status="B")
    row = recovering.volume_row(backup)
    copy = copied(world, row, copying.repository(world))
    if lost:
        lose_snapshots(world, backup)
    return volume, row, copy


def copy_of_instance(world: World, aws: SimulatedAws, **fields: Any) -> tuple[Snapshot, dict[str, str]]:
    """An instance with two volumes and the copies of its backup in S3; the fingerprints of its volumes by device."""
    made, volumes = aws.instance((1, 1))
    for number, volume in enumerate(volumes.values()):
        aws.write(volume, bytes([65 + number]) * 4096, number * MIB)
    fingerprints = {device: aws.fingerprint(volume) for device, volume in volumes.items()}
    backup = world.back_up(world.policy(made, **fields), status="B")
    row, to = recovering.instance_row(backup), copying.repository(world)
    for child in row.children.filter(kind="volumes"):
        copied(world, child, to)
    lose_snapshots(world, backup)
    return row, fingerprints


def packs(world: World) -> list[str]:
    """Keys of the objects that hold blocks."""
    listed = world.aws.client("s3").list_objects_v2(Bucket=copying.BUCKET)["Contents"]
    return [one["Key"] for one in listed if "/packs/" in one["Key"]]


def damage(world: World) -> None:
    """Turn a byte in the middle of every pack."""
    s3 = world.aws.client("s3")
    for key in packs(world):
        data = bytearray(s3.get_object(Bucket=copying.BUCKET, Key=key)["Body"].read())
        data[100] ^= 1
        s3.put_object(Bucket=copying.BUCKET, Key=key, Body=bytes(data))


def archive(world: World, copy: S3Copy, storage_class: str = "GLACIER") -> None:
    """The objects of the only copy go to an archive class, as if it had been archived under its own id."""
    s3 = world.aws.client("s3")
    for key in packs(world):
        data = s3.get_object(Bucket=copying.BUCKET, Key=key)["Body"].read()
        s3.put_object(Bucket=copying.BUCKET, Key=key, Body=data, StorageClass=storage_class)
    S3Copy.objects.filter(pk=copy.pk).update(
        tier="A", archive_id=copy.copy_id, archive_class=storage_class, archive_status="S"
    )


def lose_snapshots(world: World, backup: Backup) -> None:
    """The native snapshots of the backup's volumes are gone, in AWS and in the records."""
    for row in backup.snapshots.filter(kind="volumes"):
        world.aws.client("ec2", row.region, row.aws_account_number).delete_snapshot(SnapshotId=row.aws_id)
    backup.snapshots.exclude(kind="instances").update(status="deleted", deletion_time=timezone.now())
    Backup.objects.filter(pk=backup.pk).update(status="M")


def start(world: World, snapshot: Snapshot, *, credentials: Any = None, **request: Any) -> Recovery:
    """Start a recovery from S3 without working on it."""
    of_instance = snapshot.kind == "instances"
    call = recoveries.recover_instance_from_s3 if of_instance else recoveries.recover_volume_from_s3
    fresh = Snapshot.objects.get(pk=snapshot.pk)
    return call(
        actor=world.actor, snapshot=fresh, request=request, credentials=credentials, now=timezone.now()
    )


def recover(world: World, snapshot: Snapshot, *, expect: str = "R", **request: Any) -> Recovery:
    """Recover from S3 to the end and check the status."""
    recovery = start(world, snapshot, **request)
    world.run()
    recovery.refresh_from_db()
    assert recovery.status == expect, (recovery.status, recovery.outcome, recovering.log(recovery))
    assert recovery.end_time is not None
    return recovery
