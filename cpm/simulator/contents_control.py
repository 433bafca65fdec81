"""The bytes of databases and warehouses at the control endpoint."""

import re
from typing import Any

from cpm.simulator.world import World


def read(world: World, body: bytes, arn: str) -> bytes:
    return world.state.contents.read(arn)


def write(world: World, body: bytes, arn: str) -> dict[str, Any]:
    world.changes += 1
    world.state.contents.write(arn, body)
    return {"bytes": len(body)}


HELD = re.compile("/contents/(arn:.+)")

CONTROL = (("GET", HELD, read), ("PUT", HELD, write))
