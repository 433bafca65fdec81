"""Every key and every encrypted byte of a repository comes from here. FORMAT.md, "Keys" and "Sealed objects"."""

import os
import struct

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cpm.repository.errors import Damaged

ROOT_KEY_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
ID_BYTES = 16
SEALED = b"CPMSEAL1"
# A sealed object is small; more than this would be an attempt to exhaust memory.
MOST_SEALED_BYTES = 1 << 30
_ZERO_NONCE = bytes(12)
_HEAD = struct.Struct("<8s32s")


def derive(secret: bytes, salt: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=purpose.encode()).derive(secret)


class Ciphers:
    """The keys of one repository."""

    def __init__(self, root: bytes, repository: bytes) -> None:
        self._root = root
        self._data_id_key = derive(root, repository, "cpm block id 1")
        self._map_id_key = derive(root, repository, "cpm map id 1")

    def data_id(self, block: bytes | bytearray | memoryview) -> bytes:
        return blake3(block, key=self._data_id_key).digest(ID_BYTES)

    def map_id(self, segment: bytes) -> bytes:
        return blake3(segment, key=self._map_id_key).digest(ID_BYTES)

    def pack(self, name: bytes, salt: bytes) -> AESGCM:
        """The key of one pack; ``salt`` is fresh for every pack, so no two packs ever share a key."""
        return AESGCM(derive(self._root, salt, f"cpm pack 1 {name.hex()}"))

    def seal(self, key: str, payload: bytes) -> bytes:
        """``payload`` compressed and encrypted so that it opens under the name ``key`` only."""
        head = _HEAD.pack(SEALED, os.urandom(SALT_BYTES))
        cipher = AESGCM(derive(self._root, head[8:], f"cpm object 1 {key}"))
        return head + cipher.encrypt(_ZERO_NONCE, zstandard.compress(payload, 3), head)

    def open(self, key: str, sealed: bytes) -> bytes:
        """Raises `Damaged` for anything but what was sealed under this name."""
        head = sealed[: _HEAD.size]
        if len(sealed) < _HEAD.size + TAG_BYTES or not head.startswith(SEALED):
            raise Damaged(key, "it is cut short or no object of a repository")
        cipher = AESGCM(derive(self._root, head[8:], f"cpm object 1 {key}"))
        try:
            compressed = cipher.decrypt(_ZERO_NONCE, sealed[_HEAD.size :], head)
        except InvalidTag:
            raise Damaged(key, "its bytes have been altered, or it belongs under another name") from None
        size = zstandard.frame_content_size(compressed)
        if not 0 <= size <= MOST_SEALED_BYTES:
            raise Damaged(key, "it claims an impossible size")
        return zstandard.decompress(compressed)
