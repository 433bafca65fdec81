"""Backups with copies in a S3 repository, whose data is small and known, for tests of what becomes of them later."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from cpm.flows.s3 import records
from cpm.flows.s3 import repositories as flow
from cpm.lib.states import BackupStatus, CopyStatus, SnapshotKind, SnapshotStatus
from cpm.models import Backup, Policy, S3Copy, S3Repository, Snapshot
from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.copying import copy_volume
from cpm.repository.reader import Reader
from tests import factories
from tests.repository.world import block


@dataclass
class Sparse:
    """A volume of which only the first blocks are not zeros; they are told by their seeds."""

    seeds: Sequence[int]
    size: int

    def read_into(self, number: int, target: memoryview) -> int:
        target[:BLOCK_BYTES] = block(self.seeds[number]) if number < len(self.seeds) else bytes(BLOCK_BYTES)
        return BLOCK_BYTES


def backup(policy: Policy, volumes: int = 1, **fields: object) -> Backup:
    """A successful backup of an instance with so many volumes; nothing is made in AWS."""
    made = factories.backup(policy, end_time=timezone.now(), **fields)
    parent = factories.snapshot(
        made, SnapshotKind.INSTANCE, source_id="i-0123456789abcdef0", details={"zone": "us-east-1a"}
    )
    for number in range(volumes):
        factories.snapshot(
            made,
            parent=parent,
            source_id=f"vol-{number:017x}",
            instance_id=parent.source_id,
            capacity=1,
            device=f"/dev/sd{'abcdef'[number]}",
            start_time=made.start_time,
            details={"type": "gp3"},
        )
    return made


def copy(row: S3Repository, snapshot: Snapshot, seeds: Sequence[int], **fields: object) -> S3Copy:
    """Store the volume as a copy would, with its record."""
    now = timezone.now()
    made = S3Copy.objects.create(
        **{
            "backup": snapshot.backup,
            "snapshot": snapshot,
            "repository": row,
            "copy_id": os.urandom(16).hex(),
            "status": SnapshotStatus.COMPLETED,
            "succeeded": True,
            "start_time": now,
            "end_time": now,
            **fields,
        }
    )
    draft = records.draft(made)
    repository = flow.opened(row)
    source = Sparse(seeds, draft.size)
    copy_volume(repository, draft, source, changed=range(len(seeds)))
    Backup.objects.filter(pk=snapshot.backup_id).update(s3_copy_status=CopyStatus.COMPLETED)
    return made


def move(backup: Backup) -> None:
    """The native snapshots are gone, as after a copy with "delete originals"."""
    backup.snapshots.filter(kind=SnapshotKind.VOLUME).update(
        status=SnapshotStatus.DELETED, deletion_time=timezone.now()
    )
    Backup.objects.filter(pk=backup.pk).update(status=BackupStatus.MOVED_TO_S3)


def content(row: S3Repository, copy_id: str) -> list[bytes]:
    """The blocks of a copy that are not zeros."""
    repository = flow.opened(row)
    return [data for _, data in sorted(Reader(repository, repository.copy(copy_id)).gather())]
