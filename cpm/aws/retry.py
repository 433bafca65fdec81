"""Which calls may be repeated after their answer was lost.

Repeating a call that may have had its effect creates things twice. So only calls that read, or whose second
run changes nothing, or that carry a client token, are repeated here; for the rest the caller's once-only
protocol looks first whether the thing exists.
"""

import random
from collections.abc import Mapping
from typing import Any

_TOKENS = ("ClientToken", "ClientRequestToken", "IdempotencyToken", "idempotencyToken", "CreatorRequestId")
_SAME_AGAIN = (
    "Describe", "Get", "List", "Head", "Search", "Lookup", "Simulate", "Decode", "Delete", "Deregister",
    "Modify", "Stop", "Terminate", "Detach", "Disassociate", "Reset", "Assume", "Tag", "Untag", "Put",
    "Cancel", "Encrypt", "Decrypt", "Retire", "Revoke",
)  # fmt: skip
_SAME_AGAIN_EXACT = frozenset({"CreateTags", "StartInstances", "GenerateDataKey"})


def repeatable(action: str, params: Mapping[str, Any]) -> bool:
    """Whether doing this call twice has the effect of doing it once."""
    if any(params.get(name) for name in _TOKENS):
        return True
    return action in _SAME_AGAIN_EXACT or action.startswith(_SAME_AGAIN)


def pause(attempt: int, at_least: float = 0.0) -> float:
    """Seconds before attempt number ``attempt + 1``: doubling, spread at random so that a fleet does not
    march."""
    return max(at_least, random.uniform(0.2, 0.5) * float(2**attempt))
