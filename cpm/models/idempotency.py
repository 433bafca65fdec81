"""Answers kept for clients that repeat a request."""

from django.db import models

from cpm.models.base import CpmModel
from cpm.models.user import User


class StoredAnswer(CpmModel):
    """What a POST under an `Idempotency-Key` answered. `status` is null only inside the first call's transaction."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    path = models.CharField(max_length=255)
    body_hash = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    content = models.TextField(blank=True)
    created_at = models.DateTimeField()

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="stored_answer_once", fields=["user", "key", "path"])]
        indexes = [models.Index(name="stored_answer_by_age", fields=["created_at"])]
