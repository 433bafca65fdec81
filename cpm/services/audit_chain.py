"""Sealing the audit log into a chain of hashes. Checking the chain is in `cpm.services.audit_verification`.

Committed rows are sealed in batches, because a chain that grew inside every writing transaction would make them queue
for each other. A row that commits late simply goes into a later seal: the order of the log is (seal, position). Until
the next `seal`, seconds later, a row is protected by the triggers alone.

A row's `mac` is a keyed hash of its columns and its place. A seal's `rows_hash` covers the macs in order, its `hash`
that and the hash of the seal before. Whoever can write the database, but not read the server's key file, can make
neither a row nor a seal that fits. The key is made once and kept in the database, under keys that are derived from the
key file's for this purpose alone: rotating those wraps it again and leaves the chain as it is.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from cpm.lib.secrets import SecretBox, keys_for, load_keys
from cpm.models import AuditKey, AuditRecord, AuditSeal

BATCH, MOST_BATCHES = 1000, 100
# What the first seal follows.
FIRST = "0" * 64
# Number of the advisory lock that one sealer at a time holds.
LOCK = 0x43504D_A0D17
# What the mac of a row covers beside its place, and the hash of a seal. Another column would need another format.
COLUMNS = (
    "id", "event_time", "event_type", "log", "user_id", "username", "user_type", "original_user_id",
    "original_username", "owner_id", "source", "request_id", "subject_type", "subject_id", "before", "after",
)  # fmt: skip
SEAL_COLUMNS = ("id", "previous_hash", "rows_hash", "rows", "sealed_at")
Row = Mapping[str, Any]

PLACE_ROWS = """
UPDATE cpm_auditrecord AS r SET seal_id = %s, position = s.position, mac = s.mac
FROM unnest(%s::bigint[], %s::int[], %s::text[]) AS s (id, position, mac)
WHERE r.id = s.id AND r.seal_id IS NULL
"""


class ChainKeyMissing(Exception):
    """There are seals, but the key that they were made with is gone from the database."""

    def __init__(self) -> None:
        super().__init__(
            "The audit log is sealed, but its key (table cpm_auditkey) is gone: nothing can be sealed or checked."
            " Restore that row from a backup of the database."
        )


def seal(*, now: datetime) -> int:
    """Seal what has been committed since the last time; returns how many rows. Any number may call this at once.

    Raises `KeyFileError` and `SecretUnreadable` for a key file that does not do, `ChainKeyMissing`.
    """
    sealed = 0
    for _ in range(MOST_BATCHES):
        count = _seal_batch(now)
        sealed += count
        if count < BATCH:
            break
    return sealed


def chain_key(*, create: bool = False) -> bytes:
    """The key of the chain. Raises `ChainKeyMissing` without one, unless nothing is sealed yet and it may be made."""
    box = _box(load_keys(Path(settings.CPM_FIELD_KEYS_FILE)))
    row = AuditKey.objects.first()
    if row is None:
        if not create or AuditSeal.objects.exists():
            raise ChainKeyMissing
        row = AuditKey.objects.create(pk=1, secret=box.encrypt(secrets.token_urlsafe(32)))
    return box.decrypt(row.secret).encode()


def rewrap_key(keys: Iterable[bytes]) -> int:
    """Put the chain's key under the newest of these keys; returns how many keys that were: one or none."""
    box = _box(keys)
    with transaction.atomic():
        row = AuditKey.objects.select_for_update().first()
        if row is None or not box.needs_rotation(row.secret):
            return 0
        row.secret = box.rotate(row.secret)
        row.save(update_fields=["secret"])
    return 1


def row_mac(key: bytes, seal: int, position: int, row: Row) -> str:
    """The keyed hash of a row at its place."""
    return _mac(key, ["record", seal, position, {name: row[name] for name in COLUMNS}])


def rows_hash(macs: Iterable[str]) -> str:
    """What the macs of a seal's rows, in their order, come to."""
    digest = hashlib.sha256()
    for mac in macs:
        digest.update(mac.encode())
    return digest.hexdigest()


def seal_hash(key: bytes, row: Row) -> str:
    """The keyed hash of a seal, which covers its rows and the seal before."""
    return _mac(key, ["seal", {name: row[name] for name in SEAL_COLUMNS}])


def _seal_batch(now: datetime) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return 0
        # Read after the lock, so that what its last holder has sealed is seen.
        rows = list(AuditRecord.objects.filter(seal=None).order_by("id").values(*COLUMNS)[:BATCH])
        if not rows:
            return 0
        key = chain_key(create=True)
        cursor.execute("SELECT nextval(pg_get_serial_sequence('cpm_auditseal', 'id'))")
        number = cursor.fetchone()[0]
        macs = [row_mac(key, number, place, row) for place, row in enumerate(rows, start=1)]
        made = {
            "id": number,
            "previous_hash": AuditSeal.objects.order_by("-id").values_list("hash", flat=True).first()
            or FIRST,
            "rows_hash": rows_hash(macs),
            "rows": len(rows),
            "sealed_at": now,
        }
        AuditSeal.objects.create(**made, hash=seal_hash(key, made))
        places = list(range(1, len(rows) + 1))
        cursor.execute(PLACE_ROWS, [number, [row["id"] for row in rows], places, macs])
    return len(rows)


def _box(keys: Iterable[bytes]) -> SecretBox:
    return SecretBox(keys_for("audit chain", keys))


def _mac(key: bytes, content: list[Any]) -> str:
    """Over canonical JSON: sorted keys, no spaces, times in UTC microseconds."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_as_text)
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _as_text(value: object) -> str:
    assert isinstance(value, datetime), value
    return value.astimezone(UTC).isoformat(timespec="microseconds")
