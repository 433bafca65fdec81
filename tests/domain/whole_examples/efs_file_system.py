"""EFS file systems in the suite over all types."""

import contextlib
import json
from datetime import UTC
from typing import Any

import requests

from tests.domain.whole_examples.base import REGION, Example, customer_key, subnets_in
from tests.domain.world import DR_ACCOUNT, World
from tests.simulated_aws import DEFAULT_ACCOUNT

VAULT, ROLE = "cpm", "AWSBackupDefaultServiceRole"
COPY_INTO = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{DEFAULT_ACCOUNT}:root"},
         "Action": "backup:CopyIntoBackupVault", "Resource": "*"}
    ]
}  # fmt: skip


class FileSystemExample(Example):
    key = "efs"
    creates, lists = "StartBackupJob", "ListBackupJobs"
    copies, restores = "StartCopyJob", "StartRestoreJob"
    names_taken = False
    timing = ("backup_job_seconds", "file_system_seconds")

    def make(self, world: World, name: str) -> str:
        prepare(world, DEFAULT_ACCOUNT, REGION)
        tags = [{"Key": "team", "Value": "shop"}, {"Key": "Name", "Value": name}]
        efs = world.aws.client("efs")
        made = efs.create_file_system(CreationToken=name, PerformanceMode="maxIO", Encrypted=True, Tags=tags)
        id = str(made["FileSystemId"])
        write(world, id, "orders/1.txt", name)
        write(world, id, "readme", "of the shop")
        return id

    def make_unusual(self, world: World, name: str) -> str:
        prepare(world, DEFAULT_ACCOUNT, REGION)
        efs = world.aws.client("efs")
        tags = [{"Key": "Name", "Value": "Ledger"}]
        world.aws.client("iam").create_role(RoleName="keeper", AssumeRolePolicyDocument='{"Statement": []}')
        key = customer_key(world)
        made = efs.create_file_system(
            CreationToken=name, PerformanceMode="maxIO", Encrypted=True, KmsKeyId=key, Tags=tags
        )
        for subnet in subnets_in(world, "us-east-1b", "us-east-1c"):
            efs.create_mount_target(FileSystemId=made["FileSystemId"], SubnetId=subnet)
        write(world, made["FileSystemId"], "readme", "of the shop")
        return str(made["FileSystemId"])

    def target_fields(self, world: World, id: str) -> dict[str, Any]:
        shown = world.aws.client("efs").describe_file_systems(FileSystemId=id)["FileSystems"][0]
        return {
            "encrypted": shown["Encrypted"],
            "name": shown["Name"],
            "num_mount_targets": shown["NumberOfMountTargets"],
            "size_in_bytes": shown["SizeInBytes"]["Value"],
            "status": shown["LifeCycleState"],
            **self.unusual_options(),
        }

    def snapshot_fields(self, world: World, id: str, snapshot: str, region: str = REGION) -> dict[str, Any]:
        shown = world.aws.client("efs").describe_file_systems(FileSystemId=id)["FileSystems"][0]
        backup = world.aws.client("backup", region)
        point = backup.describe_recovery_point(BackupVaultName=VAULT, RecoveryPointArn=snapshot)
        ends = point["CalculatedLifecycle"]
        return {
            "backup_iam_role_arn": point["IamRoleArn"],
            "backup_vault_name": point["BackupVaultName"],
            "expire_time": f"{ends['DeleteAt'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "move_to_cold_storage_time": f"{ends['MoveToColdStorageAt'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "original_kms_key_id": shown["KmsKeyId"],
            "performance_mode": shown["PerformanceMode"],
        }

    def change(self, world: World, id: str) -> None:
        write(world, id, "readme", "changed")

    def content(self, world: World, id: str, region: str = REGION, account: str | None = None) -> Any:
        shown = world.aws.client("efs", region, account).describe_file_systems(FileSystemId=id)["FileSystems"][0]
        # AWS Backup restores into a folder below the root, into a new file system too.
        files = {
            path.split("/", 1)[1] if path.startswith("aws-backup-restore_") else path: digest
            for path, digest in world.aws.control("GET", f"/efs/{id}/files").items()
        }
        return files, shown["PerformanceMode"], shown["Encrypted"]

    def tags(self, world: World, id: str, region: str = REGION) -> dict[str, str]:
        listed = world.aws.client("efs", region).list_tags_for_resource(ResourceId=id)["Tags"]
        return {tag["Key"]: tag["Value"] for tag in listed}

    def destroy(self, world: World, id: str) -> None:
        world.aws.client("efs").delete_file_system(FileSystemId=id)

    def resources(self, world: World) -> set[str]:
        return {one["FileSystemId"] for one in world.aws.client("efs").describe_file_systems()["FileSystems"]}

    def prepare_dr(self, world: World) -> None:
        prepare(world, DEFAULT_ACCOUNT, "eu-west-1")
        key = world.aws.client("kms", "eu-west-1", DR_ACCOUNT).create_key()["KeyMetadata"]["Arn"]
        prepare(world, DR_ACCOUNT, "eu-west-1", EncryptionKeyArn=key)
        world.aws.client("backup", "eu-west-1", DR_ACCOUNT).put_backup_vault_access_policy(
            BackupVaultName=VAULT, Policy=json.dumps(COPY_INTO)
        )

    def request(self, name: str) -> dict[str, Any]:
        return {}

    def snapshots(self, world: World, region: str = REGION, account: str | None = None) -> set[str]:
        listed = world.aws.client("backup", region, account).list_recovery_points_by_backup_vault(BackupVaultName=VAULT)
        return {one["RecoveryPointArn"] for one in listed["RecoveryPoints"]}

    def unusual_options(self) -> dict[str, Any]:
        return {
            "backup_iam_role_arn": f"arn:aws:iam::{DEFAULT_ACCOUNT}:role/keeper",
            "backup_vault_name": VAULT,
            "expire_option": "M",
            "expire_option_value": 4,
            "move_to_cold_storage_option": "D",
            "move_to_cold_storage_option_value": 30,
        }

    def options(self) -> dict[str, Any]:
        return {"backup_vault_name": VAULT}


def write(world: World, id: str, path: str, text: str) -> None:
    """Put a file into a file system, as a host that has mounted it would."""
    url = f"{world.aws.control_url}/efs/{id}/files/{path}"
    requests.put(url, data=text.encode(), timeout=30).raise_for_status()


def prepare(world: World, account: str, region: str, **vault: Any) -> None:
    """The role that AWS Backup's console makes, and a vault."""
    iam, backup = world.aws.client("iam", account=account), world.aws.client("backup", region, account)
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=ROLE, Path="/service-role/", AssumeRolePolicyDocument='{"Statement": []}')
    with contextlib.suppress(backup.exceptions.AlreadyExistsException):
        backup.create_backup_vault(BackupVaultName=VAULT, **vault)
