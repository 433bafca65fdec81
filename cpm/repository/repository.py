"""Creating, opening and asking a repository. FORMAT.md, "Objects"."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cpm.repository import index, keys, manifest
from cpm.repository.cipher import ROOT_KEY_BYTES, Ciphers
from cpm.repository.errors import (
    Damaged,
    ForeignRepository,
    NoRepository,
    ObjectExists,
    ObjectMissing,
    RepositoryExists,
    WrongSecret,
)
from cpm.repository.index import COMMON, Area, View
from cpm.repository.keys import Secret
from cpm.repository.manifest import Draft, Manifest
from cpm.repository.store import PutOptions, Store, probe

CONFIG, OWNER = "config", "owner"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How new objects are put. ``lock_mode`` (GOVERNANCE or COMPLIANCE) and ``retention`` go together."""

    storage_class: str | None = None
    archive_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    lock_mode: str | None = None
    retention: timedelta | None = None


@dataclass(slots=True)
class Repository:
    """An open repository. Holds the keys, and nothing else that could grow stale."""

    store: Store
    id: bytes
    root: bytes = field(repr=False)
    ciphers: Ciphers = field(repr=False)
    settings: Settings = field(default_factory=Settings)
    clock: Callable[[], float] = field(default=time.time)

    def view(self, area: Area = COMMON, *, lenient: bool = False) -> View:
        return index.load(self.store, self.ciphers, area, self.clock(), lenient=lenient)

    def put_options(self, *, archive: bool = False, until: str | None = None) -> PutOptions:
        """For packs, indexes and manifests. ``until`` is the retention a copy asks for, if later than the usual."""
        settings = self.settings
        retain = None
        if settings.lock_mode:
            usual = datetime.fromtimestamp(self.clock(), UTC) + (settings.retention or timedelta(0))
            retain = max(usual, datetime.fromisoformat(until)) if until else usual
        return PutOptions(
            settings.archive_class if archive else settings.storage_class,
            settings.encryption,
            settings.kms_key,
            retain,
            settings.lock_mode,
        )

    def copies(self) -> Iterator[Manifest]:
        """Every finished copy with all that was stored about it. Raises `Damaged` at the first that is."""
        for copy_id in manifest.ids(self.store):
            try:
                yield self.copy(copy_id)
            except ObjectMissing:
                continue

    def copy(self, copy_id: str) -> Manifest:
        """Raises `ObjectMissing` when there is no such copy."""
        return manifest.read(self.store, self.ciphers, copy_id)

    def finish_copy(self, draft: Draft) -> Manifest:
        """Make a copy out of its finished parts. May be repeated, by anybody."""
        return manifest.finish(self.store, self.ciphers, draft, self.put_options(until=draft.retain_until))

    def abort_copy(self, copy_id: str) -> None:
        """Forget an unfinished copy; prune collects what it wrote. A finished one is not touched."""
        manifest.drop_progress(self.store, copy_id)

    def delete_copy(self, copy_id: str) -> None:
        """The copy is gone at once; what only it referenced is collected by prune. Raises `ObjectLocked`."""
        manifest.drop_progress(self.store, copy_id)
        self.store.delete([manifest.COPIES + copy_id])

    def slots(self) -> list[keys.Slot]:
        return keys.slots(self.store)

    def add_key(self, secret: Secret, name: str) -> keys.Slot:
        return keys.add(self.store, self.root, self.id, secret, name, self.put_options())

    def rotate_key(self, slot_id: str, secret: Secret) -> keys.Slot:
        return keys.rotate(self.store, self.root, self.id, slot_id, secret, self.put_options())

    def remove_key(self, slot_id: str) -> None:
        """Raises `LastKeySlot` rather than lock everybody out."""
        keys.remove(self.store, self.id, slot_id, self.put_options())

    def owner(self) -> uuid.UUID | None:
        return _owner(self.store)

    def take_over(self, server: uuid.UUID) -> None:
        """Make ``server`` the owner, because the former one is known to be gone."""
        self.store.put(OWNER, _owner_marker(server), if_absent=False)


def _owner_marker(server: uuid.UUID) -> bytes:
    return json.dumps(
        {"server": str(server), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    ).encode()


def _owner(store: Store) -> uuid.UUID | None:
    try:
        return uuid.UUID(json.loads(store.get(OWNER))["server"])
    except ObjectMissing:
        return None
    except (ValueError, KeyError, TypeError):
        raise Damaged(OWNER, "it names no server") from None


def _claim(store: Store, server: uuid.UUID) -> None:
    try:
        store.put(OWNER, _owner_marker(server))
    except ObjectExists:
        _require_owner(store, server)


def _require_owner(store: Store, server: uuid.UUID) -> None:
    owner = _owner(store)
    if owner != server:
        raise ForeignRepository(
            f"The repository belongs to server {owner}, not to {server}. Use another folder, or take it over "
            "if that server is gone for good."
        )


def create(
    store: Store,
    secret: Secret,
    *,
    owner: uuid.UUID,
    settings: Settings | None = None,
    slot_name: str = "first",
    clock: Callable[[], float] = time.time,
) -> Repository:
    """A new repository. One whose creation broke off is completed, given the same secret.

    Raises `RepositoryExists`, `ForeignRepository` or `StoreUnsuitable`.
    """
    probe(store)
    _claim(store, owner)
    if any(info.key == CONFIG for info in store.list(CONFIG)):
        raise RepositoryExists("There is a repository in this place already; open it instead.")
    root, repository = os.urandom(ROOT_KEY_BYTES), os.urandom(16)
    made = Repository(store, repository, root, Ciphers(root, repository), settings or Settings(), clock)
    try:
        keys.create(store, root, repository, secret, slot_name, made.put_options())
    except ObjectExists:
        repository = keys.repository_of(store)
        try:
            root = keys.unlock(store, secret, repository)
        except WrongSecret:
            raise RepositoryExists(
                "The creation of a repository with another secret broke off here. Delete its objects, or use the "
                "secret that was given then."
            ) from None
        made = Repository(store, repository, root, Ciphers(root, repository), settings or Settings(), clock)
    config = {"format": FORMAT, "repository": repository.hex()}
    try:
        store.put(CONFIG, json.dumps(config).encode(), options=made.put_options())
    except ObjectExists:
        if _config(store) != repository:
            raise RepositoryExists(
                "Somebody created a repository here at the same moment; open it."
            ) from None
    return made


def _config(store: Store) -> bytes:
    try:
        content = json.loads(store.get(CONFIG))
        if content["format"] != FORMAT:
            raise NoRepository(f"The repository has format {content['format']}; this program reads {FORMAT}.")
        return bytes.fromhex(content["repository"])
    except ObjectMissing:
        raise NoRepository("There is no repository in this place: it has no config object.") from None
    except (ValueError, KeyError, TypeError):
        raise Damaged(CONFIG, "it does not describe a repository; the id is also in keys/") from None


def open_repository(
    store: Store,
    secret: Secret,
    *,
    owner: uuid.UUID | None = None,
    settings: Settings | None = None,
    clock: Callable[[], float] = time.time,
) -> Repository:
    """Raises `WrongSecret`, `NoRepository`, or `ForeignRepository` when ``owner`` is given and is not the owner."""
    repository = _config(store)
    if owner is not None:
        _require_owner(store, owner)
    root = keys.unlock(store, secret, repository)
    return Repository(store, repository, root, Ciphers(root, repository), settings or Settings(), clock)
