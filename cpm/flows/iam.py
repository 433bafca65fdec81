"""Every AWS action that CPM calls, put together into the policies of deploy/iam.

What one resource type needs is declared by its class, what recoveries need by `recover_actions`, the rest here. The
tests hold the declarations against the calls in the source and against those that flows really make.
"""

from collections.abc import Mapping
from pathlib import Path

from cpm.aws import block_io_actions, iam_policy
from cpm.aws.iam_policy import Document, IamAction, tag_only_on_create, tagged_as_ours, tagging_as_ours
from cpm.flows.recoveries import recover_actions
from cpm.notifications import senders, topics
from cpm.resources.registry import TYPES
from cpm.s3_sync import iam_actions as s3_sync

SNAPSHOTS = "arn:{partition}:ec2:*::snapshot/*"
IMAGES = "arn:{partition}:ec2:*::image/*"
KEYS = "arn:{partition}:kms:*:*:key/*"
BUCKETS = "arn:{partition}:s3:::*"
OBJECTS = "arn:{partition}:s3:::*/*"
# Repositories have their folders below this one.
FOLDERS = "arn:{partition}:s3:::*/cpm/*"
BY_S3 = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com*"}}
OURS = tagged_as_ours()

GENERAL = (
    IamAction("ec2:DescribeRegions", "general", "learns which regions the account uses"),
    IamAction("sts:GetCallerIdentity", "general", "learns the number of the account"),
)
PERMISSION_CHECK = (
    IamAction(
        "iam:SimulatePrincipalPolicy",
        "permission check",
        "asks which of these actions are allowed",
        ("arn:{partition}:iam::*:role/*", "arn:{partition}:iam::*:user/*"),
    ),
)
RETENTION = (
    IamAction("ec2:DeleteSnapshot", "retention", "deletes outlived, aborted and temporary snapshots", SNAPSHOTS, OURS),
    IamAction("ec2:DeregisterImage", "retention", "removes outlived AMIs, before their snapshots", IMAGES, OURS),
    IamAction("ec2:DescribeImages", "retention", "finds the snapshots of an AMI"),
)
DR_SOURCE = (
    IamAction("ec2:ModifySnapshotAttribute", "dr source", "shares with the DR account for the copy", SNAPSHOTS, OURS),
    IamAction("ec2:ModifyImageAttribute", "dr source", "shares with the DR account for the copy", IMAGES, OURS),
)
DR_TARGET = (
    IamAction("ec2:CopySnapshot", "dr copies", "copies snapshots to another region or account"),
    IamAction("ec2:CopyImage", "dr copies", "copies AMIs to another region or account"),
    IamAction("ec2:DescribeSnapshots", "dr copies", "waits until copies are complete"),
    IamAction("ec2:DescribeImages", "dr copies", "waits until copies are complete"),
    IamAction(
        "ec2:CreateTags",
        "dr copies",
        "tags copies as ours",
        condition=tag_only_on_create("CopyImage", "CopySnapshot"),
    ),
    IamAction("ec2:CreateTags", "dr copies", "marks outdated copies that may not be deleted", (SNAPSHOTS, IMAGES), OURS),
)
ENCRYPTION = (
    IamAction("kms:ListAliases", "encryption", "finds the key for a copy by its alias"),
    IamAction("kms:ListKeys", "encryption", "finds the key for a copy by its tag"),
    IamAction("kms:ListResourceTags", "encryption", "finds the key for a copy by its tag", KEYS),
    IamAction("kms:DescribeKey", "encryption", "EC2 looks at the key of an encrypted snapshot", KEYS),
    IamAction("kms:Decrypt", "encryption", "EC2 reads encrypted snapshots", KEYS),
    IamAction("kms:GenerateDataKeyWithoutPlaintext", "encryption", "EC2 encrypts copies", KEYS),
    IamAction("kms:ReEncryptFrom", "encryption", "EC2 changes the key of a copy", KEYS),
    IamAction("kms:ReEncryptTo", "encryption", "EC2 changes the key of a copy", KEYS),
    IamAction(
        "kms:CreateGrant",
        "encryption",
        "lets EC2 use the key of a copy",
        KEYS,
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    ),
)
CATALOGUE = (
    IamAction("ec2:DescribeSnapshots", "catalogue", "rebuilds a lost database from the tags of our snapshots"),
    IamAction("ec2:DescribeImages", "catalogue", "rebuilds a lost database from the tags of our AMIs"),
)
SERVER_DATA = (
    IamAction(
        "ebs:StartSnapshot", "server data", "keeps the server's own database (cpmdata)", SNAPSHOTS, tagging_as_ours()
    ),
    IamAction("ebs:PutSnapshotBlock", "server data", "writes the server's own database", SNAPSHOTS, OURS),
    IamAction("ebs:CompleteSnapshot", "server data", "completes that snapshot", SNAPSHOTS, OURS),
    IamAction("ebs:ListSnapshotBlocks", "server data", "restores the server's own database", SNAPSHOTS, OURS),
    IamAction("ebs:GetSnapshotBlock", "server data", "restores the server's own database", SNAPSHOTS, OURS),
    IamAction(
        "ec2:CreateTags",
        "server data",
        "tags the snapshot of the server's database",
        SNAPSHOTS,
        tag_only_on_create("StartSnapshot"),
    ),
)
CONSISTENCY = (
    IamAction("ssm:SendCommand", "consistency", "runs scripts and VSS on instances before and after their snapshots"),
    IamAction("ssm:GetCommandInvocation", "consistency", "learns how a command ended"),
    IamAction("ssm:ListCommandInvocations", "consistency", "asks about many commands at once"),
    IamAction("ssm:ListCommands", "consistency", "finds a command that was sent before a worker died"),
    IamAction("ssm:CancelCommand", "consistency", "stops a command of an aborted backup"),
)
SERVER = (
    IamAction(
        "sts:AssumeRole",
        "server",
        "works in accounts that are given by a role; narrow the name to that of your roles",
        "arn:{partition}:iam::*:role/cpm-*",
    ),
)
REPOSITORY = (
    IamAction("s3:GetBucketLocation", "s3 repositories", "checks that the bucket is where it is said to be", BUCKETS),
    IamAction("s3:GetEncryptionConfiguration", "s3 repositories", "refuses a bucket that does not encrypt", BUCKETS),
    IamAction("s3:GetBucketVersioning", "s3 repositories", "learns whether deleting must remove versions", BUCKETS),
    IamAction(
        "s3:GetBucketObjectLockConfiguration", "s3 repositories", "learns whether objects can be locked", BUCKETS
    ),
    IamAction("s3:ListBucket", "s3 repositories", "lists the objects of a repository", BUCKETS),
    IamAction("s3:ListBucketVersions", "s3 repositories", "finds all that the deletion of a repository removes", BUCKETS),
    IamAction("s3:GetObject", "s3 repositories", "reads and verifies copies", FOLDERS),
    IamAction("s3:GetObjectRetention", "s3 repositories", "learns how long an object is locked", FOLDERS),
    IamAction("s3:PutObject", "s3 repositories", "writes copies", FOLDERS),
    IamAction("s3:PutObjectRetention", "s3 repositories", "locks what immutable copies need", FOLDERS),
    IamAction("s3:RestoreObject", "s3 repositories", "retrieves archived copies", FOLDERS),
    IamAction("s3:DeleteObject", "s3 repositories", "deletes outlived copies", FOLDERS),
    IamAction("s3:DeleteObjectVersion", "s3 repositories", "deletes outlived copies for good", FOLDERS),
    IamAction("kms:GenerateDataKey", "s3 repositories", "S3 encrypts with the key of the bucket", KEYS, BY_S3),
    IamAction("kms:DescribeKey", "s3 repositories", "checks the key that a repository shall use", KEYS),
    IamAction("kms:Decrypt", "s3 repositories", "S3 decrypts with the key of the bucket", KEYS, BY_S3),
)
RDS_EXPORT = (
    IamAction("rds:StartExportTask", "rds export", "exports snapshots of databases to the bucket of a repository"),
    IamAction("rds:DescribeExportTasks", "rds export", "waits until an export is there"),
    IamAction("rds:CancelExportTask", "rds export", "stops the export of an aborted copy"),
    IamAction(
        "iam:PassRole",
        "rds export",
        "lets RDS export with the role that the repository names; narrow the name to that of your role",
        "arn:{partition}:iam::*:role/cpm-*",
        {"StringEquals": {"iam:PassedToService": "export.rds.amazonaws.com"}},
    ),
    IamAction("kms:DescribeKey", "rds export", "RDS looks at the key of the export", KEYS),
    IamAction(
        "kms:CreateGrant",
        "rds export",
        "lets RDS use the key of the export",
        KEYS,
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    ),
)
EXPORTED_FILES = (
    IamAction("s3:ListBucket", "exported files", "sees that nothing is where files of a database shall come", BUCKETS),
    IamAction(
        "s3:PutObject", "exported files", "puts files of a database into a bucket; narrow it to that bucket", OBJECTS
    ),
    IamAction("s3:AbortMultipartUpload", "exported files", "drops a large file whose upload broke off", OBJECTS),
    IamAction("s3:GetObject", "exported files", "tells its own files from others", OBJECTS),
    IamAction("s3:DeleteObject", "exported files", "removes the files of an aborted recovery", OBJECTS),
)
NOTIFICATIONS = (*topics.IAM_ACTIONS, *senders.IAM_ACTIONS)
BACKUP = tuple(action for kind in TYPES if kind.policy == "backup-account" for action in kind.iam_actions)
S3_SYNC = tuple(action for kind in TYPES if kind.policy == "optional-s3-sync" for action in kind.iam_actions)
# What types need beyond the backup itself, by the group that they declare it for; it is needed in DR accounts too.
OF_TYPES: Mapping[str, tuple[IamAction, ...]] = {
    group: tuple(action for action in BACKUP if action.group == group)
    for group in ("retention", "dr source", "dr copies", "recovery", "catalogue")
}
RECOVERY = tuple(one for one in recover_actions.IAM_ACTIONS if one.group != recover_actions.REPLACE)
REPLACE = tuple(one for one in recover_actions.IAM_ACTIONS if one.group == recover_actions.REPLACE)

POLICIES: Mapping[str, tuple[IamAction, ...]] = {
    "backup-account": (
        *GENERAL, *PERMISSION_CHECK, *BACKUP, *RETENTION, *DR_SOURCE, *DR_TARGET, *ENCRYPTION, *CATALOGUE, *SERVER_DATA,
        *RECOVERY, *block_io_actions.READ_SNAPSHOTS,
    ),
    "dr-account": (
        *GENERAL, *PERMISSION_CHECK, *RETENTION, *DR_TARGET, *DR_SOURCE, *ENCRYPTION, *CATALOGUE, *RECOVERY,
        *OF_TYPES["retention"], *OF_TYPES["dr source"], *OF_TYPES["dr copies"], *OF_TYPES["recovery"],
        *OF_TYPES["catalogue"],
    ),
    "dr-account-no-delete": (
        *GENERAL, *PERMISSION_CHECK, *DR_TARGET, *DR_SOURCE, *ENCRYPTION, *CATALOGUE, *OF_TYPES["dr source"],
        *OF_TYPES["dr copies"], *OF_TYPES["catalogue"],
    ),
    "optional-consistency": CONSISTENCY,
    "optional-notifications": NOTIFICATIONS,
    "optional-replace-volumes": REPLACE,
    "optional-exported-files": EXPORTED_FILES,
    "optional-rds-export": RDS_EXPORT,
    "optional-s3-repositories": REPOSITORY,
    "optional-s3-sync": (*S3_SYNC, *s3_sync.IAM_ACTIONS),
    "server-role": SERVER,
}  # fmt: skip
"""The policies by the name of their files."""

OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "backup-account": (
        "optional-consistency", "optional-exported-files", "optional-notifications", "optional-rds-export",
        "optional-replace-volumes", "optional-s3-repositories", "optional-s3-sync",
    ),
    "dr-account": (
        "optional-exported-files", "optional-notifications", "optional-replace-volumes", "optional-s3-repositories",
        "optional-s3-sync",
    ),
    "dr-account-no-delete": ("optional-notifications", "optional-s3-repositories"),
}  # fmt: skip
"""What the policy of an account may be joined by."""

ACTIONS = tuple(action for actions in POLICIES.values() for action in actions)
"""Everything that is declared."""

WITHOUT_CALL: Mapping[str, str] = {
    "iam:PassRole": "ec2:RunInstances",
    "kms:CreateGrant": "ec2:CreateVolume",
    "kms:Decrypt": "ec2:CopySnapshot",
    "kms:GenerateDataKey": "s3:PutObject",
    "kms:GenerateDataKeyWithoutPlaintext": "ec2:CopySnapshot",
    "kms:ReEncryptFrom": "ec2:CopySnapshot",
    "kms:ReEncryptTo": "ec2:CopySnapshot",
    "s3:DeleteObjectVersion": "s3:DeleteObject",
    "s3:GetObjectRetention": "s3:GetObject",
    "sns:TagResource": "sns:CreateTopic",
    **{action.action: action.within for action in ACTIONS if action.within},
}
"""Actions that AWS checks within another call; CPM never calls them by name."""

NAMED_OTHERWISE: Mapping[str, str] = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
"""Calls of S3 whose IAM action has another name."""

_PREFIXES: Mapping[str, str] = {"efs": "elasticfilesystem", "docdb": "rds", "neptune": "rds"}


def action_of(service: str, action: str) -> str:
    """The IAM action of a call, by the service's boto name and the call's."""
    return f"{_PREFIXES.get(service, service)}:{NAMED_OTHERWISE.get(action, action)}"


SERVER_ROLE = "arn:aws:iam::111111111111:role/cpm-server"
EXTERNAL_ID = "choose-an-external-id"


def trust() -> Mapping[str, Document]:
    """The trust policies by the name of their files, with placeholders for account numbers and external id."""
    return {
        "server-role-trust": iam_policy.service_trust_policy(),
        "account-trust": iam_policy.trust_policy(SERVER_ROLE, external_id=EXTERNAL_ID),
    }


def write(folder: Path, *, partition: str = "aws") -> list[Path]:
    """Write all policies with their reasons, and the trust policies; answers the files."""
    written: list[Path] = []
    for name, actions in POLICIES.items():
        written += iam_policy.write(folder, name, actions, partition=partition)
    written += [iam_policy.write_trust(folder, name, document) for name, document in trust().items()]
    return written
