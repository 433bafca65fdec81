"""What backing up, copying, deleting and restoring EFS file systems calls, and why."""

from cpm.aws.iam_policy import Condition, IamAction

SYSTEMS = "arn:{partition}:elasticfilesystem:*:*:file-system/*"
VAULTS = "arn:{partition}:backup:*:*:backup-vault:*"
POINTS = "arn:{partition}:backup:*:*:recovery-point:*"
ROLES = "arn:{partition}:iam::*:role/*"
TO_AWS_BACKUP: Condition = {"StringEquals": {"iam:PassedToService": "backup.amazonaws.com"}}

# Copy jobs are started and asked about where they come from; a DR account needs nothing for them but its vault's policy.
ACTIONS = (
    IamAction("elasticfilesystem:DescribeFileSystems", "backup", "finds the file systems of a policy", SYSTEMS),
    IamAction("backup:StartBackupJob", "backup", "backs up file systems", VAULTS),
    IamAction("backup:TagResource", "backup", "tags recovery points as ours", POINTS),
    IamAction("backup:ListTags", "backup", "finds what an interrupted backup has made", POINTS),
    IamAction("backup:ListBackupJobs", "backup", "waits until backups are complete"),
    IamAction("backup:ListRecoveryPointsByBackupVault", "backup", "learns when recovery points expire", VAULTS),
    IamAction("iam:PassRole", "backup", "lets AWS Backup work with its role", ROLES, TO_AWS_BACKUP),
    IamAction("backup:DescribeBackupJob", "retention", "finds what an aborted backup has made"),
    IamAction("backup:StopBackupJob", "retention", "stops aborted backups of file systems"),
    IamAction("backup:DeleteRecoveryPoint", "retention", "deletes outlived backups of file systems", POINTS),
    IamAction("backup:DescribeRecoveryPoint", "retention", "makes sure that a backup is deleted", POINTS),
    IamAction("backup:StartCopyJob", "backup", "copies to another region or account", POINTS),
    IamAction("backup:ListCopyJobs", "backup", "waits until copies are complete"),
    IamAction("backup:DescribeCopyJob", "backup", "waits for the end of an aborted copy"),
    IamAction("backup:ListBackupVaults", "catalogue", "rebuilds a lost database from the recovery points in all vaults"),
    IamAction("backup:ListRecoveryPointsByBackupVault", "catalogue", "finds the recovery points of a vault", VAULTS),
    IamAction("backup:ListTags", "catalogue", "rebuilds a lost database from the tags of our recovery points", POINTS),
    IamAction("backup:TagResource", "dr copies", "marks outdated copies that may not be deleted", POINTS),
    IamAction("backup:DescribeRecoveryPoint", "recovery", "makes sure that there is a backup to recover", POINTS),
    IamAction("backup:StartRestoreJob", "recovery", "restores file systems", POINTS),
    IamAction("backup:DescribeRestoreJob", "recovery", "waits until a file system is restored"),
    IamAction("backup:ListRestoreJobs", "recovery", "waits until many file systems are restored"),
    IamAction("backup:GetRestoreJobMetadata", "recovery", "finds what an interrupted recovery has started"),
    IamAction("iam:PassRole", "recovery", "lets AWS Backup work with its role", ROLES, TO_AWS_BACKUP),
    IamAction("elasticfilesystem:DescribeFileSystems", "recovery", "looks whether the original exists", SYSTEMS),
    IamAction("elasticfilesystem:TagResource", "recovery", "gives a recovered file system its tags", SYSTEMS),
    IamAction("elasticfilesystem:DeleteFileSystem", "recovery", "removes that of an aborted recovery", SYSTEMS),
)
