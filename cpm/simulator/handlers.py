"""Which function answers which action; what is not in this table is answered by moto."""

from cpm.simulator import (
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

EC2 = (tags, volumes, snapshots, snapshot_copies, images, image_sharing, instances, placements, kms)
# Aurora, DocumentDB and Neptune too: they sign as RDS.
RDS = (
    rds_instances, rds_clusters, rds_snapshots, rds_snapshot_copies, rds_restores, rds_networks, rds_engines,
    rds_tags, rds_exports,
)  # fmt: skip

HANDLERS: dict[tuple[str, str], Handler] = {
    **{("ec2", action): handler for module in EC2 for action, handler in module.ACTIONS.items()},
    **{("rds", action): handler for module in RDS for action, handler in module.ACTIONS.items()},
    **{("sts", action): handler for action, handler in sts.ACTIONS.items()},
    **{("iam", action): handler for action, handler in iam.ACTIONS.items()},
    **{("ssm", action): handler for action, handler in ssm.ACTIONS.items()},
    **{("sns", action): handler for action, handler in sns.ACTIONS.items()},
    **{("ses", action): handler for action, handler in ses.ACTIONS.items()},
}

# Of these services moto answers nothing, since it knows nothing of what the handlers above keep.
OURS_ALONE = frozenset({"sns", "ses", "rds"})

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
