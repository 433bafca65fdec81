"""Known failures of who calls AWS: permissions, accounts, credentials, regions and keys. See `known_errors`."""

from cpm.aws.known_error import STATE, KnownError

_AWS = "https://docs.aws.amazon.com"
_EC2 = f"{_AWS}/AWSEC2/latest/APIReference/errors-overview.html"
_DENIALS = f"{_AWS}/IAM/latest/UserGuide/troubleshoot_access-denied.html"
_KEY_POLICIES = f"{_AWS}/kms/latest/developerguide/key-policy-modifying-external-accounts.html"
_KEY_STATES = f"{_AWS}/kms/latest/developerguide/key-state.html"
_SHARING = f"{_AWS}/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html"

ACCESS = (
    KnownError(
        code="service_control_policy",
        title="A service control policy of the organization forbids it",
        advice="{permission} is forbidden by a service control policy, which no permission of the account can override: "
        "ask the administrators of the AWS organization to allow it for CPM's role.",
        source=_DENIALS,
        family="denied",
        words="service control policy",
    ),
    KnownError(
        code="resource_control_policy",
        title="A resource control policy of the organization forbids it",
        advice="{permission} is forbidden by a resource control policy of the organization that owns the resource: ask "
        "its administrators to exempt CPM's role.",
        source=_DENIALS,
        family="denied",
        words="resource control policy",
    ),
    KnownError(
        code="permissions_boundary",
        title="The permissions boundary of the role or user does not allow it",
        advice="{permission} lies outside the permissions boundary of the role or user that CPM works with: extend the "
        "boundary or take it off; adding a permission alone does not help.",
        source=_DENIALS,
        family="denied",
        words="permissions boundary",
    ),
    KnownError(
        code="vpc_endpoint_policy",
        title="The policy of a VPC endpoint does not allow it",
        advice="{permission} is not allowed by the policy of the VPC endpoint that the call passes through: allow it "
        "there.",
        source=_DENIALS,
        family="denied",
        words="VPC endpoint policy",
    ),
    KnownError(
        code="object_locked",
        title="Object Lock keeps the object",
        advice="The object is under Object Lock or a legal hold and cannot be deleted or overwritten before that ends: "
        "wait until its retention is over, or have the hold removed.",
        source=f"{_AWS}/AmazonS3/latest/userguide/object-lock.html",
        family="denied",
        services=("s3",),
        words="object lock",
    ),
    KnownError(
        code="backup_role_not_passable",
        title="The role of AWS Backup may not be passed on",
        advice="The permission iam:PassRole is missing for the role that AWS Backup is to work with: allow it for that role "
        "in the IAM policy of this account, or choose another role.",
        source=f"{_AWS}/aws-backup/latest/devguide/access-control.html",
        family="denied",
        services=("backup",),
        words=r"iam:PassRole",
    ),
    KnownError(
        code="backup_vault_missing_or_closed",
        title="There is no such backup vault, or it is closed to CPM",
        advice="AWS Backup gives this answer when there is no vault of this name in the region, and when CPM lacks "
        "{permission} or the vault's access policy refuses it: look for the vault first. A vault named Default exists only "
        "once somebody has created it.",
        source=f"{_AWS}/aws-backup/latest/devguide/vaults.html",
        family="denied",
        services=("backup",),
        words="^insufficient privileges to perform this action",
    ),
    KnownError(
        code="recovery_point_not_deleted",
        title="AWS Backup has kept a recovery point that it was told to delete",
        advice="{permission} is missing: AWS Backup then accepts the call and does nothing. Add it to the IAM policy of this "
        "account (deploy/iam has what CPM needs).",
        source=f"{_AWS}/aws-backup/latest/devguide/API_DeleteRecoveryPoint.html",
        family="denied",
        services=("backup",),
        words="is still there after it was deleted",
    ),
    KnownError(
        code="pass_role_missing",
        title="The instance's IAM role may not be passed on",
        advice="The permission iam:PassRole is missing for the role of the instance: allow it for that role in the IAM "
        "policy of this account, or recover without a role.",
        source=f"{_AWS}/IAM/latest/UserGuide/id_roles_use_passrole.html",
        family="denied",
        words=r"iam:PassRole",
    ),
    KnownError(
        code="kms_key_not_usable_across_accounts",
        title="The policy of a KMS key does not admit this account",
        advice="The policy of the KMS key does not let this account's role use it: in the account that owns the key, "
        "allow the role to use the key and to create grants, as deploy/iam/README.md shows. Keys of AWS itself, such as "
        "aws/ebs, can never be used from another account; copy with a key of your own.",
        source=_KEY_POLICIES,
        family="denied",
        words=r"no resource-based polic\w+ allows? the kms:|perform: kms:.*no resource-based polic"
        r"|ciphertext refers to a customer master key",
    ),
    KnownError(
        code="explicit_deny",
        title="A policy denies it explicitly",
        advice="{permission} is denied explicitly by the {policy}; it has to be changed there, as no permission overrides "
        "that.",
        source=_DENIALS,
        family="denied",
        words="explicit deny",
    ),
    KnownError(
        code="role_not_assumable",
        title="The account's role cannot be assumed",
        advice="The role cannot be assumed: its trust policy must name the role or user that CPM calls with, and the "
        "external id of the account's settings; that caller needs the permission {permission} for the role, too.",
        source=f"{_AWS}/IAM/latest/UserGuide/troubleshoot_roles.html",
        family="denied",
        services=("sts",),
        actions=("AssumeRole",),
    ),
    KnownError(
        code="not_shared_with_account",
        title="A snapshot or AMI is not shared with this account",
        advice="The snapshot or AMI belongs to another account and is not shared with this one: share it there, together "
        "with its KMS key if it is encrypted.",
        source=_SHARING,
        aws_codes=("AuthFailure",),
        services=("ec2",),
        words="^not authorized for",
    ),
    KnownError(
        code="account_blocked",
        title="AWS has blocked the account",
        advice="AWS has blocked this account: ask AWS Support, and look at the account's bills.",
        source=_EC2,
        aws_codes=("Blocked", "AccountProblem", "AllAccessDisabled"),
    ),
    KnownError(
        code="account_being_verified",
        title="AWS is still verifying the account",
        advice="AWS has not finished verifying this account: wait for its mail, or ask AWS Support.",
        source=_EC2,
        aws_codes=("PendingVerification",),
    ),
    KnownError(
        code="service_not_subscribed",
        title="The account has not signed up for the service",
        advice="The account is not signed up for this service: sign in to it once in the AWS console and complete the "
        "payment details.",
        source=_EC2,
        aws_codes=("OptInRequired",),
    ),
    KnownError(
        code="permission_missing",
        title="An IAM permission is missing",
        advice="The permission {permission} is missing; add it to the IAM policy of this account (deploy/iam has what "
        "CPM needs).",
        source=_DENIALS,
        family="denied",
    ),
)

CREDENTIALS = (
    KnownError(
        code="region_not_enabled",
        title="The region is not enabled in the account",
        advice="This region is not enabled in the account; enable it in AWS or stop using it here.",
        source=f"{_AWS}/accounts/latest/reference/manage-acct-regions.html",
        family="region_disabled",
    ),
    KnownError(
        code="credentials_expired",
        title="The temporary credentials have expired",
        advice="The temporary credentials have expired: try again; if that does not help, check where the server gets "
        "its credentials from, and its clock.",
        source=f"{_AWS}/IAM/latest/UserGuide/id_credentials_temp.html",
        aws_codes=("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        words="token",
    ),
    KnownError(
        code="clock_wrong",
        title="The server's clock is wrong",
        advice="The clock of CPM's server differs too much from that of AWS: synchronise it (NTP) and try again. If "
        "the clock is right, temporary credentials have expired.",
        source=_EC2,
        aws_codes=(
            "RequestTimeTooSkewed",
            "RequestExpired",
            "InvalidSecurity.RequestHasExpired",
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
        ),
        words="expired|not yet current|difference between",
    ),
    KnownError(
        code="secret_key_wrong",
        title="The secret key does not belong to the access key",
        advice="AWS does not accept these credentials: the secret key does not belong to the access key. Enter both again "
        "in the account's settings.",
        source=f"{_AWS}/IAM/latest/UserGuide/reference_sigv-troubleshooting.html",
        aws_codes=("SignatureDoesNotMatch", "InvalidSignatureException"),
    ),
    KnownError(
        code="access_key_unknown",
        title="AWS does not know the access key",
        advice="AWS does not accept these credentials: the access key is unknown or deactivated. Check in IAM that it "
        "exists and is active, and enter it again in the account's settings.",
        source=f"{_AWS}/IAM/latest/UserGuide/id_credentials_access-keys.html",
        aws_codes=("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"),
        words="credentials|token|access key",
    ),
)

KEYS = (
    KnownError(
        code="kms_key_not_accessible",
        title="A snapshot failed because its KMS key could not be used",
        advice="The account that makes the snapshot could not use the KMS key of the source or of the copy: check that "
        "both keys are enabled, that the source's key policy admits this account, and that its role may use both keys "
        "and create grants, as deploy/iam/README.md shows.",
        source=f"{_AWS}/ebs/latest/userguide/ebs-copy-snapshot.html",
        family=STATE,
        words="key ID is not accessible",
    ),
    KnownError(
        code="kms_key_disabled",
        title="A KMS key is disabled or about to be deleted",
        advice="The KMS key is disabled, waits for its deletion or for its key material: enable it again in KMS (cancel "
        "the deletion first). What it encrypts is readable only as long as the key exists.",
        source=_KEY_STATES,
        aws_codes=(
            "DisabledException",
            "KMSInvalidStateException",
            "KMS.DisabledException",
            "KMS.KMSInvalidStateException",
            "KMSDisabled",
            "KMSInvalidState",
        ),
    ),
    KnownError(
        code="kms_key_missing",
        title="There is no such KMS key in the account and region",
        advice="There is no such KMS key or alias in this account and region: a key exists in one region only, so check the "
        "name, the region and the account in its ARN, and whether somebody has deleted it.",
        source=f"{_AWS}/kms/latest/developerguide/find-cmk-id-arn.html",
        aws_codes=("NotFoundException", "KMS.NotFoundException", "KMSNotFound"),
        services=("kms", "s3", "sns"),
    ),
    KnownError(
        code="kms_key_not_usable",
        title="A KMS key cannot be used",
        advice="The KMS key cannot be used: check that it exists in this region and is enabled, and that its key policy "
        "admits this account.",
        source=_KEY_POLICIES,
        family="kms_unusable",
    ),
)
