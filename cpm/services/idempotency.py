"""Remembering answers by `Idempotency-Key`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from cpm.lib.errors import ValidationFailed
from cpm.models import User
from cpm.models.idempotency import StoredAnswer

KEPT_FOR = timedelta(hours=24)


@dataclass
class Claim:
    """The place of one key. `status` is None for the call that does the work; that call must `keep` its answer."""

    row: StoredAnswer
    status: int | None
    content: str

    def keep(self, *, status: int, content: str) -> None:
        StoredAnswer.objects.filter(pk=self.row.pk).update(status=status, content=content)


@contextmanager
def claim(*, user: User, key: str, path: str, body_hash: str, now: datetime) -> Iterator[Claim]:
    """Opens a transaction in which this key is ours or its earlier answer is known.

    A call under the same key at the same moment waits here until the first one has ended. Raises `ValidationFailed` if
    the key was used with another body within `KEPT_FOR`.
    """
    with transaction.atomic():
        StoredAnswer.objects.filter(user=user, key=key, path=path, created_at__lt=now - KEPT_FOR).delete()
        fresh = StoredAnswer(user=user, key=key, path=path, body_hash=body_hash, created_at=now)
        StoredAnswer.objects.bulk_create([fresh], ignore_conflicts=True)
        row = StoredAnswer.objects.get(user=user, key=key, path=path)
        if row.body_hash != body_hash:
            raise ValidationFailed.one(
                "Idempotency-Key", "This key was sent before with another body; use a new key.", "key_reused"
            )
        yield Claim(row, row.status, row.content)


def purge(*, now: datetime) -> int:
    """Forgets answers older than `KEPT_FOR`; returns how many."""
    return StoredAnswer.objects.filter(created_at__lt=now - KEPT_FOR).delete()[0]
