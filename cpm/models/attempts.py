"""Counting attempts, so that guessing a password or a key takes longer than anybody lives."""

from django.db import models

from cpm.models.base import CpmModel


class Attempts(CpmModel):
    """Attempts of one kind by one name or address in the current window; `blocked_until` locks further ones out."""

    kind = models.CharField(max_length=16)
    key = models.CharField(max_length=200)
    window_start = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)
    blocked_until = models.DateTimeField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="attempts_once", fields=["kind", "key"])]
