"""A pack whose table is known: where its blocks lie, and which of them are fetched together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cpm.repository.packs import PackCipher, Table

# Blocks that lie side by side in a pack are fetched in one request of at most this size.
MOST_FETCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class OpenPack:
    key: str
    cipher: PackCipher
    table: Table
    starts: npt.NDArray[np.int64]
    order: npt.NDArray[np.intp]

    def find(self, block_id: bytes) -> int:
        """Number of the entry; -1 when the table does not have it."""
        high = np.uint64(int.from_bytes(block_id[:8]))
        low = int.from_bytes(block_id[8:])
        column = self.table["high"]
        at = int(np.searchsorted(column, high, sorter=self.order))
        while at < len(self.order) and column[self.order[at]] == high:
            number = int(self.order[at])
            if int(self.table["low"][number]) == low:
                return number
            at += 1
        return -1


def runs(pack: OpenPack, wanted: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    run: list[tuple[int, int]] = []
    size = 0
    for entry, position in wanted:
        length = int(pack.table["stored"][entry])
        if run and (entry > run[-1][0] + 1 or size + length > MOST_FETCH_BYTES):
            yield run
            run, size = [], 0
        if not run or entry != run[-1][0]:
            size += length
        run.append((entry, position))
    if run:
        yield run
