"""Damaged images: a source whose blocks differ from the image in a few places, or that ends early."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from cpm.explore.blocks import BLOCK_SIZE, RawFile


@dataclass
class Mutated:
    """A block source with other bytes at some offsets."""

    image: RawFile
    bytes_at: dict[int, int] = field(default_factory=dict)
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or self.image.size

    def read_block(self, index: int) -> bytes | None:
        start = index * BLOCK_SIZE
        changed = {at - start: value for at, value in self.bytes_at.items() if 0 <= at - start < BLOCK_SIZE}
        block = self.image.read_block(index)
        if not changed:
            return block
        raw = bytearray(block or bytes(min(BLOCK_SIZE, self.size - start)))
        for at, value in changed.items():
            if at < len(raw):
                raw[at] = value
        return bytes(raw)


def used_pages(image: Path, page: int = 4096) -> list[int]:
    """Offsets of the pages that hold anything, where damage matters."""
    found = []
    with image.open("rb") as file:
        offset = 0
        while piece := file.read(BLOCK_SIZE):
            if piece.strip(b"\0"):
                found += [
                    offset + at for at in range(0, len(piece), page) if piece[at : at + page].strip(b"\0")
                ]
            offset += len(piece)
    return found


def mutation(image: Path, pages: list[int], seed: int) -> Mutated:
    """One of: flipped bits, a run of noise, a page of 0xff, a number made huge, an end in the middle."""
    chance = random.Random(seed)
    source = RawFile(image)
    # Structures that say where everything is stand at the beginning; half of the damage goes there.
    early = pages[: max(8, len(pages) // 20)]
    page = chance.choice(early if chance.random() < 0.5 else pages)
    kind = chance.randrange(5)
    changed: dict[int, int] = {}
    raw = (source.read_block(page // BLOCK_SIZE) or b"")[page % BLOCK_SIZE :][:4096]
    if kind == 0:
        for _ in range(chance.randint(1, 16)):
            at = chance.randrange(len(raw))
            changed[page + at] = raw[at] ^ 1 << chance.randrange(8)
    elif kind == 1:
        start = chance.randrange(len(raw))
        changed = {page + at: chance.randrange(256) for at in range(start, min(len(raw), start + 64))}
    elif kind == 2:
        changed = {page + at: 0xFF for at in range(len(raw))}
    elif kind == 3:
        for _ in range(4):
            start = chance.randrange(0, len(raw) - 4, 4)
            changed |= {page + start + at: chance.choice((0x7F, 0xFF)) for at in range(4)}
    else:
        return Mutated(source, {}, max(BLOCK_SIZE, page - page % 512 + chance.randrange(8) * 512))
    return Mutated(source, changed)
