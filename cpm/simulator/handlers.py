"""Which function answers which action; what is not in this table is answered by moto."""

from cpm.simulator import (
    dynamodb,
    iam,
    image_sharing,
    images,
    instances,
    kms,
    placements,
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

EC2 = (tags, volumes, snapshots, snapshot_copies, images, image_sharing, instances, placements, kms)
REDSHIFT = (
    redshift_clusters,
    redshift_networks,
    redshift_snapshots,
    redshift_copies,
    redshift_restores,
    redshift_tags,
)

HANDLERS: dict[tuple[str, str], Handler] = {
    **{("ec2", action): handler for module in EC2 for action, handler in module.ACTIONS.items()},
    **{("sts", action): handler for action, handler in sts.ACTIONS.items()},
    **{("iam", action): handler for action, handler in iam.ACTIONS.items()},
    **{("ssm", action): handler for action, handler in ssm.ACTIONS.items()},
    **{("sns", action): handler for action, handler in sns.ACTIONS.items()},
    **{("redshift", action): handler for module in REDSHIFT for action, handler in module.ACTIONS.items()},
    **{("dynamodb", action): handler for action, handler in dynamodb.ACTIONS.items()},
    **{("ses", action): handler for action, handler in ses.ACTIONS.items()},
}

# Of these services moto answers nothing, since it knows nothing of what the handlers above keep.
OURS_ALONE = frozenset({"redshift", "sns", "ses"})

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
