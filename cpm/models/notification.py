"""Whom to tell of alerts, and when to send the daily summary."""

import datetime

from django.db import models

from cpm.lib.states import Authentication
from cpm.models.account import Account
from cpm.models.base import CpmModel
from cpm.models.user import User


class Notification(CpmModel):
    """The notification settings of one user. `secret_key` holds a token of `cpm.lib.secrets`, never plain text."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="notification")
    authentication = models.CharField(max_length=1, choices=Authentication.choices())
    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="notifications")
    access_key = models.CharField(max_length=128, blank=True)
    secret_key = models.TextField(blank=True)
    region = models.CharField(max_length=32)
    include_managed_user_alerts = models.BooleanField(default=False)
    alerts_enabled = models.BooleanField(default=False)
    alerts_topic_arn = models.CharField(max_length=256, blank=True)
    summary_enabled = models.BooleanField(default=False)
    summary_topic_arn = models.CharField(max_length=256, blank=True)
    use_same_topic = models.BooleanField(default=False)
    summary_time = models.TimeField(default=datetime.time(9))
    next_summary_at = models.DateTimeField(null=True, blank=True, db_index=True)
    last_summary_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"notifications of {self.user}"
