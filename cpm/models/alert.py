"""Alerts: states, raised and cleared by the flows."""

from django.db import models

from cpm.lib.states import Severity
from cpm.models.base import CpmModel
from cpm.models.policy import Policy
from cpm.models.user import User


class Alert(CpmModel):
    """Something is wrong now. One per (user, policy, category); it goes when the cause goes."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="alerts")
    policy = models.ForeignKey(Policy, null=True, blank=True, on_delete=models.CASCADE, related_name="alerts")
    category = models.CharField(max_length=64)
    severity = models.CharField(max_length=1, choices=Severity.choices())
    title = models.CharField(max_length=255)
    message_body = models.TextField()
    alert_time = models.DateTimeField()
    # When it was sent to whoever wants to be told; None means that it still has to be.
    notified_at = models.DateTimeField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        constraints = [
            models.UniqueConstraint(
                name="alert_once", fields=["user", "policy", "category"], nulls_distinct=False
            )
        ]

    def __str__(self) -> str:
        return self.title
