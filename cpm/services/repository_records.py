"""Records of one backup from what its copies in S3 say of themselves: the backup, its instances, volumes and copies.

What is known already, from the tags in AWS or from before, is completed and never doubled.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.dateparse import parse_datetime

from cpm.flows.s3 import records
from cpm.lib.names import name_problems
from cpm.lib.states import (
    ArchiveClass,
    BackupStatus,
    CopyStatus,
    SnapshotKind,
    SnapshotStatus,
    StorageClass,
    Tier,
)
from cpm.models import Account, Backup, Policy, S3Copy, S3Repository, Snapshot
from cpm.models.base import new_ids
from cpm.repository.manifest import Manifest
from cpm.services import catalogue_records, policy_s3
from cpm.services.catalogue_records import ABSENT

OUTCOME = "Rebuilt from its copies in S3."
# The catalogue takes the first snapshot's time for a backup's.
NEAR = timedelta(days=1)
# Ids that meant something in the lost database only.
NOT_KEPT = frozenset({"initial_ami"})
Json = Mapping[str, Any]
Native = tuple[str, str]
"""A snapshot in AWS: region and id."""


class Unusable(Exception):
    """The manifest opens, but does not say what records need. The message tells what is missing."""


@dataclass(frozen=True, slots=True)
class FoundCopy:
    """A copy of a volume in the repository, or its archive, as its manifest describes it."""

    copy_id: str
    archive_id: str
    manifest: Manifest
    storage_class: str
    written: datetime

    @property
    def about(self) -> Json:
        return self.manifest.draft.metadata

    @property
    def backup(self) -> Json:
        return self.about["backup"]  # type: ignore[no-any-return]

    @property
    def native(self) -> Native:
        return self.about["snapshot"]["region"], self.about["snapshot"]["aws_id"]


def found(manifest: Manifest, storage_class: str, written: datetime) -> FoundCopy:
    """Raises `Unusable`."""
    about, draft = manifest.draft.metadata, manifest.draft
    if about.get("version") != records.VERSION:
        raise Unusable("it says nothing of its backup that this version understands")
    parts = (
        ("backup", ("id", "policy_name", "start_time")),
        ("snapshot", ("region", "aws_id", "source_id", "kind")),
    )
    for part, names in parts:
        fields = about.get(part)
        missing = [name for name in names if not isinstance(fields, dict) or fields.get(name) is None]
        if missing:
            raise Unusable(f"it does not say of its {part}: {', '.join(missing)}")
    copy_id = draft.parent if draft.archive and draft.parent else draft.copy_id
    archive_id = draft.copy_id if draft.archive else ""
    return FoundCopy(copy_id, archive_id, manifest, storage_class, written)


class Group:
    """All copies of one backup. `record` writes what is not known yet; needs a transaction."""

    def __init__(
        self,
        row: S3Repository,
        accounts: Mapping[str, Account],
        found: Sequence[FoundCopy],
        natives: Collection[Native],
    ) -> None:
        self.row, self.accounts, self.natives = row, accounts, natives
        # Where both are there, the archive is what counts: the copy only waits for its deletion.
        by_copy: dict[str, FoundCopy] = {}
        for one in sorted(found, key=lambda one: one.archive_id):
            by_copy[one.copy_id] = one
        self.found = list(by_copy.values())
        self.meta = self.found[0].backup
        self.where = f"Backup {self.meta['id']} of {self.meta['policy_name']}"
        self.account = accounts.get(str(self.found[0].about.get("account", "")))
        self.new_policy = self.new_backup = False
        self.copies = self.known = 0
        self.problems: list[str] = []

    def record(self, now: datetime) -> Backup:
        policy = self._policy()
        existing = self._existing()
        self.new_backup = existing is None
        backup = existing or self._make_backup(policy)
        if self.account is None:
            number = self.found[0].about.get("account") or "of the backup"
            self.problems.append(
                f"{self.where}: account {number} is not registered; add it and rebuild again."
            )
        elif backup.account is None:
            backup.account, backup.policy = self.account, policy
        for one in self.found:
            self._copy(backup, one, now)
        self._settle(backup)
        return backup

    # -- backup and policy ------------------------------------------------------------------------------------

    def _policy(self) -> Policy | None:
        name = self.meta["policy_name"]
        if self.account is None or name_problems(name):
            return None
        policy, self.new_policy = catalogue_records.policy_named(self.account, name)
        if policy.s3_repository_id is None:
            # Nobody has chosen rules for copies in S3 yet, and the usual ones would delete what was just found.
            policy.s3_repository = self.row
            policy.s3_keep_by_generations = True
            policy.s3_generations = policy_s3.LIMITS["s3_generations"][1]
            longest = policy_s3.LONGEST
            policy.archive_keep, policy.archive_keep_unit = longest.count, longest.unit
            policy.save(
                update_fields=[
                    "s3_repository", "s3_keep_by_generations", "s3_generations", "archive_keep", "archive_keep_unit"
                ]
            )  # fmt: skip
        return policy

    def _existing(self) -> Backup | None:
        ids = [one.copy_id for one in self.found]
        copy = S3Copy.objects.filter(copy_id__in=ids).select_related("backup").first()
        if copy is not None:
            return copy.backup
        mine = Backup.objects.filter(user=self.row.user_id, policy_name=self.meta["policy_name"])
        for one in self.found:
            region, aws_id = one.native
            snapshot = (
                Snapshot.objects.filter(backup__in=mine, region=region, aws_id=aws_id)
                .exclude(aws_id="")
                .first()
            )
            if snapshot is not None:
                return snapshot.backup
        start = _time(self.meta["start_time"])
        return mine.filter(pk=self.meta["id"], start_time__range=(start - NEAR, start + NEAR)).first()

    def _make_backup(self, policy: Policy | None) -> Backup:
        meta = self.meta
        # The id that the tags in AWS name, where it is free.
        taken = Backup.objects.filter(pk=meta["id"]).exists()
        tracker = meta.get("tracker_id")
        if tracker is not None and Backup.objects.filter(tracker_id=tracker).exists():
            tracker = None
        status = meta.get("status")
        return Backup.objects.create(
            pk=new_ids(Backup, 1)[0] if taken else meta["id"],
            user=self.row.user,
            account=self.account,
            policy=policy,
            policy_name=meta["policy_name"],
            account_name=meta.get("account_name") or "",
            tracker_id=tracker,
            status=status if status in set(BackupStatus) else BackupStatus.SUCCESSFUL,
            start_time=_time(meta["start_time"]),
            end_time=_time(meta.get("end_time") or meta["start_time"]),
            performed_quiesce=bool(meta.get("performed_quiesce")),
            outcome=OUTCOME,
        )

    def _settle(self, backup: Backup) -> None:
        """The statuses that follow from what there is. A backup that was known keeps its own."""
        tiers = {one.archive_id != "" for one in self.found}
        expected = int(self.meta.get("siblings") or 0)
        whole = CopyStatus.COMPLETED if len(self.found) >= expected else CopyStatus.PARTIAL
        if whole == CopyStatus.PARTIAL:
            self.problems.append(f"{self.where}: {len(self.found)} of {expected} copies are there.")
        if backup.s3_copy_status == CopyStatus.NOT_STARTED:
            backup.s3_copy_status = whole if False in tiers else CopyStatus.DELETED
            backup.s3_copy_progress = 100
        if True in tiers and backup.archive_status == CopyStatus.NOT_STARTED:
            backup.archive_status, backup.archive_progress = whole, 100
        alive = (
            backup.snapshots.exclude(kind=SnapshotKind.INSTANCE)
            .filter(status=SnapshotStatus.COMPLETED)
            .exists()
        )
        if not alive and self.new_backup:
            backup.status_before_deletion = backup.status
            backup.status = BackupStatus.MOVED_TO_S3 if False in tiers else BackupStatus.MOVED_TO_GLACIER
        elif alive and backup.status in (BackupStatus.MOVED_TO_S3, BackupStatus.MOVED_TO_GLACIER):
            backup.status = backup.status_before_deletion or BackupStatus.SUCCESSFUL
            backup.status_before_deletion = ""
        backup.save()

    # -- copies and what they were made of --------------------------------------------------------------------

    def _copy(self, backup: Backup, one: FoundCopy, now: datetime) -> None:
        volume = self._volume(backup, one, now)
        row = S3Copy.objects.filter(copy_id=one.copy_id).first()
        if row is not None:
            self.known += 1
            if row.repository_id is None:
                row.repository = self.row
                row.save(update_fields=["repository"])
            return
        figures, draft = one.manifest.figures, one.manifest.draft
        archive = bool(one.archive_id)
        kept = one.about.get("storage_class")
        S3Copy.objects.create(
            backup=backup,
            snapshot=volume,
            repository=self.row,
            base=None if archive else S3Copy.objects.filter(copy_id=draft.parent or "").first(),
            copy_id=one.copy_id,
            archive_id=one.archive_id,
            tier=Tier.ARCHIVE if archive else Tier.S3,
            status=SnapshotStatus.COMPLETED,
            succeeded=True,
            start_time=_time(draft.created),
            end_time=one.written,
            storage_class=kept if kept in set(StorageClass) else StorageClass.STANDARD,
            image_bytes=draft.size if one.about.get("image") else None,
            bytes_read=figures.get("read", 0),
            bytes_new=figures.get("new", 0),
            bytes_stored=figures.get("stored", 0),
            archive_status=CopyStatus.COMPLETED if archive else CopyStatus.NOT_STARTED,
            archive_class=one.storage_class if archive and one.storage_class in set(ArchiveClass) else "",
            archived_at=one.written if archive else None,
        )
        self.copies += 1

    def _volume(self, backup: Backup, one: FoundCopy, now: datetime) -> Snapshot:
        meta = one.about["snapshot"]
        there = one.native in self.natives
        rows = backup.snapshots.filter(kind=meta["kind"], source_id=meta["source_id"], original=None)
        row = rows.filter(aws_id__in=("", meta["aws_id"])).order_by("-aws_id").first()
        if row is not None:
            if there and ABSENT in row.details:
                _revive(row, one)
            return row
        row = self._snapshot(backup, meta, self._parent(backup, one))
        row.status = SnapshotStatus.COMPLETED if there else SnapshotStatus.DELETED
        if not there:
            row.deletion_time, row.details = now, {**row.details, ABSENT: True}
        row.save()
        return row

    def _parent(self, backup: Backup, one: FoundCopy) -> Snapshot | None:
        """The record of the instance; one that the catalogue made of tags gets the user data that tags do not hold."""
        meta = one.about.get("instance")
        if not meta:
            return None
        rows = backup.snapshots.filter(kind=SnapshotKind.INSTANCE, source_id=meta["source_id"])
        row = rows.order_by("pk").first()
        if row is None:
            row = self._snapshot(backup, meta, None)
            row.status = SnapshotStatus.COMPLETED
            row.save()
        elif meta["details"].get("aws_user_data") and not row.details.get("aws_user_data"):
            row.details = {**row.details, "aws_user_data": meta["details"]["aws_user_data"]}
            row.save(update_fields=["details"])
        return row

    def _snapshot(self, backup: Backup, meta: Json, parent: Snapshot | None) -> Snapshot:
        plain = ("kind", "resource_type", "account_name", "aws_account_number", "region", "aws_id", "source_id",
                 "source_name", "instance_id", "instance_name", "capacity", "device", "encrypted")  # fmt: skip
        details = {name: value for name, value in meta.get("details", {}).items() if name not in NOT_KEPT}
        return Snapshot(
            backup=backup,
            parent=parent,
            account=self.accounts.get(str(meta.get("aws_account_number") or "")) or self.account,
            succeeded=True,
            progress=100,
            start_time=_time(meta.get("start_time") or self.meta["start_time"]),
            end_time=_time(meta.get("end_time") or self.meta["start_time"]),
            details=details,
            **{name: meta[name] for name in plain if meta.get(name) is not None},
        )


def _revive(row: Snapshot, one: FoundCopy) -> None:
    """An earlier rebuild did not see in AWS what is there after all."""
    row.aws_id, row.status, row.deletion_time = one.native[1], SnapshotStatus.COMPLETED, None
    row.succeeded, row.details = True, {name: value for name, value in row.details.items() if name != ABSENT}
    row.save()


def _time(text: object) -> datetime:
    moment = parse_datetime(str(text))
    if moment is None:
        raise Unusable(f"“{text}” is no time")
    return moment
