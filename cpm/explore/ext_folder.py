"""Folders of ext2/3/4 as lists of names. The Sleuth Kit compares each name with all before it, which takes minutes for
300,000 files; a folder's content is simple enough to be read here."""

import struct
from collections.abc import Iterator

from cpm.explore.filesystems import OpenFile

PIECE = 1024 * 1024
SMALLEST = 12


def names(content: OpenFile, block_size: int) -> Iterator[tuple[int, bytes]]:
    """(node, name) of everything in a folder. Trees of hashes look like unused entries and need no care.

    Raises OSError for a folder that makes no sense.
    """
    for offset in range(0, content.size, PIECE):
        piece = content.read(offset, min(PIECE, content.size - offset))
        for start in range(0, len(piece), block_size):
            yield from _in_block(piece[start : start + block_size])


def _in_block(block: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(block):
        node, length, name_length = struct.unpack_from("<IHB", block, at)
        # Blocks of 64 KiB have entries as long as the number of two bytes cannot say.
        length = length if length not in {0, 0xFFFF} else 0x10000
        if length < SMALLEST or length % 4 or at + length > len(block) or 8 + name_length > length:
            raise OSError("the folder is damaged")
        if node and name_length:
            yield node, block[at + 8 : at + 8 + name_length]
        at += length
