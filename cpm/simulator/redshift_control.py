"""What only the control endpoint can make Redshift do at once."""

import re
from typing import Any

from cpm.simulator.errors import AwsError
from cpm.simulator.redshift_taking import take_automated
from cpm.simulator.timing import now
from cpm.simulator.world import World


def automated(world: World, body: bytes, arn: str) -> dict[str, Any]:
    """The automated snapshot that AWS would take when eight hours have passed."""
    cluster = world.state.redshift_clusters.by_id.get(arn)
    if cluster is None or cluster.status != "available":
        raise AwsError("NotFound", f"{arn} is no available cluster")
    world.changes += 1
    return {"snapshot": take_automated(world, cluster, now()).name}


CONTROL = (("POST", re.compile("/automated/(arn:.+)"), automated),)
