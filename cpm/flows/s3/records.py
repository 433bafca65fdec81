"""What a copy in S3 says of itself: enough to rebuild its records when the database is lost.

A manifest names its volume, snapshot and size; the rest stands in its metadata, in the words of our own models. See
FORMAT.md, "Manifests"; `cpm repo rebuild` reads it back.
"""

import json
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from cpm.models import Backup, Policy, S3Copy, Snapshot
from cpm.repository.manifest import Draft, Json

VERSION = 1
IMAGE = {"form": "tar", "of": "rds export"}
"""What a manifest says of an image that is no volume. FORMAT.md, "Images of files"."""
GIB = 1 << 30

_BACKUP = (
    "id", "policy_name", "account_name", "tracker_id", "slot", "status", "start_time", "end_time", "performed_quiesce",
)  # fmt: skip
_SNAPSHOT = (
    "id", "kind", "resource_type", "account_name", "aws_account_number", "region", "aws_id", "source_id", "source_name",
    "instance_id", "instance_name", "start_time", "end_time", "capacity", "device", "encrypted", "details",
)  # fmt: skip
_POLICY = ("id", "name", "description", "generations")


class _Exact(DjangoJSONEncoder):
    """Django's own cuts times to milliseconds."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else super().default(o)


def draft(copy: S3Copy) -> Draft:
    """The head of the copy's manifest, the same however often it is asked for.

    Reads the records that `copy` refers to. The size of a volume is that of its snapshot, in whole GiB; that of an image of
    files is known once they are.
    """
    row = copy.snapshot
    size = copy.image_bytes or (row.capacity or 0) * GIB
    assert size
    return Draft(
        copy_id=copy.copy_id,
        volume=row.source_id,
        size=size,
        created=(row.start_time or copy.start_time).isoformat(),
        snapshot=row.aws_id,
        parent=copy.base.copy_id if copy.base else None,
        metadata=metadata(copy),
    )


def metadata(copy: S3Copy) -> Json:
    """Owner, account, policy, backup and snapshot of a copy; for a volume of an instance the instance's record too."""
    backup, row = copy.backup, copy.snapshot
    return {
        "version": VERSION,
        "user": backup.user.username,
        "account": backup.account.account_number if backup.account else "",
        "storage_class": copy.storage_class,
        "policy": _fields(backup.policy, _POLICY) if isinstance(backup.policy, Policy) else None,
        "backup": _fields(backup, _BACKUP) | {"siblings": _siblings(backup)},
        "snapshot": _fields(row, _SNAPSHOT),
        **({"image": IMAGE} if copy.image_bytes else {}),
        "instance": _fields(row.parent, _SNAPSHOT) if isinstance(row.parent, Snapshot) else None,
    }


def _siblings(backup: Backup) -> int:
    """How many copies of the backup there are, so that a rebuild knows whether it has found all."""
    return backup.s3_copies.count()


def _fields(row: models.Model, names: tuple[str, ...]) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in names}
    plain: dict[str, Any] = json.loads(json.dumps(shown, cls=_Exact))
    return plain
