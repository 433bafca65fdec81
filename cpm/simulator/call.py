"""One API call on its way to a handler."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cpm.simulator.errors import AwsError
from cpm.simulator.world import State, World


@dataclass
class Call:
    """Who calls what, where, with which parameters (named as boto3 names them)."""

    world: World
    service: str
    action: str
    account: str
    region: str
    access_key: str
    params: dict[str, Any]
    # For REST protocols; empty for the others.
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def state(self) -> State:
        return self.world.state

    def hidden(self, created: datetime) -> bool:
        """Whether this list call does not show yet what was created then."""
        return self.world.faults.hidden(self.service, self.action, self.account, self.region, created)

    def fails(self, resource_id: str) -> bool:
        """Whether the snapshot, backup or copy of this resource that the call makes will end in an error."""
        return self.world.faults.snapshot_fails(
            self.service, self.action, self.account, self.region, resource_id
        )

    def once(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Runs ``make`` unless this client token was used before, and then gives the first answer again.

        AWS: EC2 API Reference, Ensuring idempotency: the same token with other parameters is
        IdempotentParameterMismatch.
        """
        token = self.params.get("ClientToken")
        if not token:
            return make()
        wanted = json.dumps(self.params, sort_keys=True, default=str)
        key = (self.account, self.region, self.action, token)
        if key in self.state.tokens:
            before, answer = self.state.tokens[key]
            if before != wanted:
                raise AwsError(
                    "IdempotentParameterMismatch",
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
                )
            found: dict[str, Any] = answer
            return found
        answer = make()
        self.state.tokens[key] = (wanted, answer)
        return answer


Handler = Callable[[Call], dict[str, Any]]
