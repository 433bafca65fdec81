"""CopySnapshot: into a region, from any region, from other accounts, with keys."""

from typing import Any

from moto.ec2.models import ec2_backends

from cpm.simulator import kms, tags
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.snapshots import check_id, not_found
from cpm.simulator.volume_rules import zones
from cpm.simulator.world import Snapshot, new_id

# AWS: EC2 API Reference, CopySnapshot: a copy shows an arbitrary volume id that must not be used.
NO_VOLUME = "vol-ffffffffffffffff0"


def copy(call: Call) -> dict[str, Any]:
    """AWS: EC2 API Reference, CopySnapshot. Tags come from TagSpecifications only."""
    source = source_of(call, call.params["SourceSnapshotId"], call.params["SourceRegion"])
    labels = tags.specified(call, "snapshot", ("snapshot",))
    check_quota(call, 1)
    made = make(
        call,
        source,
        description=call.params.get("Description", ""),
        encrypted=bool(call.params.get("Encrypted")),
        key=call.params.get("KmsKeyId"),
        labels=labels,
        kind="copy",
    )
    return {"SnapshotId": made.id, "Tags": tags.listed(labels)}


def source_of(call: Call, snapshot_id: str, region: str) -> Snapshot:
    """The completed snapshot in another region that this call may copy."""
    check_id(snapshot_id)
    if not zones(region):
        raise invalid(f"Invalid source region: {region}")
    source = call.state.snapshots.by_id.get(snapshot_id)
    if source is None or source.region != region or not source.visible_to(call.account):
        raise not_found(snapshot_id)
    if source.state != "completed":
        raise AwsError(
            "IncorrectState", f"Snapshot {source.id} is in the '{source.state}' state; it must be 'completed'"
        )
    return source


def check_quota(call: Call, more: int) -> None:
    """AWS: EBS endpoints and quotas: concurrent snapshot copies per destination region."""
    here = call.state.snapshots.at(call.account, call.region).values()
    running = sum(1 for snapshot in here if snapshot.copy and snapshot.state == "pending")
    if running + more > call.state.limits.concurrent_copies:
        raise AwsError(
            "ResourceLimitExceeded",
            f"Too many snapshot copies in progress. The limit is {call.state.limits.concurrent_copies}"
            " for this destination region.",
        )


def make(
    call: Call,
    source: Snapshot,
    *,
    description: str,
    encrypted: bool,
    key: str | None,
    labels: dict[str, str],
    kind: str,
) -> Snapshot:
    """The copy, in the caller's account and region. A key that cannot be used makes it end in ``error``."""
    if key and not (encrypted or source.encrypted):
        raise AwsError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set."
        )
    arn, failure = _key(call, source, encrypted, key)
    if call.fails(source.volume_id):
        failure = failure or "injected failure"
    copied = Snapshot(
        id=new_id("snap"),
        account=call.account,
        region=call.region,
        volume_id=NO_VOLUME,
        size=source.size,
        description=description,
        encrypted=arn is not None,
        kms_key_id=arn,
        settling=call.world.settling(kind),
        blocks=call.world.blocks.retain(source.blocks),
        failure=failure,
        copy=kind == "copy",
        lineage=set(source.lineage),
    )
    call.state.snapshots.add(copied)
    tags.put(call, copied, labels)
    return copied


def _key(call: Call, source: Snapshot, encrypted: bool, key: str | None) -> tuple[str | None, str | None]:
    """ARN of the copy's key (None for a plain copy), and why the copy will fail (None when it will not).

    The copy of an encrypted snapshot is encrypted; without a key named it takes the region's default key.
    """
    failure = kms.caller_can_use(call, source.kms_key_id) if source.kms_key_id else None
    by_default = bool(ec2_backends[call.account][call.region].ebs_encryption_by_default)
    if not (encrypted or source.encrypted or by_default):
        return None, None
    if key:
        arn, refused = kms.resolve(call, key, call.region)
        return arn, failure or refused
    return kms.default_key(call.account, call.region), failure


ACTIONS = {"CopySnapshot": copy}
