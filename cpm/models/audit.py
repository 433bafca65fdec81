"""The audit log: one row per change, sealed in batches into a chain of hashes."""

from django.db import models
from django.db.models.functions import Now

from cpm.lib.states import Role
from cpm.models.base import CpmModel


class AuditSeal(CpmModel):
    """A batch of audit rows. `hash` covers the rows in order and the seal before, so that none can be changed later.

    Seals stay when retention removes their rows: `purged_at` says that the rows are gone on purpose.
    """

    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)
    rows = models.PositiveIntegerField()
    sealed_at = models.DateTimeField(db_default=Now())
    purged_at = models.DateTimeField(null=True, blank=True)


class AuditRecord(CpmModel):
    """Who changed what, for whom and from where. Names are copies: a record outlives what it tells of.

    `user_id` acted and `owner_id` owns what was changed; neither is a foreign key. `before` and `after` hold the
    fields that differ, never a secret.
    """

    event_time = models.DateTimeField(db_default=Now(), db_index=True)
    event_type = models.CharField(max_length=64)
    log = models.TextField()
    user_id = models.BigIntegerField(null=True, blank=True)
    username = models.CharField(max_length=150)
    user_type = models.CharField(max_length=12, choices=Role.choices())
    original_user_id = models.BigIntegerField(null=True, blank=True)
    original_username = models.CharField(max_length=150, blank=True)
    owner_id = models.BigIntegerField(null=True, blank=True)
    source = models.CharField(max_length=64, blank=True)
    subject_type = models.CharField(max_length=32)
    subject_id = models.BigIntegerField(null=True, blank=True)
    before = models.JSONField(default=dict, blank=True)
    after = models.JSONField(default=dict, blank=True)
    seal = models.ForeignKey(AuditSeal, null=True, blank=True, on_delete=models.PROTECT, related_name="records")
    position = models.PositiveIntegerField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(name="audit_unsealed", fields=["id"], condition=models.Q(seal=None)),
            models.Index(name="audit_by_user", fields=["user_id", "event_time"]),
        ]
        constraints = [models.UniqueConstraint(name="audit_place_in_seal", fields=["seal", "position"])]

    def __str__(self) -> str:
        return self.log
