"""What may be chosen for the backups of an EFS file system, and what follows from it for AWS Backup."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cpm.lib.states import EfsColdStorage, EfsExpiry
from cpm.resources import aws_backup
from cpm.resources.fields import Shows, Takes
from cpm.resources.whole import Held, Problems

# AWS Backup counts in days; here M is months, unlike in schedules.
DAYS = {"D": 1, "W": 7, "M": 30, "Y": 365}
LONGEST_DAYS = 36_500
LEAST_DAYS_IN_COLD_STORAGE = 90
DEFAULT_VAULT = "Default"

TAKES = (
    Takes("backup_vault_name", default=DEFAULT_VAULT, help="Vault of AWS Backup, which must exist; copies go to one "
          "of the same name."),
    Takes("backup_iam_role_arn", default="", help="Role that AWS Backup works with; empty for its own, "
          "AWSBackupDefaultServiceRole."),
    Takes("expire_option", choices=EfsExpiry, default=EfsExpiry.POLICY.value,
          help="When a recovery point ends: with the policy's generations, never, or after a time of its own."),
    Takes("expire_option_value", int, default=1, help="How many days, weeks, months or years."),
    Takes("move_to_cold_storage_option", choices=EfsColdStorage, default=EfsColdStorage.NEVER.value,
          help="When a recovery point moves to cold storage."),
    Takes("move_to_cold_storage_option_value", int, default=1, help="How many days, weeks, months or years."),
)  # fmt: skip
SHOWS = tuple(
    Shows(one.name, f"options__{one.name}", one.holds, choices=one.choices) for one in TAKES
)  # fmt: skip


def problems(options: Mapping[str, Any]) -> Problems:
    """What is wrong with what was chosen, all of it together."""
    found: Problems = {}
    if not aws_backup.VAULT.fullmatch(options["backup_vault_name"]):
        found["backup_vault_name"] = "A vault's name has 2 to 50 letters, digits, dashes and underscores."
    role = options["backup_iam_role_arn"]
    if role and not aws_backup.ROLE.fullmatch(role):
        found["backup_iam_role_arn"] = "This is not the ARN of an IAM role; leave it empty for AWS Backup's own role."
    for name in ("expire_option", "move_to_cold_storage_option"):
        days = _days(options, name)
        if days is not None and not 1 <= days <= LONGEST_DAYS:
            found[f"{name}_value"] = f"This must be a time from 1 to {LONGEST_DAYS} days."
    expires, cold = _days(options, "expire_option"), _days(options, "move_to_cold_storage_option")
    if not found and expires is not None and cold is not None and expires < cold + LEAST_DAYS_IN_COLD_STORAGE:
        found["expire_option_value"] = (
            f"AWS Backup keeps a recovery point at least {LEAST_DAYS_IN_COLD_STORAGE} days in cold storage: it moves there "
            f"after {cold} days, so it may expire after {cold + LEAST_DAYS_IN_COLD_STORAGE} days, not after {expires}."
        )
    return found


def lifecycle(options: Mapping[str, Any]) -> dict[str, int]:
    """AWS Backup's Lifecycle; what follows the policy's generations has no end there."""
    days = {
        "MoveToColdStorageAfterDays": _days(options, "move_to_cold_storage_option"),
        "DeleteAfterDays": _days(options, "expire_option"),
    }
    return {name: count for name, count in days.items() if count is not None}


def outlives_policy(held: Held, now: datetime) -> bool:
    """Whether a recovery point has a lifetime of its own that is not over."""
    options = held.details.get("options") or {}
    option = options.get("expire_option", EfsExpiry.POLICY)
    if option == EfsExpiry.POLICY:
        return False
    days = _days(options, "expire_option")
    if days is None:
        return True
    if held.details.get("expire_time"):
        return now < datetime.fromisoformat(held.details["expire_time"])
    return held.started is not None and now < held.started + timedelta(days=days)


def _days(options: Mapping[str, Any], name: str) -> int | None:
    """After how many days; None for what has no time."""
    unit = DAYS.get(str(options.get(name, "")))
    return None if unit is None else unit * int(options.get(f"{name}_value") or 0)
