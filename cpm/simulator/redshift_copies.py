"""Copying a cluster's snapshots to another region: switched on and off, and for how long copies stay."""

from typing import Any

from cpm.simulator import redshift_taking as taking
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.redshift_clusters import MOST_AUTOMATED_DAYS, shown
from cpm.simulator.redshift_model import FOREVER, Cluster, CopyAbroad
from cpm.simulator.redshift_names import SNAPSHOT, cluster, days, living, wrong_cluster_state
from cpm.simulator.volume_rules import zones


def enable(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, EnableSnapshotCopy: to one other region, from the next snapshot on."""
    item, region = cluster(call), call.params["DestinationRegion"]
    if item.copies is not None:
        raise AwsError(
            "SnapshotCopyAlreadyEnabledFault", f"Cluster {item.name} already copies to {item.copies.region}."
        )
    if not zones(region) or region == call.region:
        raise AwsError("UnknownSnapshotCopyRegionFault", f"Snapshots cannot be copied to {region}.", 404)
    if region in call.state.disabled_regions:
        raise AwsError("CopyToRegionDisabledFault", f"Copying to {region} is disabled.")
    if grant := call.params.get("SnapshotCopyGrantName"):
        # Grants are not simulated, so none of them is ever there.
        raise AwsError("SnapshotCopyGrantNotFoundFault", f"The snapshot copy grant {grant} does not exist.")
    if item.status != "available":
        raise wrong_cluster_state(item)
    automated = days(call, "RetentionPeriod", 7, MOST_AUTOMATED_DAYS)
    item.copies = CopyAbroad(region, automated, days(call, "ManualSnapshotRetentionPeriod", FOREVER))
    return {"Cluster": shown(item)}


def disable(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, DisableSnapshotCopy: what is there stays."""
    item = cluster(call)
    if item.copies is None:
        raise AwsError(
            "SnapshotCopyAlreadyDisabledFault", f"Cluster {item.name} does not copy its snapshots."
        )
    taking.forget_unbegun(call.world, item)
    item.copies = None
    return {"Cluster": shown(item)}


def change_retention(call: Call) -> dict[str, Any]:
    """AWS: Redshift API Reference, ModifySnapshotCopyRetentionPeriod.

    Of automated copies the old ones change, too; of manual copies only those to come.
    """
    item = cluster(call)
    if item.copies is None:
        raise AwsError("SnapshotCopyDisabledFault", f"Cluster {item.name} does not copy its snapshots.")
    if call.params.get("Manual", False):
        item.copies.manual_days = days(call, "RetentionPeriod", FOREVER)
    else:
        item.copies.automated_days = days(call, "RetentionPeriod", FOREVER, MOST_AUTOMATED_DAYS)
        _change_old_ones(call, item, item.copies)
    return {"Cluster": shown(item)}


def _change_old_ones(call: Call, item: Cluster, copies: CopyAbroad) -> None:
    for snapshot in living(call, SNAPSHOT, region=copies.region):
        if (snapshot.type, snapshot.cluster, snapshot.source_region) == ("automated", item.name, item.region):
            snapshot.days = copies.automated_days


ACTIONS = {
    "DisableSnapshotCopy": disable,
    "EnableSnapshotCopy": enable,
    "ModifySnapshotCopyRetentionPeriod": change_retention,
}
