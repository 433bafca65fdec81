"""Index objects, and the view a process has of them. FORMAT.md, "Index"."""

import json
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cpm.repository import packs
from cpm.repository.blocks import BlockIndex
from cpm.repository.cipher import Ciphers
from cpm.repository.errors import Damaged, ObjectMissing
from cpm.repository.packs import ENTRY, Table
from cpm.repository.store import PutOptions, Store

MOST_ROWS = 1 << 16
CONDEMNED, DAMAGE = "condemned/", "damage/"
_COUNT = struct.Struct("<I")
_PACK = struct.Struct("<16sQI")
# A listing may name index objects that a prune has merged meanwhile.
_LOADS = 5


@dataclass(frozen=True, slots=True)
class Area:
    """A set of packs with its own index: the repository's common one, or that of one archived copy."""

    prefix: str = ""

    @classmethod
    def of_archive(cls, copy_id: str) -> "Area":
        return cls(f"archives/{copy_id}/")

    @property
    def packs(self) -> str:
        return self.prefix + "packs/"

    @property
    def index(self) -> str:
        return self.prefix + "index/"

    def pack_key(self, name: bytes) -> str:
        return packs.key_of(name, self.packs)


COMMON = Area()


@dataclass(frozen=True, slots=True)
class IndexedPack:
    name: bytes
    size: int
    table: Table


def encode(tables: Iterable[IndexedPack], superseded: Iterable[str] = ()) -> bytes:
    """``superseded`` are names of index objects, without prefix, whose content this one takes over."""
    replaced = [bytes.fromhex(name) for name in superseded]
    parts = [_COUNT.pack(len(replaced)), *replaced]
    for pack in tables:
        parts += [_PACK.pack(pack.name, pack.size, len(pack.table)), pack.table.tobytes()]
    return b"".join(parts)


def decode(key: str, payload: bytes) -> tuple[list[str], Iterator[IndexedPack]]:
    try:
        (count,) = _COUNT.unpack_from(payload)
    except struct.error:
        raise Damaged(key, "it is cut short") from None
    start = _COUNT.size + 16 * count
    superseded = [payload[at : at + 16].hex() for at in range(_COUNT.size, start, 16)]
    return superseded, _packs(key, payload, start)


def _packs(key: str, payload: bytes, at: int) -> Iterator[IndexedPack]:
    view = memoryview(payload)
    while at < len(view):
        try:
            name, size, rows = _PACK.unpack_from(view, at)
        except struct.error:
            raise Damaged(key, "it is cut short") from None
        at += _PACK.size
        end = at + rows * ENTRY.itemsize
        if end > len(view):
            raise Damaged(key, "it is cut short")
        yield IndexedPack(name, size, packs.parse_table(bytes(view[at:end])))
        at = end


def write(
    store: Store,
    ciphers: Ciphers,
    area: Area,
    tables: Iterable[IndexedPack],
    superseded: Iterable[str] = (),
    options: PutOptions | None = None,
) -> str:
    """Make the packs known. Returns the key."""
    key = area.index + os.urandom(16).hex()
    store.put(key, ciphers.seal(key, encode(tables, superseded)), options=options)
    return key


def grouped(tables: Iterable[IndexedPack]) -> Iterator[list[IndexedPack]]:
    """In portions that make index objects of a sensible size."""
    group: list[IndexedPack] = []
    rows = 0
    for pack in tables:
        if group and rows + len(pack.table) > MOST_ROWS:
            yield group
            group, rows = [], 0
        group.append(pack)
        rows += len(pack.table)
    if group:
        yield group


@dataclass(slots=True)
class PackList:
    """What is known of each pack, by number."""

    names: bytearray = field(default_factory=bytearray)
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    rows: "array[int]" = field(default_factory=lambda: array("I"))
    origins: "array[int]" = field(default_factory=lambda: array("I"))
    usable: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, name: bytes, size: int, rows: int, origin: int, usable: bool) -> int:
        self.names += name
        self.sizes.append(size)
        self.rows.append(rows)
        self.origins.append(origin)
        self.usable.append(usable)
        return len(self.sizes) - 1

    def name(self, number: int) -> bytes:
        return bytes(self.names[16 * number : 16 * number + 16])

    def numbers(self) -> dict[bytes, int]:
        """All of them by name; costs memory, so not to be kept."""
        return {self.name(number): number for number in range(len(self))}


class View:
    """What a process knows of the packs of one area, as of ``taken`` (by ``clock`` of the repository)."""

    def __init__(self, area: Area, taken: float) -> None:
        self.area = area
        self.taken = taken
        self.blocks = BlockIndex()
        self.packs = PackList()
        # Keys of the index objects read, by origin number; and those that a newer one has taken over.
        self.objects: list[str] = []
        self.superseded: set[str] = set()
        self.unreadable: list[Damaged] = []
        # By condemned list: when, and which packs. Condemned and damaged ones count as absent for writers.
        self.condemned: dict[str, tuple[float, frozenset[bytes]]] = {}
        self.damage: dict[str, dict[str, list[str] | None]] = {}
        self.bad: set[tuple[bytes, int]] = set()

    def condemned_names(self) -> set[bytes]:
        return {name for _, names in self.condemned.values() for name in names}

    def add_pack(self, pack: IndexedPack, origin: int, usable: bool = True) -> int:
        number = self.packs.add(pack.name, pack.size, len(pack.table), origin, usable)
        self.blocks.add_many(*packs.ids_of(pack.table), number)
        return number

    def places(self, block_id: bytes) -> list[int]:
        """Packs to try for reading, the trustworthy ones first."""
        found = self.blocks.find(block_id)
        if len(found) > 1:
            found.sort(key=lambda number: (block_id, number) in self.bad or not self.packs.usable[number])
        return found

    def present(self, block_id: bytes) -> bool:
        """Whether a writer may rely on the block."""
        usable = self.packs.usable
        return any(
            usable[number] and (block_id, number) not in self.bad for number in self.blocks.find(block_id)
        )

    def pack_key(self, number: int) -> str:
        return self.area.pack_key(self.packs.name(number))


def load(store: Store, ciphers: Ciphers, area: Area, now: float, *, lenient: bool = False) -> View:
    """Read everything there is. With ``lenient``, index objects that are damaged are noted instead of raised."""
    for _ in range(_LOADS - 1):
        try:
            return _load(store, ciphers, area, now, lenient)
        except ObjectMissing:
            # Merged between the listing and the reading; the next listing shows what took its place.
            continue
    return _load(store, ciphers, area, now, lenient)


def _load(store: Store, ciphers: Ciphers, area: Area, now: float, lenient: bool) -> View:
    view = View(area, now)
    if area == COMMON:
        _load_lists(store, ciphers, view, lenient)
    condemned = view.condemned_names()
    missing = {
        bytes.fromhex(name)
        for packs_of in view.damage.values()
        for name, blocks in packs_of.items()
        if blocks is None
    }
    seen: set[bytes] = set()
    for info in store.list(area.index):
        try:
            superseded, found = decode(info.key, ciphers.open(info.key, store.get(info.key)))
            tables = list(found)
        except Damaged as damage:
            if not lenient:
                raise
            view.unreadable.append(damage)
            continue
        view.objects.append(info.key)
        view.superseded.update(area.index + name for name in superseded)
        for pack in tables:
            if pack.name not in seen:
                seen.add(pack.name)
                usable = pack.name not in condemned and pack.name not in missing
                view.add_pack(pack, len(view.objects) - 1, usable)
    view.blocks.settle()
    numbers = view.packs.numbers() if view.damage else {}
    for packs_of in view.damage.values():
        for name, blocks in packs_of.items():
            number = numbers.get(bytes.fromhex(name))
            if number is not None:
                view.bad.update((bytes.fromhex(block), number) for block in blocks or ())
    return view


def _load_lists(store: Store, ciphers: Ciphers, view: View, lenient: bool) -> None:
    for prefix in (CONDEMNED, DAMAGE):
        for info in store.list(prefix):
            try:
                content = json.loads(ciphers.open(info.key, store.get(info.key)))
            except Damaged as damage:
                if not lenient:
                    raise
                view.unreadable.append(damage)
                continue
            if prefix == CONDEMNED:
                names = frozenset(bytes.fromhex(name) for name in content["packs"])
                view.condemned[info.key] = (content["time"], names)
            else:
                view.damage[info.key] = content["packs"]


def write_list(store: Store, ciphers: Ciphers, prefix: str, content: dict[str, object]) -> str:
    key = prefix + os.urandom(16).hex()
    store.put(key, ciphers.seal(key, json.dumps(content).encode()))
    return key
