"""The AWS actions that RDS databases need, each with its reason."""

from cpm.aws.iam_policy import IamAction, tagged_as_ours, tagging_as_ours

DATABASES = "arn:{partition}:rds:*:*:db:*"
# What CPM makes is named so: rights on snapshots end there.
SNAPSHOTS = "arn:{partition}:rds:*:*:snapshot:cpm-*"
GROUPS = tuple("arn:{partition}:rds:*:*:" + kind + ":*" for kind in ("og", "pg", "subgrp"))
OURS = tagged_as_ours()

IAM_ACTIONS = (
    IamAction("rds:DescribeDBInstances", "backup", "finds the databases of a policy and what they look like"),
    IamAction("rds:CreateDBSnapshot", "backup", "backs up databases", (DATABASES, SNAPSHOTS)),
    IamAction("rds:AddTagsToResource", "backup", "tags snapshots as ours", SNAPSHOTS, tagging_as_ours()),
    IamAction("rds:DescribeDBSnapshots", "backup", "waits until snapshots are complete"),
    IamAction("rds:DeleteDBSnapshot", "retention", "deletes outlived and aborted snapshots", SNAPSHOTS, OURS),
    IamAction("rds:ModifyDBSnapshotAttribute", "dr source", "shares with the DR account for the copy", SNAPSHOTS, OURS),
    IamAction("rds:CopyDBSnapshot", "dr copies", "copies snapshots to another region or account", SNAPSHOTS),
    IamAction("rds:DescribeDBSnapshots", "dr copies", "waits until copies are complete"),
    IamAction("rds:AddTagsToResource", "dr copies", "tags copies as ours", SNAPSHOTS, tagging_as_ours()),
    IamAction("rds:AddTagsToResource", "dr copies", "marks outdated copies that may not be deleted", SNAPSHOTS, OURS),
    IamAction("rds:DescribeDBSnapshots", "catalogue", "rebuilds a lost database from the tags of our snapshots"),
    IamAction("rds:DescribeDBSnapshots", "recovery", "sees whether the snapshot is there"),
    IamAction("rds:DescribeDBSnapshotAttributes", "recovery", "sees which accounts may use a snapshot already"),
    IamAction("rds:ModifyDBSnapshotAttribute", "recovery", "shares with the account to recover to", SNAPSHOTS, OURS),
    IamAction("rds:CopyDBSnapshot", "recovery", "copies an encrypted snapshot of another account", SNAPSHOTS),
    IamAction("rds:DeleteDBSnapshot", "recovery", "removes temporary copies", SNAPSHOTS, OURS),
    IamAction("rds:DescribeDBSubnetGroups", "recovery", "checks that the subnet group exists"),
    IamAction("rds:DescribeOrderableDBInstanceOptions", "recovery", "checks that the class is offered"),
    IamAction(
        "rds:RestoreDBInstanceFromDBSnapshot", "recovery", "makes a database from a snapshot",
        (DATABASES, SNAPSHOTS, *GROUPS),
    ),
    IamAction(
        "rds:AddTagsToResource", "recovery", "tags what it makes", (DATABASES, SNAPSHOTS), tagging_as_ours()
    ),
    IamAction(
        "rds:CreateDBInstance", "recovery", "makes a database for the rows of a copy in S3", (DATABASES, *GROUPS)
    ),
    IamAction("rds:DescribeDBInstances", "recovery", "waits until a recovered database can be used"),
    IamAction("rds:DeleteDBInstance", "recovery", "removes the database of an aborted recovery", DATABASES, OURS),
)  # fmt: skip
