"""Databases, tables and file systems of the populated server, by the examples that their own suite has.

Every type of the registry is covered, so a new one needs nothing here.
"""

from typing import Any

from cpm.models import Backup, Policy
from cpm.resources.registry import WHOLE
from tests.domain.whole_examples import EXAMPLES, recorded
from tests.domain.whole_examples.base import REGION
from tests.domain.world import World


def add(world: World, policy: Policy, backup: Backup) -> dict[str, Any]:
    """A target, a snapshot and a DR copy of every type; ids and good requests by the names that the recipes use."""
    found: dict[str, Any] = {}
    for kind in WHOLE:
        example, owner = EXAMPLES[kind.key], world.user.pk
        target = recorded.target(world, kind, policy, f"orders-{owner}")
        row = recorded.snapshot(world, kind, target, backup)
        spare = example.make(world, f"spare-{owner}")
        recovery = example.request(f"again-{owner}")
        found |= {
            f"target:{kind.key}": target.pk,
            f"target_request:{kind.key}": {kind.id_field: spare, "aws_region": REGION, **example.options()},
            f"snapshot:{kind.kind}": row.pk,
            f"recovery_request:{kind.kind}": recovery,
        }
        if kind.dr_kind:
            copy = recorded.copy(kind, row)
            found |= {f"snapshot:{kind.dr_kind}": copy.pk, f"recovery_request:{kind.dr_kind}": recovery}
    return found
