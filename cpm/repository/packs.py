"""Packs: 16 to 64 MiB of encrypted blocks and, behind them, the table of what they are. FORMAT.md, "Packs"."""

import mmap
import os
import struct
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard
from cryptography.exceptions import InvalidTag

from cpm.repository.blocks import BLOCK_BYTES, DATA, RAW, U64, ZSTD
from cpm.repository.cipher import ID_BYTES, SALT_BYTES, TAG_BYTES, Ciphers
from cpm.repository.errors import Damaged

PREFIX = "packs/"
MAGIC = b"CPMPACK1"
END = b"CPMPEND1"
HEAD_BYTES = len(MAGIC) + SALT_BYTES
LEAST_PACK_BYTES = 16 << 20
MOST_PACK_BYTES = 64 << 20
_FOOT = struct.Struct("<I8s")
_TABLE_NONCE = b"\xff" * 12
ENTRY = np.dtype(
    [
        ("high", ">u8"),
        ("low", ">u8"),
        ("kind", "u1"),
        ("codec", "u1"),
        ("stored", "<u4"),
        ("size", "<u4"),
    ]
)
_BOUND = struct.Struct("<16sBBI")
_ROW = struct.Struct("<16sBBII")

Table: TypeAlias = npt.NDArray[np.void]


def key_of(name: bytes, prefix: str = PREFIX) -> str:
    return f"{prefix}{name.hex()}"


def foot_bytes(entries: int) -> int:
    """Length of everything behind the last block."""
    return entries * ENTRY.itemsize + TAG_BYTES + _FOOT.size


def ids_of(table: Table) -> tuple[U64, U64]:
    return table["high"].astype(np.uint64), table["low"].astype(np.uint64)


def starts_of(table: Table) -> npt.NDArray[np.int64]:
    """Where each entry begins in the pack."""
    starts = np.full(len(table), HEAD_BYTES, np.int64)
    starts[1:] += np.cumsum(table["stored"][:-1], dtype=np.int64)
    return starts


def row_id(row: np.void) -> bytes:
    return int(row["high"]).to_bytes(8) + int(row["low"]).to_bytes(8)


class PackBuilder:
    """A pack in memory that grows block by block; the memory is used again for the next one.

    Not for several threads at once. A name and a salt are drawn when the first block comes, and never again used.
    """

    def __init__(self, ciphers: Ciphers, session: bytes, target: int = LEAST_PACK_BYTES) -> None:
        self._ciphers = ciphers
        self._session = session
        self._target = target
        rows = target // 64
        self._most_rows = min(rows, 1 << 16)
        size = target + BLOCK_BYTES + TAG_BYTES + self._most_rows * ENTRY.itemsize + 4096
        # Mapped memory is taken only as far as it is used, and given back at once.
        self._view = memoryview(mmap.mmap(-1, size))
        self.reset()

    def reset(self) -> None:
        self.name = b""
        self.rows: list[bytes] = []
        self._end = 0

    @property
    def full(self) -> bool:
        return self._end >= self._target or len(self.rows) >= self._most_rows

    def add(
        self, block_id: bytes, kind: int, codec: int, size: int, payload: bytes | memoryview | bytearray
    ) -> None:
        if not self.name:
            self.name = self._session + os.urandom(16 - len(self._session))
            salt = os.urandom(SALT_BYTES)
            self._cipher = self._ciphers.pack(self.name, salt)
            self._view[:HEAD_BYTES] = MAGIC + salt
            self._end = HEAD_BYTES
        stored = len(payload) + TAG_BYTES
        self._cipher.encrypt_into(
            len(self.rows).to_bytes(12),
            payload,
            _BOUND.pack(block_id, kind, codec, size),
            self._view[self._end : self._end + stored],
        )
        self.rows.append(_ROW.pack(block_id, kind, codec, stored, size))
        self._end += stored

    def finish(self) -> tuple[bytes, memoryview, bytes]:
        """Name, bytes and table of the pack. The bytes are valid until `reset`."""
        table = b"".join(self.rows)
        sealed = self._cipher.encrypt(_TABLE_NONCE, table, MAGIC + len(self.rows).to_bytes(4))
        foot = sealed + _FOOT.pack(len(self.rows), END)
        self._view[self._end : self._end + len(foot)] = foot
        return self.name, self._view[: self._end + len(foot)], table


def parse_table(raw: bytes) -> Table:
    return np.frombuffer(raw, dtype=ENTRY)


@dataclass(slots=True)
class PackReader:
    """Decrypts what is in one pack; ``salt`` comes from its first bytes."""

    ciphers: Ciphers
    name: bytes
    key: str

    def cipher(self, head: bytes | memoryview) -> "PackCipher":
        if len(head) < HEAD_BYTES or bytes(head[: len(MAGIC)]) != MAGIC:
            raise Damaged(self.key, "it does not begin like a pack")
        return PackCipher(self, bytes(head[len(MAGIC) : HEAD_BYTES]))


class PackCipher:
    def __init__(self, pack: PackReader, salt: bytes) -> None:
        self._pack = pack
        self._cipher = pack.ciphers.pack(pack.name, salt)

    def table(self, foot: bytes | memoryview, pack_size: int) -> Table:
        """The table out of the last bytes of the pack. Raises `Damaged`."""
        key = self._pack.key
        if len(foot) < _FOOT.size:
            raise Damaged(key, "it is cut short")
        entries, end = _FOOT.unpack(foot[-_FOOT.size :])
        if end != END or foot_bytes(entries) > len(foot):
            raise Damaged(key, "it does not end like a pack")
        sealed = foot[-foot_bytes(entries) : -_FOOT.size]
        try:
            raw = self._cipher.decrypt(_TABLE_NONCE, sealed, MAGIC + entries.to_bytes(4))
        except InvalidTag:
            raise Damaged(key, "its table has been altered") from None
        table = parse_table(raw)
        if HEAD_BYTES + int(table["stored"].sum(dtype=np.int64)) + foot_bytes(entries) != pack_size:
            raise Damaged(key, "its length does not fit its table")
        return table

    def payload(self, number: int, row: np.void, stored: bytes | memoryview) -> bytes:
        """What was encrypted as entry ``number``, still compressed. Raises `Damaged`."""
        bound = _BOUND.pack(row_id(row), int(row["kind"]), int(row["codec"]), int(row["size"]))
        try:
            return self._cipher.decrypt(number.to_bytes(12), stored, bound)
        except InvalidTag:
            raise Damaged(self._pack.key, f"block {row_id(row).hex()} in it has been altered") from None

    def block_into(
        self, number: int, row: np.void, stored: memoryview, target: memoryview, inflate: "Inflater"
    ) -> memoryview | bytes:
        """The block itself, in ``target`` where that saves a copy. Raises `Damaged`, also when the id is not its."""
        size, codec, kind = int(row["size"]), int(row["codec"]), int(row["kind"])
        wanted = row_id(row)
        if size > len(target) or len(stored) > len(target) + TAG_BYTES or len(stored) != int(row["stored"]):
            raise Damaged(self._pack.key, f"block {wanted.hex()} in it is cut short or too large")
        plain = target[: len(stored) - TAG_BYTES]
        try:
            self._cipher.decrypt_into(
                number.to_bytes(12), stored, _BOUND.pack(wanted, kind, codec, size), plain
            )
        except InvalidTag:
            raise Damaged(self._pack.key, f"block {wanted.hex()} in it has been altered") from None
        block: memoryview | bytes = plain
        if codec == ZSTD:
            block = inflate(plain, size, self._pack.key)
        elif codec != RAW:
            raise Damaged(self._pack.key, f"block {wanted.hex()} in it is packed in an unknown way ({codec})")
        ciphers = self._pack.ciphers
        found = ciphers.data_id(block) if kind == DATA else ciphers.map_id(bytes(block))
        if found != wanted or len(block) != size:
            raise Damaged(self._pack.key, f"block {wanted.hex()} in it is another block")
        return block


class Inflater:
    """zstd for one thread."""

    def __init__(self) -> None:
        self._inflate = zstandard.ZstdDecompressor()

    def __call__(self, packed: memoryview | bytes, size: int, key: str) -> bytes:
        try:
            if zstandard.frame_content_size(packed) != size:
                raise Damaged(key, "a block in it does not have the promised size")
            return self._inflate.decompress(packed, max_output_size=size)
        except zstandard.ZstdError:
            raise Damaged(key, "a block in it does not decompress") from None


assert ENTRY.itemsize == _ROW.size == ID_BYTES + 10
