"""The table of known AWS errors: every entry is reached, its codes exist, and nobody loses AWS's own words."""

from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import ClientError

from cpm.aws import known_errors, known_errors_page
from cpm.aws.error_codes import family_of
from cpm.aws.errors import Denied, Invalid, KmsUnusable, RegionDisabled, Unknown
from cpm.aws.known_error import STATE, KnownError
from cpm.aws.known_errors import KNOWN_ERRORS
from cpm.aws.translate import Call, from_botocore

PAGE = Path(__file__).resolve().parents[3] / "docs" / "aws-errors.md"
USER = "User: arn:aws:sts::111122223333:assumed-role/cpm/s is not authorized to perform: "
KEY = "arn:aws:kms:eu-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SNAPSHOT = "arn:aws:ec2:eu-west-1::snapshot/*"

# Entry -> errors as AWS words them: service, action, code, message.
EXAMPLES = {
    "service_control_policy": [
        ("ec2", "CreateSnapshot", "UnauthorizedOperation",
         f"{USER}ec2:CreateSnapshot on resource: {SNAPSHOT} with an explicit deny in a service control policy."),
        ("rds", "CreateDBSnapshot", "AccessDenied",
         f"{USER}rds:CreateDBSnapshot on resource: x because no service control policy allows the action"),
        ("sts", "AssumeRole", "AccessDenied",
         f"{USER}sts:AssumeRole on resource: y with an explicit deny in a service control policy"),
    ],
    "resource_control_policy": [
        ("s3", "ListObjectsV2", "AccessDenied",
         f"{USER}s3:ListBucket on resource: arn:aws:s3:::b with an explicit deny in a resource control policy"),
    ],
    "permissions_boundary": [
        ("ec2", "RunInstances", "UnauthorizedOperation",
         f"{USER}ec2:RunInstances on resource: x because no permissions boundary allows the ec2:RunInstances action"),
    ],
    "vpc_endpoint_policy": [
        ("s3", "PutObject", "AccessDenied",
         f"{USER}s3:PutObject on resource: x because no VPC endpoint policy allows the s3:PutObject action"),
    ],
    "object_locked": [
        ("s3", "DeleteObject", "AccessDenied", "Access Denied because object protected by object lock."),
    ],
    "backup_role_not_passable": [
        ("backup", "StartBackupJob", "AccessDeniedException",
         f"{USER}iam:PassRole on resource: arn:aws:iam::111122223333:role/backup because no identity-based policy allows "
         "the iam:PassRole action"),
    ],
    "backup_vault_missing_or_closed": [
        ("backup", "DescribeRecoveryPoint", "AccessDeniedException",
         "Insufficient privileges to perform this action."),
    ],
    "recovery_point_not_deleted": [
        ("backup", "DeleteRecoveryPoint", "AccessDeniedException",
         "arn:aws:backup:eu-west-1:111122223333:recovery-point:1 is still there after it was deleted."),
    ],
    "backup_role_unusable": [
        ("backup", "StartBackupJob", "InvalidParameterValueException",
         "IAM Role arn:aws:iam::111122223333:role/service-role/AWSBackupDefaultServiceRole does not exist"),
    ],
    "backup_vault_missing": [
        ("backup", "StartBackupJob", "ResourceNotFoundException", "Backup vault Default does not exist"),
    ],
    "backup_copy_vault_missing": [("backup", "", STATE, "The destination backup vault does not exist.")],
    "backup_copy_refused": [("backup", "", STATE, "Access Denied trying to call AWS Backup service")],
    "backup_copy_outside_organization": [
        ("backup", "", STATE,
         "Copy job failed. Both source and destination account must be a member of the same organization"),
    ],
    "backup_copy_key_unusable": [
        ("backup", "", STATE, "The source KMS key is not shared with the destination account."),
    ],
    "pass_role_missing": [
        ("ec2", "RunInstances", "UnauthorizedOperation",
         f"{USER}iam:PassRole on resource: arn:aws:iam::111122223333:role/web because no identity-based policy allows "
         "the iam:PassRole action"),
    ],
    "kms_key_not_usable_across_accounts": [
        ("kms", "DescribeKey", "AccessDeniedException",
         f"{USER}kms:DescribeKey on resource: {KEY} because no resource-based policy allows the kms:DescribeKey action"),
        ("s3", "PutObject", "AccessDenied",
         f"{USER}kms:GenerateDataKey on resource: {KEY} because the resource does not exist in this Region, no "
         "resource-based policies allow access, or a resource-based policy explicitly denies access"),
        ("kms", "Decrypt", "AccessDeniedException",
         "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are "
         "not allowed to access."),
    ],
    "explicit_deny": [
        ("ec2", "DeleteSnapshot", "UnauthorizedOperation",
         f"{USER}ec2:DeleteSnapshot on resource: {SNAPSHOT} with an explicit deny in an identity-based policy"),
        ("ec2", "DeleteSnapshot", "UnauthorizedOperation",
         f"{USER}ec2:DeleteSnapshot on resource: {SNAPSHOT} with an explicit deny"),
    ],
    "role_not_assumable": [
        ("sts", "AssumeRole", "AccessDenied",
         f"{USER}sts:AssumeRole on resource: arn:aws:iam::444455556666:role/cpm"),
    ],
    "not_shared_with_account": [
        ("ec2", "DescribeImages", "AuthFailure", "Not authorized for images: [ami-0123456789abcdef0]"),
    ],
    "account_blocked": [
        ("ec2", "DescribeVolumes", "Blocked",
         "This account is currently blocked and not recognized as a valid account."),
    ],
    "account_being_verified": [
        ("ec2", "RunInstances", "PendingVerification",
         "Your request for accessing resources in this region is being validated."),
    ],
    "service_not_subscribed": [
        ("ec2", "RunInstances", "OptInRequired",
         "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe."),
    ],
    "permission_missing": [
        ("ec2", "CreateSnapshot", "UnauthorizedOperation",
         f"{USER}ec2:CreateTags on resource: {SNAPSHOT} because no identity-based policy allows the ec2:CreateTags action"),
        ("s3", "HeadBucket", "403", "Forbidden"),
        ("kms", "Decrypt", "AccessDeniedException",
         f"{USER}kms:Decrypt on resource: {KEY} because no identity-based policy allows the kms:Decrypt action"),
    ],
    "region_not_enabled": [
        ("sts", "AssumeRole", "RegionDisabledException",
         "STS is not activated in this region for account:111122223333. Your account administrator can activate STS in "
         "this region using the IAM Console."),
    ],
    "credentials_expired": [
        ("sts", "GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired"),
        ("ec2", "DescribeVolumes", "RequestExpired", "The security token included in the request is expired"),
    ],
    "clock_wrong": [
        ("s3", "PutObject", "RequestTimeTooSkewed",
         "The difference between the request time and the current time is too large."),
        ("ec2", "DescribeVolumes", "RequestExpired", "Request has expired."),
        ("sts", "GetCallerIdentity", "SignatureDoesNotMatch",
         "Signature expired: 20260803T101500Z is now earlier than 20260803T104500Z (20260803T105000Z - 5 min.)"),
        ("ssm", "SendCommand", "InvalidSignatureException",
         "Signature not yet current: 20260803T111500Z is still later than 20260803T105500Z (20260803T105000Z + 5 min.)"),
    ],
    "secret_key_wrong": [
        ("sts", "GetCallerIdentity", "SignatureDoesNotMatch",
         "The request signature we calculated does not match the signature you provided."),
    ],
    "access_key_unknown": [
        ("sts", "GetCallerIdentity", "InvalidClientTokenId", "The security token included in the request is invalid."),
        ("s3", "ListBuckets", "InvalidAccessKeyId",
         "The AWS Access Key Id you provided does not exist in our records."),
        ("ec2", "DescribeVolumes", "AuthFailure",
         "AWS was not able to validate the provided access credentials"),
    ],
    "kms_key_not_accessible": [("ec2", "", STATE, "Given key ID is not accessible")],
    "kms_key_disabled": [
        ("kms", "Encrypt", "DisabledException", f"{KEY} is disabled."),
        ("s3", "GetObject", "KMS.KMSInvalidStateException", f"{KEY} is pending deletion."),
    ],
    "kms_key_missing": [
        ("kms", "DescribeKey", "NotFoundException", f"Alias {KEY} is not found."),
        ("s3", "PutObject", "KMS.NotFoundException", f"Key '{KEY}' does not exist"),
    ],
    "kms_key_not_usable": [
        ("rds", "CopyDBSnapshot", "KMSKeyNotAccessibleFault",
         f"The specified KMS key [{KEY}] does not exist, is not enabled or you do not have permissions to access it."),
        ("ec2", "CreateVolume", "CustomerKeyHasBeenRevoked", "The KMS key cannot be accessed."),
    ],
    "default_key_not_shareable": [
        ("ec2", "ModifySnapshotAttribute", "OperationNotPermitted",
         "Encrypted snapshots with EBS default key cannot be shared"),
        ("ec2", "ModifyImageAttribute", "InvalidParameter",
         "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another snapshot."),
    ],
    "snapshot_in_use_by_image": [
        ("ec2", "DeleteSnapshot", "InvalidSnapshot.InUse",
         "The snapshot snap-0bcf7289e9ad65306 is currently in use by ami-0ad9bdfd83929399f"),
    ],
    "copies_in_progress": [
        ("ec2", "CopySnapshot", "ResourceLimitExceeded",
         "Too many snapshot copies in progress. The limit is 20 for this destination region."),
    ],
    "snapshots_pending": [
        ("ec2", "CreateSnapshot", "PendingSnapshotLimitExceeded", "Maximum number of pending snapshots reached"),
    ],
    "snapshots_of_volume_pending": [
        ("ec2", "CreateSnapshot", "ConcurrentSnapshotLimitExceeded", "Maximum allowed in-progress snapshots reached."),
    ],
    "snapshots_of_volume_too_frequent": [
        ("ec2", "CreateSnapshot", "SnapshotCreationPerVolumeRateExceeded",
         "The maximum per volume CreateSnapshot request rate has been exceeded."),
    ],
    "snapshot_quota": [
        ("ec2", "CreateSnapshot", "SnapshotLimitExceeded", "Maximum number of snapshots reached"),
    ],
    "copy_between_regions_unsupported": [
        ("ec2", "CopySnapshot", "SnapshotCopyUnsupported.InterRegion", "Inter-region snapshot copy is not supported."),
    ],
    "image_name_taken": [
        ("ec2", "RegisterImage", "InvalidAMIName.Duplicate", "AMI name web is already in use by AMI ami-1"),
    ],
    "tag_limit": [
        ("ec2", "CreateTags", "TagLimitExceeded", "The maximum number of Tags for a resource has been reached."),
    ],
    "tag_policy_violated": [
        ("ec2", "CreateTags", "TagPolicyViolation", "The tag policy does not allow the specified value."),
    ],
    "instance_type_not_in_zone": [
        ("ec2", "RunInstances", "Unsupported",
         "Your requested instance type (t3.micro) is not supported in your requested Availability Zone (us-east-1e). "
         "Please retry your request by not specifying an Availability Zone or choosing us-east-1a."),
    ],
    "volume_type_not_in_zone": [
        ("ec2", "CreateVolume", "VolumeTypeNotAvailableInZone",
         "The Availability Zone does not support Provisioned IOPS SSD volumes."),
    ],
    "zone_mismatch": [
        ("ec2", "AttachVolume", "InvalidVolume.ZoneMismatch",
         "The volume 'vol-1' is not in the same availability zone as instance 'i-1'"),
    ],
    "instance_capacity_missing": [
        ("ec2", "RunInstances", "InsufficientInstanceCapacity",
         "We currently do not have sufficient c6a.4xlarge capacity in the Availability Zone you requested (us-east-1a)."),
    ],
    "volume_capacity_missing": [
        ("ec2", "CreateVolume", "InsufficientVolumeCapacity", "There is not enough capacity to fulfill your request."),
    ],
    "instance_quota": [
        ("ec2", "RunInstances", "VcpuLimitExceeded",
         "You have requested more vCPU capacity than your current vCPU limit of 32 allows."),
    ],
    "volume_quota": [
        ("ec2", "CreateVolume", "VolumeLimitExceeded", "You have exceeded your maximum gp3 storage limit of 50 TiB."),
        ("ec2", "CreateVolume", "MaxIOPSLimitExceeded", "You have exceeded your maximum io2 IOPS limit."),
    ],
    "attachment_limit": [
        ("ec2", "AttachVolume", "AttachmentLimitExceeded", "Volume count exceeds the limit of the instance type."),
    ],
    "encryption_not_supported_by_type": [
        ("ec2", "AttachVolume", "EncryptedVolumesNotSupported", "The instance type does not support encrypted volumes."),
    ],
    "termination_protected": [
        ("ec2", "TerminateInstances", "OperationNotPermitted",
         "The instance 'i-1' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again."),
    ],
    "subnet_full": [
        ("ec2", "RunInstances", "InsufficientFreeAddressesInSubnet",
         "There are not enough free addresses in subnet 'subnet-1' to satisfy the requested number of instances."),
        ("efs", "CreateMountTarget", "NoFreeAddressesInSubnet", "The subnet has no free addresses."),
    ],
    "address_in_use": [
        ("ec2", "RunInstances", "InvalidIPAddress.InUse", "Address 10.0.0.5 is in use."),
    ],
    "address_quota": [
        ("ec2", "AllocateAddress", "AddressLimitExceeded", "The maximum number of addresses has been reached."),
    ],
    "default_vpc_missing": [
        ("ec2", "RunInstances", "VPCIdNotSpecified", "No default VPC for this user."),
    ],
    "subnet_missing": [
        ("ec2", "RunInstances", "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist"),
    ],
    "security_group_missing": [
        ("ec2", "RunInstances", "InvalidGroup.NotFound", "The security group 'sg-1' does not exist"),
    ],
    "key_pair_missing": [
        ("ec2", "RunInstances", "InvalidKeyPair.NotFound", "The key pair 'ops' does not exist"),
    ],
    "subnet_group_missing": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "DBSubnetGroupNotFoundFault", "DBSubnetGroup 'x' not found."),
        ("redshift", "RestoreFromClusterSnapshot", "ClusterSubnetGroupNotFoundFault", "Subnet group 'x' not found."),
    ],
    "redshift_cluster_busy": [
        ("redshift", "CreateClusterSnapshot", "InvalidClusterState", "Cluster sales is paused."),
    ],
    "redshift_snapshot_shared": [
        ("redshift", "DeleteClusterSnapshot", "InvalidClusterSnapshotState",
         "The snapshot is not in the available state, or other accounts are authorized to access the snapshot."),
    ],
    "redshift_default_key_not_shareable": [
        ("redshift", "AuthorizeSnapshotAccess", "UnsupportedOperation", "The requested operation isn't supported."),
    ],
    "redshift_shared_with_too_many": [
        ("redshift", "AuthorizeSnapshotAccess", "AuthorizationQuotaExceeded", "The authorization quota has been reached."),
    ],
    "redshift_key_grants_used_up": [
        ("redshift", "AuthorizeSnapshotAccess", "LimitExceededFault", "The encryption key has exceeded its grant limit."),
    ],
    "redshift_parameter_group_missing": [
        ("redshift", "RestoreFromClusterSnapshot", "ClusterParameterGroupNotFound", "ParameterGroup not found: tuned"),
    ],
    "redshift_subnets_insufficient": [
        ("redshift", "RestoreFromClusterSnapshot", "InvalidVPCNetworkStateFault", "The subnet group lacks the zone."),
    ],
    "redshift_restore_invalid": [
        ("redshift", "RestoreFromClusterSnapshot", "InvalidRestore", "The restore is invalid."),
    ],
    "redshift_node_quota": [
        ("redshift", "RestoreFromClusterSnapshot", "NumberOfNodesQuotaExceeded", "Too many nodes for the account."),
    ],
    "database_copies_in_progress": [
        ("rds", "CopyDBSnapshot", "SnapshotQuotaExceeded", "Cannot copy more than 5 snapshots across regions"),
    ],
    "database_snapshot_quota": [
        ("rds", "CreateDBClusterSnapshot", "SnapshotQuotaExceeded", "Cannot create more than 100 manual snapshots"),
        ("redshift", "CreateClusterSnapshot", "ClusterSnapshotQuotaExceeded", "Too many manual snapshots."),
    ],
    "database_quota": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "InstanceQuotaExceeded", "DB Instance quota exceeded"),
    ],
    "database_capacity_missing": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "InsufficientDBInstanceCapacity", "Class is not available."),
    ],
    "database_subnets_insufficient": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "InvalidVPCNetworkStateFault",
         "The DB subnet group web has no subnet in eu-west-1c."),
    ],
    "database_group_missing": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "DBParameterGroupNotFound", "DBParameterGroup not found: tuned"),
    ],
    "database_storage_unavailable": [
        ("rds", "RestoreDBInstanceFromDBSnapshot", "StorageTypeNotSupported", "io2 is not supported for this engine."),
    ],
    "database_busy": [
        ("rds", "CreateDBSnapshot", "InvalidDBInstanceState", "Cannot create a snapshot: the instance is stopped."),
    ],
    "database_default_key_not_shareable": [
        ("rds", "ModifyDBSnapshotAttribute", "InvalidParameterCombination",
         "Snapshots encrypted with the default KMS key cannot be shared with other accounts."),
    ],
    "shared_with_too_many_accounts": [
        ("rds", "ModifyDBSnapshotAttribute", "SharedSnapshotQuotaExceeded", "You cannot share with more than 20 accounts"),
    ],
    "export_role_unusable": [
        ("rds", "StartExportTask", "IamRoleMissingPermissions", "The role lacks permissions on the bucket."),
    ],
    "bucket_in_other_region": [
        ("s3", "PutObject", "PermanentRedirect",
         "The bucket you are attempting to access must be addressed using the specified endpoint."),
        ("s3", "GetObject", "AuthorizationHeaderMalformed",
         "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'us-west-2'"),
        ("s3", "HeadBucket", "301", "Moved Permanently"),
    ],
    "bucket_missing": [("s3", "PutObject", "NoSuchBucket", "The specified bucket does not exist")],
    "object_archived": [
        ("s3", "GetObject", "InvalidObjectState", "The operation is not valid for the object's storage class"),
    ],
    "ssm_agent_offline": [
        ("ssm", "SendCommand", "InvalidInstanceId",
         "Instances [[i-0123456789abcdef0]] not in a valid state for account 111122223333"),
    ],
    "mail_sender_not_verified": [
        ("ses", "SendEmail", "MessageRejected",
         "Email address is not verified. The following identities failed the check in region US-EAST-1: a@example.com"),
    ],
}  # fmt: skip
ALL = [(code, *example) for code, examples in EXAMPLES.items() for example in examples]

# Codes that no model of botocore lists. EC2: AWSEC2/latest/APIReference/errors-overview.html. S3:
# AmazonS3/latest/API/ErrorResponses.html; S3 passes on errors of KMS with the prefix "KMS.", and a HEAD without a body
# has its status as code. The rest: IAM/latest/UserGuide, "Common error types" of every service.
DOCUMENTED = """
AuthFailure Blocked PendingVerification OptInRequired RequestExpired InvalidSecurity.RequestHasExpired
OperationNotPermitted InvalidParameter InvalidSnapshot.InUse ResourceLimitExceeded
PendingSnapshotLimitExceeded ConcurrentSnapshotLimitExceeded SnapshotCreationPerVolumeRateExceeded
SnapshotLimitExceeded SnapshotCopyUnsupported.InterRegion InvalidAMIName.Duplicate TagLimitExceeded
TagPolicyViolation Unsupported VolumeTypeNotAvailableInZone InvalidVolume.ZoneMismatch InvalidVolumeID.ZoneMismatch
InsufficientInstanceCapacity InsufficientVolumeCapacity VcpuLimitExceeded InstanceLimitExceeded VolumeLimitExceeded
MaxIOPSLimitExceeded AttachmentLimitExceeded EncryptedVolumesNotSupported InsufficientFreeAddressesInSubnet
InvalidIPAddress.InUse AddressLimitExceeded VPCIdNotSpecified DefaultVpcDoesNotExist InvalidSubnetID.NotFound
InvalidSubnetId.NotFound InvalidGroup.NotFound InvalidSecurityGroupID.NotFound InvalidKeyPair.NotFound

AccountProblem AllAccessDisabled InvalidAccessKeyId RequestTimeTooSkewed PermanentRedirect
AuthorizationHeaderMalformed IllegalLocationConstraintException KMS.DisabledException
KMS.KMSInvalidStateException KMS.NotFoundException 301

ExpiredToken InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException InvalidParameterCombination
InvalidParameterValue
"""
SERVICES = ("ec2", "ebs", "s3", "kms", "sts", "iam", "ssm", "sns", "ses", "rds", "redshift", "dynamodb", "efs", "backup")


def error(service, action, code, message):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"RequestId": "req-7"}}
    return from_botocore(ClientError(response, action), Call(service, action, "eu-west-1", "111122223333", ("hunter2",)))


@pytest.mark.parametrize(("entry", "service", "action", "code", "message"), ALL)
def test_what_aws_says_leads_to_the_entry_and_stays_readable(entry, service, action, code, message):
    if code == STATE:
        text = known_errors.explain_state(message)
    else:
        text = error(service, action, code, message).explain()

        assert f"{service}:{action}" in text and f"AWS said {code}: " in text and "(request id req-7)" in text

    assert message.rstrip(".") in text
    assert text.rstrip(".").endswith(f"[{entry}]")
    assert "{" not in text and "None" not in text


def test_every_entry_has_an_example():
    assert {entry.code for entry in KNOWN_ERRORS} == set(EXAMPLES)
    assert len({entry.code for entry in KNOWN_ERRORS}) == len(KNOWN_ERRORS)


@pytest.mark.parametrize("entry", KNOWN_ERRORS, ids=lambda entry: entry.code)
def test_every_entry_is_fit_for_people(entry):
    denied = entry.family == "denied"

    assert entry.code.replace("_", "").isalpha() and entry.code.islower()
    assert entry.advice.endswith(".") and not entry.title.endswith(".")
    assert entry.source.startswith("https://docs.aws.amazon.com/")
    assert denied or "{" not in entry.advice
    assert entry.family != "" or entry.aws_codes


@pytest.fixture(scope="module")
def modelled():
    session = botocore.session.get_session()
    return {
        shape.metadata.get("error", {}).get("code") or shape.name
        for service in SERVICES
        for shape in session.get_service_model(service).error_shapes
    }


def test_every_code_is_one_of_aws(modelled):
    documented = set(DOCUMENTED.split())

    used = {code for entry in KNOWN_ERRORS for code in entry.aws_codes}

    assert used - modelled - documented == set()
    assert documented - used == set()


@pytest.mark.parametrize(
    ("service", "code", "family"),
    [
        ("ec2", "CustomerKeyHasBeenRevoked", KmsUnusable),
        ("ec2", "SnapshotCopyUnsupported.InterRegion", Invalid),
        ("s3", "PermanentRedirect", Invalid),
    ],
)
def test_codes_of_the_table_belong_to_a_family(service, code, family):
    assert family_of(service, code, "", 400) is family


def test_an_unknown_error_keeps_the_words_and_the_request_id_of_aws():
    strange = error("ec2", "CreateSnapshot", "QuantumFlux", "The flux of 'vol-1' is {unbalanced}.")

    assert type(strange) is Unknown and strange.known is None
    assert strange.explain() == (
        "ec2:CreateSnapshot in eu-west-1 for account 111122223333 failed. Look the code up in the AWS documentation of "
        "this service. AWS said QuantumFlux: The flux of 'vol-1' is {unbalanced} (request id req-7)."
    )


@pytest.mark.parametrize("kind", [Denied, KmsUnusable, RegionDisabled])
def test_families_without_advice_of_their_own_have_a_general_entry(kind):
    odd = kind("OddCode", "Odd words.", action="CreateVolume", service="ec2", region="eu-west-1")

    assert odd.known is not None and odd.known.family == kind.family


def test_a_known_code_with_other_words_is_not_taken_for_the_known_failure():
    other = error("ec2", "DetachVolume", "OperationNotPermitted", "The root volume cannot be detached while running.")

    assert other.known is None
    assert "The root volume cannot be detached" in other.explain()


def test_an_unknown_reason_of_a_state_stays_as_it_is():
    assert known_errors.explain_state("Something odd.") == "Something odd."


def test_advice_on_a_denial_names_the_permission_and_the_policy():
    denial = error(*EXAMPLES["explicit_deny"][0])

    assert isinstance(denial, Denied)
    assert "ec2:DeleteSnapshot is denied explicitly by the identity-based policy" in denial.explain()


def test_braces_in_the_words_of_a_denial_do_no_harm():
    assert "for {x}" in error("ec2", "CreateTags", "UnauthorizedOperation", "No rights for {x}").explain()


def test_credentials_that_work_elsewhere_mean_that_the_region_is_disabled():
    message = "AWS was not able to validate the provided access credentials"
    disabled = RegionDisabled("AuthFailure", message, action="DescribeVolumes", service="ec2", region="ap-east-1")

    assert disabled.known is not None and disabled.known.code == "region_not_enabled"


def test_no_secret_comes_along():
    text = error("ec2", "CreateTags", "UnauthorizedOperation", f"{USER}ec2:CreateTags with hunter2").explain()

    assert "hunter2" not in text and "[permission_missing]" in text


def test_an_entry_must_not_match_by_words_alone():
    with pytest.raises(ValueError, match="too_wide"):
        KnownError(code="too_wide", title="t", advice="a.", source="https://docs.aws.amazon.com/", words="error")


def test_the_committed_page_is_what_the_table_says():
    assert PAGE.read_text() == known_errors_page.page(), "run: cpm errors write"
