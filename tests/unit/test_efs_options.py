"""Options of EFS backups, and what AWS Backup says that it has deleted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cpm.aws.errors import Denied, NotFound
from cpm.resources import aws_backup, efs_options
from cpm.resources.efs_file_system import EfsFileSystem
from cpm.resources.whole import Held

CHOSEN = {one.name: one.default for one in efs_options.TAKES}
POINT = "arn:aws:backup:us-east-1:123456789012:recovery-point:1"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"backup_vault_name": "no.dots"}, "backup_vault_name"),
        ({"backup_iam_role_arn": "backup"}, "backup_iam_role_arn"),
        ({"expire_option": "D", "expire_option_value": 0}, "expire_option_value"),
        ({"move_to_cold_storage_option": "Y", "move_to_cold_storage_option_value": 101},
         "move_to_cold_storage_option_value"),
        ({"expire_option": "M", "expire_option_value": 3, "move_to_cold_storage_option": "D"}, "expire_option_value"),
    ],
)  # fmt: skip
def test_options_that_aws_backup_would_refuse_are_refused(options: dict[str, Any], field: str) -> None:
    assert set(EfsFileSystem().option_problems({**CHOSEN, **options})) == {field}


@pytest.mark.parametrize(
    ("options", "lifecycle"),
    [
        ({}, {}),
        ({"expire_option": "N", "expire_option_value": 0}, {}),
        ({"expire_option": "W", "expire_option_value": 2}, {"DeleteAfterDays": 14}),
        ({"move_to_cold_storage_option": "M", "move_to_cold_storage_option_value": 2}, {"MoveToColdStorageAfterDays": 60}),
        ({"expire_option": "D", "expire_option_value": 91, "move_to_cold_storage_option": "D"},
         {"MoveToColdStorageAfterDays": 1, "DeleteAfterDays": 91}),
    ],
)  # fmt: skip
def test_times_become_days(options: dict[str, Any], lifecycle: dict[str, int]) -> None:
    assert EfsFileSystem().option_problems({**CHOSEN, **options}) == {}
    assert efs_options.lifecycle({**CHOSEN, **options}) == lifecycle


def test_a_lifetime_counts_from_the_backup_where_aws_has_not_told_its_end() -> None:
    details = {"options": {**CHOSEN, "expire_option": "D", "expire_option_value": 7}}
    held = Held(POINT, "fs-1", "us-east-1", "123456789012", details, started=NOW)

    assert efs_options.outlives_policy(held, NOW + timedelta(days=6))
    assert not efs_options.outlives_policy(held, NOW + timedelta(days=8))


class Vault:
    """AWS Backup with one recovery point, which a caller without the permission only seems to delete."""

    service, region = "backup", "us-east-1"

    def __init__(self, *, obeys: bool) -> None:
        self.obeys, self.points = obeys, {POINT: "COMPLETED"}

    def call(self, action: str, **params: Any) -> dict[str, Any]:
        arn = params["RecoveryPointArn"]
        if arn not in self.points:
            raise NotFound("ResourceNotFoundException", arn, action=action, service=self.service, region=self.region)
        if action == "DeleteRecoveryPoint" and self.obeys:
            del self.points[arn]
        return {"Status": self.points.get(arn)}


def test_a_deletion_that_aws_only_seems_to_do_is_a_denial() -> None:
    aws_backup.delete_point(Vault(obeys=True), "cpm", POINT)  # type: ignore[arg-type]

    with pytest.raises(Denied) as denied:
        aws_backup.delete_point(Vault(obeys=False), "cpm", POINT)  # type: ignore[arg-type]

    assert "backup:DeleteRecoveryPoint is missing" in str(denied.value)
    assert "[recovery_point_not_deleted]" in str(denied.value)
