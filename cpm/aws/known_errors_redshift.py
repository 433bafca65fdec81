"""Known failures of Redshift's clusters and snapshots. See `known_errors`."""

from cpm.aws.known_error import KnownError

_GUIDE = "https://docs.aws.amazon.com/redshift/latest/mgmt"
_API = "https://docs.aws.amazon.com/redshift/latest/APIReference"
_SHARING = f"{_GUIDE}/working-with-snapshot-share-snapshot.html"
_QUOTAS = f"{_GUIDE}/amazon-redshift-limits.html"
_RESTORE = f"{_API}/API_RestoreFromClusterSnapshot.html"

REDSHIFT = (
    KnownError(
        code="redshift_cluster_busy",
        title="The cluster is paused or busy",
        advice="Redshift takes snapshots only of available clusters: resume the cluster, wait until its resize or "
        "maintenance is over, or move the schedule away from its maintenance window.",
        source=f"{_API}/API_CreateClusterSnapshot.html",
        aws_codes=("InvalidClusterState",),
        services=("redshift",),
        actions=("CreateClusterSnapshot",),
    ),
    KnownError(
        code="redshift_snapshot_shared",
        title="The snapshot is shared or not yet complete",
        advice="Redshift deletes no snapshot that another account may restore, and none that is still being made: take back "
        "what it is shared with, or wait. It is tried again at the next cleanup.",
        source=f"{_API}/API_DeleteClusterSnapshot.html",
        aws_codes=("InvalidClusterSnapshotState",),
        services=("redshift",),
        actions=("DeleteClusterSnapshot",),
    ),
    KnownError(
        code="redshift_default_key_not_shareable",
        title="The snapshot cannot be shared",
        advice="Redshift shares no snapshot that the account's default key (aws/redshift) encrypts: encrypt the cluster with "
        "a customer managed key, and let the DR account use that key.",
        source=_SHARING,
        aws_codes=("UnsupportedOperation",),
        services=("redshift",),
        actions=("AuthorizeSnapshotAccess",),
    ),
    KnownError(
        code="redshift_shared_with_too_many",
        title="The snapshot is shared with too many accounts",
        advice="The snapshot is shared with as many accounts as AWS allows (20): take it back from some.",
        source=_SHARING,
        aws_codes=("AuthorizationQuotaExceeded",),
        services=("redshift",),
    ),
    KnownError(
        code="redshift_key_grants_used_up",
        title="The KMS key has as many grants as it may have",
        advice="Each sharing of an encrypted snapshot and each cluster needs a grant of the KMS key, which has as many as AWS "
        "allows: keep fewer shared generations, or ask AWS to raise the quota of grants per key.",
        source=_SHARING,
        aws_codes=("LimitExceededFault",),
        services=("redshift",),
    ),
    KnownError(
        code="redshift_parameter_group_missing",
        title="The parameter group does not exist",
        advice="The original's parameter group no longer exists in this account and region: make one of that name again, and "
        "recover anew.",
        source=_RESTORE,
        aws_codes=("ClusterParameterGroupNotFound",),
    ),
    KnownError(
        code="redshift_subnets_insufficient",
        title="The subnet group does not cover the zone",
        advice="The cluster subnet group has no subnet in a zone that the cluster needs: add one, or name another zone or "
        "another subnet group.",
        source=_RESTORE,
        aws_codes=("InvalidVPCNetworkStateFault",),
        services=("redshift",),
    ),
    KnownError(
        code="redshift_restore_invalid",
        title="Redshift cannot restore the snapshot in this way",
        advice="What was asked for does not go together with the snapshot: a cluster of a VPC needs a subnet group, and not "
        "every node type can be restored into.",
        source=_RESTORE,
        aws_codes=("InvalidRestore",),
        services=("redshift",),
    ),
    KnownError(
        code="redshift_node_quota",
        title="The account's quota of Redshift nodes is used up",
        advice="The account has as many Redshift nodes in this region as it may: remove or shrink clusters, or ask AWS to "
        "raise the quota.",
        source=_QUOTAS,
        aws_codes=("NumberOfNodesQuotaExceeded", "NumberOfNodesPerClusterLimitExceeded"),
        services=("redshift",),
    ),
)
