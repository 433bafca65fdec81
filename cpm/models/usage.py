"""How much each account protects, day by day."""

from django.db import models

from cpm.models.base import CpmModel


class UsageRecord(CpmModel):
    """What one account protected on one day. Ids and names are copies: usage outlives accounts and users."""

    day = models.DateField()
    report_time = models.DateTimeField()
    user_id = models.BigIntegerField()
    username = models.CharField(max_length=150)
    account_id = models.BigIntegerField()
    account_name = models.CharField(max_length=128)
    instances = models.PositiveBigIntegerField(default=0)
    instances_dr = models.PositiveBigIntegerField(default=0)
    instances_s3 = models.PositiveBigIntegerField(default=0)
    independent_volumes_gib = models.PositiveBigIntegerField(default=0)
    rds_gib = models.PositiveBigIntegerField(default=0)
    redshift_gib = models.PositiveBigIntegerField(default=0)
    dynamodb_gib = models.PositiveBigIntegerField(default=0)
    efs = models.PositiveBigIntegerField(default=0)
    controlled_entities = models.PositiveBigIntegerField(default=0)
    scanning_tags = models.BooleanField(default=False)
    capturing_vpcs = models.BooleanField(default=False)

    class Meta(CpmModel.Meta):
        constraints = [models.UniqueConstraint(name="usage_of_account_and_day", fields=["account_id", "day"])]
        indexes = [models.Index(name="usage_by_user", fields=["user_id", "report_time"])]
