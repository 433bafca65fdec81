"""Verification in three depths, and the repairs that follow. FORMAT.md, "Damage".

``list`` compares names and sizes, ``sample`` also reads some packs, ``full`` reads every byte of every object.
"""

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from cpm.repository import index, manifest, packs
from cpm.repository.blocks import ZERO_ID, segment_ids
from cpm.repository.errors import Damaged, ObjectArchived, ObjectMissing
from cpm.repository.index import COMMON, DAMAGE, Area, IndexedPack, View
from cpm.repository.manifest import Manifest
from cpm.repository.pack_checks import IndexedTables, PackMemory, check_pack
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import Repository
from cpm.repository.store import Info
from cpm.repository.writer import read_table


class Depth(StrEnum):
    LIST = "list"
    SAMPLE = "sample"
    FULL = "full"


SAMPLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """Something amiss with ``key``. ``copies`` are exactly those that cannot be restored because of it.

    A leftover is no damage: it is what a process that died leaves, and prune removes it.
    """

    key: str
    reason: str
    copies: tuple[str, ...] = ()
    leftover: bool = False


@dataclass(slots=True)
class Report:
    depth: Depth
    findings: list[Finding] = field(default_factory=list)
    # Copies that can be restored, as far as this depth can tell.
    sound: list[str] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def damage(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.leftover]

    @property
    def affected(self) -> set[str]:
        return {copy_id for finding in self.findings for copy_id in finding.copies}


@dataclass(slots=True)
class _Damage:
    """Of one area: packs that are gone or unreadable (None), and single blocks."""

    packs: dict[int, str] = field(default_factory=dict)
    blocks: dict[tuple[int, bytes], str] = field(default_factory=dict)
    others: list[Finding] = field(default_factory=list)
    archived: set[int] = field(default_factory=set)

    def sound(self, block_id: bytes, number: int) -> bool:
        return number not in self.packs and (number, block_id) not in self.blocks


def verify(
    repository: Repository,
    depth: Depth = Depth.LIST,
    *,
    expected: Iterable[str] = (),
    threads: int = 2,
    record: bool = True,
    seed: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Look for damage. ``expected`` are ids of copies that have to exist (a manifest that is gone leaves no trace).

    With ``record``, what is found is noted in the repository, so that the next copies write it anew.
    """
    report = Report(depth)
    _check_small_objects(repository, report, expected)
    copies = _readable_copies(repository, report)
    areas = [COMMON, *(copy.draft.area for copy in copies if copy.draft.archive)]
    for area in areas:
        mine = [copy for copy in copies if copy.draft.area == area]
        _check_area(repository, area, mine, report, threads, record, random.Random(seed), on_progress)
    hurt = report.affected
    report.sound = [copy.copy_id for copy in copies if copy.copy_id not in hurt]
    return report


def _check_small_objects(repository: Repository, report: Report, expected: Iterable[str]) -> None:
    present = set(manifest.ids(repository.store))
    for copy_id in expected:
        if copy_id not in present:
            key = manifest.COPIES + copy_id
            report.findings.append(Finding(key, "the manifest is missing", (copy_id,)))
    try:
        for _ in manifest.progress_of(repository.store, repository.ciphers):
            pass
    except Damaged as damage:
        report.findings.append(Finding(damage.key, damage.reason))
    try:
        repository.owner()
        repository.slots()
    except Damaged as damage:
        report.findings.append(Finding(damage.key, damage.reason))


def _readable_copies(repository: Repository, report: Report) -> list[Manifest]:
    found = []
    for copy_id in list(manifest.ids(repository.store)):
        try:
            found.append(repository.copy(copy_id))
        except ObjectMissing:
            continue
        except Damaged as damage:
            report.findings.append(Finding(damage.key, damage.reason, (copy_id,)))
    return found


def _check_area(
    repository: Repository,
    area: Area,
    copies: list[Manifest],
    report: Report,
    threads: int,
    record: bool,
    choice: random.Random,
    on_progress: Callable[[int, int], None],
) -> None:
    view = repository.view(area, lenient=True)
    stored = {bytes.fromhex(info.key.rpartition("/")[2]): info for info in repository.store.list(area.packs)}
    damage = _Damage()
    for unreadable in view.unreadable:
        damage.others.append(Finding(unreadable.key, unreadable.reason))
    for key in view.superseded & set(view.objects):
        report.findings.append(Finding(key, "a newer index object has taken its content over", leftover=True))
    _compare_listing(view, stored, damage)
    unindexed = _unindexed(repository, view, stored, report, bool(view.unreadable))
    _read_packs(repository, view, stored, damage, report, threads, choice, on_progress)
    used = _impact(repository, view, copies, damage, report, unindexed)
    if record and area == COMMON:
        _record(repository, view, damage, used)


def _compare_listing(view: View, stored: dict[bytes, Info], damage: _Damage) -> None:
    for number in range(len(view.packs)):
        name = view.packs.name(number)
        info = stored.get(name)
        if info is None:
            damage.packs[number] = "the object is missing"
        elif info.size != view.packs.sizes[number]:
            damage.packs[number] = f"it has {info.size} bytes instead of {view.packs.sizes[number]}"


def _unindexed(
    repository: Repository, view: View, stored: dict[bytes, Info], report: Report, index_damaged: bool
) -> dict[bytes, str]:
    """Blocks of packs that no index names: {id: key}. Copies that need them lost an index object."""
    known = view.packs.numbers()
    found: dict[bytes, str] = {}
    for name, info in stored.items():
        if name in known:
            continue
        try:
            pack = read_table(repository, info.key, name, info.size)
        except (Damaged, ObjectMissing, ObjectArchived):
            report.findings.append(
                Finding(info.key, "no index names it, and it cannot be read", leftover=True)
            )
            continue
        report.findings.append(Finding(info.key, "no index names it", leftover=not index_damaged))
        found.update((packs.row_id(row), info.key) for row in pack.table)
    return found


def _read_packs(
    repository: Repository,
    view: View,
    stored: dict[bytes, Info],
    damage: _Damage,
    report: Report,
    threads: int,
    choice: random.Random,
    on_progress: Callable[[int, int], None],
) -> None:
    if report.depth == Depth.LIST:
        return
    numbers = [number for number in range(len(view.packs)) if number not in damage.packs]
    if report.depth == Depth.SAMPLE and numbers:
        numbers = sorted(choice.sample(numbers, max(1, round(len(numbers) * SAMPLE_SHARE))))
    tables = IndexedTables(repository, view)
    lock = threading.Lock()
    local = threading.local()

    def check(number: int) -> None:
        memory = getattr(local, "memory", None)
        if memory is None:
            memory = local.memory = PackMemory()
        bad, why = check_pack(repository, view, number, tables.table(number), memory)
        with lock:
            report.bytes_read += view.packs.sizes[number]
            if why == "archived":
                damage.archived.add(number)
            elif why:
                damage.packs[number] = why
            damage.blocks.update({(number, block_id): reason for block_id, reason in bad.items()})

    with ThreadPoolExecutor(threads, "repository-verify") as pool:
        for done, _ in enumerate(pool.map(check, numbers), 1):
            on_progress(done, len(numbers))


def _impact(
    repository: Repository,
    view: View,
    copies: list[Manifest],
    damage: _Damage,
    report: Report,
    unindexed: dict[bytes, str],
) -> set[int]:
    """Which copies need what is damaged, as findings. Returns the numbers of packs with damage."""
    reader = BlockReader(repository.store, repository.ciphers, view)
    blame: dict[str, set[str]] = {}
    reasons: dict[str, str] = {finding.key: finding.reason for finding in damage.others}
    for number, reason in damage.packs.items():
        reasons[view.pack_key(number)] = reason
    for (number, block_id), reason in damage.blocks.items():
        reasons.setdefault(
            view.pack_key(number), reason if block_id == ZERO_ID else f"block {block_id.hex()}: {reason}"
        )
    segments: dict[bytes, tuple[str, ...]] = {}
    scratch = Scratch()
    for copy in copies:
        for segment_id in {*segment_ids(copy.segments)} - {ZERO_ID}:
            if segment_id not in segments:
                segments[segment_id] = _blame(reader, view, damage, unindexed, segment_id, scratch, reasons)
            for key in segments[segment_id]:
                blame.setdefault(key, set()).add(copy.copy_id)
    for key, reason in reasons.items():
        report.findings.append(Finding(key, reason, tuple(sorted(blame.get(key, ())))))
    return {*damage.packs, *(number for number, _ in damage.blocks)}


def _blame(
    reader: BlockReader,
    view: View,
    damage: _Damage,
    unindexed: dict[bytes, str],
    segment_id: bytes,
    scratch: Scratch,
    reasons: dict[str, str],
) -> tuple[str, ...]:
    """Objects whose damage makes a segment unreadable, itself or a block of it."""
    lost = _lost(view, damage, unindexed, segment_id, reasons)
    if lost or any(number in damage.archived for number in view.places(segment_id)):
        return tuple(lost)
    try:
        ids = bytes(reader.read(segment_id, scratch))
    except ObjectArchived:
        return ()
    except Damaged as found:
        reasons.setdefault(found.key, found.reason)
        return (found.key,)
    culprits: set[str] = set()
    for block_id in {*segment_ids(ids)} - {ZERO_ID}:
        culprits |= _lost(view, damage, unindexed, block_id, reasons)
    return tuple(culprits)


def _lost(
    view: View, damage: _Damage, unindexed: dict[bytes, str], block_id: bytes, reasons: dict[str, str]
) -> set[str]:
    places = view.blocks.find(block_id)
    if any(damage.sound(block_id, number) for number in places):
        return set()
    if places:
        return {view.pack_key(number) for number in places}
    key = unindexed.get(block_id, view.area.index)
    reasons[key] = "no index names it" if key in unindexed.values() else "an index object is missing"
    return {key}


def _record(repository: Repository, view: View, damage: _Damage, used: set[int]) -> None:
    """Note damage that is not noted yet."""
    content: dict[str, list[str] | None] = {}
    noted = {name for packs_of in view.damage.values() for name, blocks in packs_of.items() if blocks is None}
    for number in used:
        name = view.packs.name(number).hex()
        if number in damage.packs:
            if name not in noted:
                content[name] = None
            continue
        blocks = [
            block_id.hex()
            for at, block_id in damage.blocks
            if at == number and block_id != ZERO_ID and (block_id, number) not in view.bad
        ]
        if blocks:
            content[name] = blocks
    if content:
        index.write_list(
            repository.store, repository.ciphers, DAMAGE, {"time": repository.clock(), "packs": content}
        )


def repair_index(repository: Repository, area: Area = COMMON) -> int:
    """Name packs that no index names (an index object was lost), from their own tables. Returns how many."""
    view = repository.view(area, lenient=True)
    known, condemned = view.packs.numbers(), view.condemned_names()
    found: list[IndexedPack] = []
    for info in repository.store.list(area.packs):
        name = bytes.fromhex(info.key.rpartition("/")[2])
        if name not in known and name not in condemned:
            try:
                found.append(read_table(repository, info.key, name, info.size))
            except (Damaged, ObjectMissing, ObjectArchived):
                continue
    for group in index.grouped(found):
        index.write(repository.store, repository.ciphers, area, group, options=repository.put_options())
    repository.store.delete(
        [damaged.key for damaged in view.unreadable if damaged.key.startswith(area.index)]
    )
    return len(found)
