"""Verification in three depths, and the repairs that follow. FORMAT.md, "Damage".

``list`` compares names and sizes, ``sample`` also reads some packs, ``full`` reads every byte of every object.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from cpm.repository import index, manifest, packs
from cpm.repository.blocks import ZERO_ID, segment_ids
from cpm.repository.errors import Damaged, ObjectArchived, ObjectMissing
from cpm.repository.index import COMMON, DAMAGE, Area, IndexedPack, View
from cpm.repository.manifest import Manifest
from cpm.repository.pack_reading import SAMPLE_SHARE, Reading, read_packs
from cpm.repository.reader import BlockReader, Scratch
from cpm.repository.repository import Repository
from cpm.repository.store import Info
from cpm.repository.writer import read_table


class Depth(StrEnum):
    LIST = "list"
    SAMPLE = "sample"
    FULL = "full"


SHARES = {Depth.LIST: 0.0, Depth.SAMPLE: SAMPLE_SHARE, Depth.FULL: 1.0}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something amiss with ``key``. ``copies`` are exactly those that cannot be restored because of it.

    A leftover is no damage: it is what a process that died leaves, or damage noted before that no copy suffers from
    (any more), and prune removes it.
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
    reading: Reading | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Look for damage. ``expected`` are ids of copies that have to exist (a manifest that is gone leaves no trace).

    With ``record``, what is found is noted in the repository, so that the next copies write it anew. ``reading`` is what
    `read_packs` has found in slices; without it the packs are read here.
    """
    if reading is None:
        reading = started(depth, seed)
        read_packs(repository, reading, threads=threads, on_progress=on_progress)
    report = Report(depth, bytes_read=reading.bytes_read)
    _check_small_objects(repository, report, expected)
    copies = _readable_copies(repository, report)
    areas = [COMMON, *(copy.draft.area for copy in copies if copy.draft.archive)]
    for area in areas:
        mine = [copy for copy in copies if copy.draft.area == area]
        _check_area(repository, area, mine, report, reading, record)
    hurt = report.affected
    report.sound = [copy.copy_id for copy in copies if copy.copy_id not in hurt]
    return report


def started(depth: Depth, seed: int | None = None) -> Reading:
    """A reading of this depth that has not begun."""
    return Reading(share=SHARES[depth], seed=random.randrange(1 << 32) if seed is None else seed)


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
    reading: Reading,
    record: bool,
) -> None:
    view = repository.view(area, lenient=True)
    stored = {bytes.fromhex(info.key.rpartition("/")[2]): info for info in repository.store.list(area.packs)}
    damage = _Damage()
    for unreadable in view.unreadable:
        damage.others.append(Finding(unreadable.key, unreadable.reason))
    for key in view.superseded & set(view.objects):
        report.findings.append(Finding(key, "a newer index object has taken its content over", leftover=True))
    _compare_listing(view, stored, damage)
    if damage.packs:
        # A prune may have removed them since the index was read; then a fresh index does not name them.
        kept = repository.view(area, lenient=True).packs.numbers()
        damage.packs = {n: reason for n, reason in damage.packs.items() if view.packs.name(n) in kept}
    unindexed = _unindexed(repository, view, stored, report, bool(view.unreadable))
    noted = _noted(view)
    _take_reading(view, reading, damage, noted)
    _impact(repository, view, copies, damage, report, unindexed, set(noted))
    if record and area == COMMON:
        _record(repository, view, damage, noted, whole=reading.share >= 1)


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


def _take_reading(view: View, reading: Reading, damage: _Damage, noted: dict[int, list[str] | None]) -> None:
    """Damage that was read now; where not everything was, also what earlier verifications have noted."""
    names = view.packs.numbers()
    numbers = {view.area.pack_key(name): number for name, number in names.items()}
    for key, reason in reading.packs.items():
        if key in numbers:
            damage.packs.setdefault(numbers[key], reason)
    for key, blocks in reading.blocks.items():
        if key in numbers:
            found = {(numbers[key], bytes.fromhex(block_id)): reason for block_id, reason in blocks.items()}
            damage.blocks.update(found)
    if reading.share >= 1:
        return
    for number, ids in noted.items():
        if ids is None:
            damage.packs.setdefault(number, "an earlier verification found it damaged")
        for block_id in ids or ():
            damage.blocks.setdefault(
                (number, bytes.fromhex(block_id)), "found damaged by an earlier verification"
            )


def _noted(view: View) -> dict[int, list[str] | None]:
    """Damage that is in `damage/`: all of a pack, or ids of blocks."""
    numbers = view.packs.numbers() if view.damage else {}
    found: dict[int, list[str] | None] = {}
    for packs_of in view.damage.values():
        for name, ids in packs_of.items():
            number = numbers.get(bytes.fromhex(name))
            if number is None:
                continue
            known = found.get(number, [])
            found[number] = None if ids is None or known is None else sorted({*known, *ids})
    return found


def _impact(
    repository: Repository,
    view: View,
    copies: list[Manifest],
    damage: _Damage,
    report: Report,
    unindexed: dict[bytes, str],
    noted: set[int],
) -> None:
    """Which copies need what is damaged, as findings."""
    reader = BlockReader(repository.store, repository.ciphers, view)
    blame: dict[str, set[str]] = {}
    reasons: dict[str, str] = {finding.key: finding.reason for finding in damage.others}
    for number, reason in damage.packs.items():
        reasons[view.pack_key(number)] = reason
    for (number, _), reason in damage.blocks.items():
        reasons.setdefault(view.pack_key(number), reason)
    segments: dict[bytes, tuple[str, ...]] = {}
    scratch = Scratch()
    for copy in copies:
        for segment_id in {*segment_ids(copy.segments)} - {ZERO_ID}:
            if segment_id not in segments:
                segments[segment_id] = _blame(reader, view, damage, unindexed, segment_id, scratch, reasons)
            for key in segments[segment_id]:
                blame.setdefault(key, set()).add(copy.copy_id)
    known = {view.pack_key(number) for number in noted}
    for key, reason in reasons.items():
        hurt = tuple(sorted(blame.get(key, ())))
        report.findings.append(Finding(key, reason, hurt, leftover=key in known and not hurt))


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
    if lost:
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


def _record(
    repository: Repository, view: View, damage: _Damage, noted: dict[int, list[str] | None], *, whole: bool
) -> None:
    """Note damage that is not noted yet. Who has read the whole replaces the notes by what it found."""
    found: dict[int, list[str] | None] = dict.fromkeys(damage.packs)
    for number, block_id in sorted(damage.blocks):
        ids = found.setdefault(number, [])
        if ids is not None and block_id != ZERO_ID:
            ids.append(block_id.hex())
    found = {number: ids for number, ids in found.items() if ids is None or ids}
    if found == noted:
        return
    news = found if whole else {number: ids for number, ids in found.items() if noted.get(number, ()) != ids}
    if news:
        content = {view.packs.name(number).hex(): ids for number, ids in news.items()}
        index.write_list(
            repository.store, repository.ciphers, DAMAGE, {"time": repository.clock(), "packs": content}
        )
    if whole:
        repository.store.delete(view.damage)


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
