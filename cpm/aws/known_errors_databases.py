"""Known failures of databases and their snapshots: RDS, Aurora, DocumentDB, Redshift. See `known_errors`."""

from cpm.aws.known_error import KnownError

_AWS = "https://docs.aws.amazon.com"
_RDS_QUOTAS = f"{_AWS}/AmazonRDS/latest/UserGuide/CHAP_Limits.html"

DATABASES = (
    KnownError(
        code="subnet_group_missing",
        title="The subnet group does not exist",
        advice="The subnet group does not exist in this account and region: create one with subnets of the wanted VPC, or "
        "name another.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/USER_VPC.WorkingWithRDSInstanceinaVPC.html",
        aws_codes=("DBSubnetGroupNotFoundFault", "ClusterSubnetGroupNotFoundFault"),
    ),
    KnownError(
        code="database_copies_in_progress",
        title="Too many database snapshots are being copied to other regions",
        advice="As many database snapshots as AWS allows are being copied to other regions: wait until some have ended, or "
        "ask AWS to raise that quota of RDS.",
        source=_RDS_QUOTAS,
        aws_codes=("SnapshotQuotaExceeded",),
        services=("rds",),
        words="cannot copy more than",
    ),
    KnownError(
        code="database_snapshot_quota",
        title="The account's quota of database snapshots is used up",
        advice="The account has as many manual database snapshots in this region as it may: keep fewer generations, delete "
        "what nobody needs, or ask AWS to raise the quota.",
        source=_RDS_QUOTAS,
        aws_codes=("SnapshotQuotaExceeded", "ClusterSnapshotQuotaExceeded"),
    ),
    KnownError(
        code="database_quota",
        title="The account's quota of databases is used up",
        advice="The account has as many databases, clusters or as much database storage in this region as it may: remove "
        "some, or ask AWS to raise the quota.",
        source=_RDS_QUOTAS,
        aws_codes=(
            "InstanceQuotaExceeded",
            "StorageQuotaExceeded",
            "DBClusterQuotaExceededFault",
            "ClusterQuotaExceeded",
        ),
    ),
    KnownError(
        code="database_capacity_missing",
        title="AWS has no free capacity for the database",
        advice="AWS has no free capacity of this class in this zone now: try later, another zone, or another class.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/CHAP_Troubleshooting.html",
        aws_codes=("InsufficientDBInstanceCapacity", "InsufficientDBClusterCapacityFault", "InsufficientClusterCapacity"),
    ),
    KnownError(
        code="database_subnets_insufficient",
        title="The subnet group does not have the subnets that the database needs",
        advice="The subnet group has no subnet in the wanted availability zone, or subnets in less than two zones: add "
        "subnets to it, or name another zone or another subnet group.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/USER_VPC.WorkingWithRDSInstanceinaVPC.html",
        aws_codes=("DBSubnetGroupDoesNotCoverEnoughAZs", "InvalidVPCNetworkStateFault"),
    ),
    KnownError(
        code="database_group_missing",
        title="The parameter or option group does not exist",
        advice="The database was in a parameter group or option group that no longer exists here: make one of that name "
        "again, and start the recovery anew.",
        source=f"{_AWS}/AmazonRDS/latest/APIReference/API_RestoreDBInstanceFromDBSnapshot.html",
        aws_codes=("DBParameterGroupNotFound", "DBClusterParameterGroupNotFound", "OptionGroupNotFoundFault"),
    ),
    KnownError(
        code="database_storage_unavailable",
        title="The storage type cannot be had",
        advice="AWS does not offer this storage type or its provisioned IOPS for this engine or in this availability zone: "
        "choose another storage type or another zone.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/CHAP_Storage.html",
        aws_codes=(
            "StorageTypeNotSupported",
            "ProvisionedIopsNotAvailableInAZFault",
            "InsufficientStorageClusterCapacity",
        ),
    ),
    KnownError(
        code="database_busy",
        title="The database is busy with something else",
        advice="AWS is working on the database (its own backup, maintenance, a change), or it is stopped or has failed: "
        "back it up when it is available again, or start it.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/accessing-monitoring.html",
        aws_codes=("InvalidDBInstanceState", "InvalidDBClusterStateFault"),
        actions=("CreateDBSnapshot", "CreateDBClusterSnapshot"),
    ),
    KnownError(
        code="database_default_key_not_shareable",
        title="What the default key of RDS encrypts cannot be shared",
        advice="A snapshot that the account's default key (aws/rds) encrypts cannot be shared with another account: encrypt "
        "the database with a customer managed key, and let the other account use that key.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/share-encrypted-snapshot.html",
        aws_codes=("InvalidParameterCombination", "InvalidParameterValue", "InvalidDBSnapshotState"),
        services=("rds", "docdb"),
        words=r"default (KMS )?key .*cannot be shared|cannot be shared .*default (KMS )?key",
    ),
    KnownError(
        code="shared_with_too_many_accounts",
        title="The snapshot is shared with too many accounts",
        advice="The snapshot is shared with as many accounts as AWS allows (20): take it back from some.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/USER_ShareSnapshot.html",
        aws_codes=("SharedSnapshotQuotaExceeded",),
    ),
    KnownError(
        code="export_role_unusable",
        title="The role for exporting snapshots cannot be used",
        advice="RDS cannot export with this IAM role: it must exist, trust export.rds.amazonaws.com, and be allowed to "
        "write to the bucket.",
        source=f"{_AWS}/AmazonRDS/latest/UserGuide/USER_ExportSnapshot.Setup.html",
        aws_codes=("IamRoleNotFound", "IamRoleMissingPermissions"),
    ),
)
