"""A disk image that is the same every time: of four blocks two are noise, one is zeros, one is a log's text."""

import random
from pathlib import Path

import numpy as np

BLOCK = 512 * 1024
LETTERS = "etaoinsrhldcumfpgwybvkxjqz"


def _words() -> list[str]:
    choice = random.Random(20)
    weights = [30 - at for at in range(len(LETTERS))]
    return ["".join(choice.choices(LETTERS, weights, k=choice.randrange(2, 11))) for _ in range(6000)]


class Image:
    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._words = _words()

    def block(self, number: int, generation: int = 0) -> bytes:
        rng = np.random.default_rng([number, generation])
        kind = number % 4
        if kind == 2:
            return bytes(BLOCK)
        return self._text(rng) if kind == 3 else rng.bytes(BLOCK)

    def _text(self, rng: np.random.Generator) -> bytes:
        lines, size = [], 0
        while size < BLOCK:
            picks = rng.integers(0, len(self._words), (512, 6))
            seconds, hosts, ids = (
                rng.integers(0, 10**7, 512),
                rng.integers(0, 40, 512),
                rng.integers(0, 2**32, 512),
            )
            for row, second, host, ident in zip(picks, seconds, hosts, ids, strict=True):
                message = " ".join(self._words[pick] for pick in row)
                level = ("debug", "notice", "fault")[ident % 3]
                lines.append(
                    f"{1_700_000_000 + second} node{host:02d} {message} severity={level} request={ident:08x}\n"
                )
                size += len(lines[-1])
        return "".join(lines).encode()[:BLOCK]

    def write(self, path: Path) -> None:
        with open(path, "wb") as file:
            for number in range(self.blocks):
                file.write(self.block(number))

    def changed(self, share: float) -> list[int]:
        """Which blocks the next generation changes; zeros stay zeros."""
        candidates = [number for number in range(self.blocks) if number % 4 != 2]
        return sorted(random.Random(31).sample(candidates, int(self.blocks * share)))

    def change(self, path: Path, numbers: list[int], generation: int = 1) -> None:
        with open(path, "r+b") as file:
            for number in numbers:
                file.seek(number * BLOCK)
                file.write(self.block(number, generation))
