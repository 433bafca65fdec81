"""AWS accounts that CPM protects (backup) or copies into (DR)."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from cpm.lib.states import Authentication
from cpm.models.base import CpmModel
from cpm.models.user import User


class Account(CpmModel):
    """How to reach one AWS account. `secret_key` holds a token of `cpm.lib.secrets`, never plain text."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="accounts")
    name = models.CharField(max_length=128)
    is_dr_account = models.BooleanField(default=False)
    authentication = models.CharField(max_length=1, choices=Authentication.choices())
    access_key = models.CharField(max_length=128, blank=True)
    secret_key = models.TextField(blank=True)
    account_number = models.CharField(max_length=12, blank=True)
    role_name = models.CharField(max_length=128, blank=True)
    external_id = models.CharField(max_length=1224, blank=True)
    assume_from_account = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="assumed_by"
    )
    allow_deleting_snapshots = models.BooleanField(default=True)
    scan_tagged_resources = models.BooleanField(default=False)
    scan_regions = ArrayField(models.BigIntegerField(), default=list, blank=True)
    scan_resource_types = ArrayField(models.BigIntegerField(), default=list, blank=True)
    capture_vpcs = models.BooleanField(default=True)
    last_error = models.TextField(blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="account_name_of_user", fields=["user", "name"])]

    def __str__(self) -> str:
        return self.name
