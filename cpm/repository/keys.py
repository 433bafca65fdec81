"""Key slots: each wraps the repository's root key for one password or one raw key. FORMAT.md, "Key slots".

All slots are in one object per generation, `keys/<generation>`, written with if-absent; the highest generation
counts. So of two processes that change slots at once one succeeds and the other learns of it, and the last slot
cannot be lost between them.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cpm.repository.cipher import derive
from cpm.repository.errors import (
    Damaged,
    KeysChanged,
    LastKeySlot,
    NoRepository,
    ObjectExists,
    ObjectLocked,
    SlotUnknown,
    WrongSecret,
)
from cpm.repository.store import PutOptions, Store

PREFIX = "keys/"
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
# What a hostile slot may make us spend: 1 GiB of memory.
MOST_SCRYPT_BYTES = 1 << 30
LEAST_RAW_KEY_BYTES = 32
LEAST_PASSWORD_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Password:
    """Something a person remembers; made expensive to guess by scrypt."""

    text: str

    def __repr__(self) -> str:
        return "Password(…)"


@dataclass(frozen=True, slots=True)
class RawKey:
    """At least 32 random bytes, for instance a data key out of KMS or a file."""

    value: bytes

    def __repr__(self) -> str:
        return "RawKey(…)"


Secret: TypeAlias = Password | RawKey


@dataclass(frozen=True, slots=True)
class Slot:
    id: str
    name: str
    created: str
    kdf: str
    parameters: dict[str, int]
    salt: str
    wrapped: str

    def _bound(self, repository: bytes) -> bytes:
        shown = {name: value for name, value in asdict(self).items() if name != "wrapped"}
        return repository + json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()

    def _wrapping_key(self, secret: Secret) -> bytes:
        salt = bytes.fromhex(self.salt)
        if isinstance(secret, RawKey):
            return derive(secret.value, salt, "cpm key slot 1")
        n, r, p = (self.parameters[name] for name in ("n", "r", "p"))
        if 128 * n * r * p > MOST_SCRYPT_BYTES:
            raise Damaged(PREFIX, f"slot {self.id} asks for more memory than any slot needs")
        return hashlib.scrypt(
            secret.text.encode(), salt=salt, n=n, r=r, p=p, dklen=32, maxmem=MOST_SCRYPT_BYTES + (1 << 20)
        )

    def fits(self, secret: Secret) -> bool:
        return (self.kdf == "scrypt") == isinstance(secret, Password)

    def unwrap(self, secret: Secret, repository: bytes) -> bytes | None:
        """The root key, or None when the secret is another's."""
        if not self.fits(secret):
            return None
        cipher = AESGCM(self._wrapping_key(secret))
        try:
            # The wrapping key is used for one message only (its salt is the slot's own), so the nonce is constant.
            return cipher.decrypt(bytes(12), bytes.fromhex(self.wrapped), self._bound(repository))
        except InvalidTag:
            return None

    @classmethod
    def wrapping(cls, root: bytes, secret: Secret, repository: bytes, name: str) -> "Slot":
        if isinstance(secret, Password) and len(secret.text) < LEAST_PASSWORD_LENGTH:
            raise WrongSecret(f"A password needs at least {LEAST_PASSWORD_LENGTH} characters.")
        if isinstance(secret, RawKey) and len(secret.value) < LEAST_RAW_KEY_BYTES:
            raise WrongSecret(f"A raw key needs at least {LEAST_RAW_KEY_BYTES} bytes.")
        kdf, parameters = ("scrypt", dict(SCRYPT)) if isinstance(secret, Password) else ("hkdf-sha256", {})
        empty = cls(
            secrets.token_hex(4),
            name,
            datetime.now(UTC).isoformat(timespec="seconds"),
            kdf,
            parameters,
            os.urandom(32).hex(),
            "",
        )
        wrapped = AESGCM(empty._wrapping_key(secret)).encrypt(bytes(12), root, empty._bound(repository))
        return cls(**{**asdict(empty), "wrapped": wrapped.hex()})


def _encoded(repository: bytes, slots: list[Slot]) -> bytes:
    return json.dumps(
        {"format": 1, "repository": repository.hex(), "slots": [asdict(slot) for slot in slots]}, indent=1
    ).encode()


def _key(generation: int) -> str:
    return f"{PREFIX}{generation:08d}"


def _newest(store: Store) -> int:
    generations = [info.key for info in store.list(PREFIX)]
    if not generations:
        raise NoRepository(
            "There are no key slots here: either no repository, or its keys/ objects are lost."
        )
    return int(generations[-1].removeprefix(PREFIX))


def _load(store: Store) -> tuple[int, bytes, list[Slot]]:
    generation = _newest(store)
    key = _key(generation)
    try:
        content = json.loads(store.get(key))
        slots = [Slot(**slot) for slot in content["slots"]]
        return generation, bytes.fromhex(content["repository"]), slots
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(key, "it is not a list of key slots") from error


def slots(store: Store) -> list[Slot]:
    return _load(store)[2]


def repository_of(store: Store) -> bytes:
    """The id of the repository that the slots belong to."""
    return _load(store)[1]


def create(
    store: Store,
    root: bytes,
    repository: bytes,
    secret: Secret,
    name: str,
    options: PutOptions | None = None,
) -> None:
    """Write the first generation. Raises `ObjectExists` where there is one."""
    store.put(_key(1), _encoded(repository, [Slot.wrapping(root, secret, repository, name)]), options=options)


def unlock(store: Store, secret: Secret, repository: bytes) -> bytes:
    """The root key. Raises `WrongSecret`."""
    _, owner, found = _load(store)
    if owner != repository:
        raise Damaged(PREFIX, "the key slots belong to another repository")
    for slot in found:
        root = slot.unwrap(secret, repository)
        if root is not None:
            return root
    raise WrongSecret("No key slot of the repository opens with this secret.")


def _change(
    store: Store, repository: bytes, change: Callable[[list[Slot]], list[Slot]], options: PutOptions | None
) -> None:
    generation, _, before = _load(store)
    after = change(before)
    if not after:
        raise LastKeySlot("The last key slot cannot be removed: nobody could open the repository again.")
    mine = generation + 1
    try:
        store.put(_key(mine), _encoded(repository, after), options=options)
    except ObjectExists:
        raise KeysChanged("The key slots were changed at the same moment. Look at them and repeat.") from None
    if _newest(store) != mine:
        # Somebody was two generations ahead and had removed the one we built on already.
        _discard(store, [_key(mine)])
        raise KeysChanged("The key slots were changed at the same moment. Look at them and repeat.")
    _discard(store, [info.key for info in list(store.list(PREFIX)) if info.key < _key(mine)])


def _discard(store: Store, generations: list[str]) -> None:
    for key in generations:
        try:
            store.delete([key])
        except ObjectLocked:
            # It does not count any more. Until its lock ends, its slots open it for who reads the bucket.
            continue


def add(
    store: Store,
    root: bytes,
    repository: bytes,
    secret: Secret,
    name: str,
    options: PutOptions | None = None,
) -> Slot:
    slot = Slot.wrapping(root, secret, repository, name)
    _change(store, repository, lambda known: [*known, slot], options)
    return slot


def _without(known: list[Slot], slot_id: str) -> list[Slot]:
    rest = [slot for slot in known if slot.id != slot_id]
    if len(rest) == len(known):
        raise SlotUnknown(f"There is no key slot {slot_id}.")
    return rest


def rotate(
    store: Store,
    root: bytes,
    repository: bytes,
    slot_id: str,
    secret: Secret,
    options: PutOptions | None = None,
) -> Slot:
    """Replace the secret of one slot in one step; the old secret opens nothing from then on."""
    name = next((slot.name for slot in slots(store) if slot.id == slot_id), "")
    fresh = Slot.wrapping(root, secret, repository, name)
    _change(store, repository, lambda known: [*_without(known, slot_id), fresh], options)
    return fresh


def remove(store: Store, repository: bytes, slot_id: str, options: PutOptions | None = None) -> None:
    _change(store, repository, lambda known: _without(known, slot_id), options)
