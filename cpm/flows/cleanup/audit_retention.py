"""Retention of the audit log: whole seals go, oldest first, and leave their hashes and a record behind."""

from datetime import datetime

from django.db import connection, transaction
from django.db.models import Min

from cpm.lib.states import Role
from cpm.models import AuditRecord, AuditSeal

PURGED, THROUGH = "audit.purged", "through_seal"
# Who is named as the actor of what the server does by itself; no user can have this name.
SERVER = "(server)"
MOST_SEALS = 5_000


def purge(*, before: datetime, now: datetime) -> int:
    """Delete the records of seals made before this time, at most `MOST_SEALS` seals; returns how many records.

    A record was written before it was sealed, so none goes too early. Verification believes a purge only if the log
    tells of it.
    """
    with transaction.atomic():
        standing = AuditSeal.objects.filter(purged_at=None)
        # Clocks of two servers may differ; what goes is the beginning of the chain, whatever the times say.
        kept = standing.filter(sealed_at__gte=before).aggregate(first=Min("pk"))["first"]
        due = standing if kept is None else standing.filter(pk__lt=kept)
        ids = list(due.select_for_update().order_by("id").values_list("pk", flat=True)[:MOST_SEALS])
        if not ids:
            return 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('cpm.audit_purge', 'on', true)")
            removed, _ = AuditRecord.objects.filter(seal__in=ids).delete()
            AuditSeal.objects.filter(pk__in=ids).update(purged_at=now)
            cursor.execute("SELECT set_config('cpm.audit_purge', '', true)")
        AuditRecord.objects.create(
            event_type=PURGED,
            log=f"{removed} audit records from before {before:%Y-%m-%d} removed, as the cleanup settings say.",
            username=SERVER,
            user_type=Role.ROOT,
            source="cleanup",
            subject_type="auditseal",
            subject_id=ids[-1],
            after={THROUGH: ids[-1], "seals": len(ids), "records": removed},
        )
    return removed
