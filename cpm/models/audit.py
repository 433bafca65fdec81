"""The audit log: one row per change, sealed in batches into a chain that only the holder of the server's keys can make.

Triggers refuse to change or delete rows; the chain shows it where somebody got round them. See `cpm.services.audit_chain`.
"""

from django.db import models
from django.db.models.functions import Now

from cpm.lib.states import Role
from cpm.models.base import CpmModel


class AuditKey(CpmModel):
    """The key of the chain, one for good: a token under keys that are derived from the server's key file."""

    secret = models.TextField()

    class Meta(CpmModel.Meta):
        constraints = [models.CheckConstraint(name="audit_key_one_row", condition=models.Q(id=1))]


class AuditSeal(CpmModel):
    """A batch of audit rows. `hash` covers the seal before and `rows_hash`, which covers the rows in their order.

    Seals stay when retention removes their rows: `purged_at` says that the rows are gone on purpose.
    """

    previous_hash = models.CharField(max_length=64)
    rows_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)
    rows = models.PositiveIntegerField()
    sealed_at = models.DateTimeField()
    purged_at = models.DateTimeField(null=True, blank=True)


class AuditRecord(CpmModel):
    """Who changed what, for whom and from where. Names are copies: a record outlives what it tells of.

    `user_id` acted and `owner_id` owns what was changed; neither is a foreign key. `before` and `after` hold the
    fields that differ, never a secret. `seal`, `position` and `mac` are set once, when the row is sealed.
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
    request_id = models.CharField(max_length=64, blank=True)
    subject_type = models.CharField(max_length=32)
    subject_id = models.BigIntegerField(null=True, blank=True)
    before = models.JSONField(default=dict, blank=True)
    after = models.JSONField(default=dict, blank=True)
    seal = models.ForeignKey(AuditSeal, null=True, blank=True, on_delete=models.PROTECT, related_name="records")
    position = models.PositiveIntegerField(null=True, blank=True)
    mac = models.CharField(max_length=64, blank=True)

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(name="audit_unsealed", fields=["id"], condition=models.Q(seal=None)),
            models.Index(name="audit_by_user", fields=["user_id", "event_time"]),
        ]
        constraints = [models.UniqueConstraint(name="audit_place_in_seal", fields=["seal", "position"])]

    def __str__(self) -> str:
        return self.log
