"""Small volumes, a model of what they hold, and stores that fail or die when told to."""

import os
import random
import signal
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from cpm.repository import manifest
from cpm.repository.blocks import BLOCK_BYTES
from cpm.repository.errors import ObjectExists, StoreUnavailable
from cpm.repository.keys import RawKey
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.marking import mark
from cpm.repository.prune import Delays
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository, create, open_repository
from cpm.repository.store import Buffer, Info, PutOptions, Store
from cpm.repository.store_local import LocalStore

SECRET = RawKey(b"\x07" * 32)
SERVER = uuid.UUID(int=7)
SMALL_PACK = 3 * BLOCK_BYTES
AT_ONCE = Delays(grace=0, young=0, abandoned=1e12)


@lru_cache(128)
def block(seed: int) -> bytes:
    """A block told by its seed: 0 is zeros, odd ones compress, even ones do not."""
    if seed == 0:
        return bytes(BLOCK_BYTES)
    if seed % 2:
        return (b"%d line of a log\n" % seed * BLOCK_BYTES)[:BLOCK_BYTES]
    return random.Random(seed).randbytes(BLOCK_BYTES)


@dataclass
class Volume:
    """A volume of blocks that are told by their seeds."""

    seeds: list[int]
    tail: int = 0

    @property
    def size(self) -> int:
        return len(self.seeds) * BLOCK_BYTES - (BLOCK_BYTES - self.tail if self.tail else 0)

    def content(self, number: int) -> bytes:
        return block(self.seeds[number])[: self.size - number * BLOCK_BYTES]

    def read_into(self, number: int, target: memoryview) -> int:
        data = self.content(number)
        target[: len(data)] = data
        return len(data)


def draft(source: Volume, **more: object) -> Draft:
    values: dict[str, object] = {
        "copy_id": os.urandom(16).hex(),
        "volume": "vol-1",
        "size": source.size,
        "created": "2026-11-21T10:00:00+00:00",
        "snapshot": "snap-1",
        **more,
    }
    return Draft(**values)  # type: ignore[arg-type]


def new_repository(path: Path, **more: object) -> Repository:
    return create(LocalStore(path), SECRET, owner=SERVER, **more)  # type: ignore[arg-type]


def reopened(path: Path, store: Store | None = None) -> Repository:
    return open_repository(store or LocalStore(path), SECRET, owner=SERVER)


def holds(repository: Repository, copy: Manifest, volume: Volume) -> bool:
    """Whether every block of the copy is that of the volume."""
    reader = Reader(repository, copy)
    if copy.draft.size != volume.size:
        return False
    found = dict(reader.gather(threads=2))
    return all(
        found.pop(number, None) == (None if seed == 0 else volume.content(number))
        for number, seed in enumerate(volume.seeds)
    )


def objects(store: Store) -> set[str]:
    return {info.key for info in store.list("")}


def referenced_only(repository: Repository) -> bool:
    """Whether nothing is stored but what the copies, the index and the opening of the repository need."""
    kept = {copy.draft.copy_id for copy in repository.copies()}
    needed = {"config", "owner"}
    for key in objects(repository.store) - needed:
        kind, _, rest = key.partition("/")
        if kind == "archives" and rest.split("/")[0] in kept:
            continue
        if kind not in ("keys", "copies", "packs", "index"):
            return False
    view = repository.view()
    live = mark(repository, view).live
    packs = {info.key for info in repository.store.list("packs/")}
    return packs == {view.pack_key(number) for number in range(len(view.packs)) if live[number]}


@dataclass
class Wrapped:
    """A store that calls ``before`` ahead of every operation and ``after`` behind it."""

    inner: Store
    before: Callable[[str, str], None] = field(default=lambda operation, key: None)
    after: Callable[[str, str], None] = field(default=lambda operation, key: None)
    put_bytes: int = 0

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        self.before("put", key)
        self.inner.put(key, data, if_absent=if_absent, options=options)
        self.put_bytes += len(data)
        self.after("put", key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.before("get", key)
        return self.inner.get(key, start, length)

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        self.before("get", key)
        return self.inner.read_into(key, start, target)

    def head(self, key: str) -> Info:
        return self.inner.head(key)

    def list(self, prefix: str) -> Iterator[Info]:
        self.before("list", prefix)
        return self.inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.before("delete", key)
            self.inner.delete([key])
            self.after("delete", key)

    def retain(self, key: str, until: datetime, mode: str) -> None:
        self.inner.retain(key, until, mode)

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        self.inner.retrieve(key, tier=tier, days=days)

    def discard_unfinished(self, older_than: float) -> int:
        return self.inner.discard_unfinished(older_than)


def dies_at(inner: Store, step: int) -> Wrapped:
    """Kills this process with SIGKILL before or behind its ``step``-th write or deletion, counted from 0."""
    count = 0

    def tick(operation: str, key: str) -> None:
        nonlocal count
        if operation in ("put", "delete"):
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    return Wrapped(inner, before=tick, after=tick)


def in_child(work: Callable[[], None]) -> bool:
    """Run it in a child process; False when that was killed. Raises when it failed otherwise."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001  # a forked child must not return into the test
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, f"the child ended with {status}"
    return True


def unreliable(inner: Store, choice: random.Random, share: float = 0.3) -> Wrapped:
    """Fails that share of requests, half of the writes after they have happened."""

    def before(operation: str, key: str) -> None:
        if choice.random() < share:
            raise StoreUnavailable("503 of the test")

    def after(operation: str, key: str) -> None:
        if choice.random() < share:
            raise StoreUnavailable("the answer of the test was lost")

    return Wrapped(inner, before=before, after=after)


def progress_keys(repository: Repository) -> list[str]:
    return [info.key for info in repository.store.list(manifest.PROGRESS)]


T = TypeVar("T")


@dataclass(slots=True)
class Retrying:
    """Repeats what a directory could not do this time, as the client of S3 does by itself.

    A write whose answer was lost is found out on the repetition: the key is taken then, and if it holds the very
    bytes, the write has happened.
    """

    inner: Store
    attempts: int = 6

    def _repeat(self, call: Callable[[], T]) -> T:
        for attempt in range(self.attempts):
            try:
                return call()
            except StoreUnavailable:
                if attempt + 1 == self.attempts:
                    raise
        raise AssertionError("a store is asked at least once")

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = True, options: PutOptions | None = None
    ) -> None:
        unsure = False

        def call() -> None:
            nonlocal unsure
            try:
                self.inner.put(key, data, if_absent=if_absent, options=options)
            except StoreUnavailable:
                unsure = True
                raise
            except ObjectExists:
                if not unsure or self.inner.get(key) != bytes(data):
                    raise

        self._repeat(call)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._repeat(lambda: self.inner.get(key, start, length))

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        return self._repeat(lambda: self.inner.read_into(key, start, target))

    def head(self, key: str) -> Info:
        return self._repeat(lambda: self.inner.head(key))

    def list(self, prefix: str) -> Iterator[Info]:
        return iter(self._repeat(lambda: list(self.inner.list(prefix))))

    def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        self._repeat(lambda: self.inner.delete(doomed))

    def retain(self, key: str, until: datetime, mode: str) -> None:
        self._repeat(lambda: self.inner.retain(key, until, mode))

    def retrieve(self, key: str, *, tier: str, days: int) -> None:
        self._repeat(lambda: self.inner.retrieve(key, tier=tier, days=days))

    def discard_unfinished(self, older_than: float) -> int:
        return self._repeat(lambda: self.inner.discard_unfinished(older_than))
