"""Names in a folder of XFS as raw bytes. libfsxfs gives none away that is not UTF-8, so these are read here."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cpm.explore.blocks import Readable

SUPERBLOCK = 512
LOCAL_FORMAT = 1
UNUSED = b"\xff\xff"
# Magic of blocks with names, the length of their header, and whether hashes follow the names in the same block.
NAME_BLOCKS = {b"XDB3": (64, True), b"XDD3": (64, False), b"XD2B": (16, True), b"XD2D": (16, False)}
MAX_FOLDER = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Geometry:
    block: int
    group_blocks: int
    inode: int
    inode_bits: int
    group_bits: int
    folder_block: int
    typed: bool


def raw_names(volume: Readable, node: int, extents: Sequence[tuple[int, int]]) -> dict[int, list[bytes]]:
    """The names in the folder `node`, by the nodes they lead to. `extents` are the folder's (offset, size).

    Raises OSError when the folder is damaged.
    """
    found: dict[int, list[bytes]] = {}
    try:
        geometry = _geometry(volume.read(0, SUPERBLOCK))
        entries = _in_blocks(volume, geometry, extents) if extents else _in_inode(volume, geometry, node)
        for target, name in entries:
            found.setdefault(target, []).append(name)
    except (struct.error, IndexError) as error:
        raise OSError(f"names of the folder cannot be read: {error}") from error
    return found


def _geometry(raw: bytes) -> _Geometry:
    block = struct.unpack_from(">I", raw, 4)[0]
    version = struct.unpack_from(">H", raw, 100)[0] & 0xF
    incompatible, features = struct.unpack_from(">I", raw, 216)[0], struct.unpack_from(">I", raw, 200)[0]
    if raw[192] > 7 or not 512 <= block <= 65536:
        raise OSError("the superblock makes no sense")
    return _Geometry(
        block=block,
        group_blocks=struct.unpack_from(">I", raw, 84)[0],
        inode=struct.unpack_from(">H", raw, 104)[0],
        inode_bits=raw[123],
        group_bits=raw[124],
        folder_block=block << raw[192],
        typed=bool(incompatible & 1) if version == 5 else bool(features & 0x200),
    )


def _in_blocks(
    volume: Readable, geometry: _Geometry, extents: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    if sum(size for _, size in extents) > MAX_FOLDER:
        raise OSError("the folder is too large")
    for offset, size in extents:
        for at in range(offset, offset + size, geometry.folder_block):
            block = volume.read(at, geometry.folder_block)
            if block[:4] in NAME_BLOCKS:
                yield from _in_block(block, geometry.typed)


def _in_block(block: bytes, typed: bool) -> Iterator[tuple[int, bytes]]:
    at, hashes = NAME_BLOCKS[block[:4]]
    end = len(block)
    if hashes:
        end -= 8 + 8 * struct.unpack_from(">I", block, len(block) - 8)[0]
    while at + 12 <= end:
        if block[at : at + 2] == UNUSED:
            length = struct.unpack_from(">H", block, at + 2)[0]
            if not length:
                return
            at += length
            continue
        length = block[at + 8]
        yield struct.unpack_from(">Q", block, at)[0], block[at + 9 : at + 9 + length]
        # Number, length, name, type and a tag of two bytes, all rounded to eight.
        at += (9 + length + typed + 2 + 7) & ~7


def _in_inode(volume: Readable, geometry: _Geometry, node: int) -> Iterator[tuple[int, bytes]]:
    """A small folder stands in its inode."""
    within = node & ((1 << geometry.inode_bits) - 1)
    block = node >> geometry.inode_bits & ((1 << geometry.group_bits) - 1)
    group = node >> (geometry.inode_bits + geometry.group_bits)
    start = (group * geometry.group_blocks + block) * geometry.block + within * geometry.inode
    inode = volume.read(start, geometry.inode)
    if inode[:2] != b"IN" or inode[5] != LOCAL_FORMAT:
        raise OSError("the folder's inode cannot be read")
    at = 176 if inode[4] >= 3 else 100
    count, wide = inode[at], inode[at + 1]
    width = 8 if wide else 4
    at += 2 + width
    for _ in range(max(count, wide)):
        length = inode[at]
        name = inode[at + 3 : at + 3 + length]
        at += 3 + length + geometry.typed
        yield int.from_bytes(inode[at : at + width], "big"), name
        at += width
