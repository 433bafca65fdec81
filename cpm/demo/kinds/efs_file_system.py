"""An EFS file system with pictures of what the shop sells, and the vault and role that AWS Backup works with."""

import json
import random

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Content, Kind, Place
from cpm.demo.rest import Json

VAULT = "shop"
# AWS's own name of the role that its console makes.
ROLE = "AWSBackupDefaultServiceRole"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "backup.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
FILES, FILE_BYTES = 20, 4096
# AWS Backup restores into a folder below the root, into a new file system too.
RESTORED = "aws-backup-restore_"


class EfsFileSystem(Kind):
    key = "efs"
    dr_key = "dr_efs"
    noun = "EFS file system"
    name = "shop-files"
    compared = "every file"

    def prepare(self, home: Place, dr: Place) -> None:
        iam = home.client("iam")
        if unless_absent("NoSuchEntity", lambda: iam.get_role(RoleName=ROLE)) is None:
            trust = json.dumps(TRUST)
            iam.create_role(RoleName=ROLE, Path="/service-role/", AssumeRolePolicyDocument=trust)
        for place in (home, dr):
            place.client("backup").create_backup_vault(BackupVaultName=VAULT)

    def make(self, place: Place) -> str:
        tags = [{"Key": "Name", "Value": self.name}]
        made = place.client("efs").create_file_system(CreationToken=self.name, Encrypted=True, Tags=tags)
        return str(made["FileSystemId"])

    def state(self, place: Place, id: str) -> str:
        efs = place.client("efs")
        shown = unless_absent("FileSystemNotFound", lambda: efs.describe_file_systems(FileSystemId=id))
        return str(shown["FileSystems"][0]["LifeCycleState"]) if shown else ""

    def fill(self, place: Place, id: str, version: int) -> None:
        chance = random.Random(version)
        for number in range(FILES):
            path = f"pictures/{number % 4}/{number:03}.jpg"
            place.aws.hold(f"/efs/{id}/files/{path}", chance.randbytes(FILE_BYTES))

    def content(self, place: Place, id: str) -> Content:
        files: dict[str, str] = place.aws.control("GET", f"/efs/{id}/files")
        return Content.of_parts("files", {_original(path): sha256 for path, sha256 in files.items()})

    def delete(self, place: Place, id: str) -> None:
        place.client("efs").delete_file_system(FileSystemId=id)

    def target(self, place: Place, id: str) -> Json:
        return {**super().target(place, id), "backup_vault_name": VAULT}

    def wanted(self, name: str) -> Json:
        return {}


def _original(path: str) -> str:
    return path.partition("/")[2] if path.startswith(RESTORED) else path
