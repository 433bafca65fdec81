"""A reader of repositories made from cpm/repository/FORMAT.md alone: proof that the format is enough.

`python reader_from_format.py DIRECTORY (--password TEXT | --key-hex HEX) [COPY OUTPUT]` lists the copies, or restores
one. It imports nothing of cpm, and reads a repository in a directory: what the bucket holds, with keys as file names.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK = 524_288
SEGMENT = 1024
ZERO_ID = bytes(16)
ZERO_NONCE = bytes(12)
ROW = struct.Struct("<16sBBII")


class Unreadable(Exception):
    """Something is not as FORMAT.md says."""


def hkdf(secret: bytes, salt: bytes, info: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info.encode("ascii")).derive(secret)


def gcm(key: bytes, nonce: bytes, aad: bytes, text: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, text, aad)
    except InvalidTag:
        raise Unreadable(f"{what} does not open") from None


def unpack(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


class Repository:
    def __init__(self, root: pathlib.Path, password: str | None, raw_key: bytes | None) -> None:
        self.folder = root
        config = json.loads(self.object("config"))
        if config["format"] != 1:
            raise Unreadable(f"format {config['format']} is not known")
        self.id = bytes.fromhex(config["repository"])
        self.root_key = self._unlock(password, raw_key)
        self.block_id_key = hkdf(self.root_key, self.id, "cpm block id 1")
        self.map_id_key = hkdf(self.root_key, self.id, "cpm map id 1")

    def object(self, key: str) -> bytes:
        return self.folder.joinpath(*key.split("/")).read_bytes()

    def keys(self, prefix: str) -> list[str]:
        folder = self.folder.joinpath(*prefix.split("/"))
        return sorted(prefix + each.name for each in folder.iterdir()) if folder.is_dir() else []

    def _unlock(self, password: str | None, raw_key: bytes | None) -> bytes:
        for slot in json.loads(self.object(self.keys("keys/")[-1]))["slots"]:
            wrapped = bytes.fromhex(slot.pop("wrapped"))
            salt = bytes.fromhex(slot["salt"])
            if slot["kdf"] == "scrypt" and password is not None:
                numbers = slot["parameters"]
                wrapping = hashlib.scrypt(
                    password.encode(),
                    salt=salt,
                    **numbers,
                    dklen=32,
                    maxmem=256 * numbers["n"] * numbers["r"],
                )
            elif slot["kdf"] == "hkdf-sha256" and raw_key is not None:
                wrapping = hkdf(raw_key, salt, "cpm key slot 1")
            else:
                continue
            shown = json.dumps(slot, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
            try:
                return AESGCM(wrapping).decrypt(ZERO_NONCE, wrapped, self.id + shown)
            except InvalidTag:
                continue
        raise Unreadable("no key slot opens with this secret")

    def unseal(self, key: str) -> bytes:
        sealed = self.object(key)
        if sealed[:8] != b"CPMSEAL1":
            raise Unreadable(f"{key} is no sealed object")
        own = hkdf(self.root_key, sealed[8:40], f"cpm object 1 {key}")
        return unpack(gcm(own, ZERO_NONCE, sealed[:40], sealed[40:], key))

    def manifest(self, copy_id: str) -> tuple[dict[str, Any], list[bytes]]:
        payload = self.unseal(f"copies/{copy_id}")
        (length,) = struct.unpack_from("<I", payload)
        head = json.loads(payload[4 : 4 + length])
        if head["block_size"] != BLOCK or head["segment_blocks"] != SEGMENT:
            raise Unreadable("the copy has blocks of another size")
        return head, ids(payload[4 + length :])


def ids(joined: bytes) -> list[bytes]:
    return [joined[at : at + 16] for at in range(0, len(joined), 16)]


class Copy:
    """One copy of one volume, block by block."""

    def __init__(self, repository: Repository, copy_id: str) -> None:
        self.repository = repository
        self.head, self.segments = repository.manifest(copy_id)
        self.area = f"archives/{copy_id}/" if self.head["archive"] else ""
        # id -> (name of the pack, number of the entry, start, row)
        self.entries: dict[bytes, tuple[str, int, int, tuple[Any, ...]]] = {}
        self.packs: dict[str, bytes] = {}
        for key in repository.keys(self.area + "index/"):
            self._read_index(repository.unseal(key))

    def _read_index(self, payload: bytes) -> None:
        (replaced,) = struct.unpack_from("<I", payload)
        at = 4 + 16 * replaced
        while at < len(payload):
            name, _, count = struct.unpack_from("<16sQI", payload, at)
            at += 28
            start = 40
            for number in range(count):
                row = ROW.unpack_from(payload, at)
                self.entries[row[0]] = (name.hex(), number, start, row)
                start += row[3]
                at += ROW.size

    def entry(self, wanted: bytes, kind: int) -> bytes:
        """The block (kind 0) or map (kind 1) of an id, checked."""
        if wanted not in self.entries:
            raise Unreadable(f"no index knows {wanted.hex()}")
        name, number, start, (_, found_kind, codec, stored, size) = self.entries[wanted]
        pack = self._pack(name)
        key = hkdf(self.repository.root_key, pack[8:40], f"cpm pack 1 {name}")
        aad = struct.pack("<16sBBI", wanted, found_kind, codec, size)
        text = pack[start : start + stored]
        payload = gcm(key, number.to_bytes(12, "big"), aad, text, f"{wanted.hex()} in pack {name}")
        data = unpack(payload) if codec == 1 else payload
        id_key = self.repository.map_id_key if kind else self.repository.block_id_key
        if found_kind != kind or len(data) != size or blake3(data, key=id_key).digest()[:16] != wanted:
            raise Unreadable(f"{wanted.hex()} in pack {name} is something else")
        return data

    def _pack(self, name: str) -> bytes:
        if name not in self.packs:
            while len(self.packs) >= 4:
                self.packs.pop(next(iter(self.packs)))
            content = self.repository.object(f"{self.area}packs/{name}")
            if content[:8] != b"CPMPACK1" or content[-8:] != b"CPMPEND1":
                raise Unreadable(f"{name} is no pack")
            self.packs[name] = content
        return self.packs[name]

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Offset and content of everything that is not zeros."""
        for segment, segment_id in enumerate(self.segments):
            if segment_id == ZERO_ID:
                continue
            for at, block_id in enumerate(ids(self.entry(segment_id, 1))):
                if block_id != ZERO_ID:
                    yield (segment * SEGMENT + at) * BLOCK, self.entry(block_id, 0)

    def restore(self, target: pathlib.Path) -> None:
        with open(target, "wb") as file:
            file.truncate(self.head["size"])
            for offset, data in self.blocks():
                file.seek(offset)
                file.write(data)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--password")
    parser.add_argument("--key-hex", type=bytes.fromhex)
    parser.add_argument("copy", nargs="?")
    parser.add_argument("output", nargs="?", type=pathlib.Path)
    given = parser.parse_args(arguments)
    repository = Repository(given.directory, given.password, given.key_hex)
    if given.copy is None:
        for key in repository.keys("copies/"):
            head, _ = repository.manifest(key.removeprefix("copies/"))
            print(head["copy_id"], head["volume"], head["size"], head["created"])
        return 0
    if given.output is None:
        parser.error("say where to restore to")
    Copy(repository, given.copy).restore(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
