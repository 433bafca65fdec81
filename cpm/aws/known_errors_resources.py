"""Known failures of what AWS holds: snapshots, instances, buckets and agents. See `known_errors`."""

from cpm.aws.known_error import KnownError

_AWS = "https://docs.aws.amazon.com"
_EC2 = f"{_AWS}/AWSEC2/latest/APIReference/errors-overview.html"
_SHARING = f"{_AWS}/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html"
_EBS_QUOTAS = f"{_AWS}/ebs/latest/userguide/ebs-resource-quotas.html"
_S3 = f"{_AWS}/AmazonS3/latest/API/ErrorResponses.html"

SNAPSHOTS = (
    KnownError(
        code="default_key_not_shareable",
        title="What the default key encrypts cannot be shared",
        advice="A snapshot that the account's default key (aws/ebs) encrypts cannot be shared with another account: set a "
        "customer managed key for the DR copy, or encrypt the volume with one, and let the other account use that key.",
        source=_SHARING,
        aws_codes=("OperationNotPermitted", "InvalidParameter"),
        services=("ec2",),
        words=r"(default key|managed (CMK|key)) (cannot|can.t) be shared",
    ),
    KnownError(
        code="snapshot_in_use_by_image",
        title="An AMI still needs the snapshot",
        advice="An AMI is made of this snapshot, so it cannot be deleted: deregister the AMI named here first, or keep the "
        "snapshot.",
        source=_EC2,
        aws_codes=("InvalidSnapshot.InUse",),
    ),
    KnownError(
        code="copies_in_progress",
        title="Too many snapshots are being copied to the region",
        advice="As many snapshots as AWS allows are being copied to this region; it is tried again when some have ended. "
        "If that delays DR too much, ask AWS to raise the quota of concurrent snapshot copies per destination region.",
        source=_EBS_QUOTAS,
        aws_codes=("ResourceLimitExceeded",),
        services=("ec2",),
        words="copies in progress",
    ),
    KnownError(
        code="snapshots_pending",
        title="Too many snapshots are pending",
        advice="As many snapshots as AWS allows are pending in this region; it is tried again when some have ended. Move "
        "schedules apart, or ask AWS to raise the quota of pending snapshots.",
        source=_EBS_QUOTAS,
        aws_codes=("PendingSnapshotLimitExceeded",),
    ),
    KnownError(
        code="snapshots_of_volume_pending",
        title="Too many snapshots of one volume are pending",
        advice="As many snapshots of this volume as AWS allows are being made; it is tried again when some have ended. "
        "Back the volume up less often, by fewer policies, and remove its snapshots in state error.",
        source=_EC2,
        aws_codes=("ConcurrentSnapshotLimitExceeded",),
    ),
    KnownError(
        code="snapshots_of_volume_too_frequent",
        title="Two snapshots of one volume within 15 seconds",
        advice="AWS takes one snapshot of a volume in 15 seconds; it is tried again after that. Nothing needs to be done.",
        source=_EC2,
        aws_codes=("SnapshotCreationPerVolumeRateExceeded",),
    ),
    KnownError(
        code="snapshot_quota",
        title="The account's quota of snapshots is used up",
        advice="The account has as many snapshots in this region as it may: keep fewer generations, delete what nobody "
        "needs, or ask AWS to raise the quota of snapshots per region.",
        source=_EBS_QUOTAS,
        aws_codes=("SnapshotLimitExceeded",),
    ),
    KnownError(
        code="copy_between_regions_unsupported",
        title="Snapshots cannot be copied between these regions",
        advice="AWS does not copy snapshots between these two regions: choose another DR region in the policy.",
        source=_EC2,
        aws_codes=("SnapshotCopyUnsupported.InterRegion",),
    ),
    KnownError(
        code="image_name_taken",
        title="The name of the AMI is taken",
        advice="Another AMI of this account and region has the name already: deregister it, or choose another name.",
        source=_EC2,
        aws_codes=("InvalidAMIName.Duplicate",),
    ),
    KnownError(
        code="tag_limit",
        title="Too many tags",
        advice="A resource of AWS can have 50 tags, CPM's included: remove tags from the original, or take fewer over.",
        source=f"{_AWS}/AWSEC2/latest/UserGuide/Using_Tags.html",
        aws_codes=("TagLimitExceeded",),
    ),
    KnownError(
        code="tag_policy_violated",
        title="Tags violate the organization's tag policy",
        advice="The tags violate the tag policy of the organization: correct the original's tags, or exempt CPM's tags "
        "(cpm_…) there.",
        source=_EC2,
        aws_codes=("TagPolicyViolation",),
    ),
)

RECOVERY = (
    KnownError(
        code="instance_type_not_in_zone",
        title="The zone does not offer the instance type",
        advice="The availability zone does not offer this instance type: recover into a subnet of another zone, or choose "
        "another type.",
        source=f"{_AWS}/AWSEC2/latest/UserGuide/troubleshooting-launch.html",
        aws_codes=("Unsupported",),
        services=("ec2",),
        words="instance type .* not supported in your requested Availability Zone",
    ),
    KnownError(
        code="volume_type_not_in_zone",
        title="The zone does not offer the volume type",
        advice="The availability zone does not offer this volume type: choose another zone or another type.",
        source=_EC2,
        aws_codes=("VolumeTypeNotAvailableInZone",),
    ),
    KnownError(
        code="zone_mismatch",
        title="Volume and instance are in different zones",
        advice="A volume can be attached only to an instance of its own availability zone: recover it into the zone of the "
        "instance.",
        source=_EC2,
        aws_codes=("InvalidVolume.ZoneMismatch", "InvalidVolumeID.ZoneMismatch"),
    ),
    KnownError(
        code="instance_capacity_missing",
        title="AWS has no free capacity for the instance type",
        advice="AWS has no free capacity of this instance type in this zone now: try later, another zone, or another type.",
        source=f"{_AWS}/AWSEC2/latest/UserGuide/troubleshooting-launch.html",
        aws_codes=("InsufficientInstanceCapacity",),
    ),
    KnownError(
        code="volume_capacity_missing",
        title="AWS has no free capacity for the volume",
        advice="AWS has no free capacity for this volume in this zone now: try later, another zone, or another volume type.",
        source=_EC2,
        aws_codes=("InsufficientVolumeCapacity",),
    ),
    KnownError(
        code="instance_quota",
        title="The account's quota of instances is used up",
        advice="The account runs as many instances (or vCPUs) of this kind as it may: stop some, or ask AWS to raise the "
        "quota of running On-Demand instances.",
        source=f"{_AWS}/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html",
        aws_codes=("VcpuLimitExceeded", "InstanceLimitExceeded"),
    ),
    KnownError(
        code="volume_quota",
        title="The account's quota of volumes is used up",
        advice="The account has as much volume storage or IOPS in this region as it may: delete volumes, recover with "
        "another type or fewer IOPS, or ask AWS to raise the quota of this volume type.",
        source=_EBS_QUOTAS,
        aws_codes=("VolumeLimitExceeded", "MaxIOPSLimitExceeded"),
    ),
    KnownError(
        code="attachment_limit",
        title="The instance cannot take more volumes or interfaces",
        advice="The instance has as many volumes and network interfaces as its type allows: detach some, or choose a "
        "larger type.",
        source=_EC2,
        aws_codes=("AttachmentLimitExceeded",),
    ),
    KnownError(
        code="encryption_not_supported_by_type",
        title="The instance type does not support encrypted volumes",
        advice="This instance type does not support encrypted volumes: choose one of a current generation.",
        source=_EC2,
        aws_codes=("EncryptedVolumesNotSupported",),
    ),
    KnownError(
        code="termination_protected",
        title="The instance is protected from termination",
        advice="The instance is protected from termination: switch the protection off in EC2 if it shall really go.",
        source=_EC2,
        aws_codes=("OperationNotPermitted",),
        services=("ec2",),
        words="disableApiTermination|termination protection",
    ),
    KnownError(
        code="subnet_full",
        title="The subnet has no free addresses",
        advice="The subnet has too few free addresses: release some (those of stopped instances count), or choose another "
        "subnet.",
        source=_EC2,
        aws_codes=(
            "InsufficientFreeAddressesInSubnet",
            "InsufficientAvailableIPsInSubnetFault",
            "NoFreeAddressesInSubnet",
        ),
    ),
    KnownError(
        code="address_in_use",
        title="The private address is in use",
        advice="Something else has the private address: recover with another one, or let AWS choose.",
        source=_EC2,
        aws_codes=("InvalidIPAddress.InUse",),
    ),
    KnownError(
        code="address_quota",
        title="The account's quota of Elastic IP addresses is used up",
        advice="The account has as many Elastic IP addresses in this region as it may: release some, or ask AWS for more.",
        source=_EC2,
        aws_codes=("AddressLimitExceeded",),
    ),
    KnownError(
        code="default_vpc_missing",
        title="The region has no default VPC",
        advice="The account has no default VPC in this region: name a subnet for the recovery, or create a default VPC.",
        source=_EC2,
        aws_codes=("VPCIdNotSpecified", "DefaultVpcDoesNotExist"),
    ),
    KnownError(
        code="subnet_missing",
        title="The subnet does not exist",
        advice="The subnet does not exist in this account and region: choose one that does.",
        source=_EC2,
        aws_codes=("InvalidSubnetID.NotFound", "InvalidSubnetId.NotFound"),
    ),
    KnownError(
        code="security_group_missing",
        title="The security group does not exist",
        advice="The security group does not exist in the VPC of the subnet: choose groups of that VPC.",
        source=_EC2,
        aws_codes=("InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound"),
    ),
    KnownError(
        code="key_pair_missing",
        title="The key pair does not exist",
        advice="The key pair does not exist in this account and region: import it there, or choose another.",
        source=_EC2,
        aws_codes=("InvalidKeyPair.NotFound",),
    ),
)

STORAGE = (
    KnownError(
        code="bucket_in_other_region",
        title="The bucket is in another region",
        advice="The bucket is not in this region: enter the region that it was made in.",
        source=_S3,
        aws_codes=(
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "301",
        ),
        services=("s3",),
        words="region|endpoint|moved permanently",
    ),
    KnownError(
        code="bucket_missing",
        title="The bucket does not exist",
        advice="There is no such bucket: check its name, and whether somebody has deleted it.",
        source=_S3,
        aws_codes=("NoSuchBucket",),
    ),
    KnownError(
        code="object_archived",
        title="The object is archived",
        advice="The object is in an archive storage class and has to be retrieved before it can be read; for a copy of CPM, "
        "start the recovery with the retrieval allowed.",
        source=_S3,
        aws_codes=("InvalidObjectState",),
        services=("s3",),
    ),
)

AGENTS = (
    KnownError(
        code="ssm_agent_offline",
        title="The Systems Manager agent of the instance is not connected",
        advice="Systems Manager does not reach the instance: check that it runs, that its SSM agent is started, that its "
        "role has AmazonSSMManagedInstanceCore, and that it can reach the endpoints of Systems Manager.",
        source=f"{_AWS}/systems-manager/latest/userguide/troubleshooting-managed-nodes.html",
        aws_codes=("InvalidInstanceId", "TargetNotConnected"),
        services=("ssm",),
    ),
    KnownError(
        code="mail_sender_not_verified",
        title="SES has not verified the address",
        advice="SES sends only from verified addresses, and to such ones only while the account is in the sandbox: confirm "
        "the address with the mail that SES sent, or ask AWS to take the account out of the sandbox.",
        source=f"{_AWS}/ses/latest/dg/troubleshoot-error-messages.html",
        aws_codes=("MessageRejected",),
        words="not verified",
    ),
)
