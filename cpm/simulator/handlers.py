"""Which function answers which action; what is not in this table is answered by moto."""

from cpm.simulator import (
    image_sharing,
    images,
    instances,
    placements,
    snapshot_copies,
    snapshots,
    ssm,
    sts,
    tags,
    volumes,
)
from cpm.simulator.call import Handler

EC2 = (tags, volumes, snapshots, snapshot_copies, images, image_sharing, instances, placements)

HANDLERS: dict[tuple[str, str], Handler] = {
    **{("ec2", action): handler for module in EC2 for action, handler in module.ACTIONS.items()},
    **{("sts", action): handler for action, handler in sts.ACTIONS.items()},
    **{("ssm", action): handler for action, handler in ssm.ACTIONS.items()},
}

READ_ONLY = frozenset(action for _, action in HANDLERS if action.startswith(("Describe", "List", "Get")))
