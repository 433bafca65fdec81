"""The files of EFS file systems at the control endpoint, as a host that mounts them would see and write them."""

import hashlib
import re
from typing import Any

from cpm.simulator.efs_model import FileSystem
from cpm.simulator.errors import AwsError
from cpm.simulator.world import World


def _found(world: World, file_system_id: str) -> FileSystem:
    found = world.state.file_systems.by_id.get(file_system_id)
    if found is None:
        raise AwsError("NotFound", f"{file_system_id} does not exist")
    return found


def _checked(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise AwsError("BadControl", f"{path!r} is not a path from the root")
    return path


def listed(world: World, body: bytes, file_system_id: str) -> dict[str, str]:
    """Every path with the SHA-256 of its bytes."""
    content = _found(world, file_system_id).content()
    return {path: hashlib.sha256(data).hexdigest() for path, data in sorted(content.items())}


def read(world: World, body: bytes, file_system_id: str, path: str) -> bytes:
    content = _found(world, file_system_id).content()
    if path not in content:
        raise AwsError("NotFound", f"{path} does not exist")
    return content[path]


def write(world: World, body: bytes, file_system_id: str, path: str) -> dict[str, Any]:
    """A file is never where a directory is, nor below another file."""
    found, path = _found(world, file_system_id), _checked(path)
    for known in found.content():
        if known.startswith(path + "/") or path.startswith(known + "/"):
            raise AwsError("BadControl", f"{path} cannot be where {known} is")
    world.changes += 1
    found.write(path, body)
    return {"bytes": len(body)}


def remove(world: World, body: bytes, file_system_id: str, path: str) -> dict[str, Any]:
    read(world, body, file_system_id, path)
    world.changes += 1
    _found(world, file_system_id).write(path, None)
    return {"removed": path}


FILE = re.compile("/efs/([^/]+)/files/(.+)")

CONTROL = (
    ("GET", re.compile("/efs/([^/]+)/files"), listed),
    ("GET", FILE, read),
    ("PUT", FILE, write),
    ("DELETE", FILE, remove),
)
