"""How many backups there are, without counting them."""

from django.db import models

from cpm.models.base import CpmModel


class BackupTally(CpmModel):
    """`n` more (or fewer) backups of a user that started on the UTC day `bucket`.

    Triggers on the backup table append rows within the transaction that changes backups, so the sum is exact for
    every reader and nobody waits for a counter. `cpm.services.backup_tally.fold` merges rows now and then. Each
    change is noted twice: per account (`whole_user` false, `account` null for backups without one) and for the user.
    There are no foreign keys, because rows must outlive what they count by a moment.
    """

    user_id = models.BigIntegerField()
    account_id = models.BigIntegerField(null=True)
    whole_user = models.BooleanField()
    bucket = models.DateField()
    n = models.BigIntegerField()

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(
                name="backup_tally_by_scope",
                fields=["user_id", "whole_user", "account_id", "bucket"],
                include=["n"],
            )
        ]
