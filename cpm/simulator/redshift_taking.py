"""How Redshift's snapshots come into being: taken of a cluster, made of an automated one, copied to another region."""

import copy
from datetime import datetime
from typing import Any

from cpm.simulator.redshift_model import EMPTY_NODE_MEGABYTES, Cluster, ClusterSnapshot
from cpm.simulator.timing import Settling
from cpm.simulator.world import World

MEGABYTE = 2**20


def _add(
    world: World, account: str, region: str, name: str, content: bytes, **fields: Any
) -> ClusterSnapshot:
    made = ClusterSnapshot(
        id=f"arn:aws:redshift:{region}:{account}:snapshot:{fields['cluster']}/{name}",
        name=name,
        account=account,
        region=region,
        megabytes=fields["config"].nodes * EMPTY_NODE_MEGABYTES + len(content) / MEGABYTE,
        **fields,
    )
    world.state.redshift_snapshots.add(made)
    if not made.failed:
        world.state.contents.write(made.id, content)
    return made


def take(
    world: World, cluster: Cluster, name: str, days: int, labels: dict[str, str], *, failed: bool = False
) -> ClusterSnapshot:
    """A manual snapshot of what the cluster has at this moment, and its copy abroad where that is switched on."""
    made = _add(
        world,
        cluster.account,
        cluster.region,
        name,
        world.state.contents.read(cluster.id),
        cluster=cluster.name,
        type="manual",
        config=copy.deepcopy(cluster.config),
        settling=world.settling("database_snapshot"),
        days=days,
        tags=labels,
        failed=failed,
    )
    _copy_abroad(world, cluster, made)
    return made


def take_automated(world: World, cluster: Cluster, start: datetime) -> ClusterSnapshot:
    """The automated snapshot of a cluster that begins then, with what the cluster has now.

    AWS: Redshift Management Guide, Automated snapshots: every eight hours or after every 5 GB of changes. The
    simulator takes the first one by itself, as soon as the cluster is available, and others when it is told to.
    """
    name = f"rs:{cluster.name}-{start:%Y-%m-%d-%H-%M-%S}"
    here = world.state.redshift_snapshots.at(cluster.account, cluster.region).values()
    if any(snapshot.name == name for snapshot in here):
        name = f"{name}-{start:%f}"
    made = _add(
        world,
        cluster.account,
        cluster.region,
        name,
        world.state.contents.read(cluster.id),
        cluster=cluster.name,
        type="automated",
        config=copy.deepcopy(cluster.config),
        settling=Settling(start, world.state.timing.database_snapshot_seconds),
        days=cluster.config.automated_days,
        tags={},
    )
    _copy_abroad(world, cluster, made)
    return made


def made_manual(
    world: World, source: ClusterSnapshot, name: str, days: int, *, failed: bool = False
) -> ClusterSnapshot:
    """A manual snapshot of what an automated one has."""
    return _add(
        world,
        source.account,
        source.region,
        name,
        world.state.contents.read(source.id),
        cluster=source.cluster,
        type="manual",
        config=copy.deepcopy(source.config),
        settling=world.settling("database_snapshot"),
        days=days,
        tags={},
        failed=failed,
        source_region=source.source_region,
    )


def _copy_abroad(world: World, cluster: Cluster, source: ClusterSnapshot) -> None:
    """The copy that begins in the other region as soon as the snapshot is available.

    AWS: Redshift Management Guide, Copying a snapshot to another AWS Region; Configuring cross-Region snapshot copy for
    an AWS KMS-encrypted cluster: without a grant for a key there, AWS's own key encrypts the copy. That its name is
    the snapshot's after ``copy:``, and that it has none of its tags, is not documented.
    """
    wanted, name = cluster.copies, f"copy:{source.name}"
    if wanted is None or source.failed:
        return
    there = world.state.redshift_snapshots.at(cluster.account, wanted.region).values()
    if any(snapshot.name == name and not snapshot.gone for snapshot in there):
        return
    config = copy.deepcopy(source.config)
    config.kms_key_id = None
    _add(
        world,
        cluster.account,
        wanted.region,
        name,
        world.state.contents.read(source.id),
        cluster=source.cluster,
        type=source.type,
        config=config,
        settling=Settling(source.settling.end, world.state.timing.database_snapshot_seconds),
        days=wanted.manual_days if source.type == "manual" else wanted.automated_days,
        tags={},
        source_region=source.region,
    )


def forget_unbegun(world: World, cluster: Cluster) -> None:
    """Copies of a cluster's snapshots that have not begun never will."""
    if cluster.copies is None:
        return
    shelf = world.state.redshift_snapshots
    for snapshot in list(shelf.at(cluster.account, cluster.copies.region).values()):
        if snapshot.cluster == cluster.name and not snapshot.begun:
            shelf.remove(snapshot)
            world.state.contents.drop(snapshot.id)
