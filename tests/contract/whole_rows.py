"""Databases, tables and file systems of the populated server. They exist in the simulated AWS, as do their snapshots.

Every type of the registry gets them by the example that its own suite has, so a new type needs nothing here.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.utils import timezone

from cpm.aws import gateway
from cpm.aws.client import AwsClient
from cpm.flows.identities import identity_of
from cpm.lib.states import SnapshotStatus
from cpm.models import Backup, Policy, Snapshot, Target
from cpm.resources.base import Described
from cpm.resources.fields import Shows
from cpm.resources.registry import WHOLE
from cpm.resources.whole import Held, Making, WholeResource
from tests import factories as make
from tests.domain.whole_examples import EXAMPLES
from tests.domain.whole_examples.base import REGION
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT, wait_for

# What a field shows whose value only a copy or a service that is not asked here would give.
SAMPLES: dict[type, Any] = {str: "text", int: 1, bool: True}


def add(world: World, policy: Policy, backup: Backup) -> dict[str, Any]:
    """A target, a snapshot and a DR copy of every type; ids and good requests by the names that the recipes use."""
    found: dict[str, Any] = {}
    for kind in WHOLE:
        example, owner = EXAMPLES[kind.key], world.user.pk
        id, other = (example.make(world, f"{word}-{owner}") for word in ("orders", "spare"))
        described = kind.describe(client(world, kind.service), [id])[id]
        target = make.target(
            policy, resource_type=kind.key, aws_resource_id=id, name=described.name, details=dict(described.details),
            options={**{one.name: one.default for one in kind.target_takes}, **example.options()},
        )  # fmt: skip
        row = snapshot(world, kind, backup, target, described)
        found |= {
            f"target:{kind.key}": target.pk, f"snapshot:{kind.kind}": row.pk,
            f"target_request:{kind.key}": {kind.id_field: other, "aws_region": REGION, **example.options()},
            f"recovery_request:{kind.kind}": example.request(f"again-{owner}"),
        }  # fmt: skip
        if kind.dr_kind:
            found[f"snapshot:{kind.dr_kind}"] = copy(row, kind).pk
            found[f"recovery_request:{kind.dr_kind}"] = example.request(f"again-{owner}")
    return found


def snapshot(world: World, kind: WholeResource, backup: Backup, target: Target, described: Described) -> Snapshot:
    """A snapshot that AWS has completed, recorded as a backup would."""
    aws = client(world, kind.snapshots_in)
    token = str(uuid4())
    making = Making(
        described.id, f"cpm-{token}", token, tags={"cpm": "yes"}, since=timezone.now(), options=target.options
    )
    details = {**described.details, "tags": dict(described.tags)}
    aws_id = kind.create(aws, making)
    one = Held(aws_id, described.id, REGION, DEFAULT_ACCOUNT, details, started=timezone.now())

    def complete() -> bool:
        seen = kind.snapshots(aws, [one]).get(aws_id)
        return seen is not None and seen.state is SnapshotStatus.COMPLETED

    wait_for(complete)
    shown = kind.snapshots(aws, [one])[aws_id]
    return make.snapshot(
        backup, kind.kind, resource_type=kind.key, aws_id=shown.aws_id or aws_id, source_id=described.id,
        source_name=described.name, capacity=shown.capacity or described.details.get("capacity"),
        encrypted=bool(described.details.get("encrypted")),
        details=shows(kind.snapshot_fields, {**details, **shown.details}),
    )  # fmt: skip


def copy(of: Snapshot, kind: WholeResource) -> Snapshot:
    """A record of a DR copy of the snapshot, which stands for it in AWS."""
    return make.snapshot(
        of.backup, kind.dr_kind, resource_type=kind.key, original=of, aws_id=of.aws_id, source_id=of.source_id,
        source_name=of.source_name, capacity=of.capacity, encrypted=of.encrypted,
        details=shows(kind.dr_fields, of.details),
    )  # fmt: skip


def shows(fields: Sequence[Shows], details: dict[str, Any]) -> dict[str, Any]:
    """The details with something in every field that the API shows of them."""
    for one in fields:
        column, _, key = one.path.partition("__")
        if column == "details" and "__" not in key and details.get(key) is None and one.holds in SAMPLES:
            sample = one.choices.choices()[0][0] if one.choices else SAMPLES[one.holds]
            details = {**details, key: sample}
    return details


def client(world: World, service: str) -> AwsClient:
    return gateway.client(identity_of(world.account, session="cpm-test"), service, REGION)

