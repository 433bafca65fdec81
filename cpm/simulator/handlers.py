"""Which function answers which action; what is not in this table is answered by moto."""

from types import ModuleType

from cpm.simulator import (
    backup_copies,
    backup_jobs,
    backup_points,
    backup_restores,
    backup_vaults,
    dynamodb,
    efs,
    efs_mounts,
    iam,
    image_sharing,
    images,
    instances,
    kms,
    placements,
    rds_clusters,
    rds_engines,
    rds_exports,
    rds_instances,
    rds_networks,
    rds_restores,
    rds_snapshot_copies,
    rds_snapshots,
    rds_tags,
    redshift_clusters,
    redshift_copies,
    redshift_networks,
    redshift_restores,
    redshift_snapshots,
    redshift_tags,
    ses,
    snapshot_copies,
    snapshots,
    sns,
    ssm,
    sts,
    tags,
    volumes,
)
from cpm.simulator.call import Handler

PARTS: dict[str, tuple[ModuleType, ...]] = {
    "backup": (backup_vaults, backup_jobs, backup_points, backup_copies, backup_restores),
    "dynamodb": (dynamodb,),
    "ec2": (tags, volumes, snapshots, snapshot_copies, images, image_sharing, instances, placements, kms),
    "elasticfilesystem": (efs, efs_mounts),
    "iam": (iam,),
    # Aurora, DocumentDB and Neptune too: they sign as RDS.
    "rds": (
        rds_instances,
        rds_clusters,
        rds_snapshots,
        rds_snapshot_copies,
        rds_restores,
        rds_networks,
        rds_engines,
        rds_tags,
        rds_exports,
    ),
    "redshift": (
        redshift_clusters,
        redshift_networks,
        redshift_snapshots,
        redshift_copies,
        redshift_restores,
        redshift_tags,
    ),
    "ses": (ses,),
    "sns": (sns,),
    "ssm": (ssm,),
    "sts": (sts,),
}
"""The modules of each service, by the name that requests are signed with; each has a table `ACTIONS` of handlers."""

HANDLERS: dict[tuple[str, str], Handler] = {
    (service, action): handler
    for service, parts in PARTS.items()
    for part in parts
    for action, handler in part.ACTIONS.items()
}

# Of these services moto answers nothing, since it knows nothing of what the handlers above keep.
OURS_ALONE = frozenset({"backup", "elasticfilesystem", "rds", "redshift", "ses", "sns"})

# moto would answer these from bookkeeping of its own that knows none of our volumes, snapshots, images and
# launches: an empty list that looks like the truth. They are refused instead.
REFUSED = frozenset(
    {
        ("ec2", "CreateFleet"),
        ("ec2", "DescribeSnapshotTierStatus"),
        ("ec2", "DescribeVolumesModifications"),
        ("ec2", "DisableImage"),
        ("ec2", "EnableImage"),
        ("ec2", "ModifySnapshotTier"),
        ("ec2", "RequestSpotFleet"),
        ("ec2", "RequestSpotInstances"),
        ("ec2", "RestoreSnapshotTier"),
        ("tagging", "GetResources"),
    }
)

READ_ONLY = frozenset(
    action for _, action in HANDLERS if action.startswith(("Describe", "List", "Get", "Simulate"))
)
