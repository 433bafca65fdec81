"""Reading copies. Every block is decrypted, authenticated and compared with its id before anybody sees it."""

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from cpm.repository import index, packs
from cpm.repository.blocks import BLOCK_BYTES, RAW, SEGMENT_BLOCKS, ZERO_ID, segment_ids
from cpm.repository.cipher import ID_BYTES, TAG_BYTES, Ciphers
from cpm.repository.errors import Damaged, ObjectMissing
from cpm.repository.gathering import Gathering
from cpm.repository.index import View
from cpm.repository.manifest import Manifest
from cpm.repository.open_pack import MOST_FETCH_BYTES, OpenPack, runs
from cpm.repository.packs import Inflater, PackReader, Table
from cpm.repository.repository import Repository
from cpm.repository.store import Store

ZERO_BLOCK = bytes(BLOCK_BYTES)
_TABLES_KEPT = 64


class Scratch:
    """Memory of one thread, used again and again; with ``lasting``, blocks that are read stay valid."""

    def __init__(self) -> None:
        # Mapped memory is taken only as far as it is used, and given back at once.
        self.fetched = memoryview(mmap.mmap(-1, MOST_FETCH_BYTES + BLOCK_BYTES + TAG_BYTES))
        self.inflate = Inflater()
        self.lasting = False
        self.plain = memoryview(bytearray(BLOCK_BYTES + TAG_BYTES))

    def target(self, codec: int) -> memoryview:
        """Where a block is decrypted; when it is to be kept as it is, in memory of its own, not cleared before."""
        if self.lasting and codec == RAW:
            return np.empty(BLOCK_BYTES + TAG_BYTES, np.uint8).data
        return self.plain


class BlockReader:
    """Blocks by id, out of the packs of one view. Usable by many threads, each with its own `Scratch`."""

    def __init__(self, store: Store, ciphers: Ciphers, view: View) -> None:
        self._store = store
        self._ciphers = ciphers
        self.view = view
        self._open: OrderedDict[int, OpenPack] = OrderedDict()
        self._lock = threading.Lock()

    def pack(self, number: int) -> OpenPack:
        """Raises `Damaged`. A pack whose table is unreadable is opened by what the index says of it."""
        with self._lock:
            known = self._open.get(number)
            if known is not None:
                self._open.move_to_end(number)
                return known
        opened = self._load(number)
        with self._lock:
            self._open[number] = opened
            while len(self._open) > _TABLES_KEPT:
                self._open.popitem(last=False)
        return opened

    def _load(self, number: int) -> OpenPack:
        listed = self.view.packs
        key = self.view.pack_key(number)
        try:
            cipher = PackReader(self._ciphers, listed.name(number), key).cipher(
                self._store.get(key, 0, packs.HEAD_BYTES)
            )
            length = packs.foot_bytes(listed.rows[number])
            size = listed.sizes[number]
            try:
                table = cipher.table(self._store.get(key, size - length, length), size)
            except Damaged:
                table = self._indexed_table(number)
        except ObjectMissing:
            raise Damaged(key, "the object is missing") from None
        return OpenPack(key, cipher, table, packs.starts_of(table), np.argsort(table["high"], kind="stable"))

    def _indexed_table(self, number: int) -> Table:
        key = self.view.objects[self.view.packs.origins[number]]
        _, found = index.decode(key, self._ciphers.open(key, self._store.get(key)))
        name = self.view.packs.name(number)
        return next(pack.table for pack in found if pack.name == name)

    def read(self, block_id: bytes, scratch: Scratch) -> memoryview | bytes:
        """The block; valid until the scratch is used again. Tries every pack that has it. Raises `Damaged`."""
        first: Damaged | None = None
        for number in self.view.places(block_id):
            try:
                pack = self.pack(number)
                entry = pack.find(block_id)
                if entry < 0:
                    raise Damaged(pack.key, f"its table does not have block {block_id.hex()}")
                length = int(pack.table["stored"][entry])
                stored = scratch.fetched[:length]
                try:
                    count = self._store.read_into(pack.key, int(pack.starts[entry]), stored)
                except ObjectMissing:
                    raise Damaged(pack.key, "the object is missing") from None
                row = pack.table[entry]
                target = scratch.target(int(row["codec"]))
                return pack.cipher.block_into(entry, row, stored[:count], target, scratch.inflate)
            except Damaged as damage:
                first = first or damage
        raise first or Damaged("index/", f"no index object knows block {block_id.hex()}")

    def read_group(
        self, ids: Sequence[bytes], scratch: Scratch
    ) -> Iterator[tuple[int, memoryview | bytes | Damaged]]:
        """All of ``ids`` with their position, neighbours in a pack in one request. Not in order.

        What is yielded is valid until the next step. A block that cannot be read yields the damage.
        """
        placed: dict[int, list[tuple[int, int]]] = {}
        alone: list[int] = []
        for position, block_id in enumerate(ids):
            places = self.view.places(block_id)
            try:
                entry = self.pack(places[0]).find(block_id) if places else -1
            except Damaged:
                entry = -1
            if entry < 0:
                alone.append(position)
            else:
                placed.setdefault(places[0], []).append((entry, position))
        for number, wanted in placed.items():
            pack = self.pack(number)
            wanted.sort()
            for run in runs(pack, wanted):
                yield from self._read_run(pack, run, ids, scratch)
        for position in alone:
            yield position, self._read_or_damage(ids[position], scratch)

    def _read_or_damage(self, block_id: bytes, scratch: Scratch) -> memoryview | bytes | Damaged:
        try:
            return self.read(block_id, scratch)
        except Damaged as damage:
            return damage

    def _read_run(
        self, pack: OpenPack, run: list[tuple[int, int]], ids: Sequence[bytes], scratch: Scratch
    ) -> Iterator[tuple[int, memoryview | bytes | Damaged]]:
        start = int(pack.starts[run[0][0]])
        end = int(pack.starts[run[-1][0]]) + int(pack.table["stored"][run[-1][0]])
        try:
            count = self._store.read_into(pack.key, start, scratch.fetched[: end - start])
        except ObjectMissing:
            count = 0
        failed = []
        for entry, position in run:
            row = pack.table[entry]
            at = int(pack.starts[entry]) - start
            stored = (
                scratch.fetched[at : min(at + int(row["stored"]), count)]
                if at < count
                else scratch.fetched[:0]
            )
            try:
                target = scratch.target(int(row["codec"]))
                yield position, pack.cipher.block_into(entry, row, stored, target, scratch.inflate)
            except Damaged:
                failed.append(position)
        # One by one, since another pack may have them; this uses the memory of the run again.
        for position in failed:
            yield position, self._read_or_damage(ids[position], scratch)


class Reader:
    """One copy. Raises `Damaged`, naming object and block, rather than return a wrong byte."""

    def __init__(self, repository: Repository, manifest: Manifest, view: View | None = None) -> None:
        self.manifest = manifest
        self._blocks = BlockReader(
            repository.store, repository.ciphers, view or repository.view(manifest.draft.area)
        )
        self._local = threading.local()
        self._segments: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def _scratch(self) -> Scratch:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch

    def segment(self, number: int) -> bytes:
        """The ids of the blocks of a segment, packed."""
        with self._lock:
            known = self._segments.get(number)
        if known is not None:
            return known
        wanted = ID_BYTES * self.manifest.segment_blocks(number)
        segment_id = self.manifest.segment(number)
        if segment_id == ZERO_ID:
            found = bytes(wanted)
        else:
            try:
                found = bytes(self._blocks.read(segment_id, self._scratch))
            except Damaged as damage:
                raise Damaged(damage.key, damage.reason, number * SEGMENT_BLOCKS) from None
        if len(found) != wanted:
            raise Damaged(self.manifest.draft.key, "a segment of its map has the wrong length")
        with self._lock:
            self._segments[number] = found
            while len(self._segments) > 16:
                self._segments.popitem(last=False)
        return found

    def block_id(self, block: int) -> bytes:
        segment, at = divmod(block, SEGMENT_BLOCKS)
        return self.segment(segment)[ID_BYTES * at : ID_BYTES * (at + 1)]

    def block_size(self, block: int) -> int:
        return min(BLOCK_BYTES, self.manifest.draft.size - block * BLOCK_BYTES)

    def read(self, block: int) -> bytes:
        """Block ``block`` of the volume."""
        if not 0 <= block < self.manifest.draft.blocks:
            raise IndexError(f"The volume has no block {block}.")
        block_id = self.block_id(block)
        if block_id == ZERO_ID:
            return bytes(self.block_size(block))
        try:
            return self._checked(block, bytes(self._blocks.read(block_id, self._scratch)))
        except Damaged as damage:
            raise damage if damage.block is not None else Damaged(damage.key, damage.reason, block) from None

    def _checked(self, block: int, data: bytes) -> bytes:
        if len(data) != self.block_size(block):
            raise Damaged(self.manifest.draft.key, "a block of it has the wrong length", block)
        return data

    def allocated(self, first: int = 0, end: int | None = None) -> Iterator[int]:
        """The blocks that are not all zeros, in order."""
        end = self.manifest.draft.blocks if end is None else end
        for number in range(first // SEGMENT_BLOCKS, -(-end // SEGMENT_BLOCKS)):
            if self.manifest.segment(number) == ZERO_ID:
                continue
            start = number * SEGMENT_BLOCKS
            for at, block_id in enumerate(segment_ids(self.segment(number))):
                if block_id != ZERO_ID and first <= start + at < end:
                    yield start + at

    def _by_pack(self, first: int, end: int | None) -> Iterator[list[int]]:
        """The allocated blocks, segment after segment, those together that lie in one pack."""
        end = self.manifest.draft.blocks if end is None else end
        for number in range(first // SEGMENT_BLOCKS, -(-end // SEGMENT_BLOCKS)):
            start = number * SEGMENT_BLOCKS
            groups: dict[int, list[int]] = {}
            for block in self.allocated(max(first, start), min(end, start + SEGMENT_BLOCKS)):
                # One that no index knows is in a group of its own: reading it tells what is wrong.
                places = self._blocks.view.places(self.block_id(block))
                groups.setdefault(places[0] if places else -1, []).append(block)
            yield from groups.values()

    def group(self, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview | bytes]]:
        """These blocks in any order, each valid until the next step. Raises `Damaged` at the first that is."""
        ids = [self.block_id(block) for block in wanted]
        for position, found in self._blocks.read_group(ids, self._scratch):
            block = wanted[position]
            if isinstance(found, Damaged):
                raise Damaged(found.key, found.reason, block)
            if len(found) != self.block_size(block):
                raise Damaged(self.manifest.draft.key, "a block of it has the wrong length", block)
            yield block, found

    def gather(
        self, first: int = 0, end: int | None = None, *, threads: int = 4, ahead: int = 32
    ) -> Gathering:
        """All blocks that are not zero, as they come: fetched pack by pack, in no order.

        Memory holds ``ahead`` blocks and, per thread, one fetched range. `allocated` tells beforehand which blocks
        will come.
        """

        def fetch(wanted: list[int]) -> Iterator[tuple[int, memoryview | bytes]]:
            # The thread and its memory serve nothing else.
            self._scratch.lasting = True
            return self.group(wanted)

        return Gathering(fetch, self._by_pack(first, end), threads=threads, ahead=ahead)

    def restore(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        """Write the volume to a new sparse file. On `Damaged` the file is removed: it would not be the volume."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, self.manifest.draft.size)
            self._restore(handle, threads)
            os.fsync(handle)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(handle)

    def _restore(self, handle: int, threads: int) -> None:
        groups = self._by_pack(0, None)
        turn = threading.Lock()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while not failures:
                    with turn:
                        wanted = next(groups, None)
                    if wanted is None:
                        return
                    for block, data in self.group(wanted):
                        _write_fully(handle, data, block * BLOCK_BYTES)
            except BaseException as failure:  # noqa: BLE001  # raised again by the caller's thread
                failures.append(failure)

        helpers = [threading.Thread(target=work, name="repository-restore") for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()
        if failures:
            raise failures[0]


def _write_fully(handle: int, data: memoryview | bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(handle, rest, at)
        rest, at = rest[count:], at + count
