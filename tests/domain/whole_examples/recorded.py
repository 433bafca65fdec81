"""Records of resources that AWS snapshots as a whole, without a flow: they and their snapshots exist in the simulated AWS."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.utils import timezone

from cpm.aws import gateway
from cpm.aws.client import AwsClient
from cpm.flows.identities import identity_of
from cpm.lib.states import SnapshotStatus
from cpm.models import Backup, Policy, Snapshot, Target
from cpm.resources.fields import Shows
from cpm.resources.whole import Held, Making, Place, WholeResource
from tests import factories as make
from tests.domain.whole_examples import EXAMPLES
from tests.domain.whole_examples.base import REGION
from tests.domain.world import World
from tests.simulated_aws import DEFAULT_ACCOUNT, wait_for

# What a field shows whose value only a service that is not asked here would give.
SAMPLES: dict[type, Any] = {str: "text", int: 1, bool: True}


def target(world: World, kind: WholeResource, policy: Policy, name: str) -> Target:
    """A new resource of that name under the policy, as AWS describes it."""
    example = EXAMPLES[kind.key]
    id = example.make(world, name)
    described = kind.describe(_client(world, kind.service), [id])[id]
    return make.target(
        policy, resource_type=kind.key, aws_resource_id=id, name=described.name,
        details={**described.details, "tags": dict(described.tags)},
        options={**{one.name: one.default for one in kind.target_takes}, **example.options()},
    )  # fmt: skip


def snapshot(world: World, kind: WholeResource, of: Target, backup: Backup) -> Snapshot:
    """A snapshot that AWS has completed, recorded as a backup would."""
    aws, token = _client(world, kind.snapshots_in), str(uuid4())
    making = Making(
        of.aws_resource_id, f"cpm-{token}", token, tags={"cpm": "yes"}, since=timezone.now(), options=of.options,
        place=Place(DEFAULT_ACCOUNT, REGION), details=of.details,
    )  # fmt: skip
    aws_id = kind.create(aws, making)
    one = Held(aws_id, of.aws_resource_id, REGION, DEFAULT_ACCOUNT, of.details, started=timezone.now())

    def complete() -> bool:
        seen = kind.snapshots(aws, [one]).get(aws_id)
        return seen is not None and seen.state is SnapshotStatus.COMPLETED

    wait_for(complete)
    shown = kind.snapshots(aws, [one])[aws_id]
    return make.snapshot(
        backup, kind.kind, resource_type=kind.key, aws_id=shown.aws_id or aws_id, source_id=of.aws_resource_id,
        source_name=of.name, capacity=shown.capacity or of.details.get("capacity"),
        encrypted=bool(of.details.get("encrypted")),
        details=_filled(kind.snapshot_fields, {**of.details, **shown.details}),
    )  # fmt: skip


def copy(kind: WholeResource, of: Snapshot) -> Snapshot:
    """A record of a DR copy of the snapshot, which stands for it in AWS."""
    return make.snapshot(
        of.backup, kind.dr_kind, resource_type=kind.key, original=of, aws_id=of.aws_id, source_id=of.source_id,
        source_name=of.source_name, capacity=of.capacity, encrypted=of.encrypted,
        details=_filled(kind.dr_fields, of.details),
    )  # fmt: skip


def _filled(fields: Sequence[Shows], details: dict[str, Any]) -> dict[str, Any]:
    """The details with something in every field that the API shows of them."""
    for one in fields:
        column, _, key = one.path.partition("__")
        if column == "details" and "__" not in key and details.get(key) is None and one.holds in SAMPLES:
            sample = one.choices.choices()[0][0] if one.choices else SAMPLES[one.holds]
            details = {**details, key: sample}
    return details


def _client(world: World, service: str) -> AwsClient:
    return gateway.client(identity_of(world.account, session="cpm-test"), service, REGION)
