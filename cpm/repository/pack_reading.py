"""Reading the packs of a repository from end to end, in slices: the long part of a verification.

`Reading` is what has been found so far. It travels as JSON, so that a successor goes on behind the last batch.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from cpm.repository.index import COMMON, Area, View
from cpm.repository.pack_checks import IndexedTables, PackMemory, check_pack
from cpm.repository.repository import Repository

SAMPLE_SHARE = 0.05
ARCHIVES = "archives/"
BATCH = 16


@dataclass(slots=True)
class Reading:
    """Packs that are unreadable, and single blocks, by key; `area` and `after` say how far it is.

    `share` is how much of all packs is read, and `seed` chooses which.
    """

    share: float = 1.0
    seed: int = 0
    area: str = ""
    after: str = ""
    bytes_read: int = 0
    packs: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, dict[str, str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> "Reading":
        return cls(**found)


def read_packs(
    repository: Repository,
    reading: Reading,
    *,
    threads: int = 2,
    enough: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Go on reading until `enough` says so, asked after every batch. True when all has been read."""
    if reading.share <= 0:
        return True
    for area in _areas(repository):
        if area.prefix < reading.area:
            continue
        if area.prefix != reading.area:
            reading.area, reading.after = area.prefix, ""
        view = repository.view(area, lenient=True)
        chosen = _chosen(view, reading)
        ahead = [number for number in chosen if view.packs.name(number).hex() > reading.after]
        checks = _Checks(repository, view, reading)
        with ThreadPoolExecutor(threads, "repository-verify") as pool:
            for start in range(0, len(ahead), BATCH):
                batch = ahead[start : start + BATCH]
                list(pool.map(checks.check, batch))
                reading.after = view.packs.name(batch[-1]).hex()
                on_progress(len(chosen) - len(ahead) + start + len(batch), len(chosen))
                if enough():
                    return False
    return True


def _areas(repository: Repository) -> Iterator[Area]:
    """The common one, then those of archives, in order of their prefixes."""
    yield COMMON
    prefixes = {"/".join(info.key.split("/")[:2]) for info in repository.store.list(ARCHIVES)}
    for prefix in sorted(prefixes):
        yield Area(f"{prefix}/")


def _chosen(view: View, reading: Reading) -> list[int]:
    """Numbers of the packs to read, in order of their names. The same packs in every slice, whatever comes and goes."""
    numbers = sorted(range(len(view.packs)), key=view.packs.name)
    if reading.share >= 1 or not numbers:
        return numbers
    lots = {
        number: random.Random(f"{reading.seed}{view.packs.name(number).hex()}").random() for number in numbers
    }
    drawn = sorted(numbers, key=lots.__getitem__)[: max(1, round(len(numbers) * reading.share))]
    return sorted(drawn, key=view.packs.name)


class _Checks:
    def __init__(self, repository: Repository, view: View, reading: Reading) -> None:
        self._repository, self._view, self._reading = repository, view, reading
        self._tables = IndexedTables(repository, view)
        self._lock = threading.Lock()
        self._local = threading.local()

    def check(self, number: int) -> None:
        memory = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = PackMemory()
        bad, why = check_pack(self._repository, self._view, number, self._tables.table(number), memory)
        key = self._view.pack_key(number)
        with self._lock:
            self._reading.bytes_read += self._view.packs.sizes[number]
            if why and why != "archived":
                self._reading.packs[key] = why
            if bad:
                self._reading.blocks[key] = {block_id.hex(): reason for block_id, reason in bad.items()}
