"""The world on disk, so that it survives a restart: one file, replaced atomically.

Kept: everything in ``world.State``, and moto's DynamoDB, EC2, IAM and KMS backends. Not kept: faults, the call log, and
what moto alone holds for other services.
"""

import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from moto.core.base_backend import BackendDict
from moto.dynamodb.models import dynamodb_backends
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends

from cpm.simulator.blocks import BlockMap
from cpm.simulator.world import World

log = structlog.get_logger(__name__)

VERSION = 1
# Never more than a twentieth of the time goes into saving, and never more often than this.
LEAST_SECONDS_BETWEEN_SAVES = 2.0
SHARE_OF_TIME = 20
MOTO: dict[str, BackendDict[Any]] = {
    "dynamodb": dynamodb_backends,
    "ec2": ec2_backends,
    "iam": iam_backends,
    "kms": kms_backends,
}


def _key_from_pem(pem: bytes) -> Any:
    return serialization.load_pem_private_key(pem, None)


class _Pickler(pickle.Pickler):
    """Writes KMS's private keys as PEM; the library's own objects cannot be pickled."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            pem = obj.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            return _key_from_pem, (pem,)
        return NotImplemented


def maps(world: World) -> Iterator[BlockMap]:
    """Every map that refers to blocks."""
    for volume in world.state.volumes.by_id.values():
        yield volume.blocks
    for snapshot in world.state.snapshots.by_id.values():
        yield snapshot.blocks


def save(world: World) -> None:
    """Writes the world as it is now. Blocks that it no longer names are deleted only afterwards."""
    out = io.BytesIO()
    with world.lock:
        saved = world.changes
        unnamed = world.blocks.take_unnamed()
        moto = {name: {account: dict(held) for account, held in kept.items()} for name, kept in MOTO.items()}
        contents = {"version": VERSION, "state": world.state, "token_key": world.token_key, "moto": moto}
        _Pickler(out, protocol=pickle.HIGHEST_PROTOCOL).dump(contents)
    temporary = world.folder / "state.new"
    with temporary.open("wb") as file:
        file.write(out.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, world.folder / "state")
    world.saved = saved
    world.blocks.delete(unnamed)


def load(world: World) -> bool:
    """Takes up what was saved; answers whether there was anything. Raises SystemExit for what it cannot read."""
    path = world.folder / "state"
    if not path.exists():
        return False
    try:
        contents = pickle.loads(path.read_bytes())  # noqa: S301 - our own file in our own folder
        if contents["version"] != VERSION:
            raise ValueError(f"version {contents['version']}")
    except (
        pickle.UnpicklingError,
        ValueError,
        KeyError,
        AttributeError,
        ImportError,
        EOFError,
    ) as unreadable:
        raise SystemExit(
            f"{path} was written by another version of the simulator; remove its folder"
        ) from unreadable
    world.state, world.token_key = contents["state"], contents["token_key"]
    for name, accounts in contents["moto"].items():
        for account, held in accounts.items():
            MOTO[name][account].update(held)
    world.blocks.recount(maps(world))
    return True


class Keeper:
    """Saves the world in the background whenever it has changed."""

    def __init__(self, world: World, writer: Callable[[World], None] = save) -> None:
        self.world = world
        self.writer = writer
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Ends the thread and saves for the last time."""
        self.ending.set()
        self.thread.join()
        self.writer(self.world)

    def _run(self) -> None:
        pause = LEAST_SECONDS_BETWEEN_SAVES
        while not self.ending.wait(pause):
            if self.world.changes == self.world.saved:
                continue
            begun = time.monotonic()
            try:
                self.writer(self.world)
            except (OSError, pickle.PicklingError, TypeError, AttributeError):
                # Neither a full disk nor an object of moto's that cannot be written ends the simulator; the
                # next round tries again.
                log.exception("state not saved")
            pause = max(LEAST_SECONDS_BETWEEN_SAVES, SHARE_OF_TIME * (time.monotonic() - begun))
