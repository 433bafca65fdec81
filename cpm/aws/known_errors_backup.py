"""Known failures of AWS Backup: its role, its vaults and its copies. See `known_errors`."""

from cpm.aws.known_error import STATE, KnownError

_AWS = "https://docs.aws.amazon.com"

BACKUPS = (
    KnownError(
        code="backup_role_unusable",
        title="AWS Backup cannot use the IAM role",
        advice="The role must exist in this account, trust backup.amazonaws.com, and have AWS's policies for backup and "
        "restore. AWS's own role, AWSBackupDefaultServiceRole, exists once AWS Backup was used in the console.",
        source=f"{_AWS}/aws-backup/latest/devguide/iam-service-roles.html",
        aws_codes=("InvalidParameterValueException",),
        services=("backup",),
        words="iam role",
    ),
    KnownError(
        code="backup_vault_missing",
        title="The backup vault does not exist",
        advice="There is no backup vault of this name in the region: create it, or choose another. A vault named Default "
        "exists only once somebody has created it.",
        source=f"{_AWS}/aws-backup/latest/devguide/create-a-vault.html",
        aws_codes=("ResourceNotFoundException",),
        services=("backup",),
        actions=("StartBackupJob", "StartCopyJob"),
        words="vault",
    ),
    KnownError(
        code="backup_copy_vault_missing",
        title="The destination of the copy has no such backup vault",
        advice="Create a backup vault of the same name as the source's in the region and account that the copy goes to.",
        source=f"{_AWS}/aws-backup/latest/devguide/create-a-vault.html",
        family=STATE,
        words="destination (backup )?vault (does not exist|.*(not found|cannot be found))",
    ),
    KnownError(
        code="backup_copy_refused",
        title="The vault of the other account does not take the copy",
        advice="The access policy of the destination vault must allow backup:CopyIntoBackupVault to the account that is "
        "backed up, and the role of AWS Backup must be allowed to copy.",
        source=f"{_AWS}/aws-backup/latest/devguide/create-cross-account-backup.html",
        family=STATE,
        words="access denied trying to call aws backup service",
    ),
    KnownError(
        code="backup_copy_outside_organization",
        title="The accounts are not of one organization",
        advice="AWS Backup copies only between accounts of one AWS organization, with cross-account backup switched on in "
        "its management account: add the DR account to the organization, or use no DR account for file systems.",
        source=f"{_AWS}/aws-backup/latest/devguide/create-cross-account-backup.html",
        family=STATE,
        words="member of the same organi[sz]ation",
    ),
    KnownError(
        code="backup_copy_key_unusable",
        title="The keys of the vaults do not allow the copy",
        advice="Encrypt the destination vault with a KMS key of your own, and let the destination's account use the key of "
        "the source vault.",
        source=f"{_AWS}/aws-backup/latest/devguide/encryption.html",
        family=STATE,
        words="source kms key is not shared|destination backup vault is encrypted with an aws managed key",
    ),
)
