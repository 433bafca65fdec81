"""Backups of volumes with real file systems, and copies of them in S3: what tests of explore sessions build on."""

import hashlib
import io
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import replace

from django.utils import timezone

from cpm.aws.ebs_direct import EbsDirect
from cpm.flows.explore_sessions.explore_open import HERE
from cpm.flows.identities import identity_of
from cpm.flows.s3 import records
from cpm.flows.s3.repositories import opened
from cpm.lib.states import SnapshotKind, SnapshotStatus, Tier
from cpm.models import Backup, ExploreSession, S3Copy, S3Repository, Snapshot
from cpm.repository.archiving import CopySource
from cpm.repository.copying import copy_volume
from cpm.repository.reader import Reader
from cpm.services import explore_files, explore_sessions, repositories
from cpm.services.explore_files import Node, Wanted
from tests import factories
from tests.domain.world import World
from tests.explore.images import image, manifest
from tests.simulated_aws import SimulatedAws

BUCKET = "copies-to-explore"
PIECE = 4 * 1024 * 1024


def fill(aws: SimulatedAws, volume: str, name: str) -> None:
    """Write an image into a volume; only what is not zeros travels."""
    with image(name).open("rb") as file:
        offset = 0
        while piece := file.read(PIECE):
            if piece.strip(b"\0"):
                aws.write(volume, piece, offset)
            offset += len(piece)


def back_up_image(world: World, name: str) -> tuple[Backup, Snapshot]:
    """A backup of a volume that holds the image, and the record of its snapshot."""
    volume = world.aws.volume()
    fill(world.aws, volume, name)
    backup = world.back_up(world.policy(volume), status="B")
    return backup, Snapshot.objects.get(backup=backup, kind=SnapshotKind.VOLUME)


def copy_to_s3(world: World, row: Snapshot) -> S3Copy:
    """A copy of the snapshot in a new repository, made with the engine."""
    world.region_id("us-east-1")
    bucket = factories.bucket(world.aws, BUCKET)
    place = repositories.create(
        actor=world.actor,
        name="main",
        account=world.account.pk,
        aws_bucket_name=bucket,
        aws_region="us-east-1",
    )
    return copy_into(place, row)


def copy_into(place: S3Repository, row: Snapshot) -> S3Copy:
    assert row.account is not None
    copy = S3Copy.objects.create(
        backup=row.backup, snapshot=row, repository=place, copy_id=uuid.uuid4().hex, start_time=timezone.now()
    )
    draft = records.draft(copy)
    source = EbsSource(
        EbsDirect(identity_of(row.account, session="test"), row.region), row.aws_id, draft.size
    )
    copy_volume(opened(place), draft, source, changed=source.blocks())
    S3Copy.objects.filter(pk=copy.pk).update(status=SnapshotStatus.COMPLETED, succeeded=True)
    copy.refresh_from_db()
    return copy


def archive(copy: S3Copy) -> None:
    """Make a self-contained archive out of the copy and delete the copy."""
    assert copy.repository is not None
    repository = opened(copy.repository)
    made = repository.copy(copy.copy_id)
    archive_id = uuid.uuid4().hex
    draft = replace(made.draft, copy_id=archive_id, archive=True, parent=None)
    copy_volume(repository, draft, CopySource(Reader(repository, made)))
    repository.delete_copy(copy.copy_id)
    S3Copy.objects.filter(pk=copy.pk).update(tier=Tier.ARCHIVE, archive_id=archive_id)


class EbsSource:
    """A snapshot as the engine reads it."""

    def __init__(self, ebs: EbsDirect, snapshot: str, size: int) -> None:
        self.size = size
        self._ebs, self._snapshot = ebs, snapshot
        self._tokens = dict(ebs.list_blocks(snapshot))

    def blocks(self) -> list[int]:
        return sorted(self._tokens)

    def read_into(self, block: int, target: memoryview) -> int:
        data = self._ebs.get_block(self._snapshot, block, self._tokens[block])
        target[: len(data)] = data
        return len(data)


def explore(world: World, backup: Backup, *, status: str = "N", **wanted: object) -> ExploreSession:
    """A session, opened by the job as far as it goes."""
    session = explore_sessions.create(
        actor=world.actor,
        backup_record=backup.pk,
        now=timezone.now(),
        **wanted,  # type: ignore[arg-type]
    )
    world.run()
    session.refresh_from_db()
    assert session.status == status, session.failure
    return session


def listed(world: World, session: ExploreSession, path: str = "", **more: object) -> list[Node]:
    wanted = Wanted(path, **more)  # type: ignore[arg-type]
    page = explore_files.page(actor=world.actor, session=session, wanted=wanted, offset=0, limit=5000)
    assert page.total == len(page.nodes)
    return list(page.nodes)


def downloaded(world: World, session: ExploreSession, chosen: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each file of the zip, by its name there."""
    stream = explore_files.download(actor=world.actor, session=session, chosen=list(chosen))
    try:
        whole = b"".join(stream)
    finally:
        stream.close()
    with zipfile.ZipFile(io.BytesIO(whole)) as unpacked:
        files = [
            each for each in unpacked.infolist() if not each.is_dir() and each.filename != "LEFT-OUT.txt"
        ]
        return {each.filename: hashlib.sha256(unpacked.read(each)).hexdigest() for each in files}


def digests(name: str) -> set[str]:
    """SHA-256 of all files of an image."""
    return {facts[2] for facts in manifest(name).values() if facts[0] == "F"}


def close_all() -> None:
    HERE.drop_all()
