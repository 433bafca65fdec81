"""How workers are run in accounts and regions, what they are tagged with, and tests of that."""

from django.db import models

from cpm.lib.states import WorkerTestStatus
from cpm.models.account import Account
from cpm.models.base import CpmModel
from cpm.models.region import Region
from cpm.models.user import User


class WorkerConfiguration(CpmModel):
    """The network in which a worker of one account and region runs. An empty subnet means any.

    `http_proxy_password` is a token of `cpm.lib.secrets`.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="worker_configurations")
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="worker_configurations")
    region = models.ForeignKey(Region, on_delete=models.PROTECT, related_name="+")
    aws_vpc = models.CharField(max_length=64)
    aws_security_group = models.CharField(max_length=64)
    aws_subnet = models.CharField(max_length=64, blank=True)
    aws_key_pair = models.CharField(max_length=255, blank=True)
    requires_http_proxy = models.BooleanField(default=False)
    http_proxy_address = models.CharField(max_length=255, blank=True)
    http_proxy_port = models.PositiveIntegerField(null=True, blank=True)
    http_proxy_user_name = models.CharField(max_length=255, blank=True)
    http_proxy_password = models.TextField(blank=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta(CpmModel.Meta):
        constraints = [
            models.UniqueConstraint(name="worker_configuration_once", fields=["account", "region"])
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.region}"


class WorkerTag(CpmModel):
    """A tag for what workers of an account use in AWS."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="worker_tags")
    key = models.CharField(max_length=128)
    value = models.CharField(max_length=256, blank=True)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="worker_tag_once", fields=["account", "key"])]


class WorkerTest(CpmModel):
    """One test of a configuration. `worker_id` is the fleet member that ran it; `details` say how it ended, and where it ran."""

    configuration = models.ForeignKey(WorkerConfiguration, on_delete=models.CASCADE, related_name="tests")
    status = models.CharField(
        max_length=1, choices=WorkerTestStatus.choices(), default=WorkerTestStatus.IN_PROGRESS
    )
    worker_id = models.BigIntegerField(null=True)
    details = models.TextField(blank=True)
    start_time = models.DateTimeField()
    end_time = models.DateTimeField(null=True)
