"""Checking the chain of the audit log: has anything in it been altered, deleted, inserted or put in another order?"""

import hmac
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from cpm.flows.cleanup.audit_retention import PURGED, THROUGH
from cpm.models import AuditRecord, AuditSeal
from cpm.services.audit_chain import (
    COLUMNS,
    FIRST,
    SEAL_COLUMNS,
    Row,
    chain_key,
    row_mac,
    rows_hash,
    seal_hash,
)

CHUNK = 2000
OF_RECORD = {name: f"records__{name}" for name in (*COLUMNS, "position", "mac")}


@dataclass(slots=True)
class Verification:
    """What a walk along the chain found. `damage` names in words the first thing that is wrong, if anything is."""

    seals: int = 0
    records: int = 0
    purged_seals: int = 0
    purged_records: int = 0
    unsealed: int = 0
    head: str = FIRST
    damage: str = ""


class _Damage(Exception):
    """Its message is for the operator."""


def verify(*, head: str = "") -> Verification:
    """Walk along the chain in constant memory, up to the first damage.

    `head` is a hash that an earlier walk ended at and that was kept elsewhere; the chain must still contain it, or its
    end was cut off. Raises `KeyFileError`, `SecretUnreadable` and `ChainKeyMissing` when nothing can be checked.
    """
    walk = _Walk(head)
    if not AuditSeal.objects.exists():
        walk.found.unsealed = AuditRecord.objects.filter(seal=None).count()
        return _ended(walk)
    walk.key = chain_key()
    try:
        # The cursor is closed before its transaction, however the walk ends.
        with transaction.atomic(), closing(_joined()) as joined:
            for _, rows in groupby(joined, key=itemgetter("id")):
                walk.seal(rows)
            walk.found.unsealed = AuditRecord.objects.filter(seal=None).count()
            walk.rest()
    except _Damage as error:
        walk.found.damage = str(error)
        return walk.found
    return _ended(walk)


def _ended(walk: "_Walk") -> Verification:
    if not walk.head_seen:
        walk.found.damage = (
            f"The chain does not contain the head {walk.head}: its end was cut off, or all was replaced."
        )
    return walk.found


def _joined() -> Generator[dict[str, Any], None, None]:
    """Every seal with its records in order, a seal without records once: one statement, so as of one moment."""
    seals: QuerySet[AuditSeal, dict[str, Any]] = AuditSeal.objects.order_by(
        "id", "records__position", "records__id"
    ).values(*SEAL_COLUMNS, "hash", "purged_at", *OF_RECORD.values())
    yield from seals.iterator(chunk_size=CHUNK)


class _Walk:
    """One walk: what has been found, and what the next seal is compared with."""

    key: bytes

    def __init__(self, head: str) -> None:
        self.found = Verification()
        self.head, self.head_seen = head, head in ("", FIRST)
        self.last_purged = self.purge_on_record = 0

    def seal(self, rows: Iterator[Row]) -> None:
        first = next(rows)
        number = first["id"]
        self._check_seal(first)
        if first["purged_at"] is None:
            self._check_records(number, first, rows)
        elif self.found.seals:
            raise _Damage(f"Seal {number} is marked as purged, but seals before it are not.")
        elif first[OF_RECORD["id"]] is not None:
            raise _Damage(f"Record {first[OF_RECORD['id']]} claims to be in seal {number}, which was purged.")
        else:
            self.last_purged = number
            self.found.purged_seals += 1
            self.found.purged_records += first["rows"]
        self.found.head = first["hash"]
        self.head_seen = self.head_seen or first["hash"] == self.head

    def _check_seal(self, row: Row) -> None:
        if not hmac.compare_digest(seal_hash(self.key, row), row["hash"]):
            raise _Damage(f"Seal {row['id']} was altered or inserted.")
        if row["previous_hash"] == self.found.head:
            return
        if self.found.head == FIRST:
            raise _Damage(
                f"The chain begins with seal {row['id']}, which had one before it: its beginning was removed."
            )
        raise _Damage(f"A seal before seal {row['id']} was removed.")

    def _check_records(self, number: int, seal: Row, rows: Iterator[Row]) -> None:
        macs: list[str] = []
        for row in chain([seal], rows):
            record = {name: row[path] for name, path in OF_RECORD.items()}
            place = len(macs) + 1
            if record["id"] is None:
                break
            if record["position"] != place and place <= seal["rows"] and record["position"] is not None:
                raise _Damage(f"The record at place {place} of seal {number} is missing.")
            if not hmac.compare_digest(row_mac(self.key, number, place, record), record["mac"]):
                raise _Damage(
                    f"Record {record['id']} (place {record['position']} of seal {number}) was altered, moved or inserted."
                )
            macs.append(record["mac"])
            if record["event_type"] == PURGED:
                self.purge_on_record = max(self.purge_on_record, record["after"].get(THROUGH, 0))
        if len(macs) < seal["rows"]:
            raise _Damage(f"The record at place {len(macs) + 1} of seal {number} is missing.")
        if rows_hash(macs) != seal["rows_hash"]:
            raise _Damage(f"Seal {number} is not that of its records.")
        self.found.seals += 1
        self.found.records += len(macs)

    def rest(self) -> None:
        """What stands outside the chain."""
        stray = AuditRecord.objects.exclude(seal=None).exclude(seal__in=AuditSeal.objects.all())
        if (pk := stray.values_list("pk", flat=True).first()) is not None:
            raise _Damage(f"Record {pk} names a seal that does not exist.")
        purges = AuditRecord.objects.filter(seal=None, event_type=PURGED).values_list("after", flat=True)
        told = max([self.purge_on_record, *(after.get(THROUGH, 0) for after in purges)])
        if self.last_purged > told:
            raise _Damage(
                f"Seals up to {self.last_purged} are marked as purged, but the log knows of no such purge."
            )
