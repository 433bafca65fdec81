"""CopyDBSnapshot and CopyDBClusterSnapshot: within a region, from other regions and accounts, with keys."""

from dataclasses import replace
from functools import partial
from typing import Any

from cpm.simulator import rds_keys, rds_live, rds_tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.rds_model import DatabaseSnapshot
from cpm.simulator.rds_names import (
    CLUSTER_SNAPSHOT,
    SNAPSHOT,
    Kind,
    arn,
    combination,
    free_name,
    living,
    missing,
    shelf,
    wrong_state,
)
from cpm.simulator.rds_snapshots import SHOWN, check_quota, seen


def copy(call: Call, kind: Kind) -> dict[str, Any]:
    """AWS: RDS API Reference, CopyDBSnapshot and CopyDBClusterSnapshot, called in the region of the copy.

    AWS: RDS API Reference, CopyDBClusterSnapshot: a cluster snapshot that is being copied is ``copying``.
    """
    source = _source(call, kind, call.params[f"Source{kind.label}Identifier"])
    name = free_name(call, kind, call.params[f"Target{kind.label}Identifier"])
    shared, abroad = source.account != call.account, source.region != call.region
    key = rds_keys.of_copy(call, source.key, abroad=abroad, shared=shared, may_encrypt=kind is SNAPSHOT)
    labels = rds_tags.given(call)
    if call.params.get("CopyTags"):
        if shared:
            raise combination("CopyTags cannot be used for a snapshot that another account shares.")
        labels = {**source.tags, **labels}
    _check_running(call, kind)
    check_quota(call, kind)
    made = DatabaseSnapshot(
        id=arn(call, kind, name),
        name=name,
        account=call.account,
        region=call.region,
        settling=call.world.settling("database_snapshot"),
        doing="creating" if kind is SNAPSHOT else "copying",
        tags=labels,
        of=replace(source.of, key=key),
        key=key,
        failure="injected failure" if call.fails(source.of.name) else None,
        source_arn=source.id,
        original_created=source.original_created or source.created,
    )
    made.of.created = source.of.created
    rds_live.copy(call, source.id, made.id)
    shelf(call, kind).add(made)
    return {kind.label: SHOWN[kind.shelf](call, made)}


def _source(call: Call, kind: Kind, identifier: str) -> DatabaseSnapshot:
    """The available snapshot that the call may copy; one of another region or account is named by its ARN."""
    parts = identifier.split(":")
    region = parts[3] if identifier.startswith("arn:") and len(parts) == 7 else call.region
    said = call.params.get("SourceRegion")
    if said and said != region:
        raise missing(kind, identifier)
    source = seen(call, kind, identifier, region)
    if source.state != "available":
        raise wrong_state(kind, source)
    return source


def _check_running(call: Call, kind: Kind) -> None:
    """AWS: RDS User Guide, Copying a DB snapshot: copies in progress to one destination region of an account."""
    most = call.state.limits.concurrent_database_copies
    if sum(one.pending and one.source_arn is not None for one in living(call, kind)) >= most:
        raise AwsError("SnapshotQuotaExceeded", f"Cannot copy more than {most} snapshots across regions")


ACTIONS = {
    "CopyDBSnapshot": partial(copy, kind=SNAPSHOT),
    "CopyDBClusterSnapshot": partial(copy, kind=CLUSTER_SNAPSHOT),
}
