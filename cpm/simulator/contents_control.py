"""What is in databases and warehouses at the control endpoint: their bytes, and whether new ones are live."""

import json
import re
from typing import Any

from cpm.simulator.errors import AwsError
from cpm.simulator.world import World


def read(world: World, body: bytes, arn: str) -> bytes:
    return world.state.contents.read(arn)


def write(world: World, body: bytes, arn: str) -> dict[str, Any]:
    world.changes += 1
    world.state.contents.write(arn, body)
    return {"bytes": len(body)}


def show_live(world: World, body: bytes) -> dict[str, Any]:
    return {"live": world.state.live.on, "ports": world.state.live.ports}


def set_live(world: World, body: bytes) -> dict[str, Any]:
    """From now on new instances of PostgreSQL are live, or not; those that exist stay what they are."""
    wanted = json.loads(body or b"{}").get("live")
    if not isinstance(wanted, bool):
        raise AwsError("BadControl", "live is a boolean")
    world.changes += 1
    world.state.live.on = wanted
    return show_live(world, body)


HELD = re.compile("/contents/(arn:.+)")

DATABASES = re.compile("/databases")

CONTROL = (
    ("GET", HELD, read),
    ("PUT", HELD, write),
    ("GET", DATABASES, show_live),
    ("POST", DATABASES, set_live),
)
