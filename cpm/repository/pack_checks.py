"""Reading every byte of a pack, to compare it with what the index says."""

import threading

from cpm.repository import index, packs
from cpm.repository.blocks import BLOCK_BYTES, ZERO_ID
from cpm.repository.cipher import TAG_BYTES
from cpm.repository.errors import Damaged, ObjectArchived, ObjectMissing
from cpm.repository.index import IndexedPack, View
from cpm.repository.packs import Inflater, PackReader
from cpm.repository.repository import Repository


class PackMemory:
    """Memory of one thread, used again for every pack."""

    def __init__(self) -> None:
        self.pack = bytearray(packs.LEAST_PACK_BYTES + (2 << 20))
        self.plain = memoryview(bytearray(BLOCK_BYTES + TAG_BYTES))
        self.inflate = Inflater()

    def room(self, size: int) -> memoryview:
        if len(self.pack) < size:
            self.pack = bytearray(size)
        return memoryview(self.pack)[:size]


class IndexedTables:
    """What the index says of each pack; keeps the last few index objects."""

    def __init__(self, repository: Repository, view: View) -> None:
        self._repository = repository
        self._view = view
        self._kept: dict[int, dict[bytes, IndexedPack]] = {}
        self._lock = threading.Lock()

    def table(self, number: int) -> packs.Table:
        origin = self._view.packs.origins[number]
        with self._lock:
            if origin not in self._kept:
                if len(self._kept) >= 4:
                    self._kept.pop(next(iter(self._kept)))
                key = self._view.objects[origin]
                content = self._repository.ciphers.open(key, self._repository.store.get(key))
                self._kept[origin] = {pack.name: pack for pack in index.decode(key, content)[1]}
            return self._kept[origin][self._view.packs.name(number)].table


def check_pack(
    repository: Repository, view: View, number: int, indexed: packs.Table, memory: PackMemory
) -> tuple[dict[bytes, str], str]:
    """Read all of a pack: damaged blocks, and what is wrong with it as a whole."""
    key, size = view.pack_key(number), view.packs.sizes[number]
    content = memory.room(size)
    try:
        if repository.store.read_into(key, 0, content) != size:
            return {}, "it is cut short"
    except ObjectMissing:
        return {}, "the object is missing"
    except ObjectArchived:
        return {}, "archived"
    bad: dict[bytes, str] = {}
    trouble = ""
    try:
        cipher = PackReader(repository.ciphers, view.packs.name(number), key).cipher(content)
    except Damaged as damage:
        return {}, damage.reason
    try:
        if cipher.table(content, size).tobytes() != indexed.tobytes():
            trouble = "its table is not what the index says"
    except Damaged as damage:
        # Its blocks are found by the index all the same.
        bad[ZERO_ID] = damage.reason
    starts = packs.starts_of(indexed)
    for entry, row in enumerate(indexed):
        start = int(starts[entry])
        try:
            cipher.block_into(
                entry, row, content[start : start + int(row["stored"])], memory.plain, memory.inflate
            )
        except Damaged as damage:
            bad[packs.row_id(row)] = damage.reason
    return bad, trouble
