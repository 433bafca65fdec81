"""EFS file systems in the suite over all types."""

import contextlib
import json
from typing import Any

import requests

from tests.domain.whole_examples.base import REGION, Example
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
