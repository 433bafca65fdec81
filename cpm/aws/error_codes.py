"""Which AWS error code belongs to which family.

The codes are those of botocore's service models and of the error code pages of the services. Names that
services share come first, patterns for the regular ones after; a code that fits nothing is ``Unknown``.
"""

import re

from cpm.aws import errors
from cpm.aws.errors import AwsError

_CODES: dict[type[AwsError], str] = {
    errors.Throttled: """
        Throttling ThrottlingException ThrottledException RequestLimitExceeded RequestThrottled
        RequestThrottledException EC2ThrottledException TooManyRequestsException SlowDown
        BandwidthLimitExceeded DependentServiceRequestThrottlingFault
        PriorRequestNotComplete ProvisionedThroughputExceededException Client.RequestLimitExceeded
        SnapshotCreationPerVolumeRateExceeded TooManyUpdates""",
    errors.Denied: """
        UnauthorizedOperation Client.UnauthorizedOperation AccessDenied AccessDeniedException NotAuthorized
        AccessToSnapshotDenied DependentServiceAccessDenied
        UnauthorizedException AuthorizationError OptInRequired Blocked PendingVerification AllAccessDisabled
        AccountProblem OpsItemAccessDeniedException""",
    errors.BadCredentials: """
        AuthFailure ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired
        InvalidClientTokenId
        UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException IncompleteSignature
        IncompleteSignatureException MissingAuthenticationToken MissingAuthenticationTokenException
        InvalidAccessKeyId InvalidToken RequestTimeTooSkewed InvalidIdentityToken InvalidSecurity
        InvalidSecurity.RequestHasExpired""",
    errors.RegionDisabled: "RegionDisabledException OptInRequiredForRegion",
    errors.LimitReached: """
        LimitExceeded LimitExceededException ServiceQuotaExceededException ResourceLimitExceeded
        InsufficientClusterCapacity
        ResourceLimitExceededException ResourceCountExceeded ResourceCountLimitExceeded
        ConcurrentLimitExceededException ConcurrentSnapshotLimitExceeded PendingSnapshotLimitExceeded
        ConcurrentCreateImageLimitExceeded MaxSpotInstanceCountExceeded InsufficientInstanceCapacity
        InsufficientHostCapacity InsufficientReservedInstanceCapacity InsufficientVolumeCapacity
        InsufficientCapacity InsufficientAddressCapacity InsufficientFreeAddressesInSubnet
        InsufficientCapacityOnHost PrivateIpAddressLimitExceeded TooManyTagsError InsufficientDBInstanceCapacity
        InsufficientDBClusterCapacityFault InsufficientStorageClusterCapacity ProvisionedIopsNotAvailableInAZFault""",
    errors.InUse: """
        VolumeInUse DependencyViolation DeleteConflict ResourceInUseException TargetInUseException
        InvalidAddress.Locked ResourceInUse""",
    errors.InvalidState: """
        IncorrectState IncorrectInstanceState InvalidState InvalidStateException InvalidAMIID.Unavailable
        OperationNotPermitted InvalidInstanceId TargetNotConnected InvalidAttachment.NotFound
        InvalidVolume.ZoneMismatch ConflictException IncorrectModificationState UnsupportedOperatingSystem
        InvalidSnapshot.Unavailable""",
    errors.Invalid: """
        MissingParameter MissingParameterValueException BadRequest UnknownParameter MissingAction MissingInput MalformedPolicyDocument ValidationError
        ValidationException UnsupportedOperation UnsupportedOperationException Unsupported
        UnsupportedParameter
        UnsupportedProtocol IdempotentParameterMismatch IdempotentInstanceTerminated
        EncryptedVolumesNotSupported
        ClusterParameterGroupNotFound ClusterSecurityGroupNotFound SnapshotScheduleNotFound
        HsmClientCertificateNotFoundFault HsmConfigurationNotFoundFault Ipv6CidrBlockNotFoundFault
        VolumeTypeNotAvailableInZone VPCIdNotSpecified VPCResourceNotSpecified MalformedQueryString
        PackedPolicyTooLarge UnknownPrincipalType.Unsupported DuplicateInstanceId UnsupportedPlatformType
        UnsupportedInstanceAttribute UnknownOperationException SnapshotCopyUnsupported.InterRegion
        TagPolicyViolation PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException
        DBSubnetGroupNotFoundFault DBSubnetGroupDoesNotCoverEnoughAZs DBSubnetGroupNotAllowedFault
        DBParameterGroupNotFound DBClusterParameterGroupNotFound OptionGroupNotFoundFault DBSecurityGroupNotFound
        DomainNotFoundFault CertificateNotFound InvalidVPCNetworkStateFault NetworkTypeNotSupported
        StorageTypeNotSupported VpcEncryptionControlViolationException""",
    errors.AlreadyExists: """
        EntityAlreadyExists BucketAlreadyExists BucketAlreadyOwnedByYou DocumentAlreadyExists""",
    errors.KmsUnusable: """
        DisabledException KeyUnavailableException KMSInvalidStateException InvalidKeyUsageException
        KMSKeyNotAccessibleFault KmsKeyNotAccessible InvalidGrantTokenException
        CustomerKeyHasBeenRevoked""",
    errors.NotFound: """
        NoSuchEntity NoSuchBucket NoSuchKey NoSuchUpload NotFoundException DoesNotExistException
        InvocationDoesNotExist AssociationDoesNotExist ParameterNotFound""",
    errors.Unreachable: """
        InternalError InternalFailure InternalServerError InternalServerException InternalServiceError
        KMSInternalException DependencyTimeoutException DependencyFailureException ServiceUnavailable ServiceUnavailableException
        Unavailable DependentServiceUnavailableFault
        RequestTimeout RequestTimeoutException ServiceException""",
}
_FAMILY = {code: family for family, codes in _CODES.items() for code in codes.split()}

_PATTERNS: tuple[tuple[re.Pattern[str], type[AwsError]], ...] = (
    # A key that is missing must not read as "the snapshot is missing": KMS comes before NotFound.
    (re.compile(r"^(Invalid)?(KMS|Kms)"), errors.KmsUnusable),
    (re.compile(r"^(Xks|CloudHsm|CustomKeyStore)"), errors.KmsUnusable),
    # A zone, a parameter's option or a role's principal that is unknown is a mistake in the request.
    (re.compile(r"^Invalid(Zone|Filter|AvailabilityZone|Option\w*|Principal)\.NotFound$"), errors.Invalid),
    (re.compile(r"\.(NotFound|DoesNotExist)$"), errors.NotFound),
    (re.compile(r"NotFound(Fault|Exception)?$"), errors.NotFound),
    (re.compile(r"(\.Duplicate|AlreadyExists(Fault|Exception)?|\.AlreadyAssociated)$"), errors.AlreadyExists),
    (re.compile(r"(\.InUse|InUse(Fault|Exception)?)$"), errors.InUse),
    (re.compile(r"(Limit|Quota)Exceeded(Fault|Exception)?$"), errors.LimitReached),
    (
        re.compile(r"^Invalid\w*State(Fault|Exception)?$|\.InvalidState$|^Incorrect\w*State$"),
        errors.InvalidState,
    ),
    (re.compile(r"^Invalid|\.Malformed$|^Malformed|^Unsupported"), errors.Invalid),
)

# Limits on what is in progress; they pass when earlier work ends. EC2 CopySnapshot reports its limit of
# copies per destination region as ResourceLimitExceeded, a code that also stands for lasting quotas: its
# message tells.
_PASSING_LIMITS = frozenset(
    {
        "ConcurrentLimitExceededException",
        "ConcurrentSnapshotLimitExceeded",
        "ConcurrentCreateImageLimitExceeded",
        "PendingSnapshotLimitExceeded",
    }
)
# RDS says SnapshotQuotaExceeded for too many copies at once as for too many snapshots, likewise.
_IN_PROGRESS = re.compile(r"in progress|concurrent|pending|cannot copy more than", re.IGNORECASE)

# EC2 CreateSnapshot refuses a second snapshot of one volume for 15 seconds; that is no reason to slow others
# down.
PER_VOLUME_RATE = "SnapshotCreationPerVolumeRateExceeded"
PER_VOLUME_WAIT = 15.0


def family_of(service: str, code: str, message: str, http_status: int | None) -> type[AwsError]:
    """The family of a code as ``service`` uses it. A bare HTTP status in place of a code never means
    absent."""
    if service == "s3" and code == "404":
        # S3 HeadObject and HeadBucket have no body, so the status is all there is to tell "absent" by.
        return errors.NotFound
    if service == "s3" and code == "403":
        return errors.Denied
    if code == "AuthFailure" and re.search(
        r"not authorized for (images|snapshots|volumes)", message, re.IGNORECASE
    ):
        # EC2 answers AuthFailure for an AMI that exists but is not shared with the caller.
        return errors.Denied
    family = _FAMILY.get(code)
    if family is None:
        family = next((kind for pattern, kind in _PATTERNS if pattern.search(code)), None)
    if family is not None:
        return family
    if http_status == 429:
        return errors.Throttled
    if http_status is not None and http_status >= 500:
        return errors.Unreachable
    return errors.Unknown


def limit_passes(code: str, message: str) -> bool:
    return code in _PASSING_LIMITS or bool(_IN_PROGRESS.search(message))
